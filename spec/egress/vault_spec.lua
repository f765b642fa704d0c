--- The credential vault: what travels, what comes back, and that no secret ever shows.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"

-- Sidecars at /NAME; the name says how they behave.
local SERVER = [[
  local JSON = { ["Content-Type"] = "application/json" }
  local TEXT = { ["Content-Type"] = "text/plain; charset=utf-8" }
  local STATE = { revision = 3, credentials = { { name = "token", sourceType = "inline", revision = 1 } },
    bindings = { { name = "api", revision = 3, match = { hosts = { "api.example.com" }, schemes = { "https" }, ports = { 443 },
      methods = { "GET" }, paths = { "/*" } }, auth = { type = "apiKey", name = "X-Key" } } } }
  local refusals = {
    off = { 412, "credential vault requires transparent mitmproxy" }, never = { 412, "credential proxy is not ready" },
    mode = { 412, "credential vault requires dns+nft egress enforcement" },
    plain = { 426, "credential vault writes require TLS or loopback transport" },
    old = { 404, "404 page not found" }, none = { 404, "credential vault not found" },
    fields = { 400, 'invalid credential vault request: json: unknown field "substitutions"' },
    host = { 400, 'binding "api" host "api.example.com" is not allowed by egress policy' },
    conflict = { 409, "expectedRevision 2 does not match current revision 3" }, unauthorized = { 401, "unauthorized" },
  }
  local tries = {}
  return function(request, connection)
    local name, rest = request.path:match("^/([%w_]+)/credential%-vault(.*)$")
    if request.path:find("/endpoints/", 1, true) then
      return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/well" })
    end
    tries[name] = (tries[name] or 0) + 1
    local refusal = refusals[name]
    if name == "starting" and tries[name] < 3 then refusal = refusals.never end
    if name == "echo" then refusal = { 400, "cannot take " .. request.body .. " nor " .. request.body:gsub("\\/", "/") } end
    if refusal then return connection:respond(refusal[1], TEXT, refusal[2] .. "\n") end
    if name == "garbage" then return connection:respond(200, JSON, '{"revision":1,"credentials":[1],"bindings":[{}]}') end
    if request.method == "DELETE" then return connection:respond(204, {}, "") end
    local answer = STATE
    if rest == "/credentials" then answer = { revision = 3, credentials = STATE.credentials } end
    if rest == "/bindings" then answer = { revision = 3, bindings = STATE.bindings } end
    if rest:find("^/credentials/") then answer = STATE.credentials[1] end
    if rest:find("^/bindings/") then answer = STATE.bindings[1] end
    connection:respond(request.method == "POST" and 201 or 200, JSON, json.encode(answer))
  end
]]

local server, client

setup(function()
  server = fault_server.start(SERVER)
  client = opensandbox.new(server.url, "", { retry = false })
end)
teardown(function()
  client:close()
  server:stop()
end)

local function at(name)
  return server.url .. "/" .. (name or "well")
end

local function last_request()
  local requests = server:requests()
  return requests[#requests]
end

-- What a create sends for one binding, with a credential named "token".
local function sent(binding, ...)
  binding.name = binding.name or "api"
  if not binding.match then binding.hosts = binding.hosts or { "api.example.com" } end
  local credentials = { { name = "token", value = "s3cret-value" }, ... }
  assert(client:create_credential_vault(at(), { credentials = credentials, bindings = { binding } }))
  return json.decode(last_request().body).bindings[1]
end

local STATE = {
  revision = 3, credentials = { { name = "token", source_type = "inline", revision = 1 } },
  bindings = { { name = "api", revision = 3, auth = { type = "api_key", name = "X-Key" },
    match = { hosts = { "api.example.com" }, schemes = { "https" }, methods = { "GET" }, paths = { "/*" } } } },
}

describe("the credential vault", function()
  it("is made of credentials and bindings", function()
    local state = assert(client:create_credential_vault(at(), {
      credentials = { { name = "token", value = "s3cret-value" },
        { name = "other", source = { type = "inline", value = "an0ther" } } },
      bindings = { { name = "api", hosts = { "api.example.com", "*.example.com" },
        auth = { type = "bearer", credential = "token" } } },
    }))
    assert.same(STATE, state)
    local request = last_request()
    assert.same({ "POST", "/well/credential-vault", "application/json" },
      { request.method, request.path, request.headers["content-type"] })
    assert.same({
      credentials = { { name = "token", source = { type = "inline", value = "s3cret-value" } },
        { name = "other", source = { type = "inline", value = "an0ther" } } },
      bindings = { { name = "api", match = { hosts = { "api.example.com", "*.example.com" } },
        auth = { type = "bearer", credential = "token" } } },
    }, json.decode(request.body))
  end)

  it("may be made empty", function()
    assert(client:create_credential_vault(at(), {}))
    local body = last_request().body
    assert.truthy(body:find('"credentials":[]', 1, true) and body:find('"bindings":[]', 1, true))
  end)

  it("knows each type of auth by the name it has here", function()
    assert.same({ type = "apiKey", name = "X-Api-Key", credential = "token" },
      sent({ auth = { type = "api_key", name = "X-Api-Key", credential = "token" } }).auth)
    assert.same({ type = "customHeaders", headers = { { name = "X-A", credential = "token" } } },
      sent({ auth = { type = "custom_headers", headers = { { name = "X-A", credential = "token" } } } }).auth)
    assert.same({ type = "basic", credential = "token" }, sent({ auth = { type = "basic", credential = "token" } }).auth)
    assert.same({ type = "passthrough",
      substitutions = { { credential = "token", placeholder = "{{TOKEN}}", ["in"] = { "path", "body" } } } },
      sent({ auth = { type = "passthrough",
        substitutions = { { credential = "token", placeholder = "{{TOKEN}}", ["in"] = { "path", "body" } } } } }).auth)
  end)

  it("sends the whole match, and never ports", function()
    local match = { hosts = { "a.org" }, schemes = { "http", "https" }, methods = { "GET" }, paths = { "/v1/*" } }
    assert.same(match, sent({ match = match, auth = { type = "bearer", credential = "token" } }).match)
    -- What the vault tells can be sent again as it is.
    local told = assert(client:list_vault_bindings(at()))[1].match
    assert.same(told, sent({ match = told, auth = { type = "bearer", credential = "token" } }).match)
  end)

  it("encodes a user name and a password", function()
    assert.truthy(sent({ auth = { type = "basic", credential = "login" } }, { name = "login", username = "Aladdin",
      password = "open sesame" }))
    assert.same({ name = "login", source = { type = "inline", value = "QWxhZGRpbjpvcGVuIHNlc2FtZQ==" } },
      json.decode(last_request().body).credentials[2])
  end)

  it("is changed in parts, under a revision", function()
    assert.same(STATE, assert(client:patch_credential_vault(at(), {
      expected_revision = 2,
      credentials = { add = { { name = "n", value = "new-value" } }, replace = { { name = "r", value = "replaced" } },
        delete = { "d" } },
      bindings = { add = { { name = "b", hosts = { "a.org" }, auth = { type = "bearer", credential = "of-before" } } },
        delete = { "x", "y" } },
    })))
    local request = last_request()
    assert.equal("PATCH", request.method)
    assert.same({
      expectedRevision = 2,
      credentials = { add = { { name = "n", source = { type = "inline", value = "new-value" } } },
        replace = { { name = "r", source = { type = "inline", value = "replaced" } } }, delete = { "d" } },
      bindings = { add = { { name = "b", match = { hosts = { "a.org" } }, auth = { type = "bearer", credential = "of-before" } } },
        delete = { "x", "y" } },
    }, json.decode(request.body))
  end)

  it("is read as a whole and in parts", function()
    assert.same(STATE, assert(client:get_credential_vault(at())))
    assert.same(STATE.credentials, assert(client:list_vault_credentials(at())))
    assert.same(STATE.bindings, assert(client:list_vault_bindings(at())))
    assert.same(STATE.credentials[1], assert(client:get_vault_credential(at(), "to ken")))
    assert.equal("/well/credential-vault/credentials/to%20ken", last_request().path)
    assert.same(STATE.bindings[1], assert(client:get_vault_binding(at(), "api")))
    assert.equal("/well/credential-vault/bindings/api", last_request().path)
  end)

  it("is removed; one that is not there is a success, a sidecar that has none is not", function()
    assert.is_true(client:delete_credential_vault(at()))
    assert.is_true(client:delete_credential_vault(at "none"))
    local _, err = client:delete_credential_vault(at "old")
    assert.matches("egress 1%.1%.0", err.hint)
  end)

  it("has an object of the sandbox", function()
    local sandbox = assert(client:connect("ID", { wait = false }))
    local binding = { name = "api", hosts = { "a.org" }, auth = { type = "bearer", credential = "token" } }
    assert.same(STATE, assert(sandbox.vault:create { credentials = { { name = "token", value = "s3cret-value" } },
      bindings = { binding } }))
    assert.same(STATE, assert(sandbox.vault:get()))
    assert.same(STATE, assert(sandbox.vault:patch { bindings = { delete = { "api" } } }))
    assert.same(STATE.credentials, assert(sandbox.vault:credentials()))
    assert.same(STATE.credentials[1], assert(sandbox.vault:credential "token"))
    assert.same(STATE.bindings, assert(sandbox.vault:bindings()))
    assert.same(STATE.bindings[1], assert(sandbox.vault:binding "api"))
    assert.is_true(sandbox.vault:delete())
    sandbox:close()
    local _, err = sandbox.vault:get()
    assert.same({ "closed", "vault:get" }, { err.kind, err.op })
  end)
end)

describe("a refusal of the vault", function()
  local function refused(name)
    local _, err = client:create_credential_vault(at(name), {})
    return err
  end

  it("is waited for while the sidecar's proxy starts", function()
    assert(client:create_credential_vault(at "starting", {}))
    local began = core.now()
    local err = refused "never"
    assert.equal(412, err.status)
    local took = core.now() - began
    assert.is_true(took > 3 and took < 15)
  end)

  it("that will not pass is told at once, with what to do", function()
    local began = core.now()
    local hints = { off = "credential_proxy = true", mode = "dns%+nft", plain = "TLS or loopback", old = "egress 1%.1%.0",
      fields = "newer than 1%.1%.4", host = "egress:allow", conflict = "delete it first", unauthorized = "discover_egress" }
    for name, hint in pairs(hints) do assert.matches(hint, refused(name).hint) end
    local _, err = client:patch_credential_vault(at "conflict", { expected_revision = 2 })
    assert.same({ 409, "http" }, { err.status, err.kind })
    assert.matches("its current revision", err.hint)
    _, err = client:get_credential_vault(at "none")
    assert.matches("create_credential_vault", err.hint)
    assert.is_true(core.now() - began < 3)
  end)
end)

describe("an answer that is none", function()
  it("is an unexpected one", function()
    for _, name in ipairs { "get_credential_vault", "list_vault_credentials", "list_vault_bindings" } do
      local _, err = client[name](client, at "garbage")
      assert.same({ "protocol", "unexpected_response", name }, { err.kind, err.code, err.op })
    end
    local _, err = client:get_vault_credential(at "garbage", "token")
    assert.equal("protocol", err.kind)
    _, err = client:get_vault_binding(at "garbage", "api")
    assert.equal("protocol", err.kind)
  end)
end)

describe("a secret", function()
  local SECRET = "p4ss\"/word"

  local function shows(text, ...)
    text = tostring(text)
    for _, part in ipairs { ... } do
      if text:find(part, 1, true) then return text end
    end
    return false
  end

  it("is taken out of the server's words, in every form in which it was sent", function()
    local credentials = { { name = "a", value = SECRET }, { name = "b", value = SECRET .. "-and-more" },
      { name = "c", username = "user", password = "open sesame" } }
    for _, call in ipairs {
      function() return client:create_credential_vault(at "echo", { credentials = credentials }) end,
      function() return client:patch_credential_vault(at "echo", { credentials = { add = credentials } }) end,
    } do
      local _, err = call()
      assert.equal(400, err.status)
      for _, text in ipairs { tostring(err), err.message, err.hint or "" } do
        assert.is_false(shows(text, "p4ss", "word", "and-more", "sesame", "dXNlcjpvcGVuIHNlc2FtZQ"))
      end
      assert.matches("%*%*%*", err.message)
    end
  end)

  it("is not in the error of a mistake, wherever it was put", function()
    local function raises(opts, ...)
      local ok, message = pcall(client.create_credential_vault, client, "http://127.0.0.1:1", opts)
      assert.is_false(ok)
      assert.is_false(shows(message, SECRET, "p4ss"))
      for _, part in ipairs { ... } do assert.truthy(tostring(message):find(part, 1, true), tostring(message)) end
    end
    local function bound(auth) return { name = "b", hosts = { "a.org" }, auth = auth } end
    local function binding(auth, ...)
      raises({ credentials = { { name = "n", value = SECRET } }, bindings = { bound(auth) } }, ...)
    end
    raises(SECRET, "the options must be a table")
    raises({ credentials = SECRET }, "credentials must be a list")
    raises({ credentials = { token = SECRET } }, "credentials must be a list")
    raises({ credentials = { SECRET } }, "credential 1 must be a table")
    raises({ credentials = { { SECRET } } }, "credential 1 must have names")
    raises({ credentials = { { name = "n", value = { SECRET } } } }, "must be a string")
    raises({ credentials = { { name = "n", value = "" } } }, "not empty")
    raises({ credentials = { { name = "n", value = SECRET .. "\0" } } }, "NUL")
    raises({ credentials = { { value = SECRET } } }, "credential 1 needs a name")
    raises({ credentials = { { name = "n" } } }, "needs one of")
    raises({ credentials = { { name = "n", value = SECRET, source = { value = SECRET } } } }, "needs one of")
    raises({ credentials = { { name = "n", vale = SECRET } } }, "did you mean 'value'")
    raises({ credentials = { { name = "n", source = SECRET } } }, "source must be a table")
    raises({ credentials = { { name = "n", username = "u" } } }, "'password' must be")
    raises({ credentials = { { name = "n", username = "u:v", password = SECRET } } }, "colon")
    binding({ type = "bearer", credential = SECRET }, "binding 1: auth: credential is not the name of one of the credentials")
    binding({ type = "bearer" }, "needs 'credential'")
    binding({ type = "token", credential = "n" }, "type must be")
    binding({ type = "apiKey", credential = "n", name = "X" }, '"api_key"')
    binding({ type = "api_key", credential = "n" }, "needs 'name'")
    binding({ type = "api_key", credential = "n", name = "X: " .. SECRET }, "the name of a header")
    binding({ type = "custom_headers", headers = {} }, "must not be empty")
    binding({ type = "custom_headers", headers = { ["X-A"] = SECRET } }, "must be a list")
    binding({ type = "custom_headers", headers = { { name = "X-A", credential = SECRET } } }, "1: credential is not the name")
    binding({ type = "basic", username = "u", password = SECRET }, "belong to the credential")
    binding({ type = "passthrough" }, "needs 'substitutions'")
    binding({ type = "passthrough", credential = "n", substitutions = {} }, "unknown option 'credential'")
    local function substituting(entry, ...) binding({ type = "passthrough", substitutions = { entry } }, ...) end
    substituting({ credential = "n", placeholder = "P", ["in"] = { "url" } }, '"path"')
    substituting({ credential = "n", placeholder = "P" }, '"in" is needed')
    substituting({ credential = "n", ["in"] = { "path" } }, "placeholder")
    substituting({ credential = SECRET, placeholder = "P", ["in"] = { "path" } }, "is not the name")
    binding(SECRET, "auth must be a table")
  end)
end)

describe("a mistake in a binding", function()
  it("raises at the caller's line", function()
    local auth = { type = "bearer", credential = "n" }
    local function raises(binding, ...)
      local opts = { credentials = { { name = "n", value = "v" } }, bindings = { binding } }
      local ok, message = pcall(function() client:create_credential_vault("http://127.0.0.1:1", opts) end)
      assert.is_false(ok)
      for _, part in ipairs { "vault_spec.lua", ... } do assert.truthy(tostring(message):find(part, 1, true), tostring(message)) end
    end
    raises({ hosts = { "a.org" }, auth = auth }, "binding 1 needs a name")
    raises({ name = "b", auth = auth }, "needs 'hosts'")
    raises({ name = "b", hosts = { "a" }, match = { hosts = { "b" } }, auth = auth }, "and not both")
    raises({ name = "b", hosts = "a.org", auth = auth }, "hosts must be a list")
    raises({ name = "b", hosts = {}, auth = auth }, "hosts must not be empty")
    raises({ name = "b", hosts = { "" }, auth = auth }, "not empty")
    raises({ name = "b", match = { hosts = { "a.org" }, ports = { 443 } }, auth = auth }, "unknown option 'ports'")
    raises({ name = "b", hosts = { "a.org" } }, "auth must be a table")
    assert.is_false(pcall(client.patch_credential_vault, client, "http://127.0.0.1:1", {}))
    assert.is_false(pcall(client.patch_credential_vault, client, "http://127.0.0.1:1", { expected_revision = -1 }))
    assert.is_false(pcall(client.patch_credential_vault, client, "http://127.0.0.1:1", { credentials = { delete = {} } }))
    assert.is_false(pcall(client.get_vault_binding, client, "http://127.0.0.1:1", ".."))
  end)
end)
