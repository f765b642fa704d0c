--- The network policy through the lifecycle server, and when `sandbox.egress` uses it.

local fault_server = require "spec.support.fault_server"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

local RULES = { { action = "allow", target = "a.example" } }

local function targets(policy)
  local list = {}
  for i, rule in ipairs(policy.egress) do list[i] = rule.action .. " " .. rule.target end
  return list
end

describe("the network policy through the server", function()
  local server, client

  setup(function()
    server = process.devserver { grace = 0.1, args = { "--templates" } }
    client = opensandbox.new(server.url, server.key)
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  it("is that of the sidecar", function()
    local sandbox = assert(client:create { image = "any", network_policy = { default_action = "deny", egress = RULES } })
    local status = assert(client:get_network_policy(sandbox.id))
    assert.same({ "ok", "enforcing", "dns+nft" }, { status.status, status.mode, status.enforcement_mode })
    assert.same({ default_action = "deny", egress = RULES }, status.policy)

    assert(client:patch_network_policy(sandbox.id, { { action = "deny", target = "b.example" } }))
    assert.same({ "deny b.example", "allow a.example" }, targets(assert(sandbox.egress:policy())))
    assert(client:delete_network_rules(sandbox.id, "a.example"))
    assert.equal("no matching targets found", assert(client:delete_network_rules(sandbox.id, { "a.example" })).reason)
    assert.same({ "deny b.example" }, targets(assert(sandbox.egress:policy())))
    assert(client:replace_network_policy(sandbox.id, opensandbox.egress.none()))
    status = assert(client:get_network_policy(sandbox.id, { timeout = 20 }))
    assert.same({ "deny_all", { default_action = "deny", egress = {} } }, { status.mode, status.policy })
    assert(sandbox:kill())
  end)

  it("is that of the server for a sandbox from a template, and sandbox.egress uses it", function()
    local template = assert(client:create_template { image = "any", publish = "s3://b/p" })
    assert(client:wait_template(template.id, { timeout = 20 }))
    local policy = { default_action = "deny", egress = RULES }
    local sandbox = assert(client:create { template_id = template.id, network_policy = policy })
    assert.same(policy, assert(sandbox.egress:policy()))
    assert.equal("enforcing", assert(sandbox.egress:allow("c.example", "b.example")).mode)
    assert(sandbox.egress:deny("a.example"))
    -- Rules for new targets come last here.
    assert.same({ "deny a.example", "allow c.example", "allow b.example" }, targets(assert(sandbox.egress:policy())))
    assert(sandbox.egress:remove("c.example"))
    assert.same({ "deny a.example", "allow b.example" }, targets(assert(sandbox.egress:policy())))
    assert.equal("allow_all", assert(sandbox.egress:replace { default_action = "allow" }).mode)
    assert.same({ default_action = "allow", egress = {} }, assert(sandbox.egress:policy()))

    -- One that is connected to without a request learns it from the endpoint.
    local connected = assert(client:connect(sandbox.id, { wait = false }))
    assert.equal("allow", assert(connected.egress:policy()).default_action)
    for _, object in ipairs { sandbox, connected, assert(client:connect(sandbox.id, { wait = false })) } do
      local _, err = object.vault:get()
      assert.same({ "state", "no_sidecar", "vault:get", sandbox.id }, { err.kind, err.code, err.op, err.sandbox_id })
    end
    local bare = assert(client:create { template_id = template.id })
    assert.same({ default_action = "deny", egress = {} }, assert(bare.egress:policy()))
    assert(bare:kill())
    assert(sandbox:kill())
    local _, err = sandbox.egress:policy()
    assert.same({ "closed", "egress:policy" }, { err.kind, err.op })
  end)

  it("is not there for a sandbox that was created without one, and the error is the sidecar's", function()
    local sandbox = assert(client:create { image = "any" })
    local _, err = client:get_network_policy(sandbox.id)
    assert.same({ 502, "BACKEND_CONNECTION_FAILED", "get_network_policy" }, { err.status, err.code, err.op })
    _, err = sandbox.egress:policy()
    assert.equal("egress:policy", err.op)
    assert.equal("A sandbox has an egress API only when it was created with a network_policy", err.hint)
    assert.matches("/proxy/18080/policy", err.url, 1, true)
    assert(sandbox:kill())
  end)

  it("is not there for a sandbox that does not exist", function()
    local _, err = client:get_network_policy("none")
    assert.same({ 404, "DOCKER::SANDBOX_NOT_FOUND" }, { err.status, err.code })
    _, err = client:get_network_policy("fsb-none")
    assert.same({ 404, "Fsb sandbox not found." }, { err.status, err.message })
  end)

  it("raises for what no server accepts", function()
    for call, message in pairs {
      [function() client:patch_network_policy("a", {}) end] = "patch_network_policy: the list of rules must not be empty",
      [function() client:delete_network_rules("a", {}) end] = "delete_network_rules: the list of targets must not be empty",
      [function() client:delete_network_rules("a", "https://x") end] =
        "delete_network_rules: target 1 must be a host name, not a URL",
      [function() client:replace_network_policy("a") end] = "replace_network_policy: the network policy must be a table, not nil",
      [function() client:get_network_policy("a", { seconds = 1 }) end] = "get_network_policy: unknown option 'seconds'",
      [function() client:get_network_policy("..") end] = "get_network_policy: the sandbox id must not be \"..\"",
    } do
      assert.error_matches(call, message, 1, true)
    end
  end)
end)

-- A server that gives endpoints at "/sidecar", where nobody answers as a sidecar does. The id of the sandbox names what happens.
local SERVER = [[
  local JSON = { ["Content-Type"] = "application/json" }
  local routes = {
    old = { 404, '{"detail":"Not Found"}' }, down = { 502, '{"code":"BACKEND_CONNECTION_FAILED","message":"no"}' },
    refused = { 400, '{"code":"SANDBOX::INVALID_PARAMETER","message":"not with an upstream proxy"}' },
  }
  return function(request, connection)
    local id, port = request.path:match("^/v1/sandboxes/([%w_]+)/endpoints/(%d+)$")
    if id then
      local endpoint = id == "closed" and "127.0.0.1:1" or request.headers.host .. "/sidecar"
      return connection:respond(200, JSON, json.encode { endpoint = endpoint })
    elseif request.path:find("^/sidecar") then
      return connection:respond(502, { ["Content-Type"] = "text/plain" }, "Bad Gateway")
    end
    id = request.path:match("^/v1/sandboxes/([%w_]+)/networkpolicy$")
    if id then
      local refusal = routes[id]
      if refusal then return connection:respond(refusal[1], JSON, refusal[2]) end
      return connection:respond(200, JSON, '{"status":"ok","mode":"deny_all","policy":{"defaultAction":"deny","egress":null}}')
    end
    connection:respond(200, JSON, '{"id":"x","status":{"state":"Running"}}')
  end
]]

describe("sandbox.egress, where the sidecar cannot be reached,", function()
  local server, client

  setup(function()
    server = fault_server.start(SERVER)
    client = opensandbox.new(server.url, "k", { retry = false })
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  local function connect(id) return assert(client:connect(id, { wait = false })) end

  -- The requests to "/sidecar" and to the route of the server, after a call.
  local function sent_by(call)
    local before, list = #server:requests(), {}
    call()
    for i, request in ipairs(server:requests()) do
      local place = request.path:match("^/(sidecar)") or request.path:match("/(networkpolicy)$")
      if i > before and place then list[#list + 1] = request.method .. " " .. place end
    end
    return list
  end

  it("uses the server, at once from the second time on", function()
    local sandbox = connect("fine")
    assert.same({ "GET sidecar", "GET networkpolicy" }, sent_by(function()
      assert.same({ default_action = "deny", egress = {} }, assert(sandbox.egress:policy()))
    end))
    assert.same({ "PATCH networkpolicy", "DELETE networkpolicy", "PUT networkpolicy" }, sent_by(function()
      assert(sandbox.egress:allow("pypi.org"))
      assert(sandbox.egress:remove("pypi.org"))
      assert(sandbox.egress:replace { egress = {} })
    end))
    local requests = server:requests()
    assert.equal("k", requests[#requests].headers["open-sandbox-api-key"])
    assert.same({ egress = {} }, json.decode(requests[#requests].body))
  end)

  it("does so too when nobody listens at its address", function()
    assert.same({ "GET networkpolicy" }, sent_by(function() assert(connect("closed").egress:policy()) end))
  end)

  it("returns the sidecar's error where the server does not have the route, or cannot reach it either", function()
    for _, id in ipairs { "old", "down" } do
      local sandbox = connect(id)
      for _ = 1, 2 do -- and goes on to try the sidecar
        assert.same({ "GET sidecar", "GET networkpolicy" }, sent_by(function()
          local _, err = sandbox.egress:policy()
          assert.same({ 502, "egress:policy" }, { err.status, err.op })
          assert.matches("/sidecar/policy", err.url, 1, true)
          assert.matches("only when it was created with a network_policy", err.hint, 1, true)
        end))
      end
    end
  end)

  it("returns the server's error about the request", function()
    local _, err = connect("refused").egress:allow("pypi.org")
    assert.same({ 400, "not with an upstream proxy", "egress:allow" }, { err.status, err.message, err.op })
  end)
end)
