--- GET /terminal: a shell in a sandbox of its own, over one WebSocket.
--
--     binary messages                          bytes: the typed keys, and the output of the terminal
--     {"type":"resize","cols":80,"rows":24}    from the page: the size of its terminal, at the beginning and after changes
--     {"type":"exit","code":0}                 to the page: the shell has ended with this exit code
--     {"type":"error","message":"..."}         to the page: what went wrong. The terminal continues unless the WebSocket is closed
--
-- Two light threads copy the bytes, one in each direction. Each waits while its receiver is slow, so that nothing piles up in the worker.
-- The sandbox is deleted when the shell ends, and when the page closes the WebSocket, goes away or does not answer pings.

local cjson = require "cjson"
local opensandbox = require "opensandbox"
local semaphore = require "ngx.semaphore"

local ngx = rawget(_G, "ngx")

local found, websocket = pcall(require, "resty.websocket.server")  -- of OpenResty
if not found then websocket = require "nginx.websocket.server" end -- of Debian's package lua-nginx-websocket

local LIFETIME = 600      -- seconds after which the server deletes the sandbox in any case
local MAX_MESSAGE = 65536 -- bytes of a message. Longer output is split; a longer message of the page is refused
local MAX_SIZE = 500      -- columns and rows
local PING_INTERVAL = tonumber(os.getenv("PING_INTERVAL")) or 20 -- seconds
local TIMEOUT = 2.5 * PING_INTERVAL -- seconds: a page that sends nothing for so long, or accepts nothing, is gone

local NORMAL, PROTOCOL_ERROR, POLICY_VIOLATION, TOO_BIG, FAILED = 1000, 1002, 1008, 1009, 1011 -- close codes of RFC 6455

local client -- one for each worker: its connections are kept

-- The WebSocket to the page.
local Page = {}
Page.__index = Page

-- Sends a frame: `kind` is "text", "binary", "ping" or "pong". Waits while the page is slow. Returns nil when the page is gone.
function Page:send(kind, bytes)
  if not self.turn:wait(TIMEOUT) then return nil end -- both threads send, and nginx refuses a second writer
  local sent = self.socket["send_" .. kind](self.socket, bytes)
  self.turn:post(1)
  return sent
end

function Page:send_error(message)
  return self:send("text", cjson.encode { type = "error", message = message })
end

-- Logs an error of the library, which may name internal hosts, and sends other words to the page. Returns the close code.
function Page:fail(message, err)
  ngx.log(ngx.ERR, tostring(err))
  self:send_error(message)
  return FAILED
end

-- Receives a message: its bytes, and "text" or "binary". Otherwise returns nil, and the close code if the page is still there.
function Page:receive()
  local message, kind = "", nil
  while true do
    local bytes, opcode, err = self.socket:recv_frame()
    if not bytes and err:find("^failed to") then return nil end -- the connection was closed, has broken or was silent
    if not bytes then return nil, err == "exceeding max payload len" and TOO_BIG or PROTOCOL_ERROR end
    if opcode == "close" then return nil, NORMAL end
    if opcode == "ping" then
      self:send("pong", bytes)
    elseif opcode ~= "pong" then
      message, kind = message .. bytes, kind or opcode
      if #message > MAX_MESSAGE then return nil, TOO_BIG end
      if err ~= "again" then return message, kind end -- otherwise, more frames of it follow
    end
  end
end

-- Closes the WebSocket. nginx closes the connection.
function Page:close(code)
  self.socket.fatal = nil -- after a frame that was refused, the socket sends nothing by default
  self.socket:send_close(code)
end

-- Returns the columns and rows of a control message, or nil when they are missing.
local function size_of(message)
  local ok, fields = pcall(cjson.decode, message)
  if not ok or type(fields) ~= "table" or fields.type ~= "resize" then return nil end
  local cols, rows = tonumber(fields.cols), tonumber(fields.rows)
  if not (cols and rows and cols >= 1 and rows >= 1) then return nil end
  return math.floor(math.min(cols, MAX_SIZE)), math.floor(math.min(rows, MAX_SIZE))
end

-- Copies from the page to the terminal until the page sends no more. Returns the close code; nil when the page is gone.
---@param terminal opensandbox.Terminal
local function copy_input(page, terminal)
  while true do
    local message, kind = page:receive()
    if not message then return kind end
    local done, err
    if kind == "binary" then
      done, err = terminal:write(message)
    else
      local cols, rows = size_of(message)
      if not (cols and rows) then return POLICY_VIOLATION end
      done, err = terminal:resize(cols, rows)
    end
    -- The page is too slow, or input may be lost. terminal:read returns other errors, too.
    local is_notice = not done and (err.terminal_continues or err.code == "output_unread")
    if is_notice then page:send_error(err.message) end
  end
end

-- Copies from the terminal to the page until the shell ends. Returns the close code; nil when the page is gone.
---@param terminal opensandbox.Terminal
local function copy_output(page, terminal)
  local next_ping = ngx.now() + PING_INTERVAL
  while true do
    local bytes, err = terminal:read(math.max(next_ping - ngx.now(), 0))
    if not bytes and not err then break end
    local output = bytes or ""
    for first = 1, #output, MAX_MESSAGE do
      if not page:send("binary", output:sub(first, first + MAX_MESSAGE - 1)) then return nil end
    end
    if err and err.terminal_continues then
      page:send_error(err.message)
    elseif err and err.kind ~= "timeout" then
      return page:fail("the terminal has broken", err)
    end
    if ngx.now() >= next_ping then
      if not page:send("ping") then return nil end
      next_ping = ngx.now() + PING_INTERVAL
    end
  end
  page:send("text", cjson.encode { type = "exit", code = terminal:wait() or -1 })
  return NORMAL
end

-- Runs a shell of a sandbox until it ends or the page has enough. Deletes the sandbox.
---@param sandbox opensandbox.Sandbox
local function serve(page, sandbox, cols, rows)
  local terminal, err = sandbox:terminal { term = "dumb", cols = cols, rows = rows } -- the page knows no escapes
  if not terminal then
    local code = page:fail("there is no terminal", err)
    sandbox:kill()
    return page:close(code)
  end
  local input = ngx.thread.spawn(copy_input, page, terminal)
  local output = ngx.thread.spawn(copy_output, page, terminal)
  local ok, code = ngx.thread.wait(input, output)
  if not ok then code = page:fail("the terminal has broken", code) end
  ngx.thread.kill(output)
  sandbox:kill()
  if code then page:close(code) end
  ngx.thread.kill(input) -- last, because nginx closes the socket of a thread that is killed while it receives
end

local function refuse(status, text)
  ngx.status = status
  ngx.say(text)
  return ngx.exit(status)
end

return function()
  if ngx.var.is_own_page ~= "1" then -- a browser lets any page open a WebSocket to any server, and sends the page's origin with it
    ngx.log(ngx.ERR, "a page of ", ngx.var.http_origin or "no origin", " has asked for a terminal: see $is_own_page in nginx.conf")
    return refuse(403, "the page of another origin gets no terminal")
  end
  local socket, problem = websocket:new { timeout = TIMEOUT * 1000, max_payload_len = MAX_MESSAGE }
  if not socket then return refuse(400, "this is for a WebSocket: " .. problem) end
  local page = setmetatable({ socket = socket, turn = semaphore.new(1) }, Page)
  local message, kind = page:receive()
  if not message then return kind and page:close(kind) end
  local cols, rows = size_of(message)
  if not cols then return page:close(POLICY_VIOLATION) end

  client = client or opensandbox.new()
  local sandbox, err = client:create { image = "python:3.12", timeout = LIFETIME }
  if not sandbox then return page:close(page:fail("there is no sandbox", err)) end
  local ok, fault = pcall(serve, page, sandbox, cols, rows)
  if not ok then
    sandbox:kill()
    error(fault, 0)
  end
end
