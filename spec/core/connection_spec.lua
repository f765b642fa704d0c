--- The way to the server: what a transfer knows of it when it fails, above all whether the request may have been carried out.

local core = require "opensandbox.core"
local driving = require "spec.support.transfers"
local fault_server = require "spec.support.fault_server"
local process = require "spec.support.process"
local openssl_server = require "spec.support.openssl_server"
local uv = require "luv"
local uv_loop = require "spec.support.uv_loop"

local finish, get, drain = driving.finish, driving.get, driving.drain

-- A proxy: what it does depends on the host that it is asked for.
local PROXY = [[
  local function relay(connection, port)
    local upstream = uv.new_tcp()
    upstream:connect("127.0.0.1", tonumber(port), function()
      connection:send("HTTP/1.1 200 Connection established\r\nX-Of-The-Proxy: 1\r\n\r\n")
      connection:take_over(function(bytes) upstream:write(bytes) end)
      upstream:read_start(function(_, bytes)
        if bytes then return connection:send(bytes) end
        connection:close()
        upstream:close()
      end)
    end)
  end

  return {
    on_headers = function(request, connection)
      state.requests = (state.requests or 0) + 1
      if request.method ~= "CONNECT" then return connection:respond(200, {}, "from the proxy") end
      local host, port = request.path:match("^(.*):(%d+)$")
      if host == "denied" then
        connection:respond(403, { Connection = "close" }, "no")
      elseif host == "needs-password" then
        connection:respond(407, { ["Proxy-Authenticate"] = "Basic realm=x", Connection = "close" }, "")
      elseif host == "silent" then
        connection:silence()
      else
        relay(connection, port)
      end
    end,
    on_request = function() end,
  }
]]

describe("a connection", function()
  local multi

  before_each(function() multi = core.multi() end)
  after_each(function() multi:close() end)

  describe("through a proxy", function()
    local proxy

    setup(function() proxy = fault_server.start(PROXY) end)
    teardown(function() proxy:stop() end)

    local function through(url, fields)
      fields = fields or {}
      fields.proxy = proxy.url
      return get(multi, url, fields)
    end

    it("that says no was not used for the request", function()
      for _, host in ipairs { "denied", "needs-password" } do
        local transfer = through("https://" .. host .. "/", { may_repeat = false })
        local outcome, message, sent = finish(multi, transfer)
        assert.same({ "proxy_failed", false }, { outcome, sent })
        assert.truthy(message:find("40[37]"), message)
        assert.is_nil(transfer:head())
      end
    end)

    it("that says nothing was not used for the request", function()
      local transfer = through("https://silent/", { connect_timeout = 0.3 })
      local requests = proxy:state().requests or 0
      driving.step_until(multi, function()
        if transfer:outcome() then return true end
        assert.is_false(transfer:sent())
      end)
      assert.equal(requests + 1, proxy:state().requests)
      assert.same({ "connect_timeout", false }, { (transfer:outcome()), select(3, transfer:outcome()) })
    end)

    it("carries a request to a TLS server, whose response has the headers of the server only", function()
      local server = openssl_server.start()
      if not server then return pending("there is no openssl program") end
      local transfer = through(server.url .. "/", { ca_file = server.ca_file })
      local outcome, message, sent = finish(multi, transfer)
      assert.same({ "complete", true }, { outcome, sent }, message)
      local status, lines = transfer:head()
      assert.equal(200, status)
      assert.falsy(lines:find("X-Of-The-Proxy", 1, true))
      server:stop()
    end)

    it("carries a plain request", function()
      local transfer = through("http://example.invalid/")
      assert.same({ "complete", "from the proxy" }, { (finish(multi, transfer)), drain(transfer) })
    end)

    it("that cannot be reached is told apart from a server that cannot", function()
      for url, proxy_url in pairs { ["http://example.invalid/"] = "http://127.0.0.1:1",
          ["https://example.invalid/"] = "http://127.0.0.1:1", ["http://127.0.0.1/"] = "http://no-such-proxy.invalid:3128" } do
        local outcome, _, sent = finish(multi, get(multi, url, { proxy = proxy_url }))
        assert.same({ "proxy_failed", false }, { outcome, sent }, url)
      end
      assert.equal("connect_failed", (finish(multi, get(multi, "http://127.0.0.1:1/", { proxy = "" }))))
    end)
  end)

  it("that breaks after the request, and cannot be made again, may have carried the request", function()
    local leaving = fault_server.start [[
      return function(request, connection)
        if request.path == "/stay" then return connection:respond(200, {}, "") end
        os.exit(0) -- closes the connection, and nobody accepts another
      end
    ]]
    assert.equal("complete", (finish(multi, get(multi, leaving.url .. "/stay"))))
    local transfer = multi:request { method = "POST", url = leaving.url .. "/leave", body = "{}", may_repeat = false }
    local outcome, message, sent = finish(multi, transfer)
    assert.is_true(sent)
    assert.is_true(outcome == "receive_failed" or outcome == "send_failed", outcome)
    local is_reused = message:find("after the request was sent", 1, true) -- libcurl before 7.73 gets a fresh connection for it
    assert.truthy(is_reused or message:find("Empty reply from server", 1, true), message)
    leaving:stop()
  end)

  it("that breaks after a request that may be repeated says so, too, when it cannot be made again", function()
    local leaving = fault_server.start [[
      return function(request, connection)
        if request.path == "/stay" then return connection:respond(200, {}, "") end
        os.exit(0)
      end
    ]]
    assert.equal("complete", (finish(multi, get(multi, leaving.url .. "/stay"))))
    local outcome, message, sent = finish(multi, get(multi, leaving.url .. "/leave"))
    assert.same({ "receive_failed", true }, { outcome, sent }, message)
    leaving:stop()
  end)

  it("that the server has closed while it was idle is not used for a request that must not be sent twice", function()
    local closing = fault_server.start [[
      return function(request, connection)
        connection:respond(200, {}, request.body)
        connection:after(20, connection.close)
      end
    ]]
    for _, gap in ipairs { 0.05, 0.1, 0.3, 0.6 } do
      assert.equal("complete", (finish(multi, get(multi, closing.url .. "/"))))
      uv_loop.sleep(gap) -- without a step: libcurl must not notice meanwhile
      while closing:connections().open > 0 do uv_loop.sleep(0.01) end
      local transfer = multi:request { method = "POST", url = closing.url .. "/", body = "once", may_repeat = false }
      local outcome, message = finish(multi, transfer)
      assert.equal("complete", outcome, message)
      assert.equal("once", drain(transfer))
    end
    local posts = 0
    for _, request in ipairs(closing:requests()) do posts = posts + (request.method == "POST" and 1 or 0) end
    assert.equal(4, posts)
    closing:stop()
  end)

  it("sends headers with an empty value, and every other as it is", function()
    local server = fault_server.start [[ return function(_, connection) connection:respond(200, {}, "") end ]]
    finish(multi, get(multi, server.url .. "/", { headers = { "X-Empty:", "X-Blank: \t ", "X-Semicolon: ;", "X-Value: a:b" } }))
    local headers = server:requests()[1].headers
    assert.same({ "", "", ";", "a:b" },
      { headers["x-empty"], headers["x-blank"], headers["x-semicolon"], headers["x-value"] })
    assert.is_nil(headers.expect)
    server:stop()
  end)

  it("trusts the certificates that the environment names", function()
    local server = openssl_server.start()
    if not server then return pending("there is no openssl program") end
    local names = { "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR" }
    local before = {}
    for _, name in ipairs(names) do
      before[name] = os.getenv(name)
      uv.os_unsetenv(name)
    end
    local function ask(fields) return (finish(multi, get(multi, server.url .. "/", fields))) end
    local ok, problem = pcall(function()
      assert.equal("tls_failed", ask())
      for _, name in ipairs { "CURL_CA_BUNDLE", "SSL_CERT_FILE" } do
        uv.os_setenv(name, server.ca_file)
        assert.equal("complete", ask(), name)
        uv.os_setenv(name, server.directory .. "/missing")
        assert.equal("tls_failed", ask(), name)
        assert.equal("complete", ask { ca_file = server.ca_file }, "an option comes before the environment")
        assert.equal("complete", ask { insecure = true })
        uv.os_unsetenv(name)
      end
      uv.os_setenv("CURL_CA_BUNDLE", server.ca_file)
      uv.os_setenv("SSL_CERT_FILE", server.directory .. "/missing")
      assert.equal("complete", ask(), "curl's variable comes first")
    end)
    for _, name in ipairs(names) do
      uv.os_unsetenv(name)
      if before[name] then uv.os_setenv(name, before[name]) end
    end
    server:stop()
    if not ok then error(problem, 0) end
  end)

  it("that cannot be made because too many files are open is told as that", function()
    if not process.descriptors() then return pending("no /proc here") end
    local server = fault_server.start [[ return function(_, connection) connection:respond(200, {}, "") end ]]
    local limited = { "sh", "-c", 'ulimit -n 40; exec "$@"', "sh", process.lua(), "-e" }
    limited[#limited + 1] = ([[
      local core, held = require "opensandbox.core", {}
      local function fill()
        local file = io.open("/dev/null")
        while file do
          held[#held + 1] = file
          file = io.open("/dev/null")
        end
      end
      -- Libraries that libcurl uses, and the C library's for names, must be loaded while there are descriptors.
      local first = core.multi()
      local loaded = first:request { method = "GET", url = "http://localhost:%d/" }
      while not loaded:outcome() do first:step(1) end
      first:close()
      for _, host in ipairs { "127.0.0.1", "localhost" } do
        for free = 0, 14 do
          fill()
          for _ = 1, free do table.remove(held):close() end
          local multi = core.multi()
          local transfer = multi:request { method = "GET", url = "http://" .. host .. ":%d/", timeout = 5 }
          while not transfer:outcome() do multi:step(1) end
          io.write(transfer:outcome(), " ")
          multi:close()
        end
        io.write("\n")
      end
    ]]):format(server.port, server.port)
    local child = process.start { env = process.module_paths(), argv = limited }
    for _ = 1, 2 do
      local line = assert(child:read_line(30))
      local outcomes = {}
      for outcome in line:gmatch("%S+") do outcomes[#outcomes + 1] = outcome end
      assert.equal(15, #outcomes)
      assert.equal("no_descriptors", outcomes[1])
      assert.equal("complete", outcomes[15])
      for _, outcome in ipairs(outcomes) do
        assert.is_true(outcome == "no_descriptors" or outcome == "complete", line)
      end
    end
    child:stop()
    server:stop()
  end)
end)
