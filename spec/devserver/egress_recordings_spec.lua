--- The egress sidecar of the development server answers as the one of August 2026 did when its answers were recorded.

local http_client = require "spec.support.http_client"
local json = require "opensandbox.base.json"
local process = require "spec.support.process"
local recorded_client = require "spec.support.recorded_client"

local TOKEN = "egress-token-egress-token-egress"

local server, client
setup(function() server = process.devserver { grace = 0.05 } end)
teardown(function() server:stop() end)

local function api(method, path, body)
  return json.decode(http_client.request {
    url = server.url .. path, method = method, body = body and json.encode(body),
    headers = { ["OPEN-SANDBOX-API-KEY"] = server.key, ["Content-Type"] = "application/json" },
  }.body)
end

-- Creates a sandbox with a policy, and a client of its gateway.
local function with_policy(targets, credential_proxy)
  local rules = {}
  for index, target in ipairs(targets) do rules[index] = { action = "allow", target = target } end
  local id = api("POST", "/v1/sandboxes", {
    image = { uri = "python:3.12" }, resourceLimits = { cpu = "1" }, entrypoint = { "tail", "-f", "/dev/null" },
    networkPolicy = { defaultAction = "deny", egress = rules }, credentialProxy = { enabled = credential_proxy },
  }).id
  local endpoint = api("GET", ("/v1/sandboxes/%s/endpoints/18080"):format(id))
  client = recorded_client.new("egress", "http://" .. endpoint.endpoint:gsub("/proxy/18080$", ""), nil,
    { [TOKEN] = endpoint.headers["OPENSANDBOX-EGRESS-AUTH"] })
end

local scenarios = {}

local function scenario(title, targets, credential_proxy, steps)
  scenarios[#scenarios + 1] = steps
  it(title, function()
    with_policy(targets, credential_proxy)
    assert.equal("", client:differences(steps))
  end)
end

-- Which binding is named first is chance.
local function any_binding(name)
  return { name, change = function(expected, actual)
    for _, one in ipairs { expected, actual } do one.body = one.body:gsub('"hdr" host "api2%.', '"b" host "api.') end
  end }
end

describe("the egress sidecar", function()
  scenario("answers like the recordings of a policy", { "pypi.org", "*.pythonhosted.org" }, false, {
    "healthz", "policy-get", "policy-get-no-token", "policy-patch", "policy-get-after-patch", "policy-patch-bad-action",
    "policy-patch-bad-json", "policy-patch-bad-target", "policy-patch-case", "policy-patch-cidr", "policy-patch-duplicate",
    "policy-patch-empty", "policy-patch-empty-target", "policy-patch-no-action", "policy-patch-object", "policy-patch-port",
    "policy-patch-unknown-field", "policy-patch-wildcards", "policy-delete", "policy-delete-again", "policy-delete-empty",
    "policy-delete-no-body", "policy-delete-object", "policy-put", "policy-post", "policy-put-allow", "policy-put-array",
    "policy-put-bad-default", "policy-put-empty-object", "policy-put-no-body", "policy-get-after-empty", "policy-put-back",
    "policy-wrong-method", "unknown-route", "vault-get-no-proxy", "vault-create-no-proxy", "vault-credentials-no-proxy",
  })

  scenario("answers like the recordings of a vault", { "api.example.com", "api2.example.com", "api3.example.com" }, true, {
    "vault-policy-get", "vault-get-none", "vault-get-no-token", "vault-patch-none", "vault-delete-none", "vault-create-bad-auth",
    "vault-create-bad-json", "vault-create-duplicate", "vault-create-empty-value", "vault-create-host-not-allowed",
    "vault-create-overlap", "vault-create-ports", "vault-create-source-env", "vault-create-unknown-credential",
    "vault-create-unknown-field", "vault-create-value-plain", "vault-create", "vault-create-again", "vault-put", "vault-get",
    "vault-credentials", "vault-credential", "vault-credential-unknown", "vault-bindings", "vault-binding",
    "vault-binding-unknown", "vault-active", "vault-sub-unknown", "vault-patch-add", "vault-patch-add-existing",
    "vault-patch-expected", "vault-patch-conflict", "vault-patch-delete-in-use", "vault-patch-delete-missing",
    "vault-patch-replace-missing", "vault-patch-unknown-field", "vault-patch-delete", "vault-patch-empty",
    "vault-policy-delete-target", any_binding "vault-policy-patch-forbids", "vault-get-after-policy", "vault-delete",
    "vault-delete-again", "vault-get-deleted",
  })

  it("has recordings that are all compared", function()
    assert.same({}, recorded_client.missing("egress", scenarios, {}))
  end)
end)
