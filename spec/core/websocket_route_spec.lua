--- The way to a WebSocket's server: over TLS, through proxies, and what a fork leaves of it.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local tls_server = require "spec.support.tls_server"
local transfers = require "spec.support.transfers"

local step_until, finish = transfers.step_until, transfers.finish

-- Echoes, sends 3 MB when it is told to, and closes or cuts the connection when it is told to.
local server_source = [[
  return function(request, connection)
    if request.path == "/409" then return connection:respond(409, {}, "taken") end
    if request.path == "/plain" then return connection:respond(200, {}, "plain") end
    local peer = websocket.accept(request, connection, {
      with = websocket.frame("text", "with the head"),
      on_frame = function(peer, frame)
        if frame.payload == "flood" then
          for _ = 1, 750 do peer:send("binary", ("x"):rep(4000)) end
        elseif frame.payload == "close" then
          peer:close(4000, "as you wish")
        elseif frame.payload == "cut" then
          connection:close()
        elseif frame.opcode == "text" or frame.opcode == "binary" then
          peer:send(frame.opcode, frame.payload)
        end
      end,
    })
    state.log = peer.log
  end
]]

-- A proxy for CONNECT: 407 without credentials where it wants them, and 502 where the target refuses.
local proxy_source = [[
  return {
    on_headers = function(request, connection)
      if request.method ~= "CONNECT" then return connection:respond(405, {}, "this proxy knows CONNECT only") end
      state.targets = state.targets or {}
      state.targets[#state.targets + 1] = request.path
      if wants_password and request.headers["proxy-authorization"] ~= "Basic dXNlcjpwYXNz" then
        return connection:respond(407, { ["Proxy-Authenticate"] = "Basic realm=\"p\"" }, "who are you?")
      end
      local tcp = uv.new_tcp()
      local host, port = request.path:match("^(.*):(%d+)$")
      tcp:connect(host, tonumber(port), function(problem)
        if problem then return connection:respond(502, {}, problem) end
        connection:send("HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n")
        connection:take_over(function(bytes) tcp:write(bytes) end)
        tcp:read_start(function(_, bytes)
          if bytes then return connection:send(bytes) end
          connection:close()
          tcp:close()
        end)
      end)
    end,
    on_request = function() end,
  }
]]

describe("a WebSocket", function()
  local server, tls, proxy, closed_proxy, multi

  setup(function()
    server = fault_server.start(server_source)
    tls = tls_server.start(server.port)
    proxy = fault_server.start("local wants_password = false " .. proxy_source)
    closed_proxy = fault_server.start("local wants_password = true " .. proxy_source)
  end)
  teardown(function()
    server:stop()
    if tls then tls:stop() end
    proxy:stop()
    closed_proxy:stop()
  end)
  before_each(function() multi = core.multi() end)
  after_each(function() multi:close() end)

  local function receive(transfer)
    local kind, bytes
    step_until(multi, function()
      kind, bytes = transfer:receive()
      return kind or transfer:outcome()
    end)
    return kind, bytes
  end

  local function send(transfer, kind, bytes)
    local sent
    step_until(multi, function()
      sent = transfer:send(kind, bytes)
      return sent ~= false
    end)
    assert.is_true(sent)
  end

  -- Everything that a connection does, once.
  local function works(fields)
    fields.connect_timeout, fields.timeout = 5, 5
    local transfer = multi:websocket(fields)
    assert.same({ "text", "with the head" }, { receive(transfer) })
    local payload = ("0123456789abcdef"):rep(18750)
    send(transfer, "binary", payload)
    local _, bytes = receive(transfer)
    assert.is_true(bytes == payload)
    send(transfer, "text", "flood")
    local size = 0
    while size < 3000000 do
      _, bytes = receive(transfer)
      size = size + #bytes
    end
    for index = 1, 50 do
      send(transfer, "text", "message " .. index)
      assert.same({ "text", "message " .. index }, { receive(transfer) })
    end
    send(transfer, "text", "close")
    assert.equal("complete", (finish(multi, transfer)))
    assert.same({ 4000, "as you wish" }, { transfer:close_status() })

    transfer = multi:websocket(fields)
    assert.same({ "text", "with the head" }, { receive(transfer) })
    transfer:send_close(1000, "bye")
    assert.equal("complete", (finish(multi, transfer)))

    transfer = multi:websocket(fields)
    receive(transfer)
    send(transfer, "text", "cut")
    assert.equal("receive_failed", (finish(multi, transfer)))

    fields.url = fields.url .. "409"
    transfer = multi:websocket(fields)
    assert.equal("complete", (finish(multi, transfer)))
    assert.same({ 409, "taken" }, { (transfer:head()), transfer:read() })
  end

  it("works over TLS", function()
    if not tls then return pending("openssl or Python is missing") end
    works { url = tls.url .. "/", ca_file = tls.ca_file }
  end)

  it("over TLS verifies the server, unless it is told not to", function()
    if not tls then return pending("openssl or Python is missing") end
    assert.equal("tls_failed", (finish(multi, multi:websocket { url = tls.url .. "/" })))
    local transfer = multi:websocket { url = tls.url .. "/", insecure = true }
    assert.same({ "text", "with the head" }, { receive(transfer) })
  end)

  it("works through an HTTP proxy, by CONNECT", function()
    local before = #(proxy:state().targets or {})
    works { url = server.url .. "/", proxy = proxy.url }
    local targets = proxy:state().targets
    assert.is_true(#targets > before)
    for i = before + 1, #targets do assert.equal("127.0.0.1:" .. server.port, targets[i]) end
  end)

  it("works over TLS through an HTTP proxy", function()
    if not tls then return pending("openssl or Python is missing") end
    works { url = tls.url .. "/", ca_file = tls.ca_file, proxy = proxy.url }
  end)

  it("through a proxy that wants a password: without it the proxy's refusal is the error, with it all works", function()
    local transfer = multi:websocket { url = server.url .. "/", proxy = closed_proxy.url }
    local outcome, message, sent = finish(multi, transfer)
    assert.same({ "proxy_failed", false }, { outcome, sent })
    assert.truthy(message:find("407", 1, true), message)
    transfer = multi:websocket { url = server.url .. "/", proxy = (closed_proxy.url:gsub("//", "//user:pass@")) }
    assert.same({ "text", "with the head" }, { receive(transfer) })
  end)

  it("through a proxy that does not reach the server fails", function()
    local transfer = multi:websocket { url = "http://127.0.0.1:1/", proxy = proxy.url }
    local _, message = finish(multi, transfer)
    assert.truthy(message:find("502", 1, true), message)
  end)

  it("leaves the head of a proxy's answer out of an ordinary response, too", function()
    if not tls then return pending("openssl or Python is missing") end
    local transfer = multi:request { url = tls.url .. "/plain", ca_file = tls.ca_file, proxy = proxy.url }
    assert.equal("complete", (finish(multi, transfer)))
    local status, lines = transfer:head()
    assert.same({ 200, "plain" }, { status, transfer:read() })
    assert.falsy(lines:find("X-Proxy", 1, true))
  end)

  local ffi = rawget(_G, "jit") and require "ffi"
  if ffi then -- only LuaJIT can fork without another module
    pcall(ffi.cdef, "int fork(void); int waitpid(int, int *, int); void _exit(int);")

    it("stays with the parent after a fork, and ends in the child without a trace", function()
      local transfer = multi:websocket { url = server.url .. "/" }
      receive(transfer)
      local pid = ffi.C.fork()
      if pid == 0 then
        local ok = pcall(function()
          assert(transfer:send("text", "from the child") == nil)
          assert(transfer:send_close(1000) == nil)
          multi:step(0)
          assert(transfer:outcome() == "forked")
          local own = multi:websocket { url = server.url .. "/" }
          local deadline = core.now() + 5
          while not own:receive() and core.now() < deadline do multi:step(0.5) end
          assert(own:head() == 101)
          multi:close()
        end)
        ffi.C._exit(ok and 0 or 1)
      end
      local status = ffi.new("int[1]")
      ffi.C.waitpid(pid, status, 0)
      assert.equal(0, status[0])
      send(transfer, "text", "from the parent")
      assert.same({ "text", "from the parent" }, { receive(transfer) })
    end)
  end
end)
