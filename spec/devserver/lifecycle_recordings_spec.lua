--- The lifecycle API of the development server answers as the server 1.1.1 did when its answers were recorded.

local http_client = require "spec.support.http_client"
local json = require "opensandbox.base.json"
local process = require "spec.support.process"
local recorded_client = require "spec.support.recorded_client"
local uv = require "luv"
local uv_loop = require "spec.support.uv_loop"

local SANDBOX = "ccd03f0b-3e8d-4621-b372-14af7044ab76"

local server, client

-- Recorded times to come are past now.
local function later(name)
  local bodies = {
    renew = "2099-11-26T12:46:53Z", ["renew-shorter"] = "2099-11-26T12:28:53Z", ["renew-too-far"] = "2099-12-08T02:13:32Z",
    ["renew-back"] = "2099-11-26T12:56:53Z", ["renew-paused"] = "2099-11-26T12:57:01Z",
    ["renew-no-expiry"] = "2099-11-26T12:37:10Z", ["renew-missing"] = "2099-11-26T12:36:53Z",
  }
  return { name, body = ('{"expiresAt":"%s"}'):format(bodies[name]) }
end

-- The token that execd wants here, and did not want where it was recorded.
local function with_token(name)
  return { name, change = function(_, actual) actual.body.headers = nil end }
end

-- The same through the server, whose port is another one.
local function via_server(name)
  return { name, change = function(expected, actual)
    if not expected.body.headers then actual.body.headers = nil end
    expected.body.endpoint = expected.body.endpoint:gsub(":%d+", ":" .. server.url:match("%d+$"))
  end }
end

-- Messages that name the machine of the recording.
local function in_own_words(name, pattern)
  return { name, change = function(expected, actual)
    assert.truthy(actual.body.message:find(pattern), actual.body.message)
    expected.body.message, actual.body.message = nil, nil
  end }
end

local function without(name, ...)
  local members = { ... }
  return { name, change = function(expected, actual)
    for _, member in ipairs(members) do expected.body[member], actual.body[member] = nil, nil end
  end }
end

-- The image under the name of the registry that it came from.
local function with_image(name, options)
  options = options or {}
  options[1] = name
  options.change = function(expected, actual)
    for _, one in ipairs(expected.body.items or { expected.body }) do
      if one.image then one.image.uri = one.image.uri:gsub("^registry/", "") end
    end
    for _, one in ipairs(actual.body.items or {}) do assert.truthy(one.id) end
  end
  return options
end

-- The headers for execd of a recorded sandbox.
local function execd_headers(id)
  local url = ("%s/v1/sandboxes/%s/endpoints/44772"):format(server.url, client.ids[id])
  return json.decode(http_client.request { url = url, headers = { ["OPEN-SANDBOX-API-KEY"] = server.key } }.body).headers
end

-- Other scenarios leave snapshots of this name, too.
local function only_first(expected, actual)
  expected.body, actual.body = expected.body.items[1], actual.body.items[1]
end

local function has_ended(actual) return actual.body.status.state ~= "Running" end

setup(function()
  server = process.devserver { grace = 0.05 }
  client = recorded_client.new("lifecycle-1.1.1", server.url)
  client.ids.k1, client.ids["egress-token-egress-token-egress"] = server.key, nil
end)
teardown(function() server:stop() end)

-- Some recordings leave a sandbox, which the lists of others do not have.
after_each(function()
  local url, headers = server.url .. "/v1/sandboxes", { ["OPEN-SANDBOX-API-KEY"] = server.key }
  for _, left in ipairs(json.decode(http_client.request { url = url .. "?pageSize=200", headers = headers }.body).items) do
    http_client.request { method = "DELETE", url = url .. "/" .. left.id, headers = headers }
  end
end)

local function holds(steps) assert.equal("", client:differences(steps)) end

local scenarios = {}

local function scenario(title, steps)
  scenarios[#scenarios + 1] = steps
  it(title, function() holds(steps) end)
end

describe("the lifecycle API", function()
  scenario("answers like the recordings that need no sandbox", {
    "auth-missing", "auth-missing-metrics", "auth-wrong", "get-fsb", "get-missing", "health", "health-v1", "root-mount",
    "unknown-route", "version", "version-v1", "wrong-method", "endpoint-missing", "list-metadata-bad", "list-page-0",
    "list-page-size-201", "patch-metadata-missing", later "renew-missing", "pause-missing", "resume-missing",
    "snapshot-create-missing", "snapshot-get-missing", "snapshot-list-name-none", "diagnostics-missing",
    "proxy-unknown-sandbox", "networkpolicy-fsb", "networkpolicy-missing", "metrics-event", "metrics-event-bad-type",
    "metrics-event-empty", "metrics-event-root", "pools-create", "pools-create-empty", "pools-delete", "pools-get",
    "pools-list", "pools-put", "templates-create", "templates-delete", "templates-get", "templates-list",
  })

  scenario("refuses bodies of creates like the recordings", {
    "create-bad-extension", "create-bad-json", "create-bad-metadata", "create-credential-proxy-no-policy", "create-empty",
    "create-entrypoint-empty", "create-entrypoint-string", "create-env-egress-rules", "create-env-number", "create-form",
    "create-from-snapshot-and-image", "create-from-unknown-snapshot", "create-image-string", "create-lifecycle",
    "create-limits-bad", "create-limits-number", "create-metadata-number", "create-network-policy-bad-target",
    "create-no-entrypoint", "create-no-image", "create-no-limits", "create-platform", "create-pool-ref",
    "create-pool-ref-alone", "create-reserved-metadata", "create-secure-access", "create-template-id",
    "create-template-id-entrypoint", "create-template-id-image", "create-template-id-no-timeout", "create-timeout-10",
    "create-timeout-fraction", "create-timeout-too-large", "create-volume-relative",
    in_own_words("create-unknown-image", "^Failed to pull image localhost/none:latest: 404 Client Error"),
    in_own_words("create-volume-not-allowed", "^Host path '/etc' is not under any allowed prefix%."),
  })

  scenario("answers like the recordings of one sandbox's life", {
    "create", with_image "get", "get-trailing-slash", with_token "endpoint-execd", with_token "endpoint-other",
    { "endpoint-8080", change = function(expected, actual)
      for _, one in ipairs { expected, actual } do one.body.endpoint = one.body.endpoint:gsub(":%d+$", ":<port>") end
    end },
    "endpoint-egress-none", "endpoint-port-0", "endpoint-port-70000", "endpoint-port-text", via_server "endpoint-server-proxy",
    via_server "endpoint-server-proxy-root", "endpoint-signed", "endpoint-signed-proxy", with_image "list", "list-page-2",
    with_image "list-states", "list-unknown-state", later "renew", later "renew-shorter", later "renew-too-far",
    later "renew-back", "renew-empty", "renew-garbage", "renew-past", with_image "patch-metadata", "patch-metadata-bad",
    "patch-metadata-bad-value", "patch-metadata-list", "patch-metadata-reserved",
    function() client.headers = execd_headers(SANDBOX) end,
    "proxy-ping", "proxy-no-key", "proxy-wrong-key", "proxy-root-mount", "proxy-command", "proxy-execd-error", "proxy-no-path",
    "proxy-head", "proxy-port-0", "proxy-port-bad", "proxy-port-closed", { "proxy-range", change = function(expected, actual)
      expected.headers["content-range"] = expected.headers["content-range"]:gsub("/%d+$", "")
      actual.headers["content-range"] = actual.headers["content-range"]:gsub("/%d+$", "")
    end },
    function() client.headers = nil end,
    "networkpolicy-none-get", "networkpolicy-none-put", "networkpolicy-none-patch", "networkpolicy-none-delete",
    without("diagnostics-logs-container", "content"), without("diagnostics-logs-all", "content"), "diagnostics-logs-nope",
    "diagnostics-events", "diagnostics-events-runtime", "diagnostics-events-all", "diagnostics-events-lifecycle",
    "diagnostics-events-nope",
    "snapshot-create", "snapshot-create-no-name", "snapshot-create-bad",
    "pause", "pause-again", with_image "get-paused", with_image "list-paused", with_token "endpoint-paused",
    later "renew-paused", "resume", "resume-again",
  })

  it("answers like the recordings of a proxy whose backend fails", function()
    local function behave(action)
      local listener = uv.new_tcp()
      listener:bind("127.0.0.1", 0)
      listener:listen(1, function()
        local socket = uv.new_tcp()
        listener:accept(socket)
        socket:read_start(function(_, data)
          if data then action(socket) end
        end)
      end)
      return listener, listener:getsockname().port
    end
    local function close(socket)
      if not socket:is_closing() then socket:close() end
    end
    local created = client:differences { "create" }
    assert.equal("", created)
    for name, action in pairs {
      ["proxy-backend-closes"] = close,
      ["proxy-backend-garbage"] = function(socket) socket:write("hello, no http\r\n\r\n", function() close(socket) end) end,
      ["proxy-backend-half"] = function(socket)
        socket:write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", function() close(socket) end)
      end,
    } do
      local listener, port = behave(action)
      local path = ("/v1/sandboxes/%s/proxy/%d/x"):format(client.ids[SANDBOX], port)
      local cut
      holds { { name, path = path, change = function(expected, actual, answer)
        cut = answer.cut
        if actual.body.message then
          actual.body.message = actual.body.message:gsub(":" .. port, ":" .. expected.body.message:match(":(%d+) "))
        end
      end } }
      assert.equal(name == "proxy-backend-half" or nil, cut)
      uv_loop.close(listener)
    end
  end)

  it("answers nothing for a paused sandbox, like the recordings", function()
    holds { "create", "pause" }
    local id = client.ids[SANDBOX]
    for _, path in ipairs { "/proxy/44772/ping", "/networkpolicy" } do
      local answer, problem = http_client.request {
        url = server.url .. "/v1/sandboxes/" .. id .. path, headers = { ["OPEN-SANDBOX-API-KEY"] = server.key }, timeout = 0.3,
      }
      assert.same({ nil, "timeout" }, { answer, problem })
    end
  end)

  local function is_ready(actual) return (actual.body.status or actual.body.items[1].status).state == "Ready" end

  scenario("answers like the recordings of snapshots", {
    "create", with_image "patch-metadata", "snapshot-create", { "snapshot-get", repeat_until = is_ready },
    "snapshot-create-no-name", { "snapshot-list", repeat_until = is_ready }, { "snapshot-list-name", change = only_first },
    "create-from-snapshot", "get-from-snapshot", "create-from-snapshot-metadata", "get-from-snapshot-metadata",
    "delete-from-snapshot", "snapshot-delete", "snapshot-delete-again", "delete", "snapshot-list-deleted",
  })

  scenario("answers like the recordings of a sandbox without an expiry, and of one that is deleted", {
    "create-no-expiry", with_image "get-no-expiry", later "renew-no-expiry", "delete-no-expiry", "create", "credential-vault-route",
    "delete", "delete-again", "get-deleted", "endpoint-deleted", "pause-deleted", "proxy-deleted", "create-unknown-field",
    "create-network-policy-bad",
  })

  scenario("answers like the recordings of entrypoints that end", {
    "create-entrypoint-exits", with_image("get-entrypoint-exits", { repeat_until = has_ended }), "pause-entrypoint-exits",
    with_token "endpoint-entrypoint-exits", "proxy-entrypoint-exits", without("diagnostics-entrypoint-exits", "content"),
    "delete-entrypoint-exits", "create-entrypoint-exits-0", with_image("get-entrypoint-exits-0", { repeat_until = has_ended }),
    "create-entrypoint-missing", with_image("get-entrypoint-missing", { repeat_until = has_ended }),
  })

  local POLICY = "b0d07a2c-0d27-4501-9a02-6187bc76ce79"
  local TOKEN = "egress-token-egress-token-egress"

  local function create_with_policy()
    local answer = http_client.request {
      url = server.url .. "/v1/sandboxes",
      headers = { ["OPEN-SANDBOX-API-KEY"] = server.key, ["Content-Type"] = "application/json" },
      body = json.encode {
        image = { uri = "python:3.12" }, resourceLimits = { cpu = "1" }, entrypoint = { "tail", "-f", "/dev/null" }, timeout = 900,
        networkPolicy = { defaultAction = "deny", egress = {
          { action = "allow", target = "pypi.org" }, { action = "allow", target = "*.pythonhosted.org" },
        } },
      },
    }
    client.ids[POLICY] = json.decode(answer.body).id
  end

  local function learn_token(_, actual, answer)
    client.ids[TOKEN] = json.decode(answer.body).headers["OPENSANDBOX-EGRESS-AUTH"]
    actual.body.headers["OPENSANDBOX-EGRESS-AUTH"] = TOKEN
  end

  scenario("answers like the recordings of a sandbox with a network policy", {
    create_with_policy,
    { "endpoint-egress-policy", change = learn_token },
    { "endpoint-egress-server-proxy", change = function(expected, actual, answer)
      via_server("").change(expected, actual)
      learn_token(expected, actual, answer)
    end },
    { "endpoint-egress-vault", change = learn_token, path = "/v1/sandboxes/" .. POLICY .. "/endpoints/18080" },
    with_token "endpoint-execd-with-sidecar", with_image "get-network-policy",
    "networkpolicy-get", "networkpolicy-patch", "networkpolicy-patch-bad", "networkpolicy-patch-bad-target",
    "networkpolicy-patch-empty-target", "networkpolicy-delete", "networkpolicy-delete-no-body", "networkpolicy-delete-object",
    "networkpolicy-post", "networkpolicy-no-key", "networkpolicy-put", "networkpolicy-put-bad", "proxy-egress-policy",
    "proxy-egress-policy-token", "pause-with-sidecar", "resume-with-sidecar", "delete-with-sidecar", "networkpolicy-deleted",
  })

  it("has recordings that are all compared", function()
    assert.same({}, recorded_client.missing("lifecycle-1.1.1", scenarios, {
      ["proxy-paused"] = "compared by itself: no answer", ["networkpolicy-paused"] = "compared by itself: no answer",
      ["proxy-backend-closes"] = "compared with the other failures", ["proxy-backend-garbage"] = "compared with the other failures",
      ["proxy-backend-half"] = "compared with the other failures",
      ["diagnostics-logs"] = "the log of another program", ["diagnostics-inspect"] = "describes a container",
      ["diagnostics-summary"] = "describes a container",
      ["proxy-download-directory"] = "depends on the file system", ["proxy-download-directory-tmp"] = "depends on the file system",
    }))
  end)
end)
