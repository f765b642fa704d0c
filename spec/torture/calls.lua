--- Every call of the library that waits for a server: the methods of spec/operations.lua, and those of the objects that people hold.
--
-- An array of { name, call }. A call takes a context: `client`, `endpoint` (of the server under test), `sandbox` (an object whose id the
-- server may or may not know), `directory` (a scratch directory of this call), `seconds` (for the time limits that are given to a call). It
-- returns what the method returned, and closes what it opened. `clock`: the seconds of a time limit that is longer than those given.

local operations = require "spec.operations"

local calls = {}

-- An isolated run may take its timeout, rounded up, and two seconds.
local ISOLATED_CLOCK = 3

-- These need time limits of their own, which spec/operations.lua does not give them. They are below.
local LONG = { ["/code/context"] = true, ["/v1/isolated/session/{sessionId}/run"] = true }

local function add(name, call, clock)
  calls[#calls + 1] = { name = name, call = call, clock = clock }
end

-- The methods of a client, which keep what they return: the rows of operations.lua drop it.
local function recording(client, results)
  return setmetatable({}, { __index = function(_, name)
    local method = client[name]
    return function(_, ...)
      results.value, results.err = method(client, ...)
      local value = results.value
      if type(value) == "table" and value.close then value:close() end
      return results.value, results.err
    end
  end })
end

for _, row in ipairs(operations) do
  if row.covered and not LONG[row.path] then
    add(("%s %s (%s)"):format(row.method, row.path, row.source), function(context)
      local results = {}
      row.covered(recording(context.client, results), context.endpoint)
      return results.value, results.err
    end)
  end
end

-- Calls a method of an object that an earlier call returns, and closes the object.
local function with(object, err, use)
  if not object then return nil, err end
  local value, problem = use(object)
  object:close()
  return value, problem
end

local function read_all(reader)
  return reader:read("a")
end

-- Takes all that an iterator returns. It raises the errors of the server.
local function drain(iterator)
  local ok, problem = pcall(function()
    local count = 0
    for _ in iterator() do
      count = count + 1
      if count > 100000 then error("the iterator does not end", 0) end
    end
    return count
  end)
  if ok then return problem end
  return nil, problem
end

local function file(context, name, content)
  local path = context.directory .. "/" .. name
  local handle = assert(io.open(path, "wb"))
  assert(handle:write(content))
  handle:close()
  return path
end

local function piecewise(count, piece)
  return function()
    count = count - 1
    return count >= 0 and piece or nil
  end
end

-- The client.

add("client:create", function(c)
  return with(c.client:create { image = "x", ready_timeout = c.seconds }, nil, function() return true end)
end)
add("client:connect", function(c) return c.client:connect("x", { ready_timeout = c.seconds }) end)
add("client:wait_ready", function(c) return c.client:wait_ready("x", { timeout = c.seconds }) end)
add("client:wait_snapshot", function(c) return c.client:wait_snapshot("x", { timeout = c.seconds }) end)
add("client:discover_execd", function(c) return c.client:discover_execd "x" end)
add("client:discover_egress", function(c) return c.client:discover_egress "x" end)
add("client:sandboxes", function(c) return drain(function() return c.client:sandboxes() end) end)
add("client:kill_all", function(c) return c.client:kill_all { timeout = c.seconds } end)
add("client:pool", function(c)
  local pool, err = c.client:pool { image = "x", min_idle = 1, max_size = 2, ready_timeout = c.seconds }
  if not pool then return nil, err end
  local sandbox, problem = pool:acquire { timeout = c.seconds }
  if sandbox then pool:release(sandbox) end
  pool:close { timeout = c.seconds }
  return sandbox, problem
end)
add("client:download_file", function(c)
  return with(c.client:download_file(c.endpoint, "/x"), nil, read_all)
end)
add("client:save_file", function(c) return c.client:save_file(c.endpoint, "/x", c.directory .. "/saved") end)
add("client:upload_files from a reader function", function(c)
  return c.client:upload_files(c.endpoint, { { path = "/a", content = piecewise(10, ("z"):rep(3000)) } })
end)
add("client:run_command", function(c) return c.client:run_command(c.endpoint, "x", { timeout = c.seconds }) end)
add("client:run_code", function(c) return c.client:run_code(c.endpoint, "1", { language = "python", timeout = c.seconds }) end)
add("client:create_code_context", function(c)
  return c.client:create_code_context(c.endpoint, "python", { timeout = c.seconds })
end)
add("client:run_isolated", function(c)
  return c.client:run_isolated(c.endpoint, "s", "x", { timeout = c.seconds })
end, ISOLATED_CLOCK)
add("client:start_isolated", function(c) return c.client:start_isolated(c.endpoint, "s", "x") end)
add("client:watch_metrics", function(c)
  local stream, err = c.client:watch_metrics(c.endpoint)
  if not stream then return nil, err end
  local value, problem = stream:next()
  stream:close()
  return value, problem
end)

-- A sandbox.

local TIMED = {
  { "run", "x" }, { "run", "x", { durable = true } }, { "run", "x", { capture = "exact" } }, { "run", "x", { stdin = "bytes" } },
  { "snapshot", "name" },
}
for _, row in ipairs(TIMED) do
  local method, argument, given = row[1], row[2], row[3] or {}
  local variant = next(given)
  add("sandbox:" .. method .. (variant and " with " .. variant or ""), function(c)
    local opts = { timeout = c.seconds }
    for name, value in pairs(given) do opts[name] = value end
    return c.sandbox[method](c.sandbox, argument, opts)
  end)
end
for _, method in ipairs { "info", "pause", "resume", "kill" } do
  add("sandbox:" .. method, function(c) return c.sandbox[method](c.sandbox, { timeout = c.seconds }) end)
end
add("sandbox:renew", function(c) return c.sandbox:renew(60, { timeout = c.seconds }) end)
add("sandbox:keep_alive", function(c) return c.sandbox:keep_alive(60) end)
add("sandbox:metrics", function(c) return c.sandbox:metrics() end)
add("sandbox:endpoint", function(c) return c.sandbox:endpoint(8080) end)
add("sandbox:handle", function(c) return c.sandbox:handle() end)
add("sandbox:patch_metadata", function(c) return c.sandbox:patch_metadata({ a = "b" }, { timeout = c.seconds }) end)
add("sandbox:wait_for_port", function(c) return c.sandbox:wait_for_port(80, { timeout = c.seconds }) end)
add("sandbox:wait_for_file", function(c) return c.sandbox:wait_for_file("/x", { timeout = c.seconds }) end)
add("sandbox:logs", function(c) return c.sandbox:logs() end)
add("sandbox:events", function(c) return c.sandbox:events() end)
add("sandbox:wait_for_url", function(c) return c.sandbox:wait_for_url(80, "/", { timeout = c.seconds }) end)
add("sandbox:wait_for_log", function(c) return c.sandbox:wait_for_log("x", "x", { timeout = c.seconds }) end)
add("sandbox:stream", function(c) return drain(function() return c.sandbox:stream("x", { timeout = c.seconds }) end) end)
add("sandbox:stream, left early", function(c)
  return with(c.sandbox:stream("x", { timeout = c.seconds }), nil, function(stream) return stream:next() end)
end)
add("sandbox:code_contexts", function(c) return c.sandbox:code_contexts() end)

-- What runs in it.

add("sandbox:start", function(c) return c.sandbox:start("x") end)
for _, method in ipairs { "status", "logs", "kill" } do
  add("command:" .. method, function(c)
    local command = c.sandbox:command "x"
    return command[method](command)
  end)
end
add("command:wait", function(c) return c.sandbox:command("x"):wait { timeout = c.seconds } end)
add("command:events", function(c) return drain(function() return c.sandbox:command("x"):events() end) end)
add("session:run", function(c)
  local session, err = c.sandbox:session()
  return with(session, err, function() return session:run("x", { timeout = c.seconds }) end)
end)
add("session:run in an existing one", function(c) return c.sandbox:session({ id = "s" }):run("x", { timeout = c.seconds }) end)
add("code:run", function(c)
  local code, err = c.sandbox:code("python", { timeout = c.seconds })
  return with(code, err, function() return code:run("1", { timeout = c.seconds }) end)
end)
add("isolated:run", function(c)
  local session, err = c.sandbox:isolated { workspace = "/w" }
  return with(session, err, function() return session:run("x", { timeout = c.seconds }) end)
end, ISOLATED_CLOCK)
add("isolated:run in an existing one", function(c)
  local session, err = c.sandbox:isolated { id = "s" }
  if not session then return nil, err end
  return session:run("x", { timeout = c.seconds })
end, ISOLATED_CLOCK)

-- Its files.

add("files:write", function(c) return c.sandbox.files:write("/x", "content", { verify = true }) end)
add("files:write from a reader function", function(c)
  return c.sandbox.files:write("/x", piecewise(10, ("z"):rep(3000)), { timeout = c.seconds })
end)
add("files:read", function(c) return c.sandbox.files:read "/x" end)
add("files:read of a path with $", function(c) return c.sandbox.files:read "/$x" end)
add("files:open", function(c)
  local reader, err = c.sandbox.files:open "/x"
  return with(reader, err, function() return drain(function() return reader:lines() end) end)
end)
for _, method in ipairs { "stat", "exists", "list", "remove", "mkdir", "rmdir" } do
  add("files:" .. method, function(c) return c.sandbox.files[method](c.sandbox.files, "/x") end)
end
add("files:remove with recursive", function(c) return c.sandbox.files:remove("/x", { recursive = true }) end)
add("files:search", function(c) return c.sandbox.files:search("/x", "*") end)
add("files:move", function(c) return c.sandbox.files:move("/x", "/y") end)
add("files:chmod", function(c) return c.sandbox.files:chmod("/x", "0644") end)
add("files:replace", function(c) return c.sandbox.files:replace("/x", "a", "b") end)
add("files:upload", function(c)
  return c.sandbox.files:upload(file(c, "up", ("u"):rep(20000)), "/x", { timeout = c.seconds })
end)
add("files:download", function(c) return c.sandbox.files:download("/x", c.directory .. "/down", { timeout = c.seconds }) end)
add("files:upload_dir", function(c)
  file(c, "in-tree", "t")
  return c.sandbox.files:upload_dir(c.directory, "/x", { timeout = c.seconds })
end)
add("files:upload_dir with only_changed", function(c)
  file(c, "in-tree", "t")
  return c.sandbox.files:upload_dir(c.directory, "/x", { timeout = c.seconds, only_changed = true, delete_extra = true })
end)
add("files:download_dir with only_changed", function(c)
  file(c, "in-tree", "t")
  return c.sandbox.files:download_dir("/x", c.directory, { timeout = c.seconds, only_changed = true, delete_extra = true })
end)
add("files:append", function(c) return c.sandbox.files:append("/x", "content", { timeout = c.seconds }) end)
add("files:watch", function(c)
  local watcher = c.sandbox.files:watch("/x", { interval = 0.05, timeout = c.seconds })
  return with(watcher, nil, function() return watcher:next() end)
end)
add("files:download_dir", function(c)
  return c.sandbox.files:download_dir("/x", c.directory .. "/tree", { timeout = c.seconds })
end)

-- Its egress.

add("egress:policy", function(c) return c.sandbox.egress:policy() end)
add("egress:allow", function(c) return c.sandbox.egress:allow "example.com" end)
add("egress:deny", function(c) return c.sandbox.egress:deny "example.com" end)
add("egress:remove", function(c) return c.sandbox.egress:remove "example.com" end)
add("vault:get", function(c) return c.sandbox.vault:get() end)
add("vault:credentials", function(c) return c.sandbox.vault:credentials() end)

return calls
