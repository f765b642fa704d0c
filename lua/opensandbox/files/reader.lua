--- Downloads: GET /files/download, as a reader that holds little in memory however large the file is.

local call = require "opensandbox.http.call"
local core = require "opensandbox.core"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local url = require "opensandbox.base.url"

local reader = {}

local PIECE = 120 * 1024        -- bytes handed out at a time: they stay in the processor's cache, and malloc needs no mmap for them
local HIGH_WATER = 480 * 1024   -- bytes queued
local SINK_BUFFER = 256 * 1024  -- bytes received at a time on their way to a local file
local HUGE = 2 ^ 62              -- execd announces 2^63-1 bytes for a directory

---@class opensandbox.Reader
---@field size? integer bytes the server announced; nil when it did not say
local Reader = {}
Reader.__index = Reader
Reader.__name = "opensandbox.Reader"

local download_options = { offset = "natural", length = "natural", lines = "table", idle_timeout = "seconds" }

-- A directory is announced with an impossible length, and then cut off.
local function explain_directory(err, announced)
  if err.code == "cut" and announced and announced >= HUGE then
    err.hint = "The path names a directory: only files can be downloaded"
  end
  return err
end

-- A server or a proxy may pass over the Range and send the whole file: what was not asked for is dropped here.
local function asked_for(self, bytes)
  if self.skip > 0 then
    local skipped = math.min(self.skip, #bytes)
    self.skip = self.skip - skipped
    bytes = bytes:sub(skipped + 1)
  end
  if self.left then
    bytes = bytes:sub(1, self.left)
    self.left = self.left - #bytes
    if self.left == 0 then
      self.ended = true
      self.exchange:close()
    end
  end
  return bytes
end

-- More bytes into the reader's own buffer. True; false at the end; nil and the error.
local function fill(self, most)
  if self.err then return nil, self.err end
  if self.ended then return false end
  local bytes, err = self.exchange:read(most)
  if bytes and self.skip then
    bytes = asked_for(self, bytes)
    if bytes == "" then return fill(self, most) end
  end
  if bytes then
    self.buffer = self.buffer == "" and bytes or self.buffer .. bytes
    return true
  end
  if err then
    self.err = explain_directory(err, self.announced)
    return nil, self.err
  end
  self.ended = true
  return false
end

local function take(self, count)
  local bytes = self.buffer
  if #bytes <= count then
    self.buffer = ""
    return bytes
  end
  self.buffer = bytes:sub(count + 1)
  return bytes:sub(1, count)
end

local function read_all(self)
  local pieces = { self.buffer }
  self.buffer = ""
  while true do
    local more, err = fill(self, PIECE)
    if more == nil then return nil, err end
    if not more then return table.concat(pieces) end
    pieces[#pieces + 1] = take(self, #self.buffer)
  end
end

local function read_line(self, keep)
  local pieces = {}
  while true do
    local at = self.buffer:find("\n", 1, true)
    if at then
      pieces[#pieces + 1] = take(self, at)
      local line = table.concat(pieces)
      return keep and line or line:sub(1, -2)
    end
    if self.buffer ~= "" then pieces[#pieces + 1] = take(self, #self.buffer) end
    local more, err = fill(self, PIECE)
    if more == nil then return nil, err end
    if not more then
      local line = table.concat(pieces)
      return line ~= "" and line or nil
    end
  end
end

--- Reads, as file handles do: a number of bytes (at most; default some that have arrived), "a" for the rest, "l" and "L" for a line.
---@param what? integer|string
---@return string? bytes nil at the end ("" for "a")
---@return opensandbox.Error? err
function Reader:read(what)
  if type(what) == "string" then what = what:gsub("^%*", "") end
  if what == "a" then return read_all(self) end
  if what == "l" or what == "L" then return read_line(self, what == "L") end
  if what ~= nil and (type(what) ~= "number" or what < 0) then
    options.raise("read", "what to read must be a count of bytes, \"a\", \"l\" or \"L\"")
  end
  if what == 0 then
    if self.buffer == "" and not fill(self, PIECE) then return nil, self.err end
    return ""
  end
  if self.buffer == "" then
    -- Nothing is put together that need not be: this is the path of a gigabyte.
    local more, err = fill(self, math.min(what or PIECE, PIECE))
    if not more then return nil, err end
  end
  while what and #self.buffer < what do
    local more, err = fill(self, math.min(what - #self.buffer, PIECE))
    if more == nil then return nil, err end
    if not more then break end
  end
  return take(self, what or #self.buffer)
end

--- Iterates over the lines, without their ends. A transfer that breaks raises its error: a loop would hide it otherwise.
function Reader:lines()
  return function()
    local line, err = self:read("l")
    if err then error(err, 0) end
    return line
  end
end

--- Ends the download. Reading on gives an error.
function Reader:close()
  if not self.ended and not self.err then
    self.err = self.exchange:error { kind = "closed", code = "closed", message = "the reader is closed" }
  end
  self.exchange:close()
  return true
end

Reader.__close = Reader.close

local function line_range(op, lines)
  options.check(op, lines, { first = "natural", count = "natural" })
  if lines.first == 0 or lines.count == 0 then options.raise(op, "option 'lines': first and count begin at 1") end
  return lines.first, lines.count
end

local function request_of(op, path, opts)
  local headers = { Accept = "*/*" }
  local first, count
  if opts.lines then first, count = line_range(op, opts.lines) end
  if opts.offset or opts.length then
    if opts.lines then options.raise(op, "options 'lines' and 'offset' or 'length' do not go together") end
    if opts.length == 0 then options.raise(op, "option 'length' must be greater than 0") end
    local from = opts.offset or 0
    headers.Range = ("bytes=%d-%s"):format(from, opts.length and ("%d"):format(from + opts.length - 1) or "")
  end
  return {
    op = op, method = "GET", headers = headers, may_repeat = true, timeout = 0, high_water = HIGH_WATER, receive_buffer = PIECE,
    path = "/files/download" .. url.query { { "path", path }, { "offset", first }, { "limit", count } },
  }
end

-- Starts the download; `more` goes into the request.
local function start(self, endpoint, request, opts, more)
  request.idle_timeout = opts.idle_timeout or self.http.timeouts.transfer_idle_timeout
  request.option_names = { idle_timeout = "transfer_idle_timeout" }
  for name, value in pairs(more or {}) do request[name] = value end
  local ex, err = call.open(self.http, self.http:endpoint_request(endpoint, request))
  if ex then return ex, tonumber(ex.headers["content-length"] or "") end
  if err.status == 416 then err.code, err.message = "range", "the file ends before the offset" end
  return nil, err
end

--- Opens a file of the sandbox for reading: GET /files/download.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param path string
---@param opts? table offset, length (bytes), or lines { first, count } (1-based; execd then gives them without the last newline); idle_timeout (seconds without a byte)
---@return opensandbox.Reader? reader
---@return opensandbox.Error? err
function reader.download_file(self, endpoint, path, opts)
  local op = self.op or "download_file"
  paths.check(op, path)
  opts = options.check(op, opts, download_options)
  local ex, announced = start(self, endpoint, request_of(op, path, opts), opts)
  if not ex then return nil, announced end
  local made = setmetatable({ exchange = ex, buffer = "", announced = announced }, Reader)
  if (opts.offset or opts.length) and ex.status == 200 then
    made.skip, made.left = opts.offset or 0, opts.length
  elseif announced and announced < HUGE then
    made.size = announced
  end
  return made
end

local save_options = { on_progress = "function", idle_timeout = "seconds", mode = "natural" }

--- Downloads a file of the sandbox into a new local file: GET /files/download. Nothing of it passes through Lua. After a failure the
--- local file may be there in part; where nothing is returned, because a callback raised or the task was cancelled, it is removed.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param path string
---@param to string local path of a file that does not exist
---@param opts? table on_progress (called with bytes done and bytes in all), idle_timeout (seconds without a byte), mode (permission bits of the file; default: 0666 less the umask)
---@return true? ok
---@return opensandbox.Error? err
function reader.save_file(self, endpoint, path, to, opts)
  local op = self.op or "save_file"
  paths.check(op, path)
  options.argument(op, "the local path", to, "nonempty string")
  opts = options.check(op, opts, save_options)
  local is_new = not core.stat(to) -- else the server's answer will be refused: it is not ours to remove
  local ex, announced = start(self, endpoint, request_of(op, path, {}), opts, {
    sink = to, sink_mode = opts.mode, receive_buffer = SINK_BUFFER,
    on_abandon = function(ex)
      ex:close()
      if is_new then os.remove(to) end
    end,
  })
  if not ex then return nil, announced end
  if opts.on_progress then
    local last
    ex:on_progress(function(received)
      if received ~= last then
        last = received
        opts.on_progress(received, announced)
      end
    end)
  end
  local ok, err = ex:finish()
  if err then return nil, explain_directory(err, announced) end
  return ok
end

return reader
