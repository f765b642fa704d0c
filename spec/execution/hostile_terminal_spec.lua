--- An execd that sends a terminal what it never should: nothing loops, grows, or reaches the caller that cannot be true.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local terminal_stream = require "opensandbox.execution.terminal_stream"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

describe("a terminal of a hostile execd", function()
  local server, client

  setup(function()
    server = fault_server.start [[
      local CONNECTED = websocket.frame("text", '{"type":"connected","session_id":"x","mode":"pty"}')
      local EXITED = websocket.close_frame(1000, "process exited")

      local function text(frame) return websocket.frame("text", frame) end

      -- A session that has started.
      local function started(request, connection, with, on_frame)
        return websocket.accept(request, connection, { on_frame = on_frame,
          with = CONNECTED .. websocket.frame("binary", "\1\27_" .. state.token .. "\27\\kept") .. (with or "") })
      end

      local sockets = {}

      function sockets.closing(request, connection)
        state.sockets = (state.sockets or 0) + 1
        if state.sockets == 1 then
          started(request, connection)
        else
          websocket.accept(request, connection, { with = CONNECTED })
        end
        connection:close()
      end

      function sockets.dripping(request, connection) -- a byte of output each time
        state.sockets = (state.sockets or 0) + 1
        if state.sockets == 1 then
          started(request, connection)
        else
          websocket.accept(request, connection, { with = CONNECTED .. websocket.frame("binary", "\1x") })
        end
        connection:close()
      end

      -- The exit code is in the path, for the mark and for the frame.
      function sockets.mark(request, connection, code)
        started(request, connection, websocket.frame("binary", "\1\27_" .. state.token .. ";" .. code .. "\27\\"))
      end

      function sockets.frame(request, connection, codes)
        local frames = ""
        for code in codes:gmatch("[^,]+") do frames = frames .. text('{"type":"exit","exit_code":' .. code .. '}') end
        started(request, connection, frames .. EXITED)
      end

      function sockets.odd(request, connection) -- frames without a meaning
        started(request, connection, text(("["):rep(100000)) .. text '{"type":"exit\\u0000","exit_code":1}'
          .. text '{"type":["exit"]}' .. text '{"type":null}' .. text "7" .. text ""
          .. websocket.frame("binary", "") .. websocket.frame("binary", "\3") .. websocket.frame("binary", "\9x")
          .. text '{"type":"pong"}' .. text '{"type":"error","code":{}}'
          .. text '{"type":"exit","exit_code":5}' .. EXITED)
      end

      -- Output from an offset, which is in the path as 8 numbers.
      function sockets.offset(request, connection, bytes)
        local offset = ""
        for byte in bytes:gmatch("%d+") do offset = offset .. string.char(byte) end
        state.sockets = (state.sockets or 0) + 1
        if state.sockets == 1 then
          started(request, connection)
          connection:close()
        else
          websocket.accept(request, connection, { with = websocket.frame("binary", "\3" .. offset .. "later") .. CONNECTED })
        end
      end

      function sockets.ending(request, connection)
        started(request, connection, text '{"type":"exit","exit_code":0}' .. EXITED)
      end

      function sockets.reason(request, connection, reason)
        websocket.accept(request, connection, { with = CONNECTED
          .. text('{"type":"error","code":"START_FAILED","error":' .. reason .. '}') })
      end

      -- 30 MB of errors.
      function sockets.errors(request, connection)
        started(request, connection)
        local failures = text('{"type":"error","code":"STDIN_WRITE_FAILED","error":"' .. ("x"):rep(30000) .. '"}'):rep(10)
        local function send(count)
          connection:send(count == 0 and websocket.frame("binary", "\1complete") or failures)
          if count > 0 then connection:after(1, function() send(count - 1) end) end
        end
        send(100)
      end

      function sockets.deaf(request, connection) -- reads all input, and answers no ping
        state.pings, state.input = 0, 0
        started(request, connection, nil, function(peer, frame)
          if frame.payload == '{"type":"ping"}' then state.pings = state.pings + 1 end
          if frame.opcode == "binary" then
            state.input = state.input + 1
            peer:send("binary", "\1" .. frame.payload:sub(2))
          end
        end)
      end

      function sockets.endless(request, connection) -- a line of output without an end
        websocket.accept(request, connection, { with = CONNECTED })
        local line = websocket.frame("binary", "\1" .. ("x"):rep(65536)):rep(4)
        local function send(count)
          state.sent = count
          connection:send(line)
          if count < 400 then connection:after(2, function() send(count + 1) end) end
        end
        send(1)
      end

      return function(request, connection)
        local case, value, path = request.path:match("^/(%l+)/([^/]*)(/.*)$")
        value = value:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
        local function respond(status, body) connection:respond(status, { ["Content-Type"] = "application/json" }, body) end
        if path == "/pty" then
          state.token, state.sockets = request.body:match("033_(%x+)") or "", 0
          respond(201, '{"session_id":"x"}')
        elseif request.method == "DELETE" then
          respond(200, "")
        elseif path:find("/ws") then
          sockets[case](request, connection, value)
        else
          respond(200, '{"session_id":"x","running":true,"output_offset":' .. (case == "ending" and value or 4) .. '}')
        end
      end
    ]]
    client = opensandbox.new(server.url, "k", { retry = false })
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  local function sandbox(case, value)
    value = (value or ""):gsub("[^%w,.-]", function(character) return ("%%%02x"):format(character:byte()) end)
    local url = ("%s/%s/%s"):format(server.url, case, value)
    return assert(client:connect({ id = "s", url = client.url, endpoints = { ["44772"] = { url = url, headers = {} } } },
      { wait = false }))
  end

  local function open(case, value, opts)
    return sandbox(case, value):terminal(opts)
  end

  it("that closes each connection as soon as it is open is asked ever more rarely, and given up", function()
    local reattach_timeout = terminal_stream.REATTACH_TIMEOUT
    finally(function() terminal_stream.REATTACH_TIMEOUT = reattach_timeout end)
    terminal_stream.REATTACH_TIMEOUT = 1
    local terminal = assert(open "closing")
    for _ = 1, 2 do -- the next call tries again
      local before = server:state().sockets
      local code, err = terminal:wait { timeout = 20 }
      assert.is_nil(code)
      assert.same({ "stream", "refused", "terminal:wait", true }, { err.kind, err.code, err.op, err.terminal_unreachable })
      assert.matches("soon after the terminal was connected", err.message)
      local sockets = server:state().sockets - before
      assert.is_true(sockets >= 2 and sockets <= 15, sockets)
    end
    terminal:close()
  end)

  it("that sends a byte over each connection and closes it is asked at a limited rate", function()
    local terminal = assert(open "dripping")
    local started_at = opensandbox.now()
    local _, err = terminal:wait { timeout = 1 }
    assert.equal("wait_timeout", err.code)
    local sockets = server:state().sockets
    assert.is_true(sockets > 5 and sockets <= 55 * (opensandbox.now() - started_at), sockets)
    assert.matches("^keptx+$", terminal:read())
    terminal:close()
  end)

  it("that reports an exit code which no process has: it is -1", function()
    for value, expected in pairs { ["7"] = 7, ["007"] = 7, ["255"] = 255, ["256"] = -1, ["999"] = -1, [("9"):rep(400)] = -1 } do
      local terminal = assert(open("mark", value))
      assert.equal(expected, terminal:wait { timeout = 20 }, value)
      terminal:close()
    end
    for value, expected in pairs {
      ["7"] = 7, ["-1"] = -1, ["-77"] = -1, ["256"] = -1, ["1e300"] = -1, ["1e309"] = -1, ["1.5"] = -1, ['"3"'] = -1, null = -1,
      ["3,0"] = 3, -- the first one counts
    } do
      local terminal = assert(open("frame", value))
      assert.equal(expected, terminal:wait { timeout = 20 }, value)
      terminal:close()
    end
  end)

  it("that sends frames without a meaning: they are ignored", function()
    local terminal = assert(open "odd")
    assert.equal(5, terminal:wait { timeout = 20 })
    assert.equal("kept", terminal:read())
    terminal:close()
  end)

  it("that sends output with an offset beyond all output: an error of the protocol", function()
    for _, bytes in ipairs { "255.255.255.255.255.255.255.255", "127.255.255.255.255.255.255.255", "0.32.0.0.0.0.0.0" } do
      local terminal = assert(open("offset", bytes))
      local code, err = terminal:wait { timeout = 20 }
      assert.is_nil(code)
      assert.same({ "protocol", "unexpected_response", "terminal:wait" }, { err.kind, err.code, err.op }, bytes)
      assert.equal("kept", terminal:read())
      assert.is_true(terminal:detach().since < 100)
    end
  end)

  it("that reports the end of the output where there is none: an error of the protocol", function()
    for _, offset in ipairs { "-5", "1.5", "1e30", "1e400" } do
      local terminal, err = open("ending", offset, { id = "x" })
      assert.is_nil(terminal)
      assert.same({ "protocol", "unexpected_response", "sandbox:terminal" }, { err.kind, err.code, err.op }, offset)
    end
  end)

  it("that gives no text as a reason", function()
    for _, reason in ipairs { "null", '{"a":1}', "7" } do
      local terminal, err = open("reason", reason)
      assert.is_nil(terminal)
      assert.equal("the command was not started: execd does not say why", err.message)
    end
    local _, err = open("reason", '"' .. ("\\u001b[2J"):rep(1000) .. '"')
    assert.is_nil(err.message:find("%c"))
    assert.is_true(#err.message < 1100)
  end)

  it("that sends errors without end, at flat memory while nobody waits", function()
    local text = ""
    local terminal = assert(open("errors", nil, { on_output = function(bytes) text = text .. bytes end }))
    collectgarbage()
    local before, limit = collectgarbage "count", opensandbox.now() + 20
    while not text:find "complete" and opensandbox.now() < limit do opensandbox.sleep(0.01) end
    assert.matches("complete", text)
    collectgarbage()
    assert.is_true(collectgarbage "count" - before < 1024)
    local _, err = terminal:wait { timeout = 20 }
    assert.same({ "STDIN_WRITE_FAILED", true }, { err.code, err.terminal_continues })
    terminal:close()
  end)

  it("that answers no ping: input goes on, with a limited number of pings", function()
    local terminal = assert(open "deaf")
    for _ = 1, 200 do
      assert(terminal:write "x")
      assert(terminal:read(20))
    end
    local state = server:state()
    assert.equal(200, state.input)
    assert.is_true(state.pings >= 1 and state.pings <= 64, state.pings)
    terminal:close()
  end)

  it("whose script for the input of a command answers without lines, at flat memory", function()
    collectgarbage()
    local before = collectgarbage "count"
    local command, err = sandbox("endless"):start("cat", { stdin = true })
    assert.is_nil(command)
    assert.same({ "stream", "stdin_failed", "sandbox:start" }, { err.kind, err.code, err.op })
    assert.matches("does not answer in lines", err.message)
    collectgarbage()
    assert.is_true(collectgarbage "count" - before < 1024)
  end)
end)
