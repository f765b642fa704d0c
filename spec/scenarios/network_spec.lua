--- What may leave a sandbox, as the official end-to-end suites try it: tests/go sandbox_e2e NetworkPolicyCreate, e2e and
--- credential_vault; tests/python test_sandbox_e2e 01a, 01aa, 01ab and 01ac, and test_credential_vault_e2e; tests/javascript
--- test_sandbox_e2e 01a and 01aa, and test_credential_vault_e2e. That packets really stop, and that secrets really arrive, is left out:
--- the development server keeps policies and credentials, and enforces none.

local json = require "opensandbox.base.json"
local Fixture = require "spec.support.fixture"

local SECRET, SECOND_SECRET = "e2e-secret-value-one", "e2e-secret-value-two"

local fixture

setup(function() fixture = Fixture.new() end)
teardown(function() fixture:close() end)

local function allow(target) return { action = "allow", target = target } end
local function deny(target) return { action = "deny", target = target } end

for _, way in ipairs {
  { "directly", {} }, { "through the server's proxy", { use_server_proxy = true } },
} do
  describe("a network policy, reached " .. way[1] .. ",", function()
    local own, sandbox

    setup(function()
      own = fixture:another_client(way[2])
      sandbox = assert(own:create(Fixture.create_options {
        network_policy = { default_action = "deny", egress = { allow "index.example" } },
        extensions = { ["access.renew.extend.seconds"] = "600" },
      }))
    end)

    it("does not keep the sandbox from being well", function()
      assert.equal("Running", assert(sandbox:info()).state)
      assert.equal("well\n", assert(sandbox:run("echo well")).stdout)
    end)

    it("is as it was given, is patched in front, and keeps its default", function()
      assert.same({ default_action = "deny", egress = { allow "index.example" } }, assert(sandbox.egress:policy()))
      local status = assert(own:patch_egress_policy(assert(own:discover_egress(sandbox.id)), {
        allow "www.github.com", deny "index.example",
      }))
      assert.same({ "ok", "enforcing" }, { status.status, status.mode })
      assert.same({ default_action = "deny", egress = { allow "www.github.com", deny "index.example" } },
        assert(sandbox.egress:policy()))
    end)

    it("loses rules as often as one likes: the second time nothing was there", function()
      assert(sandbox.egress:allow("gone.example.com"))
      assert(sandbox.egress:remove("gone.example.com"))
      local after = assert(sandbox.egress:policy())
      for _, rule in ipairs(after.egress) do assert.not_equal("gone.example.com", rule.target) end
      local status = assert(sandbox.egress:remove("gone.example.com"))
      assert.equal("ok", status.status)
      assert.truthy(status.reason:find("no matching targets found", 1, true))
      assert.same(after, assert(sandbox.egress:policy()))
    end)
  end)
end

describe("a credential vault", function()
  local sandbox, vault

  local function binding(name, host, auth) return { name = name, hosts = { host }, auth = auth } end

  before_each(function()
    sandbox = fixture:create {
      network_policy = { default_action = "deny", egress = { allow "api.example.com", allow "*.example.org" } },
      credential_proxy = true,
    }
    vault = sandbox.vault
  end)
  after_each(function() assert(sandbox:kill()) end)

  local function create_small()
    return assert(vault:create {
      credentials = { { name = "token", value = SECRET } },
      bindings = { binding("api", "api.example.com", { type = "bearer", credential = "token" }) },
    })
  end

  it("goes through the revisions 1 to 6, with every type of auth, and never shows a secret", function()
    local states = {}
    local function reached(revision, state, err)
      assert.is_nil(err)
      assert.equal(revision, state.revision)
      states[#states + 1] = state
      return state
    end

    reached(1, vault:create {
      credentials = {
        { name = "bearer", value = SECRET }, { name = "basic", username = "user", password = SECRET },
        { name = "key", value = SECRET }, { name = "custom", source = { type = "inline", value = SECRET } },
      },
      bindings = {
        binding("bearer", "api.example.com", { type = "bearer", credential = "bearer" }),
        binding("basic", "basic.example.org", { type = "basic", credential = "basic" }),
        binding("key", "key.example.org", { type = "api_key", name = "X-Api-Key", credential = "key" }),
        binding("custom", "custom.example.org", {
          type = "custom_headers", headers = { { name = "X-One", credential = "custom" }, { name = "X-Two", credential = "key" } },
        }),
      },
    })
    reached(2, vault:patch { expected_revision = 1, credentials = { add = { { name = "late", value = SECRET } } } })
    reached(3, vault:patch {
      expected_revision = 2,
      bindings = { add = { binding("late", "late.example.org", { type = "bearer", credential = "late" }) } },
    })
    reached(4, vault:patch { credentials = { replace = { { name = "late", value = SECOND_SECRET } } } })
    reached(5, vault:patch { bindings = { delete = { "late" } } })
    local last = reached(6, vault:patch { credentials = { delete = { "late" } } })
    assert.same({ 4, 4 }, { #last.credentials, #last.bindings })

    states[#states + 1] = assert(vault:get())
    states[#states + 1] = assert(vault:credentials())
    states[#states + 1] = assert(vault:bindings())
    for _, state in ipairs(states) do
      local text = assert(json.encode(state))
      assert.is_nil(text:find(SECRET, 1, true))
      assert.is_nil(text:find(SECOND_SECRET, 1, true))
    end
    assert.same({ "bearer", "inline" }, { assert(vault:credential("bearer")).name, assert(vault:credential("bearer")).source_type })
    assert.same({ "basic.example.org" }, assert(vault:binding("basic")).match.hosts)
  end)

  it("is not changed under a revision that it does not have", function()
    local before = create_small()
    local state, err = vault:patch { expected_revision = 7, bindings = { delete = { "api" } } }
    assert.is_nil(state)
    assert.equal(409, err.status)
    assert.same(before, assert(vault:get()))
  end)

  it("keeps the policy from taking away what a binding needs", function()
    create_small()
    local status, err = sandbox.egress:remove("api.example.com")
    assert.is_nil(status)
    assert.equal(400, err.status)
  end)

  it("is not in the environment or the files of the sandbox", function()
    create_small()
    assert.is_nil(assert(sandbox:run("env")).stdout:find(SECRET, 1, true))
    assert.equal(1, assert(sandbox:run("grep -rqs " .. SECRET .. " work root tmp")).exit_code)
  end)

  it("is deleted, and is then not there", function()
    create_small()
    assert(vault:delete())
    local state, err = vault:get()
    assert.is_nil(state)
    assert.equal(404, err.status)
    assert(vault:delete())
  end)
end)
