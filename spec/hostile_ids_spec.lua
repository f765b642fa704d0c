--- The library names objects by the ids that servers have given them: in the paths of later requests, some of them in the background. An id
--- that cannot be one segment of a path is no id, so the answer that holds it is an error. Nothing raises, then or later.

local errors = require "opensandbox.base.errors"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"

-- The id in every answer is that of the header X-Id.
local SERVER = [==[
  return function(request, connection)
    local id = request.headers["x-id"]
    local function send(value) connection:respond(200, { ["Content-Type"] = "application/json" }, json.encode(value)) end
    if request.path:find("/endpoints/", 1, true) then return send { endpoint = request.headers.host .. "/execd" } end
    if request.path == "/execd/command" then
      return connection:respond(200, { ["Content-Type"] = "text/event-stream" }, ('{"type":"init","text":%s,"timestamp":1}\n\n'
        .. '{"type":"execution_complete","execution_time":1,"timestamp":2}\n\n'):format(json.encode(id)))
    end
    if request.method == "GET" and request.path == "/v1/sandboxes/known" then
      return send { id = "known", status = { state = "Running" } }
    end
    local is_isolated = request.path:find("isolated", 1, true)
    local function object()
      return { id = id, name = id, templateId = id, session_id = id, run_id = id, language = "python", running = true,
        available = true, status = is_isolated and "active" or { state = "Running", phase = "Succeeded" } }
    end
    if request.path:find("/execd/code/contexts", 1, true) then return send { object() } end
    local answer = object()
    answer.items, answer.sessions = { object() }, { object() }
    send(answer)
  end
]==]

local server, client, sandbox, execd

setup(function() server = fault_server.start(SERVER) end)
teardown(function() server:stop() end)

local function connect(id)
  client = opensandbox.new(server.url, "key", { retry = false, timeout = 5, headers = { ["X-Id"] = id } })
  execd = server.url .. "/execd"
  sandbox = assert(client:connect("known", { wait = false }))
end

-- Returns what the method returns that uses an object, or what making the object returned.
local function use(object, err, method, ...)
  if not object then return nil, err end
  return object[method](object, ...)
end

local calls = {
  ["client:create"] = function() return client:create { image = "x", ready_timeout = 1 } end,
  ["client:list_sandboxes"] = function() return client:list_sandboxes() end,
  ["client:create_snapshot"] = function() return client:create_snapshot "known" end,
  ["client:list_snapshots"] = function() return client:list_snapshots() end,
  ["client:list_pools"] = function() return client:list_pools() end,
  ["client:create_template"] = function() return client:create_template { image = "x", publish = "s3://b/p" } end,
  ["client:list_templates"] = function() return client:list_templates() end,
  ["sandbox:snapshot"] = function() return sandbox:snapshot("name", { timeout = 1 }) end,
  ["sandbox:session"] = function()
    local session, err = sandbox:session()
    return use(session, err, "run", "true")
  end,
  ["sandbox:code"] = function()
    local code, err = sandbox:code "python"
    return use(code, err, "run", "1")
  end,
  ["client:list_code_contexts"] = function() return client:list_code_contexts(execd) end,
  ["sandbox:isolated"] = function()
    local session, err = sandbox:isolated { workspace = "/w" }
    return use(session, err, "run", "true")
  end,
  ["client:list_isolated_sessions"] = function() return client:list_isolated_sessions(execd) end,
  ["sandbox:terminal"] = function()
    local terminal, err = sandbox:terminal { timeout = 1 }
    return use(terminal, err, "wait", { timeout = 1 })
  end,
  ["sandbox:start"] = function()
    local command, err = sandbox:start "true"
    return use(command, err, "status")
  end,
}

describe("an answer whose id is", function()
  for _, id in ipairs { "", ".", ".." } do
    for name, call in pairs(calls) do
      it(("%q is an error of %s, which raises nothing"):format(id, name), function()
        connect(id)
        local ok, value, err = pcall(call)
        assert.is_true(ok, tostring(value))
        assert.is_nil(value)
        assert.is_true(errors.is(err), tostring(err))
        assert.equal("protocol", err.kind, tostring(err))
        assert.has_no.errors(function() client:close() end)
      end)
    end
  end
end)
