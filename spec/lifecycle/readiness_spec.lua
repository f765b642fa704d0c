--- Waiting for a sandbox leaves time for another request when one hangs, and says what helps.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

describe("waiting until a sandbox is ready", function()
  local server, client

  setup(function()
    -- The id says which requests are never answered: the first lookup of the endpoint, the first GET of the sandbox, all pings.
    server = fault_server.start [[
      local JSON = { ["Content-Type"] = "application/json" }
      local seen = {}
      return function(request, connection)
        local id, rest = request.path:match("^/v1/sandboxes/([^/?]+)([^?]*)")
        local key = tostring(id) .. tostring(rest)
        seen[key] = (seen[key] or 0) + 1
        if not id then
          if request.path:find("pings", 1, true) then return connection:silence() end
          return connection:respond(200, {}, "")
        elseif rest == "/endpoints/44772" then
          if id == "endpoint" and seen[key] == 1 then return connection:silence() end
          return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/" .. id })
        elseif rest == "/pause" then
          return connection:silence()
        end
        if id == "state" and seen[key] == 1 then return connection:silence() end
        connection:respond(200, JSON, json.encode { id = id, status = { state = "Running" } })
      end
    ]]
  end)
  teardown(function() server:stop() end)
  after_each(function() client:close() end)

  local function new(opts)
    client = opensandbox.new(server.url, "", opts)
    return client
  end

  for id, what in pairs { endpoint = "the lookup of its endpoint", state = "the request for its state" } do
    it("goes on when " .. what .. " hangs", function()
      local began = core.now()
      assert(new():connect(id, { ready_timeout = 6 }))
      local taken = core.now() - began
      assert.is_true(taken > 1 and taken < 5, ("it took %.2f s"):format(taken))
    end)
  end

  it("advises the server's proxy only where it is not used", function()
    local _, err = new():connect("pings", { ready_timeout = 0.3 })
    assert.same({ "timeout", "ready_timeout" }, { err.kind, err.timeout_option })
    assert.truthy(err.hint:find("use_server_proxy", 1, true), err.hint)
    client:close()
    _, err = new({ use_server_proxy = true }):connect("pings", { ready_timeout = 0.3 })
    assert.same({ "timeout", "ready_timeout" }, { err.kind, err.timeout_option })
    assert.is_nil(err.hint:find("use_server_proxy", 1, true), err.hint)
    assert.truthy(err.hint:find("raise ready_timeout", 1, true), err.hint)
  end)

  it("has one time limit for the request that pauses and the wait after it", function()
    local sandbox = assert(new():connect("pauses", { wait = false }))
    local began = core.now()
    local _, err = sandbox:pause { timeout = 0.4 }
    assert.is_true(core.now() - began < 2)
    assert.same({ "timeout", "timeout", "sandbox:pause" }, { err.kind, err.timeout_option, err.op })
    assert.truthy(err.message:find("timeout of 0.4 s", 1, true), err.message)
  end)
end)
