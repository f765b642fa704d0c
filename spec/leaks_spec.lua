--- Nothing stays behind: no descriptor, no process, no directory, no memory, however often and however badly it went.

local fault_server = require "spec.support.fault_server"
local names = require "opensandbox.devserver.base.list_directory"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local wait_until = require "spec.support.wait_until"

local IMAGE = "python:3.12"

local server, root, faulty

-- All processes that a process started, and those that they started; nil where that cannot be seen.
local function descendants(pid, found)
  found = found or {}
  local living, zombies = process.children(pid)
  if not living then return nil end
  for _, kind in ipairs { living, zombies } do
    for _, child in ipairs(kind) do
      found[#found + 1] = child
      descendants(child, found)
    end
  end
  return found
end

-- Asserts that the server holds nothing of any sandbox.
local function check_server()
  wait_until(function() return #names(root) == 0 end, function()
    return "left in the server's directory: " .. table.concat(names(root), ", ")
  end)
  if not process.children() then return end
  wait_until(function() return #descendants(server.pid) == 0 end, function()
    return "processes left: " .. table.concat(descendants(server.pid), ", ")
  end)
end

local function memory()
  local jit = rawget(_G, "jit")
  if jit then jit.flush() end -- what is compiled counts as memory, and there is more of it as time goes on
  collectgarbage()
  collectgarbage()
  return collectgarbage("count")
end

local function fails(kind, value, err)
  assert.is_nil(value)
  assert.equal(kind, err.kind, tostring(err))
end

-- One sandbox from its beginning to its end, and one call of each way to fail. Gives nothing back, so that nothing is kept.
local function cycle(client, clients, execd)
  local sandbox = assert(client:create { image = IMAGE })
  assert.equal("out\n", assert(sandbox:run("echo out; echo err >&2")).stdout)
  fails("http", clients.wrong_key:create { image = IMAGE })
  fails("transport", clients.refused:create { image = IMAGE })
  fails("http", client:get_sandbox("no-such-sandbox"))
  fails("http", sandbox.files:read("/no/such/file"))
  fails("stream", client:run_command(execd, "cut"))
  fails("stream", client:download_file(execd, "/cut"):read("a"))
  fails("transport", client:run_command(execd, "reset"))
  fails("state", client:upload_files(execd, { { path = "/a", content = function() return nil, "no" end } }))
  assert.is_false((pcall(sandbox.run, sandbox, "echo x; sleep 20", { on_stdout = function() error("callback") end })))
  local reader = assert(client:download_file(execd, "/endless"))
  assert.equal(10, #reader:read(10))
  reader:close()
  assert.is_true(sandbox:kill())
end

local function start()
  root = temporary.directory()
  server = process.devserver { grace = 0.1, args = { "--root", root } }
  faulty = fault_server.start [[
    return function(request, connection)
      if request.path == "/command" and json.decode(request.body).command == "cut" then
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        connection:event { type = "init", text = "c1" }
        connection:event { type = "stdout", text = "some output" }
        connection:close()
      elseif request.path == "/command" then
        connection:reset()
      elseif request.path:find("cut", 1, true) then
        connection:start(200, { ["Content-Length"] = "1000" }):chunk("some bytes"):close()
      elseif request.path:find("endless", 1, true) then
        connection:start(200, { ["Content-Length"] = "1000000" }):chunk(("x"):rep(300000)):silence()
      else
        connection:respond(200, {}, "")
      end
    end
  ]]
end

local function stop()
  faulty:stop()
  server:stop()
  assert(uv.fs_rmdir(root))
end

-- Runs `count` cycles, after a few that fill what is made once, and checks that nothing has grown.
local function run_cycles(count)
  opensandbox.sleep(0) -- makes the descriptor that all clients share
  memory()             -- what others have left open is not ours to count
  local descriptors = process.descriptors()
  local function batch(times)
    local client = opensandbox.new(server.url, server.key)
    local clients = {
      wrong_key = opensandbox.new(server.url, "wrong"), refused = opensandbox.new("http://127.0.0.1:1", "", { retry = false }),
    }
    for _ = 1, times do cycle(client, clients, faulty.url) end
    client:close()
    for _, other in pairs(clients) do other:close() end
  end
  batch(3)
  if descriptors then assert.equal(descriptors, (process.descriptors())) end
  local before = memory()
  batch(count)
  local grown = memory() - before
  if descriptors then assert.equal(descriptors, (process.descriptors())) end
  assert.is_true(grown < 100, ("the memory of Lua grew by %.1f KB"):format(grown))
  check_server()
end

describe("many sandboxes, and calls that fail in every way", function()
  setup(start)
  teardown(stop)

  it("leave nothing behind", function()
    run_cycles(60)
  end)

  it("leave nothing behind under a collector that is always at work", function()
    local pause, multiplier = collectgarbage("setpause", 100), collectgarbage("setstepmul", 400)
    finally(function()
      collectgarbage("setpause", pause)
      collectgarbage("setstepmul", multiplier)
    end)
    run_cycles(8)
  end)

  it("leave nothing behind under a generational collector", function()
    if _VERSION ~= "Lua 5.4" then return pending("this Lua has no generational collector") end
    local mode = collectgarbage("generational")
    finally(function() collectgarbage(mode) end)
    run_cycles(8)
  end)

  it("leave nothing behind when their client is closed for them", function()
    memory()
    local descriptors = process.descriptors()
    local client = opensandbox.new(server.url, server.key)
    local kept = {}
    for i = 1, 10 do kept[i] = assert(client:create { image = IMAGE }) end
    assert.equal(#kept, #names(root))
    client:close()
    check_server()
    if descriptors then assert.equal(descriptors, (process.descriptors())) end
  end)

  it("leave nothing behind when nobody closes anything", function()
    memory()
    local descriptors = process.descriptors()
    local function drop()
      local client = opensandbox.new(server.url, server.key)
      local sandbox = assert(client:create { image = IMAGE })
      assert(sandbox.files:write("/work/a", ("x"):rep(3000000)))
      assert.equal(10, #assert(sandbox.files:open("/work/a")):read(10))
    end
    for _ = 1, 5 do drop() end
    -- The first collection queues what the objects had to say; those of what held them follow.
    for _ = 1, 4 do collectgarbage() end
    check_server()
    if descriptors then assert.equal(descriptors, (process.descriptors())) end
  end)
end)

describe("the memory of a client", function()
  setup(start)
  teardown(stop)

  it("does not grow with the output of its commands beyond what it may keep", function()
    if not process.rss() then return pending("no /proc here") end
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY, env.OPEN_SANDBOX_PROTOCOL = server.url, server.key, false
    local code, output, complaint = process.run({ env = env, argv = { process.lua(), "-e", [[
      local opensandbox, process = require "opensandbox", require "spec.support.process"
      local client = opensandbox.new(nil, nil, { max_output = 65536 })
      local sandbox = assert(client:create { image = "python:3.12" })
      local command = "head -c 1048576 /dev/zero | tr '\\0' x | fold -w 99"
      local function run()
        local result = assert(sandbox:run(command))
        assert(#result.stdout == 65536 and result.exit_code == 0)
        assert(result.stdout_dropped > 900000)
      end
      run()
      local before = process.rss().peak
      for _ = 1, 20 do run() end
      io.write(("%d"):format(process.rss().peak - before))
      client:close()
    ]] } }, 30)
    assert.equal(0, code, complaint)
    assert.is_true(tonumber(output) < 4096, "it grew by " .. output .. " KiB")
    check_server()
  end)
end)
