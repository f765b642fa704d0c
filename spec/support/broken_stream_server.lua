--- An execd whose event streams break: it replays a recorded command with the fault that the URL names.
--
--     /{recording}/{fault}/{position}/{output_files}/{number}/command
--
-- `fault`, which follows `position` bytes of the recorded body:
--   whole     nothing: all of it comes
--   chunk     the connection ends inside a chunk that was promised
--   eof       the stream ends as if it were complete
--   reset     the connection is reset
--   silence   nothing further comes
--   repeat    bytes that came before come once more, then the connection ends
--   restart   the whole stream comes once more, up to its end
-- `output_files`: whether execd still has the output of the command: "kept"; "gone", as on newer servers; "broken": each connection that carries one ends after a few
-- bytes; "ignores_range": the same, and the Range of the next request is ignored, so that old bytes come again.
-- The first request for the status comes while the command runs, or before execd knows it. `number` makes URLs differ.

local fault_server = require "spec.support.fault_server"

local broken_stream_server = {}

--- What the recorded commands wrote, and how they ended: by the name of the recording.
broken_stream_server.commands = {
  ["command-echo"] = { stdout = "hello\n", stderr = "", code = 0 },
  ["command-exit-3"] = { stdout = "out\n", stderr = "err\n", code = 3 },
  ["command-stderr"] = { stdout = "out\nout2\n", stderr = "err\n", code = 0 },
  ["command-lines"] = { stdout = "a\n\nb\n\n\nc", stderr = "", code = 0 },
  ["command-no-newline"] = { stdout = "no newline at end", stderr = "", code = 0 },
  ["command-carriage-returns"] = { stdout = "10%\r50%\r100%\ndone\r\nx\r\ry", stderr = "", code = 0 },
  ["command-utf8"] = { stdout = "h\195\169llo \226\130\172 \240\159\140\141 \194\133 <&>\n", stderr = "", code = 0 },
  ["command-invalid-utf8"] = { stdout = "a\255\254b\n", stderr = "", code = 0 },
  ["command-control-bytes"] = { stdout = "a\0b\27[31mred\27[0m\n", stderr = "", code = 0 },
  ["command-killed"] = { stdout = "", stderr = "", code = -1, problem = "signal: killed" },
  ["command-not-found"] = { stdout = "", stderr = "bash: line 1: no-such-cmd-xyz: command not found\n", code = 127 },
}

local SOURCE = [[
  local commands = COMMANDS
  local JSON = { ["Content-Type"] = "application/json" }
  local seen = {}

  local function count(key)
    seen[key] = (seen[key] or 0) + 1
    return seen[key]
  end

  local function chunk(bytes) return bytes == "" and "" or ("%x\r\n"):format(#bytes) .. bytes .. "\r\n" end

  local HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
  local CHUNKED = HEAD .. "Transfer-Encoding: chunked\r\n\r\n"
  local streams = {}

  function streams.whole(connection, body) connection:send(CHUNKED .. chunk(body) .. "0\r\n\r\n") end

  function streams.chunk(connection, body, at)
    connection:send(CHUNKED .. (at > 0 and ("%x\r\n"):format(#body + 1) .. body:sub(1, at) or "")):close()
  end

  function streams.eof(connection, body, at)
    connection:send(HEAD .. "Connection: close\r\n\r\n" .. body:sub(1, at)):close()
  end

  function streams.reset(connection, body, at)
    connection:send(CHUNKED .. chunk(body:sub(1, at)))
    connection:after(15, connection.reset)
  end

  function streams.silence(connection, body, at) connection:send(CHUNKED .. chunk(body:sub(1, at))) end

  streams["repeat"] = function(connection, body, at)
    local from = math.floor(at * 0.4) + 1
    connection:send(CHUNKED .. chunk(body:sub(1, at) .. body:sub(from, at))):close()
  end

  function streams.restart(connection, body, at)
    connection:send(CHUNKED .. chunk(body:sub(1, at) .. body) .. "0\r\n\r\n")
  end

  local function output(connection, request, plan, bytes)
    if plan.output_files == "gone" then
      return connection:respond(404, JSON, '{"code":"FILE_NOT_FOUND","message":"file not found. stat: no such file or directory"}')
    end
    local broken = plan.output_files == "broken" or plan.output_files == "ignores_range"
    local first = tonumber((request.headers.range or ""):match("^bytes=(%d+)%-")) or 0
    if first > 0 and first >= #bytes then return connection:respond(416, {}, "") end
    local ranged = request.headers.range and plan.output_files ~= "ignores_range"
    local rest = ranged and bytes:sub(first + 1) or bytes
    local line = ranged and "HTTP/1.1 206 Partial Content" or "HTTP/1.1 200 OK"
    -- More comes each time, so that it ends.
    local sent = broken and 3 * count(plan.key .. request.path) or #rest
    if ranged then line = ("%s\r\nContent-Range: bytes %d-%d/%d"):format(line, first, #bytes - 1, #bytes) end
    local head = "%s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
    connection:send(head:format(line, #rest) .. rest:sub(1, sent))
    if sent < #rest then connection:close() end
  end

  return function(request, connection)
    local path, query = request.path:match("^([^?]*)%??(.*)$")
    local plan = {}
    plan.key, plan.recording, plan.fault, plan.at, plan.output_files, plan.rest =
      path:match("^(/([%w-]+)/(%l+)/(%d+)/([%l_]+)/%d+)/(.*)$")
    local command = commands[plan.recording]
    if plan.rest == "command" and request.method == "POST" then
      return streams[plan.fault](connection, recording("execd/" .. plan.recording).response.body, tonumber(plan.at))
    elseif plan.rest == "command" then
      state.interrupted = (state.interrupted or 0) + 1
      return connection:respond(200, {}, "")
    elseif plan.rest:find("^command/status/") then
      local asked = count(plan.key)
      if asked == 1 and #plan.key % 2 == 0 then
        return connection:respond(404, JSON, '{"code":"INVALID_REQUEST_BODY","message":"command not found: x"}')
      end
      local id = plan.rest:match("[^/]*$")
      local status = { id = id, content = "x", running = asked == 1, started_at = "2026-11-25T10:00:00Z" }
      if asked > 1 then
        status.finished_at, status.exit_code = "2026-11-25T10:00:00.002Z", command.code
        status.error = command.problem or command.code ~= 0 and "exit status " .. command.code or nil
      end
      return connection:respond(200, JSON, json.encode(status))
    elseif plan.rest == "files/download" then
      return output(connection, request, plan, query:find("stderr", 1, true) and command.stderr or command.stdout)
    end
    connection:respond(404, { ["Content-Type"] = "text/plain" }, "404 page not found")
  end
]]

-- The table as Lua source: the server is another process.
local function written(commands)
  local entries = {}
  for name, command in pairs(commands) do
    local fields = {}
    for field, value in pairs(command) do
      if type(value) == "string" then
        value = '"' .. value:gsub(".", function(c) return ("\\%03d"):format(c:byte()) end) .. '"'
      end
      fields[#fields + 1] = ("%s = %s"):format(field, value)
    end
    entries[#entries + 1] = ("[%q] = { %s }"):format(name, table.concat(fields, ", "))
  end
  return "{ " .. table.concat(entries, ", ") .. " }"
end

--- Starts the server.
-- @return as fault_server.start
function broken_stream_server.start()
  local source = SOURCE:gsub("COMMANDS", function() return written(broken_stream_server.commands) end, 1)
  return fault_server.start(source)
end

return broken_stream_server
