--- An exit code of a hostile execd is an integer that os.exit and "%d" accept, or none.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"

describe("the exit code in the status of", function()
  local server, client

  setup(function()
    server = fault_server.start [==[
      return function(request, connection)
        connection:respond(200, { ["Content-Type"] = "application/json" },
          ('{"running":false,"exit_code":%s,"error":%s}'):format(request.headers["x-code"], request.headers["x-error"]))
      end
    ]==]
  end)
  teardown(function() server:stop() end)
  after_each(function() client:close() end)

  local calls = {
    ["a command"] = function() return client:get_command_status(server.url, "id") end,
    ["an isolated run"] = function() return client:get_isolated_run(server.url, "session", "id") end,
  }
  local cases = {
    { "0", '"text"', 0, "text" }, { "-1", "null", -1 }, { "4294967295", "[]", 4294967295 }, { "4294967296", "{}" },
    { "1e300", "5" }, { "-1e300", "true" }, { "1.5", "null" }, { '"7"', "null" }, { "[7]", "null" },
  }
  for name, call in pairs(calls) do
    for _, case in ipairs(cases) do
      it(("%s, sent as %s beside an error of %s"):format(name, case[1], case[2]), function()
        client = opensandbox.new(server.url, "key", { retry = false, headers = { ["X-Code"] = case[1], ["X-Error"] = case[2] } })
        local status = assert(call())
        assert.is_false(status.running)
        assert.equal(case[3], status.exit_code)
        assert.equal(case[4], status.error)
      end)
    end
  end
end)
