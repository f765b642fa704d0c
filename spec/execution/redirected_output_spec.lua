--- capture = "exact": where the output goes, what is left of it, and what is known when it cannot be fetched.

local fault_server = require "spec.support.fault_server"
local fixtures = require "spec.support.fixture"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local uv = require "luv"
local wait_until = require "spec.support.wait_until"

-- Prints the name of the file that is the standard output.
local WHERE = "readlink /proc/self/fd/1"

describe("exact output is written to", function()
  local fixture, sandbox

  setup(function()
    fixture = fixtures.new()
    sandbox = fixture.sandbox
    assert(sandbox.files:mkdir("/work/own tmp", { mode = 777 }))
  end)
  teardown(function() fixture:close() end)

  local function nothing_is_left(directory)
    wait_until(function() return #assert(sandbox.files:search(directory, "opensandbox-*.std*")) == 0 end, "a file is left")
  end

  for name, tmpdir in pairs {
    ["the command's TMPDIR"] = "/work/own tmp", ["/tmp, when TMPDIR is missing"] = "/no/such/directory",
    ["/tmp, when TMPDIR is relative"] = "work/own tmp", ["/tmp, when TMPDIR is empty"] = "",
  } do
    for _, durable in ipairs { false, true } do
      it(name .. (durable and ", of a durable run" or ""), function()
        if fixture.root ~= "" then
          if name:find("^/tmp") then return pending("a command's /tmp is this machine's without bubblewrap") end
          tmpdir = tmpdir:gsub("^/work", fixture.root .. "/work")
        end
        local result = assert(sandbox:run([[printf 'a\000b\377'; printf err >&2; exit 3]], {
          capture = "exact", durable = durable or nil, env = { TMPDIR = tmpdir },
        }))
        assert.same({ 3, "a\0b\255", "err" }, { result.exit_code, result.stdout, result.stderr })
        local where = assert(sandbox:run(WHERE, { capture = "exact", durable = durable or nil, env = { TMPDIR = tmpdir } })).stdout
        if fixture.root == "" then
          assert.truthy(where:find(name:find("TMPDIR$") and "^/work/own tmp/opensandbox%-" or "^/tmp/opensandbox%-"), where)
        end
        nothing_is_left("/tmp")
        nothing_is_left("/work")
      end)
    end
  end
end)

describe("the files of exact output", function()
  local fixture, sandbox

  setup(function()
    fixture = fixtures.new()
    sandbox = fixture.sandbox
  end)
  teardown(function() fixture:close() end)

  it("are removed when a callback raises, and its error is raised", function()
    local ok, problem = pcall(sandbox.run, sandbox, "echo text; sleep 5", {
      capture = "exact", on_event = function() error("of the callback", 0) end,
    })
    assert.same({ false, "of the callback" }, { ok, problem })
    wait_until(function() return assert(sandbox:run("ls /tmp | grep opensandbox-; :")).stdout == "" end, "a file is left")
  end)

  it("are removed when the client is closed after the command", function()
    local client = fixture:another_client()
    assert(assert(client:connect(sandbox.id)):run("echo text", { capture = "exact" }))
    client:close()
    wait_until(function() return assert(sandbox:run("ls /tmp | grep opensandbox-; :")).stdout == "" end, "a file is left")
  end)

  it("are removed when the host ends the coroutine in the download", function()
    local running = coroutine.create(function()
      sandbox:run("echo text", { capture = "exact", on_stdout = coroutine.yield })
    end)
    assert.same({ true, "text\n" }, { coroutine.resume(running) })
    assert.equal("suspended", coroutine.status(running))
    running = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    wait_until(function() return assert(sandbox:run("ls /tmp | grep opensandbox-; :")).stdout == "" end, "a file is left")
  end)

  -- The moment of the cancellation decides whether the command creates its files after they were removed.
  for _, durable in ipairs { false, true } do
    it("are removed whenever the task is cancelled" .. (durable and ", of a durable run" or ""), function()
      assert(sandbox.files:mkdir("/work/own tmp", { mode = 777 }))
      local tmpdir = fixture.root .. "/work/own tmp"
      for index = 1, 30 do
        local one = opensandbox.spawn(function()
          return sandbox:run("sleep 5", { capture = "exact", durable = durable or nil, env = { TMPDIR = tmpdir } })
        end)
        opensandbox.sleep(index * 0.002)
        one:cancel()
        assert.equal("cancelled", select(2, one:wait()).kind)
      end
      wait_until(function()
        local left = assert(sandbox:run("ls '" .. tmpdir .. "'; ps -eo args | grep '^[s]leep 5'; :")).stdout
        return left == ""
      end, "a file or a command is left")
    end)
  end
end)

describe("exact output, where commands see this machine as it is,", function()
  it("is right, and nothing of it is left on this machine", function()
    local server = process.devserver { grace = 0.2, args = { "--isolation", "none" } }
    local client = opensandbox.new(server.url, server.key)
    local sandbox = assert(client:create { image = "any" })
    local result = assert(sandbox:run("printf 'a\\000b'; printf err >&2; exit 3", { capture = "exact", cwd = "/" }))
    assert.same({ 3, "a\0b", "err" }, { result.exit_code, result.stdout, result.stderr })
    local where = assert(sandbox:run(WHERE, { capture = "exact" })).stdout:gsub("\n", "")
    assert.truthy(where:find("/opensandbox%-%x+%.stdout$"), where)
    assert.is_nil(where:find("^/tmp/opensandbox%-%x+%.stdout$"), where)
    wait_until(function() return not uv.fs_lstat(where) end, where .. " is left")
    client:close()
    server:stop()
  end)
end)

describe("exact output that cannot be fetched", function()
  -- An execd whose command ends with exit code 3, and whose downloads do what `download` (Lua) says.
  local function with_execd(download, options, fn)
    local server = fault_server.start([[
      local count = 0
      local function download(request, connection) ]] .. download .. [[ end
      return function(request, connection)
        if request.method == "GET" then
          count = count + 1
          return download(request, connection)
        elseif request.method == "DELETE" then
          state.deleted = request.path
          return connection:respond(200, {}, "")
        end
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        connection:event { type = "init", text = "c1", timestamp = 1 }
        connection:event { type = "error", error = { ename = "CommandExecError", evalue = "3", traceback = { "exit status 3" } } }
        connection:finish()
      end
    ]])
    options.retry = { base_delay = 0.01 }
    local client = opensandbox.new("http://127.0.0.1:1", "", options)
    local ok, problem = pcall(fn, client, server)
    client:close()
    server:stop()
    if not ok then error(problem, 0) end
  end

  local BREAKS = [[
    connection:start(200, { ["Content-Length"] = "1000" }):chunk(("x"):rep(10))
    connection:after(20, connection.reset)
  ]]

  it("leaves the exit code, the id and what has come", function()
    with_execd(BREAKS, {}, function(client, server)
      local result, err = client:run_command(server.url, "x", { capture = "exact" })
      assert.is_nil(result)
      assert.same({ "stream", "output_lost", "run_command", "c1" }, { err.kind, err.code, err.op, err.command_id })
      assert.same({ 3, "c1", "" }, { err.result.exit_code, err.result.id, err.result.stderr })
      assert.truthy(err.result.stdout:find("^x+$"))
      assert.truthy(err.message:find("exit code 3", 1, true), err.message)
      assert.equal("cut", err.cause.code)
      wait_until(function() return server:state().deleted end, "the files were not removed")
    end)
  end)

  it("once, because of silence, is fetched again", function()
    local answer = [[
      if count == 1 then return connection:silence() end
      connection:respond(200, {}, "output")
    ]]
    with_execd(answer, { transfer_idle_timeout = 0.3 }, function(client, server)
      local result = assert(client:run_command(server.url, "x", { capture = "exact" }))
      assert.same({ 3, "output", "output" }, { result.exit_code, result.stdout, result.stderr })
    end)
  end)

  it("because the sandbox is gone is an error that says so", function()
    with_execd([[connection:respond(404, { ["Content-Type"] = "application/json" },
      '{"code": "SANDBOX_NOT_FOUND", "message": "the sandbox is gone"}')]], {}, function(client, server)
      local result, err = client:run_command(server.url, "x", { capture = "exact" })
      assert.is_nil(result)
      assert.same({ "output_lost", 3 }, { err.code, err.result.exit_code })
      assert.truthy(err.message:find("the sandbox is gone", 1, true), err.message)
    end)
  end)

  it("when the task is cancelled has the result as well", function()
    with_execd("connection:silence()", {}, function(client, server)
      local one = opensandbox.spawn(function() return client:run_command(server.url, "x", { capture = "exact" }) end)
      wait_until(function()
        for _, request in ipairs(server:requests()) do
          if request.method == "GET" then return true end
        end
      end, "no download was asked for")
      one:cancel()
      local result, err = one:wait()
      assert.is_nil(result)
      assert.same({ "cancelled", "c1", 3 }, { err.kind, err.command_id, err.result and err.result.exit_code })
    end)
  end)
end)
