--- Every public method that waits takes `timeout`, ends when it has run out, and says so; and wherever seconds are taken, "90s" is too.

local class = require "opensandbox.base.class"
local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local options = require "opensandbox.base.options"
local sources = require "spec.support.sources"
local temporary = require "spec.support.temporary"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local TIMEOUT = 0.4 -- seconds
local AT_MOST = 8   -- seconds, on a busy machine; the client's own limits are 60

-- The sandbox "known" has endpoints, and no other request about it is answered. No request about any other sandbox is.
local SILENT = [[
  return function(request, connection)
    if not request.path:find("/sandboxes/known/endpoints/", 1, true) then return connection:silence() end
    local execd = json.encode { endpoint = request.headers.host .. "/sandbox" }
    connection:respond(200, { ["Content-Type"] = "application/json" }, execd)
  end
]]

-- A call of each method that waits, by the class's name and the method. `given` holds client, sandbox, execd and opts.
local calls = {}

local function client_call(name, ...)
  local arguments, count = { ... }, select("#", ...)
  calls["client:" .. name] = function(given)
    arguments[count + 1] = given.opts
    return given.client[name](given.client, (table.unpack or unpack)(arguments, 1, count + 1)) -- luacheck: std max
  end
end

local function execd_call(name, ...)
  local arguments, count = { ... }, select("#", ...)
  calls["client:" .. name] = function(given)
    arguments[count + 1] = given.opts
    return given.client[name](given.client, given.execd, (table.unpack or unpack)(arguments, 1, count + 1)) -- luacheck: std max
  end
end

local function object_call(class_name, object_of, name, ...)
  local arguments, count = { ... }, select("#", ...)
  calls[class_name .. ":" .. name] = function(given)
    local object = object_of(given.sandbox)
    arguments[count + 1] = given.opts
    return object[name](object, (table.unpack or unpack)(arguments, 1, count + 1)) -- luacheck: std max
  end
end

-- Methods whose options are one table with their other arguments.
local function with_timeout(given, changes)
  changes.timeout = given.opts.timeout
  return changes
end

for _, name in ipairs { "get_sandbox", "delete_sandbox", "pause_sandbox", "resume_sandbox", "wait_ready", "create_snapshot",
  "discover_execd", "discover_egress" } do client_call(name, "any") end
client_call("list_sandboxes")
client_call("sandboxes")
client_call("kill_all")
client_call("renew_sandbox", "any", 600)
client_call("patch_metadata", "any", { a = "b" })
client_call("get_endpoint", "any", 80)
client_call("health")
client_call("get_version")
client_call("record_create_event", { success = true, duration = 1 })
for _, name in ipairs { "get_snapshot", "delete_snapshot", "wait_snapshot" } do client_call(name, "snapshot") end
client_call("list_snapshots")
client_call("get_pool", "p")
client_call("list_pools")
client_call("delete_pool", "p")
client_call("update_pool", "p", { buffer_min = 1, buffer_max = 2, pool_min = 1, pool_max = 3 })
calls["client:create_pool"] = function(given)
  return given.client:create_pool(with_timeout(given, { name = "p", template = { spec = {} },
    capacity = { buffer_min = 1, buffer_max = 2, pool_min = 1, pool_max = 3 } }))
end
client_call("get_diagnostic_logs", "any", "all")
client_call("get_diagnostic_events", "any", "all")

client_call("list_templates")
for _, name in ipairs { "get_template", "delete_template", "wait_template" } do client_call(name, "template") end
calls["client:create_template"] = function(given)
  return given.client:create_template(with_timeout(given, { image = "any", publish = "s3://bucket/name" }))
end
client_call("get_network_policy", "any")
client_call("patch_network_policy", "any", { { action = "allow", target = "a.example" } })
client_call("replace_network_policy", "any", { default_action = "deny" })
client_call("delete_network_rules", "any", "a.example")

execd_call("ping")
execd_call("create_pty_session")
for _, name in ipairs { "get_pty_session", "connect_pty_session", "delete_pty_session" } do execd_call(name, "p") end
execd_call("get_metrics")
execd_call("get_command_status", "c")
execd_call("get_command_logs", "c", 0)
execd_call("interrupt_command", "c")
execd_call("create_session")
execd_call("delete_session", "s")
execd_call("create_code_context", "python")
for _, name in ipairs { "get_code_context", "delete_code_context", "interrupt_code" } do execd_call(name, "k") end
execd_call("list_code_contexts", "python")
execd_call("delete_code_contexts", "python")
calls["client:create_isolated_session"] = function(given)
  return given.client:create_isolated_session(given.execd, with_timeout(given, { workspace = "/w" }))
end
for _, name in ipairs { "get_isolated_session", "delete_isolated_session" } do execd_call(name, "i") end
execd_call("list_isolated_sessions")
execd_call("get_isolation_capabilities")
execd_call("get_isolated_run", "i", "r")
execd_call("get_isolated_run_logs", "i", "r", 0)
execd_call("list_directory", "/d")
execd_call("search_files", "/d", "*")
execd_call("file_info", "/f")
execd_call("make_directories", "/d")
execd_call("move_files", { { from = "/a", to = "/b" } })
execd_call("set_permissions", { ["/f"] = { mode = "0644" } })
execd_call("replace_in_files", { ["/f"] = { old = "a", new = "b" } })
execd_call("delete_files", "/f")
execd_call("delete_directories", "/d")
execd_call("download_file", "/f")
calls["client:save_file"] = function(given)
  local path = temporary.path()
  local ok, err = given.client:save_file(given.execd, "/f", path, given.opts)
  os.remove(path)
  return ok, err
end
execd_call("upload_files", { { path = "/f", content = "x" } })
execd_call("get_egress_policy")
execd_call("patch_egress_policy", { { action = "allow", target = "a.example" } })
execd_call("replace_egress_policy", { default_action = "deny" })
execd_call("delete_egress_rules", "a.example")
local VAULT = { credentials = { { name = "c", value = "v" } }, bindings = {} }
execd_call("create_credential_vault", VAULT)
execd_call("get_credential_vault")
execd_call("patch_credential_vault", { credentials = { delete = { "c" } } })
execd_call("delete_credential_vault")
execd_call("list_vault_credentials")
execd_call("get_vault_credential", "c")
execd_call("list_vault_bindings")
execd_call("get_vault_binding", "b")

local function itself(sandbox) return sandbox end
for _, name in ipairs { "info", "pause", "resume", "metrics", "kill", "handle", "session", "terminal" } do
  object_call("sandbox", itself, name)
end
object_call("sandbox", itself, "renew", 600)
object_call("sandbox", itself, "keep_alive", 600)
object_call("sandbox", itself, "endpoint", 80)
object_call("sandbox", itself, "snapshot", "name")
object_call("sandbox", itself, "patch_metadata", { a = "b" })
object_call("sandbox", itself, "set_env", { A = "1" })
object_call("sandbox", itself, "code", "python")
object_call("sandbox", itself, "code_contexts", "python")
object_call("sandbox", itself, "logs", "all")
object_call("sandbox", itself, "events", "all")
object_call("sandbox", itself, "wait_for_port", 80)
object_call("sandbox", itself, "wait_for_file", "/f")
object_call("sandbox", itself, "wait_for_url", 80, "/")
calls["sandbox:wait_for_log"] = function(given) return given.sandbox:wait_for_log("c", "x", given.opts) end
calls["command:events"] = function(given) return given.sandbox:command("c"):events(given.opts):next() end
calls["sandbox:isolated"] = function(given) return given.sandbox:isolated(with_timeout(given, { workspace = "/w" })) end

local function egress(sandbox) return sandbox.egress end
object_call("egress", egress, "policy")
for _, name in ipairs { "allow", "deny", "remove" } do object_call("egress", egress, name, "a.example", { "b.example" }) end
object_call("egress", egress, "replace", { default_action = "deny" })

local function vault(sandbox) return sandbox.vault end
for _, name in ipairs { "get", "delete", "credentials", "bindings" } do object_call("vault", vault, name) end
object_call("vault", vault, "create", VAULT)
object_call("vault", vault, "patch", { credentials = { delete = { "c" } } })
object_call("vault", vault, "credential", "c")
object_call("vault", vault, "binding", "b")

local function files(sandbox) return sandbox.files end
for _, path in ipairs { "/f", "/$f" } do -- with a path that execd takes as it is, and with one that it would change
  local suffix = path == "/f" and "" or " $"
  local function file_call(name, ...)
    object_call("files", files, name, ...)
    calls["files:" .. name .. suffix] = calls["files:" .. name]
  end
  for _, name in ipairs { "stat", "exists", "rmdir", "list", "remove", "mkdir", "read", "open" } do
    file_call(name, path)
  end
  file_call("search", path, "*")
  file_call("move", path, path .. "2")
  file_call("chmod", path, "0644")
  file_call("replace", path, "a", "b")
  file_call("write", path, "x")
  file_call("append", path, "x")
end
calls["files:upload"] = function(given)
  local path = temporary.file()
  local ok, err = given.sandbox.files:upload(path, "/f", given.opts)
  os.remove(path)
  return ok, err
end
for _, verify in ipairs { false, true } do
  calls["files:download" .. (verify and " verified" or "")] = function(given)
    local path = temporary.file()
    local ok, err = given.sandbox.files:download("/f", path, with_timeout(given, { verify = verify }))
    os.remove(path)
    return ok, err
  end
end
calls["files:write verified"] = function(given)
  return given.sandbox.files:write("/f", "x", with_timeout(given, { verify = true }))
end
object_call("files", files, "upload_dir", "spec/runner", "/d")
object_call("files", files, "download_dir", "/d", "/never/written")

local function command(sandbox) return sandbox:command("c") end
for _, name in ipairs { "status", "wait", "kill" } do object_call("command", command, name) end
object_call("command", command, "logs", 0)
local function code(sandbox) return sandbox:code("python", { id = "k" }) end
object_call("code", code, "interrupt")
local function isolated(sandbox) return sandbox:isolated { id = "i" } end
object_call("isolated", isolated, "info")
calls["task:wait"] = function(given) return opensandbox.spawn(opensandbox.sleep, 5):wait(given.opts) end

-- The public methods that are not called here, and why.
local exempt = {}

local function leave_out(class_name, reason, ...)
  for _, name in ipairs { ... } do exempt[class_name .. ":" .. name] = reason end
end

leave_out("client", "nothing is sent", "add_close_listener", "for_op", "within", "pollfd", "events", "timeout", "getfd", "dirty",
  "isolated_endpoint", "delete_session_request", "delete_code_context_request", "delete_isolated_session_request",
  "delete_pty_session_request", "identity_endpoint", "pool")
leave_out("client", "takes the time to wait as its argument", "step")
leave_out("client", "waits at most 2 seconds", "close")
leave_out("client", "has limits by other names, see below", "create", "create_sandbox", "connect")
leave_out("client", "timeout is for the process in the sandbox, idle_timeout for the wait", "run_command", "run_in_session",
  "run_code", "run_isolated", "run_isolated_helper", "start_isolated")
leave_out("client", "opens a stream without an end, which has idle_timeout", "watch_metrics")
leave_out("files", "nothing is sent", "as")
leave_out("sandbox", "nothing is sent", "command", "detach", "call_execd", "call_execd_within", "call_egress", "call_server",
  "execd_endpoint", "known_execd", "is_killed", "owned_resource", "delete_in_background", "remember_execd")
leave_out("sandbox", "as keep_alive, which calls it", "start_keep_alive")
leave_out("command", "nothing is sent", "events_for")
leave_out("sandbox", "timeout is for the process in the sandbox, idle_timeout for the wait", "run", "start")
leave_out("sandbox", "follows a command, whose idle_timeout limits each wait", "stream")
leave_out("stream", "follows a command, whose idle_timeout limits each wait", "next")
calls["files:watch"] = function(given) return given.sandbox.files:watch("/d", given.opts):next() end
leave_out("watcher", "has the timeout of the watch", "next")
leave_out("watcher", "nothing is sent", "close")
leave_out("stream", "waits at most 2 seconds", "close")
leave_out("sandbox", "closes what was created: see below", "close", "discard")
leave_out("command", "needs a command that was started with stdin = true: see stdin_stream_spec.lua", "write", "close_stdin")
leave_out("run", "as for commands", "events", "events_for", "logs", "status", "wait")
for _, name in ipairs { "session", "code", "isolated" } do
  leave_out(name, "nothing is sent", "detach", "call_execd", "call_execd_within", "execd_endpoint")
  leave_out(name, "closes what was created: see below", "close")
  leave_out(name, "timeout is for the process in the sandbox, idle_timeout for the wait", "run", "start")
end
leave_out("terminal", "waits for what its connection takes, and takes timeout: see terminal_spec.lua", "resize", "signal",
  "interrupt", "write", "wait", "close")
leave_out("terminal", "takes the time to wait as its argument, or waits for output without an end", "read", "output")
leave_out("terminal", "nothing is sent", "detach", "call_execd", "call_execd_within", "execd_endpoint")
leave_out("task", "nothing is sent", "done", "is_current", "cancel", "abandon", "fail", "deliver_cancel", "set_waiter")
leave_out("task", "takes the time to wait as its argument", "join")
leave_out("task", "waits for what the task waits for, which has a limit", "join_own")

-- The public methods of all classes of objects.
local function public_methods()
  local found = {}
  local check_colon, define = class.check_colon, class.define
  class.check_colon = function(Class, name)
    for key, value in pairs(Class) do
      if type(key) == "string" and type(value) == "function" and key:sub(1, 1) ~= "_" then found[name .. ":" .. key] = true end
    end
    return check_colon(Class, name)
  end
  class.define = function(Class, definition)
    for _, methods in pairs(definition.methods or {}) do
      for key, name in pairs(methods) do found[definition.name .. ":" .. (type(key) == "string" and key or name)] = true end
    end
    return define(Class, definition)
  end
  for _, name in ipairs { "client", "sandbox", "files", "egress", "vault", "command", "session", "code_context", "isolated_session",
    "terminal", "command_stream", "file_watcher",
    "loop.task" } do
    local module = "opensandbox." .. name
    local before = package.loaded[module]
    package.loaded[module] = nil
    require(module)
    package.loaded[module] = before
  end
  class.check_colon, class.define = check_colon, define
  return found
end

describe("a public method that waits", function()
  local server, client

  setup(function()
    server = fault_server.start(SILENT)
    client = opensandbox.new(server.url, "a-key", { retry = false, timeout = 60, idle_timeout = 60, transfer_idle_timeout = 60 })
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  -- Returns what is wrong with the outcome of a call, or nil.
  local function problem_of(name, result)
    local value, err = result[1], result[2]
    if value ~= nil or type(err) ~= "table" then return "it returned " .. tostring(value) .. ", " .. tostring(err) end
    if result.seconds > AT_MOST then return ("it took %.2f s"):format(result.seconds) end
    if err.kind ~= "timeout" or err.timeout_option ~= "timeout" then return "it is no timeout" end
    if err.op ~= name:gsub(" .*", ""):gsub("^client:", "") then return "it names " .. err.op end
    if not err.message:find("timeout of 0.4 s ran out", 1, true) then return "it does not say how long it waited" end
  end

  local answered = { ["sandbox:endpoint"] = true, ["sandbox:handle"] = true } -- for the sandbox "known"

  -- Makes all calls at the same time.
  local function try_all(id)
    local names = {}
    for name in pairs(calls) do names[#names + 1] = name end
    table.sort(names)
    local execd = { url = server.url .. "/sandbox", headers = {}, sandbox_id = id }
    local results = opensandbox.map(names, function(name)
      local sandbox = client:connect(id, { wait = false })
      local began = core.now()
      local ok, value, err = opensandbox.pcall(calls[name],
        { client = client, sandbox = sandbox, execd = execd, opts = { timeout = TIMEOUT } })
      if not ok then value, err = nil, value end
      return { value, err, seconds = core.now() - began }
    end, { concurrency = #names })
    local problems = {}
    for i, name in ipairs(names) do
      local problem = not (id == "known" and answered[name]) and problem_of(name, results[i])
      if problem then problems[#problems + 1] = ("%s: %s: %s"):format(name, problem, tostring(results[i][2])) end
    end
    assert.equal("", table.concat(problems, "\n"))
  end

  it("ends with its timeout when the server does not answer", function() try_all("unknown") end)
  it("ends with its timeout when the sandbox does not answer", function() try_all("known") end)

  it("is in this file", function()
    local missing = {}
    for name in pairs(public_methods()) do
      if not calls[name] and not exempt[name] then missing[#missing + 1] = name end
    end
    table.sort(missing)
    assert.equal("", table.concat(missing, ", "), "give it `timeout`, and name it in one of the two lists of this file")
  end)

  it("has a limit by another name where timeout is that of the sandbox", function()
    local _, err = client:connect("unknown", { ready_timeout = TIMEOUT })
    assert.same({ "timeout", "ready_timeout", "connect" }, { err.kind, err.timeout_option, err.op })
    local impatient = opensandbox.new(server.url, "a-key", { retry = false, create_timeout = TIMEOUT })
    local began = core.now()
    _, err = impatient:create { image = "any" }
    assert.same({ "timeout", "create_timeout", "create" }, { err.kind, err.timeout_option, err.op })
    assert.is_true(core.now() - began < AT_MOST)
    impatient:close()
  end)
end)

describe("closing what was created", function()
  it("ends with its timeout", function()
    local server = fault_server.start [[
      return function(request, connection)
        if request.method == "DELETE" then return connection:silence() end
        local JSON = { ["Content-Type"] = "application/json" }
        if request.path:find("/endpoints/", 1, true) then
          return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/sandbox" })
        elseif request.path:find("/session$") then
          return connection:respond(201, JSON, '{"session_id":"s"}')
        elseif request.path:find("/code/context$") then
          return connection:respond(200, JSON, '{"id":"k","language":"python"}')
        end
        connection:respond(202, JSON, '{"id":"s","status":{"state":"Running"}}')
      end
    ]]
    local client = opensandbox.new(server.url, "a-key", { retry = false })
    local sandbox = assert(client:create { image = "any", wait = false })
    for name, object in pairs {
      session = assert(sandbox:session()), code = assert(sandbox:code "python"), sandbox = sandbox,
    } do
      local began = core.now()
      local ok, err = object:close { timeout = "400ms" }
      assert.is_nil(ok)
      assert.same({ "timeout", "timeout" }, { err.kind, err.timeout_option }, tostring(err))
      assert.is_true(core.now() - began < AT_MOST, name)
      object:detach()
    end
    client:close()
    server:stop()
  end)
end)

describe("an option that takes seconds", function()
  -- The names of options whose values are times, and the names that only resemble them.
  local endings = {
    "timeout", "delay", "lifetime", "interval", "max_idle", "keep_alive", "retry_after", "duration", "grace", "period", "lease",
  }

  local function is_time(name)
    for _, ending in ipairs(endings) do
      if name:sub(-#ending) == ending then return true end
    end
    return false
  end

  it("takes a duration like \"90s\" everywhere: the type of each is one of seconds", function()
    local kinds = {}
    for _, kind in ipairs { "any", "string", "nonempty string", "natural", "function", "table", "boolean", "string list",
      "string map", "environment", "seconds", "seconds or 0", "seconds or false" } do kinds[kind] = true end
    local count = 0
    for path, text in pairs(sources.read "lua/opensandbox") do
      if not path:find("/devserver/", 1, true) then
        for name, kind in sources.code(text, true):gmatch("([%a_][%w_]*) = \"([%a ]+)\"") do
          if kinds[kind] and is_time(name) then
            count = count + 1
            assert.truthy(kind:find("^seconds"), ("%s: option %s has the type %q"):format(path, name, kind))
          end
        end
      end
    end
    assert.is_true(count > 40, tostring(count))
  end)

  it("is documented as such: what the annotations of options call a duration has that type", function()
    local count = 0
    for path, text in pairs(sources.read "lua/opensandbox") do
      for class_name, fields in text:gmatch("%-%-%-@class opensandbox%.([%w]*Opts)[^\n]*\n(.-)\n[^%-]") do
        for name in fields:gmatch("%-%-%-@field ([%w_]+)%?? opensandbox%.Duration") do
          if not path:find("/devserver/", 1, true) then
            count = count + 1
            assert.truthy(is_time(name), ("%s: %s.%s is not checked here"):format(path, class_name, name))
          end
        end
      end
    end
    assert.is_true(count > 25, tostring(count))
  end)

  it("takes a duration as an argument, too", function()
    local server = fault_server.start [[
      return function(_, connection)
        connection:respond(200, { ["Content-Type"] = "application/json" }, json.encode {
          id = "s", status = { state = "Running" }, expiresAt = "2099-01-01T00:00:00Z", items = json.array {} })
      end
    ]]
    local client = opensandbox.new(server.url, nil, { timeout = "20s", retry = { base_delay = "10ms", max_retry_after = "1m" } })
    local sandbox = client:connect("s", { wait = false, keep_alive = "10m", ready_timeout = "1m" })
    assert(sandbox:renew("10m", { timeout = "10s" }))
    assert(sandbox:keep_alive("1h"))
    assert(client:renew_sandbox("s", "10m"))
    assert(client:kill_all { timeout = "10s" })
    opensandbox.sleep("10ms")
    assert.equal(5, opensandbox.spawn(function() return 5 end):wait("10s"))
    local ok, message = pcall(sandbox.renew, sandbox, "10 minutes")
    assert.is_false(ok)
    assert.truthy(message:find('a duration like "90s", "10m" or "2h", not "10 minutes"', 1, true), message)
    assert.equal(90, options.timeout("op", { timeout = "90s" }))
    client:close()
    server:stop()
  end)
end)
