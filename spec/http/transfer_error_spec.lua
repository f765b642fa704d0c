--- What is said of a transfer that failed: the true culprit, and the remedy.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local openssl_server = require "spec.support.openssl_server"
local process = require "spec.support.process"
local transfer_error = require "opensandbox.http.transfer_error"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local function error_of(url, options)
  options = options or {}
  options.retry = false
  local client = opensandbox.new(url, "key", options)
  local value, err = client:get_sandbox "a"
  client:close()
  assert.is_nil(value)
  return err
end

local function has(text, ...)
  for _, part in ipairs { ... } do assert.truthy(tostring(text):find(part, 1, true), tostring(text)) end
end

describe("TLS spoken to a plain server", function()
  it("is named, when it responds", function()
    local server = fault_server.start [[
      return {
        on_connect = function(connection) connection:send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"):close() end,
      }
    ]]
    finally(function() server:stop() end)
    local err = error_of((server.url:gsub("^http:", "https:")))
    assert.same({ "transport", "tls_failed" }, { err.kind, err.code })
    has(err.hint, "does not use TLS", "http://")
  end)

  it("is named, when it waits", function()
    local server = fault_server.start [[
      return { on_connect = function(connection) connection:pause_reading() end }
    ]]
    finally(function() server:stop() end)
    local err = error_of((server.url:gsub("^http:", "https:")), { connect_timeout = 0.3 })
    assert.same({ "timeout", "connect_timeout" }, { err.kind, err.code })
    has(err.hint, "connect_timeout", "http://")
  end)
end)

describe("plain HTTP spoken to a TLS server", function()
  it("is named", function()
    local server = openssl_server.start()
    if not server then return pending("no openssl program here") end
    finally(function() server:stop() end)
    local err = error_of("http://127.0.0.1:" .. server.port, { timeout = 5 })
    assert.is_true(err.code == "receive_failed" or err.code == "bad_response", err.code)
    has(err.hint, "TLS", "https://")
  end)
end)

describe("too many open files", function()
  it("are an error like another one, even if it is the first of the program", function()
    if not process.descriptors() then return pending("no /proc here") end
    local server = fault_server.start [[
      return function(request, connection)
        connection:respond(200, { ["Content-Type"] = "application/json" }, '{"id":"a","status":{"state":"Running"}}')
      end
    ]]
    local limited = { "sh", "-c", 'ulimit -n 40; exec "$@"', "sh", process.lua(), "-e" }
    limited[#limited + 1] = ([[
      local opensandbox = require "opensandbox"
      local url = %q
      local first, second = opensandbox.new(url, "k"), opensandbox.new(url, "k", { retry = false })
      assert(first:get_sandbox "a")
      assert(first:ping(url))
      assert(second.get_sandbox and second.ping)
      local held, file = {}, nil
      repeat
        file = io.open("/dev/null")
        held[#held + 1] = file
      until not file
      for _, call in ipairs {
        function() return second:get_sandbox "a" end,
        function() return second:ping({ url = url, headers = {}, sandbox_id = "a" }) end,
      } do
        local ok, value, err = pcall(call)
        print(ok, value, type(err) == "table" and err.kind .. " " .. err.code .. " " .. tostring(err))
      end
      for _, one in ipairs(held) do one:close() end
      print(second:get_sandbox("a").id)
    ]]):format(server.url)
    local child = process.start { env = process.module_paths(), argv = limited }
    local lines = { child:read_line(20), child:read_line(20), child:read_line(20) }
    local problem = child:stderr_text()
    child:stop()
    server:stop()
    assert.equal(3, #lines, problem)
    for index = 1, 2 do
      assert.matches("^true%s+nil%s+transport no_descriptors .*too many open files.*ulimit", lines[index])
    end
    assert.equal("a", lines[3])
  end)
end)

describe("a name lookup", function()
  it("that gets no thread asks for higher limits, and blames neither the host nor the proxy", function()
    if not process.descriptors() then return pending("no /proc here") end
    if os.getenv("OPENSANDBOX_TEST_PRELOAD") then return pending("sanitizers need more address space than the limit") end
    -- A thread's stack of 4 GB does not fit into the address space.
    local limited = { "sh", "-c", 'ulimit -v 1000000; ulimit -s 4000000; exec "$@"', "sh", process.lua(), "-e", [[
      local opensandbox = require "opensandbox"
      for _, proxy in ipairs { "", "http://proxy.invalid" } do
        local options = { retry = false, proxy = proxy, connect_timeout = 2 }
        print(select(2, opensandbox.new("http://box.invalid", "k", options):get_sandbox "a"))
      end
    ]] }
    local child = process.start { env = process.module_paths(), argv = limited }
    local lines = { child:read_line(20), child:read_line(20) }
    local problem = child:stderr_text()
    child:stop()
    assert.equal(2, #lines, problem)
    if lines[1]:find("Could not resolve host", 1, true) then return pending("the lookup needs no thread here, or a small one") end
    local codes = { "resolve_failed", "proxy_failed" }
    if lines[1]:find("connect_timeout", 1, true) then codes = { "connect_timeout", "connect_timeout" } end -- as of libcurl 8.23
    for index, code in ipairs(codes) do
      has(lines[index], code, "The name lookup needs a thread", "ulimit -u")
      assert.is_nil(lines[index]:find("Check the host", 1, true), lines[index])
    end
    has(lines[2], "the proxy http://proxy.invalid (option proxy)")
  end)

  -- What libcurl reports, by its version and by the place of the failure, cannot all be caused with one libcurl.
  local function fields(outcome, message, proxy)
    return transfer_error.fields(outcome, message, { url = "http://box.example/v1", proxy = proxy or "", sent = false,
      option_name = function(timer) return timer end, seconds = function() return 10 end })
  end

  it("that takes the whole time for the connection is named, and so is its proxy", function()
    local direct = fields("connect_timeout", "Resolving timed out after 10000 milliseconds")
    has(direct.message, "a name was not resolved in time: connect_timeout of 10 s ran out")
    has(direct.hint, "Check the DNS server")
    local proxied = fields("connect_timeout", "Resolving timed out after 10000 milliseconds", "http://proxy.example:3128")
    has(proxied.message, "a name was not resolved in time through the proxy http://proxy.example:3128 (option proxy)")
    local connecting = fields("connect_timeout", "Connection timed out after 10000 milliseconds")
    has(connecting.message, "no connection in time")
    assert.is_nil(connecting.hint:find("DNS", 1, true))
  end)

  it("of a proxy that resolves the names of servers is not said to be one of the server", function()
    for _, proxy in ipairs { "proxy.example:3128", "http://proxy.example", "HTTPS://proxy.example", "socks5h://proxy.example" } do
      assert.equal("proxy_failed", fields("resolve_failed", "getaddrinfo() thread failed to start", proxy).code, proxy)
    end
    for _, proxy in ipairs { "", "socks5://proxy.example", "socks4://proxy.example" } do
      assert.equal("resolve_failed", fields("resolve_failed", "Could not resolve host: box.example", proxy).code, proxy)
    end
  end)
end)

describe("a proxy that hangs", function()
  it("is named beside the time limit", function()
    local server = fault_server.start [[return function(_, connection) connection:silence() end]]
    finally(function() server:stop() end)
    local address = server.url:gsub("^http://", "")
    local err = error_of("https://box.invalid", { proxy = "http://user:hunter2@" .. address, connect_timeout = 0.3 })
    assert.same({ "timeout", "connect_timeout", true }, { err.kind, err.code, err.not_sent })
    has(err, "through the proxy http://" .. address .. " (option proxy): connect_timeout of 0.3 s ran out", "Check the proxy")
    assert.is_nil(tostring(err):find("hunter2", 1, true))
  end)
end)

describe("a proxy that cannot be reached", function()
  local DEAD = "http://user:hunter2@127.0.0.1:1"

  it("is named, when it is an option", function()
    local err = error_of("http://box.invalid", { proxy = DEAD })
    assert.same({ "transport", "proxy_failed", true }, { err.kind, err.code, err.not_sent })
    has(err, "the proxy http://127.0.0.1:1 (option proxy) failed")
    assert.is_nil(tostring(err):find("hunter2", 1, true))
  end)

  -- Runs a script with other variables in its environment, and returns what it prints.
  local function child(variables, script)
    local env = process.module_paths()
    for _, name in ipairs { "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY" } do
      env[name] = variables[name] or false
    end
    local program = process.start { argv = { process.lua(), "-e", [[
      local opensandbox = require "opensandbox"
      local function error_of(url)
        return tostring(select(2, opensandbox.new(url, "k", { retry = false, timeout = 5 }):get_sandbox "a"))
      end
    ]] .. script }, env = env }
    local code = program:wait(20)
    local output = program:output()
    assert.equal(0, code, program:stderr_text())
    program:stop()
    return output
  end

  it("is named with its variable, when it is one of the environment", function()
    for name, url in pairs {
      http_proxy = "http://box.invalid", https_proxy = "https://box.invalid", HTTPS_PROXY = "https://box.invalid",
      all_proxy = "http://box.invalid", ALL_PROXY = "https://box.invalid",
    } do
      local output = child({ [name] = DEAD }, ("io.write(error_of %q)"):format(url))
      has(output, ("the proxy http://127.0.0.1:1 (environment variable %s) failed"):format(name), "option proxy")
      assert.is_nil(output:find("hunter2", 1, true))
    end
  end)

  it("is not blamed, when it is not used", function()
    for _, no_proxy in ipairs { "127.0.0.1", "*", "other.example, 127.0.0.1" } do
      local output = child({ http_proxy = DEAD, no_proxy = no_proxy }, [[io.write(error_of "http://127.0.0.1:2")]])
      has(output, "connection refused")
      assert.matches("127%.0%.0%.1[: ][port ]*2[: ]", output) -- as versions of libcurl write it
      assert.is_nil(output:find("proxy", 1, true), output)
    end
  end)
end)

describe("a request whose connection broke after it was sent, and could not be made again", function()
  it("is not said to be one that was not sent", function()
    -- The server dies with the second request: its port refuses the next connection.
    local server = fault_server.start [[
      return function(request, connection)
        if request.path:find("command") then os.exit(1) end
        connection:respond(200, {}, "")
      end
    ]]
    local client = opensandbox.new("http://127.0.0.1:1", "key")
    finally(function()
      client:close()
      server:stop()
    end)
    assert(client:ping(server.url))
    local result, err = client:run_command(server.url, "x")
    assert.is_nil(result)
    assert.equal("transport", err.kind)
    assert.is_true(err.code == "send_failed" or err.code == "receive_failed", tostring(err))
    assert.is_falsy(err.not_sent)
    assert.is_false(err.retryable)
  end)
end)

describe("a compressed response that was not asked for", function()
  it("is named", function()
    local server = fault_server.start [[
      return function(request, connection)
        connection:respond(200, { ["Content-Type"] = "application/json", ["Content-Encoding"] = "gzip" }, "\31\139\8 not really")
      end
    ]]
    finally(function() server:stop() end)
    local err = error_of(server.url)
    assert.equal("protocol", err.kind)
    has(tostring(err):lower(), "compress")
  end)
end)
