--- Terminals against recorded sessions of execd: the server's side of each connection is played, whole, byte by byte, and cut at each
-- frame and inside it. After a cut the server continues as execd does: it sends again what is asked for, and then the rest.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local recordings = require "spec.support.recordings"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local MAX_CUT_FRAMES = 24 -- of a recording; of a longer one some frames are cut, which are spread over it

-- What both the test and the server know of a recorded connection.
local SCRIPT = [[
  -- Returns the frames of the server up to the client's own end, and the offset of the output before each and behind the last.
  local function script_of(session, index)
    local connection = session.connections[index]
    local since = tonumber(connection.handshake.request.path:match("since=(%d+)")) or 0
    local script = { offsets = {}, output = {}, since = since }
    local offset = since
    for _, frame in ipairs(connection.frames) do
      if frame.dir == "send" and frame.opcode == "close" then break end
      if frame.dir == "recv" then
        local channel = frame.opcode == "binary" and frame.payload:byte()
        local bytes = channel and frame.payload:sub(channel == 3 and 10 or 2) or ""
        if channel == 3 and #script == 0 then
          offset = 0
          for i = 2, 9 do offset = offset * 256 + frame.payload:byte(i) end
          script.first_offset = offset
        end
        script[#script + 1] = frame
        script.offsets[#script] = offset
        script.output[#script] = bytes
        offset = offset + #bytes
        if frame.opcode == "text" and frame.payload:find('"type":"exit"', 1, true) then
          script.exit_at, script.exit_code = #script, tonumber(frame.payload:match('"exit_code":(%-?%d+)'))
        elseif frame.opcode == "close" then
          script.close_code = frame.code
        end
      end
    end
    script.offsets[#script + 1] = offset
    script.first_offset = script.first_offset or since
    script.ends = script.close_code ~= nil or connection["end"].by == "server"
    return script
  end
]]

local script_of = assert((loadstring or load)(SCRIPT .. "return script_of"))() -- luacheck: std max

describe("a terminal that a recorded execd serves", function()
  local server, client, tag
  setup(function()
    tag = 0
    server = fault_server.start([[
      local recordings = require "spec.support.recordings"
    ]] .. SCRIPT .. [[
      local frame_bytes = function(frame)
        if frame.opcode == "close" then return websocket.close_frame(frame.code, frame.payload:sub(3)) end
        return websocket.frame(frame.opcode, frame.payload)
      end
      local function big_endian(number)
        local bytes = {}
        for index = 8, 1, -1 do
          bytes[index] = string.char(number % 256)
          number = math.floor(number / 256)
        end
        return table.concat(bytes)
      end

      local sessions, runs = {}, {}

      local function respond(connection, status, text)
        connection:respond(status, { ["Content-Type"] = "application/json" }, text)
      end

      -- Sends the frames from the first one, in the way of the run.
      local function play(run, connection, request, from, before)
        local pieces = { before }
        for index = from, #run.script do pieces[#pieces + 1] = frame_bytes(run.script[index]) end
        local bytes = table.concat(pieces)
        local cut = not run.was_cut and tonumber(run.how)
        if cut then bytes = bytes:sub(1, cut) end
        if run.how == "bytes" then
          connection:send(websocket.head(request))
          local list = {}
          for index = 1, #bytes do list[index] = bytes:sub(index, index) end
          connection:each(list)
        else
          connection:send(websocket.head(request) .. bytes)
        end
        connection:take_over(function() end)
        if cut then
          run.was_cut = true
          -- The frame that is cut was sent by the server, so that its output can be sent again.
          local position = 0
          run.next = #run.script + 1
          for index = 1, #run.script do
            local size = #frame_bytes(run.script[index])
            if position + size >= cut then
              run.next = index + 1
              break
            end
            position = position + size
          end
          connection:close()
        elseif run.script.ends then
          run.is_over = true
          connection:close()
        end
      end

      return function(request, connection)
        local name, index, number, how, path = request.path:match("^/([%w-]+)/(%d+)/(%d+)/(%w+)(/.*)$")
        sessions[name] = sessions[name] or assert(recordings.session("terminal/" .. name))
        local session = sessions[name]
        local run = runs[number] or { script = script_of(session, tonumber(index)), how = how }
        runs[number] = run
        local recorded = session.connections[tonumber(index)].handshake.response
        local since = path:find("/ws") and (tonumber(path:match("since=(%d+)")) or 0)
        if not since then
          local is_running = not run.is_over and (not run.was_cut or run.next <= (run.script.exit_at or math.huge))
          if run.is_over then
            respond(connection, 404, '{"code":"CONTEXT_NOT_FOUND","message":"pty session not found"}')
          else
            respond(connection, 200, ('{"session_id":"x","running":%s,"output_offset":%d}'):format(tostring(is_running),
              run.script.offsets[#run.script + 1]))
          end
        elseif recorded.status ~= 101 then
          connection:respond(recorded.status, recorded.headers, recorded.body)
        elseif not run.was_cut then
          play(run, connection, request, 1, "")
        else
          local known = run.script.offsets[run.next]
          local output, first = table.concat(run.script.output, "", 1, run.next - 1), run.script.first_offset
          assert(since <= known, "the client asks for output that it cannot have received")
          local again = output:sub(math.max(since - first, 0) + 1)
          local before = again == "" and ""
            or websocket.frame("binary", "\3" .. big_endian(math.max(since, first)) .. again)
          before = before .. websocket.frame("text", '{"type":"connected","session_id":"x","mode":"pty"}')
          play(run, connection, request, run.next, before)
        end
      end
    ]])
    client = opensandbox.new(server.url, "k", { retry = false })
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  -- Plays a connection to a terminal, and returns what becomes of it.
  local function play(name, index, script, how)
    tag = tag + 1
    local handle = { id = "s", url = client.url, endpoints = { ["44772"] = {
      url = ("%s/%s/%d/%d/%s"):format(server.url, name, index, tag, how), headers = {},
    } } }
    local sandbox = assert(client:connect(handle, { wait = false }))
    local terminal, err = sandbox:terminal { id = "x", since = script.since > 0 and script.since or nil }
    if not terminal then return { error = err } end
    local result, size, expected = {}, 0, table.concat(script.output)
    local pieces = {}
    while true do
      local bytes
      if size == #expected and not script.ends then break end
      bytes, err = terminal:read(20)
      if not bytes then break end
      pieces[#pieces + 1] = bytes
      size = size + #bytes
    end
    result.output, result.error = table.concat(pieces), err
    if script.ends and not err then result.exit_code = terminal:wait { timeout = 20 } end
    terminal:close()
    return result
  end

  -- What the recording says that it must become.
  local function check(name, index, script, how, exit_is_lost)
    local result = play(name, index, script, how)
    local text = ("%s, connection %d, %s: %s"):format(name, index, how, tostring(result.error))
    local code = result.error and result.error.code
    assert.is_true(table.concat(script.output) == result.output or (exit_is_lost and code == "terminal_ended"), text)
    if exit_is_lost then
      assert.equal("terminal_ended", code, text)
    elseif script.exit_at then
      assert.equal(script.exit_code, result.exit_code, text)
    elseif script.close_code == 4001 then
      assert.equal("TAKEN_OVER", code, text)
    elseif script.ends then
      assert.equal("CONTEXT_NOT_FOUND", code, text)
    else
      assert.is_nil(result.error, text)
    end
    if code then assert.same({ "state", true }, { result.error.kind, result.error.hint ~= nil }, text) end
  end

  local function frame_size(frame)
    local length = #frame.payload
    return length + (length > 65535 and 10 or length > 125 and 4 or 2)
  end

  for _, full_name in ipairs(recordings.sessions()) do
    local name = full_name:match("/(.*)$")
    local session = recordings.session(full_name)
    for index, connection in ipairs(session.connections) do
      local status = connection.handshake.response.status
      local is_whole = name ~= "replay-overflow" -- its payloads were shortened
      local is_beyond = connection.handshake.request.path:find("since=99999", 1, true) -- it began behind the end
      if status ~= 101 then
        it(("%s: connection %d is refused with %d"):format(name, index, status), function()
          local result = play(name, index, script_of(session, index), "whole")
          local err = result.error
          assert.equal(status, err.status)
          assert.is_true(err.kind == "http" or err.kind == "state")
          assert.equal("sandbox:terminal", err.op)
          if status == 401 then assert.matches("gateway", err.hint) end
        end)
      elseif is_whole and not is_beyond and #connection.frames > 0 and (connection.frames[1].code or 1000) < 1008 then
        it(("%s: connection %d, whole, byte by byte, and cut everywhere"):format(name, index), function()
          local script = script_of(session, index)
          check(name, index, script, "whole")
          local bytes = 0
          for _, frame in ipairs(script) do bytes = bytes + frame_size(frame) end
          if bytes < 5000 then check(name, index, script, "bytes") end
          local position, step = 0, math.max(math.floor(#script / MAX_CUT_FRAMES), 1)
          for number, frame in ipairs(script) do
            local size = frame_size(frame)
            -- A close frame that follows the exit may be missing.
            local exit_is_lost = script.exit_at and number >= script.exit_at
            if number % step == 0 or exit_is_lost then
              for _, cut in ipairs { position + 1, position + math.floor(size / 2), position + size } do
                if cut > 0 then
                  local lost = number == script.exit_at and cut < position + size
                  if frame.opcode ~= "close" or script.exit_at then check(name, index, script, ("%d"):format(cut), lost) end
                end
              end
            end
            position = position + size
          end
        end)
      end
    end
  end

  it("is refused by the server's proxy without a reason, which execd's state explains", function()
    local session = recordings.session "terminal/server-proxy"
    for index, connection in ipairs(session.connections) do
      local first = connection.frames[1]
      if first.code == 1008 or first.code == 1011 then
        local script = script_of(session, index)
        local err = play("server-proxy", index, script, "whole").error
        assert.same({ "state", "sandbox:terminal", true }, { err.kind, err.op, err.hint ~= nil }, tostring(err))
      end
    end
  end)
end)
