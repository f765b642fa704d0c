--- What newer servers have, and the development server with them: fields of a new sandbox, diagnostics, telemetry.

local api_client = require "spec.support.api_client"
local uv_loop = require "spec.support.uv_loop"
local process = require "spec.support.process"

describe("the development server, as a newer one,", function()
  local server, lifecycle

  setup(function()
    server = process.devserver { grace = 0.05 }
    lifecycle = api_client.new(server)
  end)
  teardown(function() server:stop() end)

  local function get(path) return lifecycle:call("GET", "/v1/sandboxes/" .. path) end

  it("shows extensions again, and takes resource requests", function()
    local extensions = { ["opensandbox.extensions.a"] = "b", ["access.renew.extend.seconds"] = "300" }
    local made = lifecycle:create { extensions = extensions, resourceRequests = { cpu = "250m" } }
    assert.same(extensions, made.extensions)
    assert.same(extensions, get(made.id).value.extensions)
    assert.is_nil(lifecycle:create({ extensions = {} }).extensions)
    assert.equal(422, lifecycle:try_create({ resourceRequests = { cpu = 1 } }).status)
    assert.equal(422, lifecycle:try_create({ extensions = { a = 1 } }).status)
    for _, bad in ipairs { "299", "86401", "x", "" } do
      local answer = lifecycle:try_create { extensions = { ["access.renew.extend.seconds"] = bad } }
      assert.same({ 400, "SANDBOX::INVALID_PARAMETER" }, { answer.status, answer.value.code })
    end
  end)

  it("has no templates, and says first what does not go with one", function()
    assert.equal(422, lifecycle:try_create({ templateId = "t", timeout = 60 }).status)
    local bare = { templateId = "t", image = false, entrypoint = false, resourceLimits = false }
    assert.equal(422, lifecycle:try_create(bare).status)
    bare.timeout = 60
    assert.equal(400, lifecycle:try_create(bare).status)
    bare.secureAccess = false
    assert.equal(400, lifecycle:try_create(bare).status)
    bare.secureAccess = true
    assert.equal(422, lifecycle:try_create(bare).status)
  end)

  it("keeps the variables of the egress sidecar out of the sandbox, and refuses its own", function()
    local id = lifecycle:create({ env = { OPENSANDBOX_EGRESS_LOG_LEVEL = "x", MINE = "y" } }).id
    local answer = lifecycle:endpoint(id, 44772):send("POST", "/command", { body = { command = "env | sort" } })
    assert.truthy(answer.body:find("MINE=y", 1, true))
    assert.is_nil(answer.body:find("OPENSANDBOX_EGRESS_", 1, true))
    for _, name in ipairs { "RULES", "MODE", "TOKEN", "SANDBOX_ID", "MITMPROXY_SCRIPT" } do
      assert.equal(400, lifecycle:try_create({ env = { ["OPENSANDBOX_EGRESS_" .. name] = "x" } }).status)
    end
  end)

  it("gives the log of the entrypoint", function()
    local id = lifecycle:create({ entrypoint = { "sh", "-c", "echo one; echo two >&2; echo three; exec tail -f /dev/null" } }).id
    local text = "one\ntwo\nthree\n"
    uv_loop.wait_until(function() return get(id .. "/diagnostics/logs").body == text end)
    for _, scope in ipairs { "container", "all" } do
      local answer = get(id .. "/diagnostics/logs?scope=" .. scope)
      assert.same({
        sandboxId = id, kind = "logs", scope = scope, delivery = "inline", contentType = "text/plain; charset=utf-8",
        content = text, contentLength = #text, truncated = false, warnings = answer.value.warnings,
      }, answer.value)
      assert.equal(scope == "all", answer.value.warnings ~= nil)
    end
    local old = get(id .. "/diagnostics/logs?tail=2")
    assert.same({ "two\nthree\n", "true", "text/plain; charset=utf-8" },
      { old.body, old.headers.deprecation, old.headers["content-type"] })
    assert.equal(422, get(id .. "/diagnostics/logs?tail=0").status)
  end)

  it("describes a sandbox whose entrypoint has ended", function()
    local id = lifecycle:create({ entrypoint = { "sh", "-c", "echo bye; exit 3" }, timeout = 60 }).id
    uv_loop.wait_until(function() return get(id).value.status.state == "Failed" end)
    for _, scope in ipairs { "runtime", "all" } do
      local value = get(id .. "/diagnostics/events?scope=" .. scope).value
      assert.same({ id, "events", scope }, { value.sandboxId, value.kind, value.scope })
      assert.truthy(value.content:find("\nStatus:     exited\n.*\nFinished:   %S+Z\nExit Code:  3\n"), value.content)
    end
    assert.truthy(get(id .. "/diagnostics/events?limit=1").body:find("^Health: +$"))
    local inspection = get(id .. "/diagnostics/inspect").body
    assert.truthy(inspection:find("\nRunning:        False\n.*\nExit Code:      3\n"), inspection)
    local summary = get(id .. "/diagnostics/summary").body
    assert.truthy(summary:find("SANDBOX DIAGNOSTICS SUMMARY\nSandbox ID: " .. id:gsub("%-", "%%-"), 1), summary)
    assert.truthy(summary:find("\nLOGS\n%-+\nbye\n"), summary)
  end)

  it("refuses scopes that it does not have, and does not know unknown sandboxes", function()
    local id = lifecycle:create().id
    for _, path in ipairs { "logs?scope=runtime", "logs?scope=", "events?scope=container", "events?scope=lifecycle" } do
      local answer = get(id .. "/diagnostics/" .. path)
      assert.same({ 400, "DIAGNOSTICS_SCOPE_UNSUPPORTED" }, { answer.status, answer.value.code })
    end
    for _, path in ipairs { "logs?scope=all", "events", "inspect", "summary" } do
      assert.equal(404, get("none/diagnostics/" .. path).status)
    end
  end)

  it("takes what client libraries tell of themselves, under /v1 only", function()
    local event = { eventType = "sandbox.create", createDurationMs = 12, success = true, image = "any" }
    local answer = lifecycle:call("POST", "/v1/metrics/events", event)
    assert.same({ 204, "" }, { answer.status, answer.body })
    assert.equal(404, lifecycle:call("POST", "/metrics/events", event).status)
    assert.equal(401, lifecycle:call("POST", "/v1/metrics/events", event, { ["OPEN-SANDBOX-API-KEY"] = "x" }).status)
    for member, value in pairs { eventType = "other", createDurationMs = -1, success = "maybe", sandboxId = 1 } do
      local good = event[member]
      event[member] = value
      answer = lifecycle:call("POST", "/v1/metrics/events", event)
      assert.equal(422, answer.status)
      assert.same({ "body", member }, answer.value.detail[1].loc)
      event[member] = good
    end
    assert.equal(3, #lifecycle:call("POST", "/v1/metrics/events", "{}").value.detail)
  end)
end)
