--- What may leave a sandbox: the rules, what travels, and what the sidecar's refusals say.

local fault_server = require "spec.support.fault_server"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"

-- A server whose sandboxes have a sidecar at /sidecar. What it answers is told by the id of the sandbox: "ID" is well, others are
-- the name of a refusal. The policy answer has null for no rules, as the real one.
local SERVER = [[
  local JSON = { ["Content-Type"] = "application/json" }
  local TEXT = { ["Content-Type"] = "text/plain; charset=utf-8" }
  local refusals = {
    unauthorized = { 401, "unauthorized\n" }, no_sidecar = { 502, "Bad Gateway" }, old = { 405, "method not allowed\n" },
    execd = { 404, "404 page not found" }, bound = { 400, "credential vault policy validation: binding \"b\" host \"h.org\" is not "
      .. "allowed by egress policy\n" }, many = { 413, "policy has 5000 egress rules, max 4096\n" },
  }
  local policies = {
    ID = '{"status":"ok","mode":"enforcing","enforcementMode":"dns","policy":{"egress":['
      .. '{"action":"allow","target":"index.example"},{"action":"deny","target":"10.0.0.0/8","ports":[22,80]}],'
      .. '"defaultAction":"deny"}}',
    none = '{"status":"ok","mode":"deny_all","enforcementMode":"dns+nft","policy":{"egress":null,"defaultAction":"deny"}}',
    page = '[]', no_policy = '{"status":"ok"}', no_rules = '{"status":"ok","policy":{"egress":[1]}}', no_status = '{"policy":{}}',
  }
  return function(request, connection)
    local id = request.path:match("/v1/sandboxes/([%w_]+)/endpoints/18080")
    if id then
      return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/sidecar/" .. id,
        headers = { ["OPENSANDBOX-EGRESS-AUTH"] = "token-of-" .. id } })
    elseif request.path:find("/v1/sandboxes/", 1, true) then
      if request.method == "GET" then -- a pause is over after one look
        local current = state.paused and "Paused" or "Running"
        state.paused = false
        return connection:respond(200, JSON, json.encode { id = "ID", status = { state = current } })
      end
      state.paused = request.path:find("/pause$") ~= nil
      return connection:respond(202, JSON, "")
    elseif request.path == "/v1/sandboxes" then
      return connection:respond(202, JSON, '{"id":"new","status":{"state":"Running"}}')
    end
    local name = request.path:match("^/sidecar/([%w_]+)/policy$")
    local refusal = refusals[name]
    if name == "echo" then refusal = { 400, "what is " .. request.headers["opensandbox-egress-auth"] .. "?\n" } end
    if refusal then return connection:respond(refusal[1], TEXT, refusal[2]) end
    if request.method == "GET" then return connection:respond(200, JSON, policies[name] or "") end
    connection:respond(200, JSON, '{"status":"ok","mode":"enforcing","enforcementMode":"dns","reason":"done"}')
  end
]]

local server, client

setup(function()
  server = fault_server.start(SERVER)
  client = opensandbox.new(server.url, "key-of-the-server", { retry = false })
end)
teardown(function()
  client:close()
  server:stop()
end)

local function egress(id)
  return assert(client:discover_egress(id or "ID"))
end

local function last_request()
  local requests = server:requests()
  return requests[#requests]
end

local function raises(call, ...)
  local ok, message = pcall(call)
  assert.is_false(ok)
  for _, part in ipairs { ... } do assert.truthy(tostring(message):find(part, 1, true), tostring(message)) end
  assert.truthy(tostring(message):find("egress_spec.lua", 1, true), tostring(message))
end

describe("the policy of a sandbox", function()
  it("is read in the form in which it is written, with the endpoint's headers and without the API key", function()
    local status = assert(client:get_egress_policy(egress()))
    assert.same({ "ok", "enforcing", "dns" }, { status.status, status.mode, status.enforcement_mode })
    assert.same({ default_action = "deny", egress = { { action = "allow", target = "index.example" },
      { action = "deny", target = "10.0.0.0/8", ports = { 22, 80 } } } }, status.policy)
    local request = last_request()
    assert.same({ "GET", "/sidecar/ID/policy", "token-of-ID" },
      { request.method, request.path, request.headers["opensandbox-egress-auth"] })
    assert.is_nil(request.headers["open-sandbox-api-key"])

    assert(client:replace_egress_policy(egress(), status.policy))
    assert.same({ defaultAction = "deny", egress = { { action = "allow", target = "index.example" },
      { action = "deny", target = "10.0.0.0/8", ports = { 22, 80 } } } }, json.decode(last_request().body))
  end)

  it("without rules has an empty list", function()
    local status = assert(client:get_egress_policy(egress "none"))
    assert.same({ default_action = "deny", egress = {} }, status.policy)
    assert.equal("dns+nft", status.enforcement_mode)
  end)

  it("is changed by rules, in their order", function()
    local rules = { { action = "allow", target = "a.org" }, { action = "deny", target = "*.b.org" } }
    local status = assert(client:patch_egress_policy(egress(), rules))
    assert.same({ status = "ok", mode = "enforcing", enforcement_mode = "dns", reason = "done" }, status)
    local request = last_request()
    assert.same({ "PATCH", "application/json" }, { request.method, request.headers["content-type"] })
    assert.same(rules, json.decode(request.body))
  end)

  it("loses rules by a DELETE that has a body", function()
    assert(client:delete_egress_rules(egress(), { "a.org", "*.b.org" }))
    local request = last_request()
    assert.same({ "DELETE", '["a.org","*.b.org"]', tostring(#request.body), "application/json" },
      { request.method, request.body, request.headers["content-length"], request.headers["content-type"] })
    assert(client:delete_egress_rules(egress(), "c.org"))
    assert.equal('["c.org"]', last_request().body)
  end)

  it("is replaced as a whole, also by one without rules", function()
    assert(client:replace_egress_policy(egress(), { default_action = "allow", egress = {} }))
    local request = last_request()
    assert.equal("PUT", request.method)
    assert.truthy(request.body:find('"egress":[]', 1, true))
    assert.same({ defaultAction = "allow", egress = {} }, json.decode(request.body))
  end)
end)

describe("a refusal of the sidecar", function()
  local function refused(id, call)
    local _, err = call(egress(id))
    assert.truthy(err)
    return err
  end
  local function read(endpoint) return client:get_egress_policy(endpoint) end
  local function remove(endpoint) return client:delete_egress_rules(endpoint, "a.org") end

  it("says what to do", function()
    local err = refused("unauthorized", read)
    assert.same({ "http", 401, "unauthorized" }, { err.kind, err.status, (err.message:gsub("%s+$", "")) })
    assert.matches("discover_egress", err.hint)
    err = refused("no_sidecar", read)
    assert.matches("created with a network_policy", err.hint)
    err = refused("old", remove)
    assert.matches("egress 1%.0%.13", err.hint)
    err = refused("execd", read)
    assert.matches("discover_egress", err.hint)
    err = refused("bound", remove)
    assert.matches("binding", err.hint)
    err = refused("many", read)
    assert.same({ 413, nil }, { err.status, err.hint })
    assert.matches("max 4096", tostring(err))
  end)

  it("is told apart from no sidecar at all", function()
    local _, err = client:get_egress_policy "http://127.0.0.1:1"
    assert.same({ "transport", "connect_failed" }, { err.kind, err.code })
    assert.matches("created with a network_policy", err.hint)
  end)

  it("does not repeat the sidecar's token", function()
    assert.equal("what is ***?", (refused("echo", read).message:gsub("%s+$", "")))
  end)

  it("that is no JSON, or other JSON, is an unexpected answer", function()
    for _, name in ipairs { "page", "nothing", "no_policy", "no_rules", "no_status" } do
      local err = refused(name, read)
      assert.same({ "protocol", "unexpected_response" }, { err.kind, err.code })
    end
  end)
end)

describe("a mistake in a policy", function()
  it("raises before anything is sent", function()
    local before = #server:requests()
    local URL = "http://127.0.0.1:1"
    local function patch(rules) return function() client:patch_egress_policy(URL, rules) end end
    raises(patch {}, "must not be empty")
    raises(patch { { action = "permit", target = "a.org" } }, 'must be "allow" or "deny", not "permit"')
    raises(patch { { action = "Allow", target = "a.org" } }, '"Allow"')
    raises(patch { { target = "a.org" } }, "rule 1: action")
    raises(patch { { action = "allow" } }, "rule 1: target")
    raises(patch { { action = "allow", target = "" } }, "not empty")
    raises(patch { { action = "allow", target = "a.org b.org" } }, "white space")
    raises(patch { { action = "allow", target = "a.org\n" } }, "white space")
    raises(patch { { action = "allow", target = "https://a.org" } }, "not a URL")
    raises(patch { { action = "allow", targt = "a.org" } }, "did you mean 'target'")
    raises(patch { { action = "allow", target = "10.0.0.1", ports = {} } }, "ports must not be empty")
    raises(patch { { action = "allow", ports = { 0 } } }, "between 1 and 65535")
    raises(patch { action = "allow", target = "a.org" }, "must be a list")
    raises(patch { "a.org" }, "rule 1 must be a table")
    raises(function() client:delete_egress_rules(URL, {}) end, "must not be empty")
    raises(function() client:delete_egress_rules(URL, { "a b" }) end, "white space")
    raises(function() client:replace_egress_policy(URL, { default_action = "Deny" }) end, "default_action")
    raises(function() client:replace_egress_policy(URL, { egres = {} }) end, "did you mean 'egress'")
    raises(function() client:replace_egress_policy(URL) end, "the network policy must be a table")
    local wrong = { egress = { { action = "no", target = "a.org" } } }
    raises(function() client:create_sandbox { image = "x", network_policy = wrong } end, "create_sandbox", "rule 1: action")
    raises(function() client:create { image = "x", credential_proxy = true } end, "needs option 'network_policy'")
    raises(function() client:create { image = "x", credential_proxy = { enabled = true } } end, "needs option 'network_policy'")
    raises(function() client:create { image = "x", credential_proxy = "yes" } end, "true or false")
    assert.equal(before, #server:requests())
  end)
end)

-- The rules for presets and hosts, one for each host.
local function allowed(...)
  local rules = {}
  for _, name in ipairs { ... } do
    for _, host in ipairs(opensandbox.egress.presets[name] or { name }) do
      rules[#rules + 1] = { action = "allow", target = host }
    end
  end
  return rules
end

describe("opensandbox.egress.egress_routes", function()
  local presets = opensandbox.egress

  it("makes policies of presets and hosts", function()
    assert.same({ default_action = "deny", egress = {} }, presets.none())
    assert.is_true(#presets.presets.pypi >= 2)
    local rules = allowed("pypi", "my.host.example", "*.host.example", "10.0.0.0/8")
    assert.same({ default_action = "deny", egress = rules },
      presets.only("pypi", "my.host.example", { "*.host.example", "10.0.0.0/8" }))
  end)

  it("has presets that are all good rules", function()
    local count = 0
    for name in pairs(presets.presets) do
      count = count + 1
      assert(client:replace_egress_policy(egress(), presets.only(name)))
    end
    assert.is_true(count >= 10)
  end)

  it("knows a misspelt preset from a host", function()
    raises(function() presets.only("pipy") end, '"pipy" is neither a host with a dot nor a preset', "pypi")
    raises(function() presets.only() end, "a host or a preset is needed")
    raises(function() presets.only("pypi", nil) end, "each host or preset")
    raises(function() presets.only(7) end, "each host or preset")
    raises(function() presets.only("https://my.host.example") end, "not a URL")
  end)

  it("takes presets of one's own", function()
    presets.presets.ours = { "db", "cache.example.com" }
    assert.same({ "db", "cache.example.com" }, { presets.only("ours").egress[1].target, presets.only("ours").egress[2].target })
    presets.presets.ours = nil
  end)

  it("goes into a create", function()
    assert(client:create_sandbox { image = "x", network_policy = presets.only("npm"), credential_proxy = true })
    local sent
    for _, request in ipairs(server:requests()) do
      if request.method == "POST" and request.path == "/v1/sandboxes" then sent = json.decode(request.body) end
    end
    assert.same({ defaultAction = "deny", egress = allowed "npm" }, sent.networkPolicy)
    assert.same({ enabled = true }, sent.credentialProxy)
  end)
end)

describe("sandbox.egress", function()
  local sandbox

  before_each(function() sandbox = assert(client:connect("ID", { wait = false })) end)

  it("has the policy, and changes it", function()
    assert.same({ default_action = "deny", egress = { { action = "allow", target = "index.example" },
      { action = "deny", target = "10.0.0.0/8", ports = { 22, 80 } } } }, assert(sandbox.egress:policy()))
    assert(sandbox.egress:allow("npm", "my.host.example"))
    assert.equal("PATCH", last_request().method)
    assert.same(allowed("npm", "my.host.example"), json.decode(last_request().body))
    assert(sandbox.egress:deny { "my.host.example" })
    assert.same({ { action = "deny", target = "my.host.example" } }, json.decode(last_request().body))
    assert(sandbox.egress:remove("pypi"))
    assert.same(opensandbox.egress.presets.pypi, json.decode(last_request().body))
    assert(sandbox.egress:replace(opensandbox.egress.none()))
    assert.same({ defaultAction = "deny", egress = {} }, json.decode(last_request().body))
    raises(function() sandbox.egress:allow() end, "egress:allow")
    raises(function() sandbox.egress:replace { default_action = "x" } end, "egress:replace")
  end)

  it("asks for its endpoint once, when it is first needed, and again after a pause", function()
    local function lookups()
      local count = 0
      for _, request in ipairs(server:requests()) do
        if request.path:find("/endpoints/18080", 1, true) then count = count + 1 end
      end
      return count
    end
    local before = lookups()
    assert(sandbox.egress:allow("a.org"))
    assert(sandbox.egress:policy())
    assert.equal(before + 1, lookups())
    assert(sandbox:pause())
    assert(sandbox.egress:policy())
    assert.equal(before + 2, lookups())
  end)

  it("names what was called in its errors, and the sandbox", function()
    local other = assert(client:connect("old", { wait = false }))
    local _, err = other.egress:remove("a.org")
    assert.same({ "egress:remove", "old" }, { err.op, err.sandbox_id })
    other:close()
    _, err = other.egress:policy()
    assert.equal("closed", err.kind)
  end)
end)

describe("an event about a create", function()
  it("is sent when it is asked for, and only then", function()
    assert(client:record_create_event { success = true, duration = 1.25, sandbox_id = "s1", image = "python:3.12" })
    local request = last_request()
    assert.same({ "POST", "/v1/metrics/events" }, { request.method, request.path })
    assert.same({ eventType = "sandbox.create", createDurationMs = 1250, success = true, sandboxId = "s1", image = "python:3.12" },
      json.decode(request.body))
    assert(client:create_sandbox { image = "x" })
    local count = 0
    for _, each in ipairs(server:requests()) do
      if each.path == "/v1/metrics/events" then count = count + 1 end
    end
    assert.equal(1, count)
    raises(function() client:record_create_event { success = true } end, "duration")
    raises(function() client:record_create_event { duration = 1 } end, "success")
  end)
end)
