--- Everything is closed from everywhere, with the collector at work all the time: closing.lua [PLACE]
--
-- A matrix: in each place where code of the user runs while a call is under way, each object is closed. The call must end soon, with a
-- result or with an error of the library; nothing may stay behind, and nothing may crash, which says most under a sanitizer. What the core
-- does when its objects are closed by finalizers is in spec/core/finalizer_spec.lua. PLACE: part of a name, to try some places only.

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local leave_garbage = require "spec.support.leave_garbage"
local process = require "spec.support.process"
local procfs = require "spec.support.procfs"
local temporary = require "spec.support.temporary"

local only = arg[1]

local CONCURRENCY = 8 -- combinations at the same time
local HANG_TIME = 60  -- seconds
local MAX_TIME = 20   -- seconds for a call: each client that closes may hold up the others for two seconds
local IMAGE = "python:3.12"
local CONTENT = ("content"):rep(40000)

local server = process.devserver { grace = 0 }
local observer = opensandbox.new(server.url, server.key)
local directory = temporary.directory()
local upload = temporary.file(CONTENT, directory)
local failures, combinations, outcomes = 0, 0, {}

local function fail(where, ...)
  failures = failures + 1
  print(where .. ": " .. string.format(...))
  io.stdout:flush()
end

-- Objects that are closed. Each function takes the context of a combination.
local targets = {
  client = function(c) c.client:close() end,
  sandbox = function(c) c.sandbox:close() end,
  ["the sandbox's id"] = function(c) c.client:delete_sandbox(c.sandbox.id) end,
  session = function(c) c.session:close() end,
  code = function(c) c.code:close() end,
  command = function(c) c.command:kill() end,
  reader = function(c) c.reader:close() end,
  terminal = function(c) c.terminal:close() end,
  pool = function(c) c.pool:close() end,
  ["the task"] = function(c) c.task:cancel() end,
}

-- Places: each makes the call during which `close` is called.
local places = {
  ["on_stdout of run"] = function(c, close) return c.sandbox:run("echo a; sleep 0.05; echo b", { on_stdout = close }) end,
  ["on_event of run"] = function(c, close) return c.sandbox:run("echo a", { on_event = close }) end,
  ["on_stdout of a durable run"] = function(c, close)
    return c.sandbox:run("echo a; sleep 0.05; echo b", { durable = true, on_stdout = close })
  end,
  ["on_stdout of an exact run"] = function(c, close) return c.sandbox:run("echo a", { capture = "exact", on_stdout = close }) end,
  ["on_stdout of session:run"] = function(c, close) return c.session:run("echo a; sleep 0.05; echo b", { on_stdout = close }) end,
  ["on_stdout of code:run"] = function(c, close) return c.code:run("print(1)", { on_stdout = close }) end,
  ["a reader function of files:write"] = function(c, close)
    local count = 3
    return c.sandbox.files:write("/tmp/written", function()
      count = count - 1
      if count == 1 then close() end
      return count > 0 and CONTENT or nil
    end)
  end,
  ["a reader function of stdin"] = function(c, close)
    local count = 2
    return c.sandbox:run("cat", { stdin = function()
      count = count - 1
      close()
      return count > 0 and "input" or nil
    end })
  end,
  ["on_progress of files:upload"] = function(c, close)
    return c.sandbox.files:upload(upload, "/tmp/up", { on_progress = close })
  end,
  ["on_progress of files:download"] = function(c, close)
    return c.sandbox.files:download("/tmp/file", c.own .. "/down", { on_progress = close })
  end,
  ["on_progress of files:upload_dir"] = function(c, close)
    return c.sandbox.files:upload_dir(directory, "/tmp/up", { on_progress = close })
  end,
  ["on_progress of files:download_dir"] = function(c, close)
    return c.sandbox.files:download_dir("/tmp", c.own .. "/tree", { on_progress = close })
  end,
  ["on_request"] = function(c, close)
    c.on_request = close
    return c.sandbox:run "echo a"
  end,
  ["on_response"] = function(c, close)
    c.on_response = close
    return c.sandbox.files:read "/tmp/file"
  end,
  ["on_state of create"] = function(c, close) return c.client:create { image = IMAGE, on_state = close } end,
  ["the events of a command"] = function(c, close)
    for _ in c.command:events() do close() end
    return true
  end,
  ["the lines of a reader"] = function(c, close)
    for _ in c.reader:lines() do close() end
    return true
  end,
  ["on_output of a terminal"] = function(c, close)
    local terminal, err = c.sandbox:terminal { command = "echo a; sleep 0.1; echo b", on_output = close }
    if not terminal then return nil, err end
    local code, problem = terminal:wait { timeout = 5 }
    terminal:close()
    return code, problem
  end,
  ["another task, while terminal:read waits"] = function(c, close)
    opensandbox.spawn(function()
      opensandbox.sleep(0.05)
      close()
    end)
    return c.terminal:read(0.5)
  end,
  ["another task, while run waits"] = function(c, close)
    opensandbox.spawn(function()
      opensandbox.sleep(0.05)
      close()
    end)
    return c.sandbox:run "sleep 0.3"
  end,
  ["another task, while a reader is read"] = function(c, close)
    opensandbox.spawn(close)
    return c.reader:read "a"
  end,
  ["another task, while a pool acquires"] = function(c, close)
    opensandbox.spawn(close)
    local sandbox, err = c.pool:acquire { timeout = 2 }
    if sandbox then sandbox:close() end
    return sandbox, err
  end,
  ["a task of map"] = function(_, close)
    return opensandbox.map({ 1, 2 }, function()
      close()
      return true
    end)
  end,
  ["__index of the options"] = function(c, close)
    return c.sandbox:run("echo a", setmetatable({}, { __index = function() close() end }))
  end,
  ["a finalizer, while run waits"] = function(c, close)
    return c.sandbox:run("echo a; echo b; sleep 0.1", { on_event = function()
      leave_garbage(close)
      collectgarbage()
    end })
  end,
  ["a finalizer, while a reader is read"] = function(c, close)
    leave_garbage(close)
    local size = 0
    while true do
      local bytes, err = c.reader:read(5000)
      if not bytes then return not err and size or nil, err end
      size = size + #bytes
    end
  end,
}

-- Opens one of each object, so that each can be closed in each place.
local function context()
  local c = { own = temporary.directory(directory) }
  c.client = opensandbox.new(server.url, server.key, {
    timeout = 5, idle_timeout = 5, transfer_idle_timeout = 5,
    on_request = function() if c.on_request then c.on_request() end end,
    on_response = function() if c.on_response then c.on_response() end end,
  })
  c.sandbox = assert(c.client:create { image = IMAGE })
  assert(c.sandbox.files:write("/tmp/file", CONTENT .. "\n" .. CONTENT))
  c.session = assert(c.sandbox:session())
  c.code = assert(c.sandbox:code "python")
  c.command = assert(c.sandbox:start "echo a; sleep 0.1; echo b")
  c.reader = assert(c.sandbox.files:open "/tmp/file")
  c.terminal = assert(c.sandbox:terminal { command = "sleep 60" })
  c.pool = c.client:pool { image = IMAGE, min_idle = 0, max_size = 1 }
  return c
end

-- Closes what is left, in whatever state it is.
local function clean_up(c)
  c.on_request, c.on_response = nil, nil
  c.terminal:close()
  c.client:close()
end

local function try(place_name, target_name)
  local where = ("%s closed in %s"):format(target_name, place_name)
  combinations = combinations + 1
  local c = context()
  local has_closed, is_closing = false, false
  local function close()
    if is_closing or has_closed then return end -- closing sends requests, which call the hooks
    is_closing = true
    local ok, problem = pcall(targets[target_name], c)
    is_closing, has_closed = false, true
    if not ok and not (type(problem) == "table" and problem.kind) then fail(where, "closing raised: %s", tostring(problem)) end
  end
  local began = core.now()
  c.task = opensandbox.spawn(function()
    local ok, value, err = pcall(places[place_name], c, close)
    return { ok = ok, value = value, err = err }
  end)
  local result, err = c.task:wait(MAX_TIME)
  if not result then
    if type(err) ~= "table" or err.kind ~= "cancelled" or target_name ~= "the task" then fail(where, "%s", tostring(err)) end
    result = { ok = true, err = err }
  end
  local took = core.now() - began
  err = not result.ok and result.value or result.value == nil and result.err or nil
  if err and not (type(err) == "table" and err.kind) then
    fail(where, "%s: %s", result.ok and "returned" or "raised", tostring(err))
  end
  if took > MAX_TIME then fail(where, "took %.1f s", took) end
  local outcome = err and tostring(type(err) == "table" and err.kind or "?") or "value"
  outcomes[outcome] = (outcomes[outcome] or 0) + 1
  clean_up(c)
end

local function sorted(map)
  local list = {}
  for name in pairs(map) do list[#list + 1] = name end
  table.sort(list)
  return list
end

collectgarbage("setpause", 1)
collectgarbage("setstepmul", 1000)
local running = {} -- the time at which each combination has started
local collecting = opensandbox.spawn(function()
  while true do
    collectgarbage()
    for where, start in pairs(running) do
      if core.now() - start > HANG_TIME then
        fail(where, "does not end")
        os.exit(1)
      end
    end
    opensandbox.sleep(0.005)
  end
end)

local chosen = {}
for _, place in ipairs(sorted(places)) do
  if not only or place:find(only, 1, true) then
    for _, target in ipairs(sorted(targets)) do chosen[#chosen + 1] = { place, target } end
  end
end

local began = core.now()
try(chosen[1][1], chosen[1][2]) -- loads what is loaded when it is first used
collectgarbage()
local descriptors = procfs.descriptors()
local done, problems = opensandbox.map(chosen, function(each)
  local where = ("%s closed in %s"):format(each[2], each[1])
  running[where] = core.now()
  try(each[1], each[2])
  running[where] = nil
  return true
end, { concurrency = CONCURRENCY })
if not done or problems then fail("all", "%s", tostring(select(2, next(problems or {})))) end
collectgarbage()
if descriptors and procfs.descriptors() > descriptors then
  fail("all", "%d descriptors are left", procfs.descriptors() - descriptors)
end

local deadline = core.now() + 10
while #assert(observer:list_sandboxes()) > 0 and core.now() < deadline do opensandbox.sleep(0.05) end
local left = #assert(observer:list_sandboxes())
if left > 0 then fail("the server", "%d sandboxes are left", left) end
collecting:cancel()
observer:close()
server:stop()
temporary.remove(directory)

local list = {}
for _, outcome in ipairs(sorted(outcomes)) do list[#list + 1] = outcome .. " " .. outcomes[outcome] end
print(("closing: %d combinations, %.0f s: %s"):format(combinations, core.now() - began, table.concat(list, ", ")))
print(failures == 0 and "closing: all is well" or ("closing: %d failures"):format(failures))
os.exit(failures == 0 and 0 or 1)
