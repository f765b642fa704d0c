--- A field of an answer has its documented type or is absent, whatever a server sends: callers join texts and index tables unchecked.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"

-- Every field that is not needed to know an object has the value of the chunk's first line.
local SERVER = [==[
  local odd = json.decode('{"value":%s}').value
  return function(request, connection)
    local function send(value)
      connection:respond(200, { ["Content-Type"] = "application/json" }, json.encode(value))
    end
    local isolated = {
      session_id = "s", available = true, status = "active", created_at = odd, last_run_at = odd,
      idle_remaining_seconds = odd, idle_timeout_seconds = odd, workspace = odd, overlays = odd, profile = odd,
      extra_writable = odd, binds = odd, share_net = odd, env_passthrough = odd, uid = odd, gid = odd, uid_mode = odd,
      isolator = odd, version = odd, message = odd, setpriv_available = odd, userns_available = odd,
    }
    local pool = { name = "p", createdAt = odd,
      capacitySpec = { bufferMin = odd, bufferMax = odd, poolMin = odd, poolMax = odd },
      status = { total = odd, allocated = odd, available = odd, revision = odd } }
    local credential = { name = "c", sourceType = odd, revision = odd }
    local binding = { name = "b", revision = odd, match = { hosts = odd, schemes = odd, methods = odd, paths = odd },
      auth = { type = odd, name = odd } }
    if request.path:find("/isolated/", 1, true) then return send(isolated) end
    if request.path:find("/code/contexts", 1, true) then return send { { id = "k", language = "python", cwd = odd } } end
    if request.path:find("/pools/", 1, true) then return send(pool) end
    send { revision = 1, credentials = { credential }, bindings = { binding } }
  end
]==]

-- The types of the fields, by their names in the library.
local types = {
  created_at = "number", last_run_at = "number", idle_remaining = "number", max_idle = "number", workspace = "table",
  overlays = "table", profile = "string", extra_writable = "table", binds = "table", share_net = "boolean",
  env_passthrough = "table", uid = "number", gid = "number", uid_mode = "string", isolator = "string", version = "string",
  message = "string", setpriv_available = "boolean", userns_available = "boolean", cwd = "string", buffer_min = "number",
  buffer_max = "number", pool_min = "number", pool_max = "number", total = "number", allocated = "number",
  source_type = "string", hosts = "table", schemes = "table", methods = "table", paths = "table", type = "string",
  id = "string", name = "string", language = "string", capacity = "table", match = "table", auth = "table",
  status = "string", raw = "table",
}
-- Two objects use one name.
local available = { capabilities = "boolean", pool = "number" }
local revision = { pool = "string", credential = "number", binding = "number" }

local function check(kind, object, parent)
  for name, value in pairs(object) do
    local wanted = types[name] or (name == "available" and available[kind]) or (name == "revision" and revision[kind])
    assert.equal(wanted, type(value), ("%s.%s"):format(parent or kind, name))
    if name == "capacity" or name == "match" or name == "auth" then check(kind, value, name) end
  end
end

describe("a field of an answer has its type or is absent, where the server sends", function()
  for _, odd in ipairs { "{}", '{"a":1}', '[{"a":1}]', "[[]]", "5", "-1.5", "1e300", "true", '"text"' } do
    it(odd, function()
      local server = fault_server.start(SERVER:format(odd))
      local client = opensandbox.new(server.url, "key", { retry = false, timeout = 5 })
      finally(function()
        client:close()
        server:stop()
      end)
      local execd = server.url .. "/execd"
      check("isolated session", assert(client:get_isolated_session(execd, "s")))
      check("capabilities", assert(client:get_isolation_capabilities(execd)))
      check("context", assert(client:list_code_contexts(execd))[1])
      check("pool", assert(client:get_pool "p"))
      local vault = assert(client:get_credential_vault(server.url))
      check("credential", vault.credentials[1])
      check("binding", vault.bindings[1])
    end)
  end
end)
