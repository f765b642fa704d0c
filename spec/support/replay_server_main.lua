--- The program behind replay_server.lua: answers recorded requests with their recorded responses.

local uv = require "luv"
local http_message = require "spec.support.http_message"
local rechunk = require "spec.support.rechunk"
local recordings = require "spec.support.recordings"
local request_matcher = require "spec.support.request_matcher"
local server_main = require "spec.support.server_main"
local Connection = require "spec.support.connection"

-- Beyond this many pieces several go into one write, or a long body would take too long.
local SINGLE_WRITES = 20000
local PIECES_PER_WRITE = 256

local cache = {}

local function recording(name)
  if cache[name] == nil then
    local found, problem = recordings.load(name)
    cache[name] = found or problem
  end
  return cache[name]
end

-- Pieces as they go into writes, in groups that are due at the same time: {ms, {bytes, ...}}.
local function groups(response, config, chunked)
  local pieces = rechunk.cut(response.chunks, config.chunking)
  local per_write = #pieces > SINGLE_WRITES and PIECES_PER_WRITE or 1
  local list, group, pending = {}, nil, {}
  local function flush()
    if #pending > 0 then table.insert(group[2], table.concat(pending)) end
    pending = {}
  end
  for _, piece in ipairs(pieces) do
    local ms = config.timing == "recorded" and piece[1] or 0
    if not group or group[1] ~= ms then
      flush()
      group = { ms, {} }
      list[#list + 1] = group
    end
    pending[#pending + 1] = chunked and http_message.chunk(piece[2]) or piece[2]
    if #pending >= per_write then flush() end
  end
  flush()
  return list
end

-- Calls a function at its time after the request; at once and in this turn of the loop when that is now.
local function at(connection, ms, callback)
  if ms <= 0 then return callback() end
  connection:after(ms, callback)
end

-- Ends the response. The connection stays usable, unless the body is shorter or longer than announced.
local function finish(connection, response, chunked, announced)
  if response.truncated then return end
  if chunked then
    connection:send("0\r\n\r\n")
  elseif announced and announced ~= #response.body and connection.request.method ~= "HEAD" then
    return connection:close()
  end
  connection:done()
end

local function answer(connection, found, config)
  local response = found.response
  local chunked = (http_message.find(response.headers, "transfer-encoding") or ""):lower() == "chunked"
  local announced = tonumber(http_message.find(response.headers, "content-length"))
  local reason = response.reason or Connection.reasons[response.status] or ""
  local head = http_message.format(("HTTP/1.1 %d %s"):format(response.status, reason), response.headers)
  local list = groups(response, config, chunked)
  local end_ms = config.timing == "recorded" and response.end_ms or 0
  connection:silence()
  if (http_message.find(response.headers, "connection") or ""):lower() == "close" then connection.close_after = true end
  -- A server sends its head with the first bytes of the body, except where it streams without end.
  local head_ms = response.truncated and 0 or (list[1] and list[1][1] or end_ms)
  local function quietly(bytes)
    connection:send(bytes):silence()
  end
  at(connection, head_ms, function() quietly(head) end)
  for _, group in ipairs(list) do
    at(connection, group[1], function() connection:each(group[2]):silence() end)
  end
  at(connection, math.max(end_ms, list[#list] and list[#list][1] or 0), function()
    finish(connection, response, chunked, announced)
  end)
end

server_main.run(function(config)
  local loose = {}
  for _, name in ipairs(config.loose) do loose[name] = true end
  local handler = {}
  function handler.on_request(request, connection)
    local kind, names, path = request.path:match("^/([%w.-]+)/([^/?]+)(.*)$")
    local problems = {}
    for part in (names or ""):gmatch("[^+]+") do
      local name = kind .. "/" .. part
      local found = recording(name)
      if type(found) == "string" then
        problems[#problems + 1] = found
      else
        local difference = request_matcher.difference(found.request, {
          method = request.method, path = path, headers = request.headers, body = request.body,
        }, loose[name] or request.headers["x-replay-loose"] == "1")
        if not difference then
          uv.update_time()
          return answer(connection, found, config)
        end
        problems[#problems + 1] = ("not the request of %s: %s"):format(name, difference)
      end
    end
    if #problems == 0 then problems[1] = "no recording is named in the path " .. request.path end
    connection:respond(599, { ["Content-Type"] = "text/plain" }, table.concat(problems, "\n") .. "\n")
  end
  return handler
end)
