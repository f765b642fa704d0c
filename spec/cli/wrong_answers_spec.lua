--- A server may send values of any type in any field. The program reports or ignores what is wrong, and has no internal error.

local fault_server = require "spec.support.fault_server"
local program = require "spec.support.program"

-- Every field that is not needed to know an object has the value of the chunk's first line.
local SERVER = [==[
  local odd = json.decode('{"value":%s}').value
  return function(request, connection)
    local function send(value) connection:respond(200, { ["Content-Type"] = "application/json" }, json.encode(value)) end
    local function object()
      return { id = "known", kind = "logs", status = { state = "Running", reason = odd, message = odd, lastTransitionAt = odd },
        createdAt = odd, expiresAt = odd, metadata = odd, image = { uri = odd }, snapshotId = odd, sandboxId = odd, name = odd,
        entrypoint = { odd }, platform = odd, extensions = odd, scope = odd, content = odd, contentUrl = odd, contentType = odd,
        contentLength = odd, truncated = odd, warnings = { odd }, running = false, exit_code = odd, error = odd, started_at = odd,
        finished_at = odd }
    end
    if request.path:find("/endpoints/", 1, true) then return send { endpoint = request.headers.host .. "/execd" } end
    if request.path:find("[?]") or request.path:find("s$") then
      local answer = object()
      answer.items = { object() }
      return send(answer)
    end
    send(object())
  end
]==]

local COMMANDS = {
  { "ls" }, { "ls", "-o", "json" }, { "info", "known" }, { "info", "known", "-o", "json" }, { "diagnose", "known" },
  { "diagnose", "known", "-o", "json" }, { "snapshot", "ls" }, { "snapshot", "info", "known" }, { "port", "known", "80" },
  { "status", "known", "id" }, { "status", "known", "id", "-o", "json" },
}

describe("opensandbox, where fields of answers are", function()
  for _, odd in ipairs { "{}", '[{"a":1}]', "1e300", "true" } do
    it(odd .. ", has no internal error", function()
      local server = fault_server.start(SERVER:format(odd))
      finally(function() server:stop() end)
      for _, arguments in ipairs(COMMANDS) do
        local argv = { "--url", server.url, "--key", "key" }
        for index = #arguments, 1, -1 do table.insert(argv, 1, arguments[index]) end
        local result = program.run(nil, argv)
        local where = ("%s: %s"):format(table.concat(arguments, " "), result.err)
        assert.is_nil(result.err:find("internal error", 1, true), where)
        assert.equal(0, result.code, where)
      end
    end)
  end
end)
