--- `opensandbox shell` over a connection that is cut, and an execd that loses input and output: the person sees what happened, and the
-- program exits with the command's code.

local fault_server = require "spec.support.fault_server"
local http_client = require "spec.support.http_client"
local program = require "spec.support.program"

describe("a terminal of opensandbox that loses something", function()
  local server, terminal, begun

  setup(function()
    -- A terminal whose keys cause faults: "w" is input that it does not take, "c" a cut, "o" a cut and an outage of the server, "t" another
    -- client that takes over, "q" the end of its command. A request for /refuse causes the first one, too, and one for /return ends an outage.
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
          elseif key == "c" or key == "o" then
            state.is_away = key == "o"
            connection:close()
          elseif key == "t" then
            peer:close(4001, "taken over")
          elseif key == "q" then
            peer:send("text", '{"type":"exit","exit_code":7}'):close(1000)
          end
        end
      end

      return function(request, connection)
        local function respond(status, body) connection:respond(status, { ["Content-Type"] = "application/json" }, body) end
        if request.path == "/return" then
          state.is_away = false
          respond(200, "{}")
        elseif state.is_away then
          respond(503, "{}")
        elseif request.path:find("/sandboxes/?[^/]*$") then -- also renewed, and asked for
          respond(request.method == "POST" and 201 or 200,
            '{"id":"s","status":{"state":"Running"},"createdAt":"2026-01-01T00:00:00Z"}')
        elseif request.path:find("/endpoints/") then
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
  local function open(arguments, preload)
    terminal = program.terminal({ url = server.url, key = "k" }, arguments, {
      preload = preload or [[require("opensandbox.execution.terminal_stream").REATTACH_TIMEOUT = 1]] })
    terminal:expect "[begun]"
  end
  before_each(function()
    begun = #server:requests()
    open { "shell", "s" }
  end)
  after_each(function()
    terminal:close()
    http_client.request { url = server.url .. "/return" }
  end)

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

  -- The program ends, our terminal is as it was, and the one in the sandbox is not deleted.
  local function ends_and_says_how_to_attach(reason)
    local code, _, text = terminal:wait()
    assert.equal(125, code, text)
    assert.truthy(text:find("\n\27%[31mopensandbox:\27%[0m [^\n]*" .. reason), text)
    local session = text:match("\nopensandbox: the terminal may still run; 'opensandbox shell s %-%-attach (%S+)' attaches again\r")
    assert.matches("^x%.%x+$", session, nil, text)
    local requests = server:requests()
    for index = begun + 1, #requests do assert.is_false(requests[index].method == "DELETE", requests[index].path) end
    local attributes = terminal:attributes()
    for _, name in ipairs { "icanon", "echo", "isig" } do
      assert.truthy(attributes:find("[ \n]" .. name .. "[ ;\n]"), attributes)
    end
  end

  it("says after an outage how to attach again", function()
    terminal:write "o"
    ends_and_says_how_to_attach "HTTP 503"
  end)

  it("is detached by Ctrl-P Ctrl-Q during an outage, though the keys before them cannot be sent", function()
    quit()
    terminal:close()
    open({ "shell", "s" }, "")
    terminal:write "o"
    expect_note "the connection was cut"
    terminal:write "ls\r"
    terminal:write "\16\17"
    terminal:expect "opensandbox: detached; 'opensandbox shell s --attach x."
    local code, _, text = terminal:wait()
    assert.equal(0, code, text)
  end)

  it("keeps the sandbox of run -t after an outage", function()
    quit()
    terminal:close()
    begun = #server:requests()
    open { "run", "-t", "python:3.12" }
    terminal:write "o"
    ends_and_says_how_to_attach "HTTP 503"
  end)

  it("says how to attach again when another client has taken the terminal over", function()
    terminal:write "t"
    ends_and_says_how_to_attach "another client has taken the terminal over %[TAKEN_OVER%]%. Attach again to take it back"
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
