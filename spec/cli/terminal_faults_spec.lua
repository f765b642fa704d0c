--- `opensandbox shell` over a connection that is cut, and an execd that loses input and output: the person sees what happened, and the
-- program exits with the command's code.

local fault_server = require "spec.support.fault_server"
local http_client = require "spec.support.http_client"
local program = require "spec.support.program"

describe("a terminal of opensandbox that loses something", function()
  local server, terminal

  setup(function()
    -- A terminal whose keys cause faults: "w" is input that it does not take, "c" a cut, "q" the end of its command.
    -- A request for /refuse causes the first one, too.
    server = fault_server.start [[
      local CONNECTED = websocket.frame("text", '{"type":"connected","session_id":"x","mode":"pty"}')

      local current -- the peer of the last WebSocket

      local function refuse(peer)
        peer:send("text", '{"type":"error","code":"STDIN_WRITE_FAILED","error":"EIO"}')
        peer:send("binary", "\1[refused]")
      end

      local function on_frame(connection)
        return function(peer, frame)
          local key = frame.payload:sub(-1) -- several keys can come in one frame
          if key == "w" then
            refuse(peer)
          elseif key == "c" then
            connection:close()
          elseif key == "q" then
            peer:send("text", '{"type":"exit","exit_code":7}'):close(1000)
          end
        end
      end

      return function(request, connection)
        local function respond(status, body) connection:respond(status, { ["Content-Type"] = "application/json" }, body) end
        if request.path:find("/endpoints/") then
          respond(200, json.encode { endpoint = request.headers.host })
        elseif request.path == "/refuse" then
          refuse(current)
          respond(200, "{}")
        elseif request.path == "/pty" then
          state.token = request.body:match("033_(%x+)")
          respond(201, '{"session_id":"x"}')
        elseif request.path:find("/ws.*since=") then -- some of the output that was missed is lost
          current = websocket.accept(request, connection, { on_frame = on_frame(connection),
            with = websocket.frame("binary", "\3\0\0\0\0\0\16\0\0[again]") .. CONNECTED })
        elseif request.path:find("/ws") then
          current = websocket.accept(request, connection, { with = CONNECTED
            .. websocket.frame("binary", "\1\27_" .. state.token .. "\27\\[begun]"), on_frame = on_frame(connection) })
        else
          respond(200, '{"session_id":"x","running":true,"output_offset":2097152}')
        end
      end
    ]]
  end)
  teardown(function() server:stop() end)
  before_each(function()
    terminal = program.terminal({ url = server.url, key = "k" }, { "shell", "s" })
    terminal:expect "[begun]"
  end)
  after_each(function() terminal:close() end)

  -- Expects a line for people. It begins at the left edge, though the terminal is in raw mode.
  local function expect_note(text)
    terminal:expect("\r\nopensandbox: " .. text)
  end

  local function quit()
    terminal:write "q"
    local code, _, text = terminal:wait()
    assert.equal(7, code, text)
  end

  it("says that input may not have arrived and that output is lost, continues, and exits with the command's code", function()
    terminal:write "c"
    terminal:expect "[again]"
    expect_note "the connection was cut: the last 1 bytes of input may not have arrived"
    terminal:expect "bytes of output before the offset 1048576 are lost"
    quit()
  end)

  it("says that input was not taken, and takes the next one", function()
    terminal:write "w"
    terminal:expect "[refused]"
    expect_note "the terminal did not take its input: EIO"
    quit()
  end)

  it("says so also when a key comes at the same time, so that its write may receive the error", function()
    terminal.handle:kill("sigstop")
    assert.equal(200, http_client.request { url = server.url .. "/refuse" }.status)
    terminal:write "k"
    terminal.handle:kill("sigcont")
    expect_note "the terminal did not take its input: EIO"
    quit()
  end)
end)
