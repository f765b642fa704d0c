--- A small Redis client for tests, over a socket of luasocket or nginx. It has the method `eval`, and returns errors as lua-resty-redis
--- does: nil and the problem of the connection, or false and the error of Redis.

local redis_client = {}

local Client = {}
Client.__index = Client

local function read_reply(socket)
  local line, problem = socket:receive("*l")
  if not line then return nil, problem end
  local kind, rest = line:sub(1, 1), line:sub(2)
  if kind == "+" then return rest end
  if kind == "-" then return false, rest end
  if kind == ":" then return tonumber(rest) end
  if rest == "-1" then return nil, "null" end
  if kind == "$" then
    local data
    data, problem = socket:receive(tonumber(rest) + 2)
    if not data then return nil, problem end
    return data:sub(1, -3)
  end
  local list = {}
  for index = 1, tonumber(rest) do
    list[index], problem = read_reply(socket)
    if list[index] == nil and problem ~= "null" then return nil, problem end
  end
  return list
end

--- Sends a command.
---@param ... string|number
---@return any reply
---@return string? problem
function Client:call(...)
  local arguments = { ... }
  local parts = { ("*%d\r\n"):format(#arguments) }
  for _, argument in ipairs(arguments) do
    local text = tostring(argument)
    parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#text, text)
  end
  local sent, problem = self.socket:send(table.concat(parts))
  if not sent then return nil, problem end
  return read_reply(self.socket)
end

function Client:eval(...)
  return self:call("EVAL", ...)
end

--- Limits the time of each call, as lua-resty-redis does.
---@param milliseconds number
function Client:set_timeout(milliseconds)
  self.socket:settimeout(rawget(_G, "ngx") and milliseconds or milliseconds / 1000)
end

-- nginx keeps connections, which belong to one request.
local function set_keepalive(self)
  return self.socket:setkeepalive(10000, 10)
end

function Client:close()
  self.socket:close()
end

--- Connects a client.
---@param port integer
---@return table? client
---@return string? problem
function redis_client.connect(port)
  local ngx = rawget(_G, "ngx")
  local socket = ngx and ngx.socket.tcp() or require("socket").tcp()
  local ok, problem = socket:connect("127.0.0.1", port)
  if not ok then return nil, problem end
  if socket.setoption then pcall(socket.setoption, socket, "tcp-nodelay", true) end
  local self = setmetatable({ socket = socket }, Client)
  self:set_timeout(5000)
  if ngx then self.set_keepalive = set_keepalive end
  return self
end

return redis_client
