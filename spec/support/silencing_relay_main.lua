--- The program behind silencing_relay.lua: main.lua PORT.

local uv = require "luv"

local server_port = assert(tonumber(arg[1]))
local ANSWERS = { -- to every request, by mode
  busy = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 25\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
  agreeing = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
}
local MAX_QUEUED = 1024 * 1024 -- bytes that wait for a slow reader

local modes = {} -- by port
local pairs_of = {} -- lists of { client, server }, by port

local function close(pair)
  for _, tcp in ipairs { pair.client, pair.server } do
    if not tcp:is_closing() then tcp:close() end
  end
end

-- A silent port reads nothing more, so that neither side notices anything. Nothing that was read is passed on either.
local function fall_silent(pair)
  for _, tcp in ipairs { pair.client, pair.server } do
    if not tcp:is_closing() then tcp:read_stop() end
  end
end

local function forward(pair, from, to, port)
  local function on_data(_, data)
    if not data then
      close(pair)
    elseif ANSWERS[modes[port]] and from == pair.client then
      from:write(ANSWERS[modes[port]], function() close(pair) end)
    elseif not to:is_closing() then
      to:write(data, function()
        if modes[port] ~= "silent" and not from:is_closing() and not from:is_active() then from:read_start(on_data) end
      end)
      if to:get_write_queue_size() > MAX_QUEUED then from:read_stop() end
    end
  end
  from:read_start(on_data)
end

local function accept(listener, port)
  local pair = { client = uv.new_tcp() }
  listener:accept(pair.client)
  pairs_of[port][#pairs_of[port] + 1] = pair
  if modes[port] == "silent" then return end
  pair.server = uv.new_tcp()
  pair.server:connect("127.0.0.1", server_port, function(problem)
    if problem then return close(pair) end
    if modes[port] == "silent" or pair.client:is_closing() then return end
    forward(pair, pair.client, pair.server, port)
    forward(pair, pair.server, pair.client, port)
  end)
end

local commands = {}

function commands.open()
  local listener = uv.new_tcp()
  assert(listener:bind("127.0.0.1", 0))
  local port = listener:getsockname().port
  pairs_of[port] = {}
  assert(listener:listen(128, function() accept(listener, port) end))
  return port
end

function commands.change(mode, port)
  assert(ANSWERS[mode] or mode == "silent")
  local was_silent = modes[port] == "silent"
  modes[port] = mode
  for _, pair in ipairs(pairs_of[port]) do
    if mode == "silent" then fall_silent(pair) elseif was_silent then close(pair) end
  end
  return "ok"
end

-- Ends with its standard input, each line of which is a command.
local input, partial = uv.new_pipe(false), ""
input:open(0)
input:read_start(function(_, data)
  if not data then os.exit(0) end
  partial = partial .. data
  for line in partial:gmatch("([^\n]*)\n") do
    local mode, port = line:match("^(%a+) (%d+)$")
    io.write(mode and commands.change(mode, tonumber(port)) or commands.open(), "\n")
  end
  partial = partial:match("[^\n]*$")
  io.flush()
end)
uv.run()
