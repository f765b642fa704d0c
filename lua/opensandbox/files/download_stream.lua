--- The bytes of a file of the sandbox, through connections that can break: GET /files/download.
--
-- Reading is harmless to repeat. After a connection broke, the next request asks for the rest of the bytes by a range. The rest
-- must belong to the same file: its size and its time must not have changed.

local call = require "opensandbox.http.call"
local deadlines = require "opensandbox.loop.deadline"
local each = require "opensandbox.base.each"
local retry = require "opensandbox.http.retry"
local url = require "opensandbox.base.url"

local download_stream = {}

local RECEIVE_BUFFER = 120 * 1024 -- bytes received at a time
local HIGH_WATER = 480 * 1024     -- bytes queued for a slow reader
local MAX_SILENT_ATTEMPTS = 2     -- each takes an idle_timeout
local MAX_FILE_SIZE = 2 ^ 62      -- execd announces 2^63-1 bytes for a directory or a dangling symlink, and sends none

---@class opensandbox.DownloadStream
---@field client opensandbox.Client a view for the method that the user called
---@field endpoint opensandbox.Endpoint|string
---@field path string
---@field opts table offset, length, lines, idle_timeout
---@field extra table further fields of each request
---@field deadline opensandbox.Deadline
---@field exchange opensandbox.Exchange of the current response
---@field first integer offset of the first byte
---@field position integer offset of the next byte
---@field limit? integer offset behind the last byte, if it is known
---@field skip integer bytes of the current response to drop, because the server ignored the range
---@field facts? table size, last_modified and etag of the file, from the first response
---@field failures integer of connections since the last byte
---@field opening? opensandbox.Exchange of the request whose response has not begun
---@field is_finished? boolean
---@field is_closed? boolean
local Stream = {}
Stream.__index = Stream

local function request_of(self)
  local opts, headers = self.opts, { Accept = "*/*" }
  local lines = opts.lines or {}
  if opts.offset or opts.length or self.position > self.first then
    headers.Range = ("bytes=%d-%s"):format(self.position, opts.length and ("%d"):format(self.first + opts.length - 1) or "")
  end
  local request = {
    op = self.client.op, method = "GET", headers = headers, may_repeat = true, high_water = HIGH_WATER,
    receive_buffer = RECEIVE_BUFFER, timeout = self.deadline:remaining() or 0, budget = self.deadline.seconds,
    idle_timeout = opts.idle_timeout or self.client.http.timeouts.transfer_idle_timeout,
    option_names = { idle_timeout = opts.idle_timeout and "idle_timeout" or "transfer_idle_timeout" },
    path = "/files/download" .. url.query { { "path", self.path }, { "offset", lines.first }, { "limit", lines.count } },
  }
  function request.on_start(ex) self.opening = ex end
  for name, value in each(self.extra) do request[name] = value end
  return request
end

-- Returns the facts about the file that a response reports, and the offset of the response's first byte.
local function facts_of(ex)
  local headers = ex.headers
  local first, size
  if ex.status == 206 then first, size = (headers["content-range"] or ""):match("^bytes (%d+)%-%d+/([%d*]+)$") end
  if not first then size = (headers["content-length"] or ""):match("^%d+$") end
  return { size = tonumber(size), last_modified = headers["last-modified"], etag = headers.etag }, tonumber(first)
end

local function not_a_file(self, ex)
  ex:close()
  return ex:error { kind = "state", code = "not_a_file",
    message = ("%s is a directory, or a symlink to a missing file"):format(self.path),
    hint = "Only files can be downloaded; files:download_dir downloads a directory" }
end

-- Returns an error if a later response is about another file than the first one.
local function change_error(self, ex, facts)
  for name, value in each(self.facts) do
    if facts[name] and facts[name] ~= value then
      ex:close()
      return ex:error { kind = "state", code = "file_changed", retryable = true,
        message = ("%s changed while it was read, after a connection broke"):format(self.path), hint = "Read it again" }
    end
  end
end

-- Takes the head of a response. Returns an error if the response cannot be used.
local function accept(self, ex)
  local facts, first = facts_of(ex)
  if facts.size and facts.size >= MAX_FILE_SIZE then return not_a_file(self, ex) end
  if ex.status == 206 and not first then
    ex:close() -- a server that repeats a few bytes without a range could be asked for the rest for ever
    return call.unexpected_response(ex, "the response does not say which bytes it contains")
  end
  if first and first ~= self.position then
    ex:close()
    return call.unexpected_response(ex, ("the response begins at byte %.0f instead of %.0f"):format(first, self.position))
  end
  local err = self.facts and change_error(self, ex, facts)
  if err then return err end
  self.facts = self.facts or facts
  self.skip = ex.status == 200 and self.position or 0
  if facts.size then
    self.limit = math.max(math.min(facts.size, self.opts.length and self.first + self.opts.length or facts.size), self.first)
  end
  self.exchange = ex
end

-- Makes the request for the bytes from the position on. Returns an error if it failed.
local function open(self)
  local ex, err = call.open(self.client.http, self.client.http:endpoint_request(self.endpoint, request_of(self)))
  self.opening = nil
  if ex then return accept(self, ex) end
  if err.status == 416 then
    if self.position > self.first then
      self.is_finished = true -- the connection broke behind the last byte
      return nil
    end
    err.code, err.message = "range_not_satisfiable", "the file ends before the offset"
  end
  return err
end

-- Returns the seconds to wait before a failed request is repeated, or nil if it is not.
local function delay_after(self, err)
  retry.set_retryable(err, true)
  local policy = self.client.http.retry
  if self.opts.lines or not err.retryable or err.kind == "http" then return nil end
  if err.timer == "idle_timeout" then
    return self.failures < math.min(MAX_SILENT_ATTEMPTS, policy.max_attempts) and 0 or nil
  end
  return retry.delay(policy, self.failures, err, self.deadline:remaining() or math.huge)
end

-- Continues after a failure at the position. Returns an error if that is not possible. call.open has explained the errors of its
-- own.
function Stream:resume(err)
  repeat
    self.failures = self.failures + 1
    local delay = not self.is_closed and delay_after(self, err)
    if not delay then return self.exchange and self.exchange:explain(err) or err end
    local interrupted = self.client.http:sleep(self.client.op, delay, false, self)
    if interrupted then return interrupted end
    if self.is_closed then return err end
    err = open(self)
    if self.is_closed then self.exchange:close() end
  until not err or err.timer ~= "idle_timeout" -- call.open has repeated the others
  return err
end

-- Returns the part of the bytes that was requested.
local function within_range(self, bytes)
  if self.skip > 0 then
    local skipped = math.min(self.skip, #bytes)
    self.skip = self.skip - skipped
    bytes = bytes:sub(skipped + 1)
  end
  if self.opts.length then bytes = bytes:sub(1, self.first + self.opts.length - self.position) end
  if bytes == "" then return "" end
  self.position, self.failures = self.position + #bytes, 0
  if self.opts.length and self.position == self.first + self.opts.length then
    self.is_finished = true
    self.exchange:close()
  end
  return bytes
end

--- Reads the next bytes.
---@param most integer the number of bytes to return at most
---@return string? bytes nil at the end
---@return opensandbox.Error? err
function Stream:read(most)
  while not self.is_finished do
    local bytes, err = self.exchange:read(most)
    if bytes then
      bytes = within_range(self, bytes)
      if bytes ~= "" then return bytes end
    else
      if not err and self.limit and self.position < self.limit then
        err = self.exchange:error { kind = "stream", code = "cut", message = "the response ended before the end of the file" }
      end
      self.is_finished = not err
      err = err and self:resume(err)
      if err then return nil, err end
    end
  end
  return nil
end

--- Closes the connection. Code that reads the stream continues with an error.
function Stream:close()
  self.is_closed = true
  if self.opening then self.opening:close() end
  self.exchange:close()
  self.client.http:wake(self)
end

--- Returns the number of bytes of the download, if it is known.
---@return integer?
function Stream:size()
  return self.limit and self.limit - self.first
end

--- Opens a file.
---@param client opensandbox.Client a view for the method that the user called
---@param endpoint opensandbox.Endpoint|string
---@param path string
---@param opts table offset, length, lines, idle_timeout, timeout
---@param extra? table further fields of each request
---@return opensandbox.DownloadStream? stream
---@return opensandbox.Error? err
function download_stream.open(client, endpoint, path, opts, extra)
  local first = opts.offset or 0
  local self = setmetatable({
    client = client, endpoint = endpoint, path = path, opts = opts, extra = extra or {}, deadline = deadlines.new(opts.timeout),
    first = first, position = first, skip = 0, failures = 0,
  }, Stream)
  local err = open(self)
  if err and err.timer == "idle_timeout" then err = self:resume(err) end
  if err then return nil, err end
  return self
end

return download_stream
