--- The egress API of the development server: network policies and the credential vault, as a sidecar would keep them.

local json = require "opensandbox.base.json"
local api_client = require "spec.support.api_client"
local http_client = require "spec.support.http_client"
local process = require "spec.support.process"


local function allow(target) return { action = "allow", target = target } end
local function deny(target) return { action = "deny", target = target } end

describe("the development server's egress API", function()
  local server, lifecycle, egress

  setup(function()
    server = process.devserver { grace = 0.05 }
    lifecycle = api_client.new(server)
  end)
  teardown(function() server:stop() end)

  -- A sandbox with a policy, and its egress endpoint.
  local function with_policy(policy, more)
    local changes = { networkPolicy = policy }
    for name, value in pairs(more or {}) do changes[name] = value end
    local id = lifecycle:create(changes).id
    return lifecycle:endpoint(id, 18080), id
  end

  local function rules()
    return egress:send("GET", "/policy").value.policy.egress
  end

  describe("of a policy", function()
    before_each(function()
      egress = with_policy { defaultAction = "deny", egress = { allow "index.example", deny "*.example.com" } }
    end)

    it("shows it, and the program says that it is not enforced", function()
      local answer = egress:send("GET", "/policy")
      assert.equal(200, answer.status)
      assert.equal("application/json", answer.headers["content-type"])
      assert.same({
        status = "ok", mode = "enforcing", enforcementMode = "dns+nft",
        policy = { defaultAction = "deny", egress = { allow "index.example", deny "*.example.com" } },
      }, answer.value)
      local notice = "network policies and credentials are kept and shown, but not enforced"
      assert.truthy(server.child:stderr_text():find(notice, 1, true))
    end)

    it("wants the token of the endpoint, but for its health", function()
      assert.equal(48, #egress.headers["OPENSANDBOX-EGRESS-AUTH"])
      local url = "http://" .. egress.endpoint
      for _, headers in ipairs { {}, { ["OPENSANDBOX-EGRESS-AUTH"] = "x" } } do
        local answer = assert(http_client.request { url = url .. "/policy", headers = headers })
        assert.same({ 401, "unauthorized\n" }, { answer.status, answer.body })
        assert.equal("text/plain; charset=utf-8", answer.headers["content-type"])
      end
      local health = assert(http_client.request { url = url .. "/healthz" })
      assert.same({ 200, "ok" }, { health.status, health.body })
    end)

    it("puts rules for new targets first, and replaces those for known ones in place", function()
      local answer = egress:send("PATCH", "/policy", {
        body = { allow "a.org", deny "Index.Example", allow "index.example", { action = " ALLOW ", target = " b.org " } },
      })
      assert.same({ status = "ok", mode = "enforcing", enforcementMode = "dns+nft" }, answer.value)
      assert.same({ allow "a.org", allow "b.org", deny "Index.Example", deny "*.example.com" }, rules())
      egress:send("PATCH", "/policy", { body = { { target = "c.org" } } })
      assert.same(deny "c.org", rules()[1])
    end)

    it("removes rules by their targets, in any case, and says when there were none", function()
      local answer = egress:send("DELETE", "/policy", { body = { "*.EXAMPLE.com", "unknown.org" } })
      assert.same({ 200, nil }, { answer.status, answer.value.reason })
      assert.same({ allow "index.example" }, rules())
      answer = egress:send("DELETE", "/policy", { body = { "*.example.com" } })
      assert.equal(200, answer.status)
      assert.truthy(answer.value.reason:find("no matching targets found", 1, true))
      assert.equal("deny_all", egress:send("DELETE", "/policy", { body = { "index.example" } }).value.mode)
      assert.truthy(egress:send("GET", "/policy").body:find('"egress":null', 1, true))
    end)

    it("replaces the whole, and denies all without a body", function()
      for _, method in ipairs { "POST", "PUT" } do
        local answer = egress:send(method, "/policy", { body = { defaultAction = "ALLOW" } })
        assert.equal("allow_all", answer.value.mode)
        assert.is_nil(answer.value.policy)
        assert.equal("allow", egress:send("GET", "/policy").value.policy.defaultAction)
        for _, empty in ipairs { "", "{}", "null" } do
          assert.equal("deny_all", egress:send(method, "/policy", { body = empty }).value.mode)
        end
      end
    end)

    it("refuses what is wrong in one line of text, and changes nothing", function()
      local before = rules()
      for _, case in ipairs {
        { "PATCH", "[]" }, { "PATCH", "{}" }, { "PATCH", "" }, { "PATCH", "[1" }, { "PATCH", "[1]" }, { "PATCH", "null" },
        { "PATCH", '[{"action":"drop","target":"a"}]' }, { "PATCH", '[{"action":"allow"}]' },
        { "PUT", "[]" }, { "PUT", '{"egress":{}' }, { "POST", '{"defaultAction":1}' },
        { "DELETE", "[]" }, { "DELETE", '"a"' }, { "DELETE", "[1]" }, { "DELETE", "" },
        { "PATCH", '[{"action":"allow","target":"' .. ("a"):rep(1100000) .. '"}]' },   -- cut off after a mebibyte
      } do
        local answer = egress:send(case[1], "/policy", { body = case[2] })
        assert.equal(400, answer.status, case[1] .. " " .. case[2]:sub(1, 80))
        assert.truthy(answer.body:find("^[^\n]+\n$"), answer.body)
        assert.equal("text/plain; charset=utf-8", answer.headers["content-type"])
      end
      local answer = egress:send("OPTIONS", "/policy")
      assert.equal(405, answer.status)
      for _, method in ipairs { "GET", "POST", "PUT", "PATCH", "DELETE" } do
        assert.truthy(answer.headers.allow:find(method, 1, true))
      end
      assert.equal(404, egress:send("GET", "/other").status)
      assert.same(before, rules())
    end)

    it("takes 4096 rules and no more", function()
      local many = {}
      for index = 1, 4097 do many[index] = allow(("h%d.org"):format(index)) end
      assert.equal(413, egress:send("PUT", "/policy", { body = { egress = many } }).status)
      many[4097] = nil
      assert.equal(200, egress:send("PUT", "/policy", { body = { egress = many } }).status)
      assert.equal(413, egress:send("PATCH", "/policy", { body = { allow "one.more" } }).status)
      assert.equal(4096, #rules())
    end)

    it("is reached through the server's proxy with the same header", function()
      local direct, id = with_policy {}
      local proxied = lifecycle:endpoint(id, 18080, "?use_server_proxy=true")
      assert.same(direct.headers, proxied.headers)
      assert.equal("deny_all", proxied:send("GET", "/policy").value.mode)
      assert.equal(200, proxied:send("PATCH", "/policy", { body = { allow "a.org" } }).status)
      assert.same({ allow "a.org" }, direct:send("GET", "/policy").value.policy.egress)
      local bare = http_client.request { url = "http://" .. proxied.endpoint .. "/policy" }
      assert.equal(401, bare.status)
    end)
  end)

  it("is not there for a sandbox without a policy, although the endpoint is given", function()
    local id = lifecycle:create().id
    for _, query in ipairs { "", "?use_server_proxy=true" } do
      local endpoint = lifecycle:endpoint(id, 18080, query)
      assert.is_nil(endpoint.headers)
      local answer = endpoint:send("GET", "/policy")
      assert.equal(502, answer.status)
      if query == "" then
        assert.equal("Bad Gateway\n", answer.body)
      else
        assert.equal("BACKEND_CONNECTION_FAILED", answer.value.code)
      end
    end
  end)

  it("ends with its sandbox, and waits while that is paused", function()
    local endpoint, id = with_policy {}
    assert.equal(202, lifecycle:call("POST", "/v1/sandboxes/" .. id .. "/pause").status)
    local held, problem = http_client.request {
      url = "http://" .. endpoint.endpoint .. "/policy", headers = endpoint.headers, timeout = 0.2,
    }
    assert.is_nil(held)
    assert.equal("timeout", problem)
    lifecycle:call("POST", "/v1/sandboxes/" .. id .. "/resume")
    assert.equal(200, endpoint:send("GET", "/policy").status)
    lifecycle:call("DELETE", "/v1/sandboxes/" .. id)
    assert.equal(404, endpoint:send("GET", "/policy").status)
  end)

  it("is checked when the sandbox is made: types at once, actions by the sidecar", function()
    for location, policy in pairs {
      ["networkPolicy.egress"] = { egress = "x" }, ["networkPolicy.defaultAction"] = { defaultAction = 1 },
      ["networkPolicy.egress.0.target"] = { egress = { { action = "allow" } } },
      ["networkPolicy.egress.1"] = { egress = { allow "a", "b" } },
    } do
      local answer = lifecycle:try_create { networkPolicy = policy }
      assert.equal(422, answer.status, location)
      assert.equal("body." .. location, table.concat(answer.value.detail[1].loc, "."))
    end
    local answer = lifecycle:try_create { networkPolicy = { egress = { { action = "drop", target = "a" } } } }
    assert.equal(500, answer.status)
    assert.equal("DOCKER::SANDBOX_START_FAILED", answer.value.code)
    assert.equal(422, lifecycle:try_create({ credentialProxy = { enabled = true } }).status)
    assert.equal(422, lifecycle:try_create({ networkPolicy = {}, credentialProxy = { enabled = "x" } }).status)
  end)

  describe("of a credential vault", function()
    local function credential(name, value)
      return { name = name, source = { type = "inline", value = value or "S3CRET" } }
    end
    local function binding(name, host, auth, match)
      local matched = { hosts = { host } }
      for key, value in pairs(match or {}) do matched[key] = value end
      return { name = name, match = matched, auth = auth or { type = "bearer", credential = "token" } }
    end
    local DEFAULT_MATCH = {
      hosts = { "api.example.com" }, schemes = { "https" }, methods = { "GET", "POST", "PUT", "PATCH", "DELETE" },
      paths = { "/*" },
    }

    before_each(function()
      egress = with_policy(
        { defaultAction = "allow", egress = { deny "bad.example.com", allow "*.example.com", allow "other.org" } },
        { credentialProxy = { enabled = true } })
    end)

    local function create()
      local answer = egress:send("POST", "/credential-vault", {
        body = { credentials = { credential "token", credential "spare" }, bindings = { binding("main", "API.example.com") } },
      })
      assert.equal(201, answer.status, answer.body)
      return answer
    end

    local function patch(body)
      return egress:send("PATCH", "/credential-vault", { body = body })
    end

    it("keeps it, and shows it without values and references", function()
      local answer = create()
      local main = { name = "main", revision = 1, match = DEFAULT_MATCH, auth = { type = "bearer" } }
      local token = { name = "token", sourceType = "inline", revision = 1 }
      local spare = { name = "spare", sourceType = "inline", revision = 1 }
      local state = { revision = 1, credentials = { spare, token }, bindings = { main } }
      assert.same(state, answer.value)
      local bodies = { answer.body }
      for path, expected in pairs {
        [""] = state, ["/credentials"] = { revision = 1, credentials = { spare, token } }, ["/credentials/token"] = token,
        ["/bindings"] = { revision = 1, bindings = { main } }, ["/bindings/main"] = main,
      } do
        answer = egress:send("GET", "/credential-vault" .. path)
        assert.same({ 200, expected }, { answer.status, answer.value })
        bodies[#bodies + 1] = answer.body
      end
      assert.is_nil(table.concat(bodies):find("S3CRET", 1, true))
      assert.equal("dns+nft", egress:send("GET", "/policy").value.enforcementMode)
      assert.equal(404, egress:send("GET", "/credential-vault/credentials/none").status)
      assert.equal(404, egress:send("GET", "/credential-vault/bindings/none").status)
      assert.equal(403, egress:send("GET", "/credential-vault/_active").status)
      assert.equal(405, egress:send("PUT", "/credential-vault").status)
    end)

    it("is there once, and begins again at 1 after its end", function()
      for _, method in ipairs { "GET", "PATCH", "DELETE" } do
        assert.equal(404, egress:send(method, "/credential-vault", { body = method == "PATCH" and "{}" or nil }).status)
      end
      assert.equal(404, egress:send("GET", "/credential-vault/credentials").status)
      create()
      assert.equal(409, egress:send("POST", "/credential-vault", { body = { credentials = {}, bindings = {} } }).status)
      assert.equal(2, patch("{}").value.revision)
      local answer = egress:send("DELETE", "/credential-vault")
      assert.same({ 204, "" }, { answer.status, answer.body })
      assert.equal(1, create().value.revision)
    end)

    it("changes as a whole: deletes, replaces, adds, and counts the revisions", function()
      create()
      local answer = patch {
        expectedRevision = 1,
        credentials = { delete = { "spare" }, replace = { credential("token", "NEW") }, add = { credential "third" } },
        bindings = {
          delete = { "main" },
          add = { binding("next", "api.example.com", { type = "apiKey", name = "X-Key", credential = "third" }) },
        },
      }
      assert.equal(200, answer.status, answer.body)
      assert.same({ revision = 2, credentials = {
        { name = "third", sourceType = "inline", revision = 2 }, { name = "token", sourceType = "inline", revision = 2 },
      }, bindings = {
        { name = "next", revision = 2, match = DEFAULT_MATCH, auth = { type = "apiKey", name = "X-Key" } },
      } }, answer.value)
      answer = patch { credentials = { replace = { credential "third" } } }
      assert.equal(3, answer.value.bindings[1].revision)
      assert.equal(2, answer.value.credentials[2].revision)

      assert.equal(409, patch({ expectedRevision = 1 }).status)
      for why, body in pairs {
        ["already exists"] = { credentials = { add = { credential "token" } } },
        ["does not exist"] = { bindings = { delete = { "none" } } },
        ['duplicate credential name "token"'] = { credentials = { delete = { "token" }, add = { credential "token" } } },
        ['unknown credential "third"'] = { credentials = { delete = { "third" }, add = { credential "fourth" } } },
        ["cannot unmarshal expectedRevision"] = { expectedRevision = "3" },
        ['unknown field "update"'] = { credentials = { update = {} } },
      } do
        local refused = patch(body)
        assert.equal(400, refused.status, why)
        assert.truthy(refused.body:find(why, 1, true), refused.body)
      end
      local state = egress:send("GET", "/credential-vault").value
      assert.same({ 3, 2, 1 }, { state.revision, #state.credentials, #state.bindings })
    end)

    it("takes every kind of auth, with substitutions", function()
      local substitutions = { { credential = "token", placeholder = "{{key}}", ["in"] = { "path", "query", "header", "body" } } }
      local headers = { { name = "X-A", credential = "token" }, { name = "X-B", credential = "token" } }
      for index, auth in ipairs {
        { type = "bearer", credential = "token" }, { type = "basic", credential = "token" },
        { type = "apiKey", name = "X-Key", credential = "token" }, { type = "customHeaders", headers = headers },
        { type = "passthrough", substitutions = substitutions },
        { type = "bearer", credential = "token", substitutions = substitutions },
      } do
        local answer = egress:send("POST", "/credential-vault", {
          body = { credentials = { credential "token" }, bindings = { binding("b", "other.org", auth) } },
        })
        assert.equal(201, answer.status, index .. answer.body)
        assert.same({ type = auth.type, name = auth.name }, answer.value.bindings[1].auth)
        egress:send("DELETE", "/credential-vault")
      end
    end)

    it("lets bindings of one host stand together when no request could match two of them", function()
      local answer = egress:send("POST", "/credential-vault", { body = { credentials = { credential "token" }, bindings = {
        binding("a", "api.example.com", nil, { paths = { "/v1/*" } }),
        binding("b", "api.example.com", nil, { paths = { "/v2/*" } }),
        binding("c", "api.example.com", nil, { schemes = { "http" } }), binding("d", "other.org", nil, { methods = { "GET" } }),
        binding("e", "other.org", nil, { methods = { "post" } }),
      } } })
      assert.equal(201, answer.status, answer.body)
      assert.same({ "POST" }, answer.value.bindings[5].match.methods)
    end)

    it("refuses what is wrong, without repeating a value", function()
      local function one(auth, match)
        return { credentials = { credential "token" }, bindings = { binding("b", "other.org", auth, match) } }
      end
      local function bearer(more)
        local auth = { type = "bearer", credential = "token" }
        for key, value in pairs(more) do auth[key] = value end
        return one(auth)
      end
      for why, body in pairs {
        ['unknown field "extra"'] = { credentials = {}, bindings = {}, extra = 1 },
        ['unknown field "ttl"'] = { credentials = { { name = "a", source = { value = "S3CRET" }, ttl = 1 } } },
        ['unsupported credential source type "env"'] =
          { credentials = { { name = "a", source = { type = "env", value = "S3CRET" } } } },
        ['credential "a": inline credential value cannot be empty'] =
          { credentials = { { name = "a", source = { type = "inline", value = "" } } } },
        ['duplicate credential name "a"'] = { credentials = { credential "a", credential "a" } },
        ["hosts cannot be empty"] = one(nil, { hosts = {} }),
        ["invalid host"] = one(nil, { hosts = { "a/b" } }),
        ['unsupported schemes "ftp"'] = one(nil, { schemes = { "ftp" } }),
        ["unsupported port 8443"] = one(nil, { ports = { 443, 8443 } }),
        ["must start with /"] = one(nil, { paths = { "v1" } }),
        ['unknown field "port"'] = one(nil, { port = 1 }),
        ['unsupported auth type "oauth"'] = one { type = "oauth", credential = "token" },
        ['unknown field "name"'] = bearer { name = "X" },
        ['unknown credential "other"'] = one { type = "bearer", credential = "other" },
        ["header Host is reserved"] = one { type = "apiKey", name = "Host", credential = "token" },
        ["header proxy-authorization is reserved"] =
          one { type = "customHeaders", headers = { { name = "proxy-authorization", credential = "token" } } },
        ["invalid header name"] = one { type = "apiKey", name = "a b", credential = "token" },
        ["headers cannot be empty"] = one { type = "customHeaders", headers = {} },
        ["substitutions cannot be empty"] = one { type = "passthrough" },
        ['unsupported in "cookie"'] =
          bearer { substitutions = { { credential = "token", placeholder = "x", ["in"] = { "cookie" } } } },
        ["placeholder cannot be empty"] = bearer { substitutions = { { credential = "token", ["in"] = { "path" } } } },
        ['host "bad.example.com" is not allowed'] = one(nil, { hosts = { "bad.example.com" } }),
        ['host "nowhere.org" is not allowed'] = one(nil, { hosts = { "nowhere.org" } }),
        ['host "example.com" is not allowed'] = one(nil, { hosts = { "example.com" } }),
        ['bindings "a" and "b" can match'] = { credentials = { credential "token" }, bindings = {
          binding("a", "*.example.com"), binding("b", "api.example.com", nil, { paths = { "/v1" } }),
        } },
        ["cannot unmarshal array"] = "[]",
        ["EOF"] = "",
      } do
        local answer = egress:send("POST", "/credential-vault", { body = body })
        assert.equal(400, answer.status, why)
        assert.truthy(answer.body:find(why, 1, true), why .. ": " .. answer.body)
        assert.is_nil(answer.body:find("S3CRET", 1, true))
      end
      assert.equal(404, egress:send("GET", "/credential-vault").status)
    end)

    it("holds the policy to the hosts it needs", function()
      create()
      for _, case in ipairs {
        { "DELETE", { "*.example.com" } }, { "PUT", { defaultAction = "allow" } }, { "PATCH", { deny "api.example.com" } },
      } do
        local answer = egress:send(case[1], "/policy", { body = case[2] })
        assert.equal(400, answer.status)
        assert.truthy(answer.body:find('binding "main" host "api.example.com"', 1, true), answer.body)
      end
      assert.equal(3, #rules())
      egress:send("DELETE", "/credential-vault")
      assert.equal(200, egress:send("DELETE", "/policy", { body = { "*.example.com" } }).status)
    end)

    it("needs the credential proxy for every change", function()
      egress = with_policy { egress = { allow "a.org" } }
      for _, method in ipairs { "POST", "PATCH", "DELETE" } do
        assert.equal(412, egress:send(method, "/credential-vault", { body = "not even JSON" }).status)
      end
      assert.equal(404, egress:send("GET", "/credential-vault").status)
    end)
  end)

  it("tells no secret of a vault anywhere else", function()
    local answer = json.decode(lifecycle:call("GET", "/v1/sandboxes").body)
    assert.is_nil(json.encode(answer):find("S3CRET", 1, true))
    assert.is_nil(server.child:stderr_text():find("S3CRET", 1, true))
  end)
end)
