--- What goes wrong with a terminal: each is an error with its kind, its code and a remedy, and the output that came is kept.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

describe("a terminal reports", function()
  local server, client

  setup(function()
    server = fault_server.start [[
      local CONNECTED = '{"type":"connected","session_id":"x","mode":"pty"}'
      local MARK = "\27_" -- of the client's command, with the token behind it

      local function respond(connection, status, body, kind)
        connection:respond(status, { ["Content-Type"] = kind or "application/json" }, body)
      end

      -- A session that has started: "kept" is its output.
      local function started(request, connection, script)
        local token = state.token or ""
        return websocket.accept(request, connection, { with = websocket.frame("text", CONNECTED)
          .. websocket.frame("binary", "\1\27_" .. token .. "\27\\kept") .. (script.with or ""), on_frame = script.on_frame })
      end

      local sockets = {}

      function sockets.mask(request, connection) started(request, connection, {
        with = websocket.frame("binary", "\1x", { mask = "abcd" }) }) end

      function sockets.text(request, connection) started(request, connection, { with = websocket.frame("text", "\255") }) end

      function sockets.large(request, connection) started(request, connection, {
        with = websocket.frame("binary", "", { length = 100000000, length_bytes = 8 }) }) end

      function sockets.taken(request, connection) started(request, connection, {
        with = websocket.close_frame(4001, "TAKEN_OVER") }) end

      function sockets.write(request, connection) started(request, connection, { on_frame = function(peer, frame)
        if frame.payload ~= "\0x" then return end
        peer:send("text", '{"type":"error","code":"STDIN_WRITE_FAILED","error":"EIO"}')
      end }) end

      function sockets.start(request, connection)
        websocket.accept(request, connection, { with = websocket.frame("text", CONNECTED)
          .. websocket.frame("text", '{"type":"error","code":"START_FAILED","error":"no shell"}')
          .. websocket.close_frame(1011, "") })
      end

      function sockets.ignored(request, connection) -- execd before 1.0.19
        websocket.accept(request, connection, { with = websocket.frame("text", CONNECTED)
          .. websocket.frame("binary", "\1\27[?2004h") .. websocket.frame("binary", "\1bash-5.2# ") })
      end

      function sockets.deleted(request, connection) -- a cut, and then the session is gone
        state.deleted = true
        started(request, connection, {})
        connection:close()
      end

      function sockets.unclear(request, connection) -- input that may not have arrived
        state.cuts = (state.cuts or 0) + 1
        started(request, connection, { on_frame = function(peer, frame)
          if frame.payload:find("cut", 1, true) then connection:close() end
        end })
      end

      function sockets.gap(request, connection) -- execd does not have all of what was missed
        if request.path:find("since=") then
          websocket.accept(request, connection, { with = websocket.frame("binary", "\3\0\0\0\0\0\16\0\0later")
            .. websocket.frame("text", CONNECTED) })
        else
          started(request, connection, {})
          connection:close()
        end
      end

      function sockets.proxy(request, connection) -- 101, and then it closes
        websocket.accept(request, connection)
        connection:close()
      end

      function sockets.proxied(request, connection) -- a refusal of execd through the server's proxy
        websocket.accept(request, connection, { with = websocket.close_frame(1008) })
        connection:close()
      end

      function sockets.silent(request, connection) connection:silence() end

      function sockets.unauthorized(_, connection) respond(connection, 401, '{"error":"unauthorized"}') end
      function sockets.page(_, connection) respond(connection, 200, "<html><title>Welcome</title></html>", "text/html") end

      return function(request, connection)
        local case, path = request.path:match("^/(%l+)(/.*)$")
        if case == "old" then
          respond(connection, 404, "404 page not found", "text/plain")
        elseif path == "/pty" then
          state.token, state.deleted = request.body:match("033_(%x+)"), false
          state.posts = (state.posts or 0) + 1
          if case == "folder" then
            respond(connection, 500, '{"code":"RUNTIME_ERROR","message":"not a directory"}{"session_id":"x"}')
          else
            respond(connection, 201, '{"session_id":"x"}')
          end
        elseif request.method == "DELETE" then
          state.deletes = (state.deletes or 0) + 1
          connection:respond(200, {}, "")
        elseif path:find("/ws") then
          sockets[case](request, connection)
        elseif case == "deleted" and state.deleted then
          respond(connection, 404, '{"code":"CONTEXT_NOT_FOUND","message":"pty session x not found"}')
        elseif case == "proxy" then
          respond(connection, 200, '{"session_id":"x","running":false,"output_offset":0}')
        else
          respond(connection, 200, '{"session_id":"x","running":true,"output_offset":4}')
        end
      end
    ]]
    client = opensandbox.new(server.url, "k", { retry = false })
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  local function open(case, opts)
    local handle = { id = "s", url = client.url, endpoints = { ["44772"] = { url = server.url .. "/" .. case, headers = {} } } }
    return assert(client:connect(handle, { wait = false })):terminal(opts)
  end

  local function check(err, kind, code, op, hint)
    assert.same({ kind, code, op, "s" }, { err.kind, err.code, err.op, err.sandbox_id }, tostring(err))
    assert.matches(hint, err.hint)
  end

  -- A terminal that could not be opened is deleted.
  local function check_refused(case, kind, code, hint, opts)
    local deletes = server:state().deletes or 0
    local terminal, err = open(case, opts)
    assert.is_nil(terminal)
    check(err, kind, code, "sandbox:terminal", hint)
    if (opts and opts.id) or case == "old" or case == "folder" then return err end
    local limit = opensandbox.now() + 10
    while (server:state().deletes or 0) == deletes and opensandbox.now() < limit do opensandbox.sleep(0.01) end
    assert.equal(deletes + 1, server:state().deletes)
    return err
  end

  -- Of a terminal that was open: its output can still be read.
  local function check_broken(case, kind, code, hint)
    local terminal = assert(open(case))
    local ended, err = terminal:wait { timeout = 20 }
    assert.is_nil(ended)
    check(err, kind, code, "terminal:wait", hint)
    assert.is_nil(err.terminal_continues)
    assert.equal("kept", terminal:read())
    err = select(2, terminal:read())
    check(err, kind, code, "terminal:read", hint)
    err = select(2, terminal:write "x")
    check(err, kind, code, "terminal:write", hint)
    assert.is_true(terminal:close())
  end

  it("an execd without its routes", function()
    local err = check_refused("old", "state", "unsupported", "execd image")
    assert.matches("1%.0%.10", err.message)
    check_refused("old", "state", "unsupported", "execd image", { id = "x" })
  end)

  it("an execd that ignores its command", function()
    local err = check_refused("ignored", "state", "unsupported", "execd image")
    assert.matches("1%.0%.19", err.message)
  end)

  it("a directory below a file, with execd's reason", function()
    local deletes = server:state().deletes or 0
    local terminal, err = open("folder", { cwd = "/etc/passwd/x" })
    assert.is_nil(terminal)
    assert.same({ "http", 500, "RUNTIME_ERROR", "sandbox:terminal" }, { err.kind, err.status, err.code, err.op })
    assert.equal("not a directory", err.message)
    local limit = opensandbox.now() + 10 -- the session that execd has made all the same is deleted
    while (server:state().deletes or 0) == deletes and opensandbox.now() < limit do opensandbox.sleep(0.01) end
    assert.equal(deletes + 1, server:state().deletes)
  end)

  it("a gateway that drops the token", function()
    check_refused("unauthorized", "http", "HTTP_401", "gateway")
  end)

  it("a server that does not switch", function()
    check_refused("page", "protocol", "unexpected_response", "OpenSandbox server")
  end)

  it("a proxy that switches and closes", function()
    check_refused("proxy", "stream", "refused", "prox")
  end)

  it("another client, also where the server's proxy hides the reason", function()
    check_refused("proxied", "state", "ALREADY_CONNECTED", "takeover", { id = "x" })
  end)

  it("a command that does not start", function()
    check_refused("start", "state", "START_FAILED", "shell")
  end)

  it("an execd that does not answer", function()
    local err = check_refused("silent", "timeout", "timeout", "timeout", { timeout = 0.2 })
    assert.truthy(err.message:find("timeout of 0.2 s ran out", 1, true), err.message) -- the whole limit, not what was left of it
  end)

  it("a client that took it over", function() check_broken("taken", "state", "TAKEN_OVER", "takeover = true") end)
  it("a mask where none may be", function() check_broken("mask", "protocol", "websocket_violation", "proxy") end)
  it("text that is not UTF-8", function() check_broken("text", "protocol", "websocket_violation", "proxy") end)
  it("a frame over the limit", function() check_broken("large", "protocol", "message_too_large", "proxy") end)
  it("its deletion by another client", function() check_broken("deleted", "state", "CONTEXT_NOT_FOUND", "deleted") end)

  it("input that it did not take, once", function()
    local terminal = assert(open "write")
    assert(terminal:write "x")
    local ok, err = terminal:wait { timeout = 20 }
    assert.is_nil(ok)
    assert.same({ "stream", "STDIN_WRITE_FAILED", "terminal:wait", true }, { err.kind, err.code, err.op, err.terminal_continues })
    err = select(2, terminal:wait { timeout = 0.05 })
    assert.equal("wait_timeout", err.code)
    terminal:close()
  end)

  it("input that may not have arrived, once, and does not send it again", function()
    local terminal = assert(open "unclear")
    assert.equal("kept", terminal:read())
    assert(terminal:write "cut")
    local ok, err = terminal:wait { timeout = 20 }
    assert.is_nil(ok)
    check(err, "stream", "input_unsure", "terminal:wait", "not sent again")
    assert.matches("3 bytes", err.message)
    assert.is_true(err.terminal_continues)
    err = select(2, terminal:wait { timeout = 0.2 })
    assert.equal("wait_timeout", err.code)
    assert.equal(2, server:state().cuts)
    terminal:close()
  end)

  it("output that is lost", function()
    local terminal = assert(open "gap")
    local text = ""
    local bytes, err = terminal:read(20)
    while bytes do
      text = text .. bytes
      bytes, err = terminal:read(20)
    end
    check(err, "stream", "output_lost", "terminal:read", "mebibyte")
    assert.matches("before the offset 1048576", err.message)
    assert.is_true(err.terminal_continues)
    while not text:find("later") do text = text .. assert(terminal:read(20)) end
    assert.equal("keptlater", text)
    terminal:close()
  end)
end)
