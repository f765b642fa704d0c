--- JSON-RPC 2.0 on standard input and output, one message a line, as the Model Context Protocol has it. Requests run at the same time, each
-- in a task of its own.

local each = require "opensandbox.base.each"
local input = require "opensandbox.cli.base.input"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local output = require "opensandbox.cli.base.output"

local rpc = {}

local MAX_LINE = 64 * 1024 * 1024 -- bytes
local GRACE_PERIOD = 1 -- seconds that requests get after the end of the input

--- Codes of errors.
rpc.ERROR = { PARSE = -32700, INVALID_REQUEST = -32600, UNKNOWN_METHOD = -32601, INVALID_PARAMS = -32602, INTERNAL = -32603,
  UNSUPPORTED_VERSION = -32022 }

local Connection = {}
Connection.__index = Connection

local function send(message)
  message.jsonrpc = "2.0"
  local text, problem = json.encode(message)
  if not text then
    text = json.encode { jsonrpc = "2.0", id = message.id, error = { code = rpc.ERROR.INTERNAL, message = problem } }
  end
  output.write(text .. "\n")
end

--- Sends a notification.
---@param method string
---@param params table
function Connection.notify(_, method, params)
  send { method = method, params = params }
end

-- Sends the answer of a task. A client that reads no more has closed our input, too, which ends the program.
local function send_if_read(message)
  opensandbox.pcall(send, message)
end

local function failure_of(id, code, message, data)
  return { id = id == nil and json.null or id, error = { code = code, message = message, data = data } }
end

local function fail(id, code, message)
  send(failure_of(id, code, message))
end

-- Runs a request and answers it, unless it was cancelled.
local function answer(self, id, method, params)
  local ok, result, code, message, data = opensandbox.pcall(method, params, self)
  self.running[id] = nil
  if self.cancelled[id] then
    self.cancelled[id] = nil
  elseif not ok then
    send_if_read(failure_of(id, rpc.ERROR.INTERNAL, tostring(result)))
  elseif result == nil then
    send_if_read(failure_of(id, code, message, data))
  else
    send_if_read { id = id, result = result }
  end
end

local function cancel(self, params)
  local id = params.requestId
  local task = id ~= nil and self.running[id]
  if not task then return end
  self.cancelled[id] = true
  task:cancel()
end

local function is_id(id)
  return type(id) == "string" or type(id) == "number"
end

-- Handles one message.
local function receive(self, line)
  local message = json.decode(line)
  if message == nil then return fail(nil, rpc.ERROR.PARSE, "the line is not JSON") end
  if type(message) ~= "table" or message.jsonrpc ~= "2.0" then
    return fail(nil, rpc.ERROR.INVALID_REQUEST, "the line is no message of JSON-RPC 2.0")
  end
  if type(message.method) ~= "string" then return end -- a response: we sent no request
  local id, params = message.id, type(message.params) == "table" and message.params or {}
  if id == nil then
    if message.method == "notifications/cancelled" then cancel(self, params) end
    return
  end
  if not is_id(id) then return fail(nil, rpc.ERROR.INVALID_REQUEST, "the id is neither a string nor a number") end
  local method = self.methods[message.method]
  if not method then return fail(id, rpc.ERROR.UNKNOWN_METHOD, "there is no method " .. message.method) end
  if self.running[id] then return fail(id, rpc.ERROR.INVALID_REQUEST, "a request with this id is running") end
  self.running[id] = opensandbox.spawn(answer, self, id, method, params)
end

-- Waits a moment for the requests that run, and cancels the others.
local function finish(self)
  local tasks = {}
  for _, task in each(self.running) do tasks[#tasks + 1] = task end
  for _, task in ipairs(tasks) do
    if not task:done() then opensandbox.pcall(task.wait, task, GRACE_PERIOD) end
    if not task:done() then task:cancel() end
  end
end

--- Serves requests until the input ends.
---@param methods table<string, fun(params: table, connection: table): table?, integer?, string?, table?> by name; they return a result, or nil, a code, a message and data
function rpc.serve(methods)
  local self = setmetatable({ methods = methods, running = {}, cancelled = {} }, Connection)
  local parts, size = {}, 0
  while true do
    local bytes = input.read()
    if bytes == "" then break end
    local position = 1
    local newline = bytes:find("\n", 1, true)
    while newline do
      parts[#parts + 1] = bytes:sub(position, newline - 1)
      local line = table.concat(parts)
      parts, size = {}, 0
      if line:find("%S") then receive(self, line) end
      position = newline + 1
      newline = bytes:find("\n", position, true)
    end
    parts[#parts + 1] = bytes:sub(position)
    size = size + #bytes - position + 1
    if size > MAX_LINE then return fail(nil, rpc.ERROR.PARSE, "the line is too long") end
  end
  finish(self)
end

return rpc
