--- One request and its response, as they move.
--
-- An exchange wraps a transfer of the core and waits: for the head of the response, for bytes, for frames. All waiting for the
-- network happens here, in `pump`.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local loop = require "opensandbox.loop"
local protect = require "opensandbox.loop.coxpcall"
local url = require "opensandbox.base.url"

local Exchange = {}
Exchange.__index = Exchange

local exchange = {}

local SHORTEST_SECRET = 4 -- bytes: what is shorter keeps nobody out, and would blot out half of every message

-- What of a call is for the core.
local of_the_transfer = {
  "method", "url", "body", "parts", "boundary", "may_repeat", "sink", "sink_mode", "max_event", "high_water",
  "receive_buffer", "connect_timeout", "timeout", "idle_timeout",
}

-- What each way to fail means to the caller: kind, the option that is the clock, what to do.
local failures = {
  resolve_failed = { kind = "transport", what = "the host name cannot be resolved",
    hint = "Check the host in the URL (OPEN_SANDBOX_DOMAIN, or the first argument of opensandbox.new)" },
  connect_failed = { kind = "transport", what = "connection refused or unreachable",
    hint = "Check that the server runs and that the URL (OPEN_SANDBOX_DOMAIN, or the first argument of opensandbox.new) is right" },
  tls_failed = { kind = "transport", what = "TLS failed",
    hint = "Check the certificate, or the tls options (ca_file, verify)" },
  connect_timeout = { kind = "timeout", what = "no connection in time", clock = "connect_timeout" },
  timeout = { kind = "timeout", what = "not finished in time", clock = "timeout" },
  idle_timeout = { kind = "timeout", what = "nothing came for too long", clock = "idle_timeout" },
  send_failed = { kind = "transport", what = "the connection broke while the request was sent" },
  receive_failed = { kind = "transport", what = "the connection broke before the response was complete" },
  bad_response = { kind = "protocol", what = "the answer is not HTTP",
    hint = "Check that the URL points at an OpenSandbox server" },
  sink_failed = { kind = "state", what = "the local file could not be written" },
  body_failed = { kind = "state", what = "the content could not be read" },
  closed = { kind = "closed", what = "the client is closed" },
  forked = { kind = "closed", what = "the process forked while the request ran" },
  no_memory = { kind = "transport", what = "not enough memory" },
  failed = { kind = "transport", what = "the request failed" },
}

--- Starts a request. `call`: op, method, url, headers (name -> value), body | parts, may_repeat, max_event (of an event stream),
--- connect_timeout, timeout, idle_timeout (seconds), sandbox_id, secrets (values never to be shown).
---@return table exchange
function exchange.start(client, call)
  local headers = {}
  for name, value in pairs(call.headers or {}) do headers[#headers + 1] = name .. ": " .. value end
  local request = { headers = headers }
  for _, name in ipairs(of_the_transfer) do request[name] = call[name] end
  for name, value in pairs(client._transport) do request[name] = value end
  local transfer = client._multi:request(request)
  local self = setmetatable({ client = client, call = call, transfer = transfer, started = core.now() }, Exchange)
  -- What loop.wait() is told each time.
  self.wait = { registry = client._waiting, key = transfer:id(), shielded = call.ends_things, owner = self }
  return self
end

--- A text without the secrets that were sent: a server may repeat what it was told.
function Exchange:scrub(text)
  for _, secret in ipairs(self.call.secrets or {}) do
    if #secret >= SHORTEST_SECRET then text = text:gsub(secret:gsub("%W", "%%%0"), "***") end
  end
  return text
end

--- An error of this exchange: `fields` over what is known of the call.
function Exchange:error(fields)
  local call = self.call
  fields.op = call.op
  fields.url = call.method .. " " .. url.shown(call.url)
  fields.sandbox_id = fields.sandbox_id or call.sandbox_id
  fields.status = fields.status or self.status
  fields.request_id = fields.request_id or (self.headers and self.headers["x-request-id"])
  for _, name in ipairs { "message", "code", "request_id" } do
    if fields[name] then fields[name] = self:scrub(fields[name]) end
  end
  return errors.new(fields)
end

--- The error for a transfer that failed, or nil while it runs or when it is complete.
function Exchange:failure()
  local outcome, message, sent = self.transfer:outcome()
  if not outcome or outcome == "complete" then return nil end
  local failure = failures[outcome]
  local call = self.call
  local text = failure.what .. ": " .. message
  local hint = failure.hint
  if failure.clock then
    local seconds = failure.clock == "timeout" and call.budget or call[failure.clock]
    text = ("%s: %s of %g s ran out"):format(failure.what, failure.clock, seconds or 0)
    hint = ("Raise the option %s if it needs longer"):format(call.clock_names and call.clock_names[failure.clock] or failure.clock)
  elseif outcome == "closed" or outcome == "forked" then
    text = failure.what
  elseif outcome == "receive_failed" and self.status then
    return self:error { kind = "stream", code = "cut", message = "the response was cut off: " .. message }
  end
  return self:error {
    kind = failure.kind, code = outcome, message = text, hint = hint, clock = failure.clock,
    not_sent = not sent, retryable = not sent and failure.kind ~= "closed" and failure.kind ~= "state",
  }
end

--- Calls a function of the user's. Its error passes through us, but not before the connection is closed.
function Exchange:guard(callback, ...)
  local ok, value, problem = protect.pcall(callback, ...)
  if ok then return value, problem end
  self:abandon()
  error(value, 0)
end

-- Gives the part that is being sent the bytes it waits for. Returns an error when there is something wrong with them.
function Exchange:feed()
  local readers = self.call.readers
  local part = readers and self.transfer:wants()
  while part do
    local bytes, problem = self:guard(readers[part])
    if bytes == "" then bytes = nil end -- the end, as for load()
    if bytes ~= nil and type(bytes) ~= "string" then problem = "the reader gave a " .. type(bytes) .. " instead of a string" end
    if problem ~= nil then
      self:close()
      return self:error { kind = "state", code = "body_failed", message = "the content could not be read: " .. tostring(problem) }
    end
    self.transfer:write(part, bytes)
    part = self.transfer:wants()
  end
end

--- Ends the exchange because its result is not wanted any more. The call may have something to stop on the server, or may take the
--- exchange over.
function Exchange:abandon()
  local on_abandon = self.call.on_abandon
  if not (on_abandon and on_abandon(self)) then self:close() end
end

--- Waits until there is news of the transfer.
---@return opensandbox.Error? err when the exchange has failed
function Exchange:pump()
  local err = self:feed()
  if err then return err end
  local stopped, detail = loop.wait(self.wait)
  if stopped then
    local not_sent = not self.transfer:sent()
    self:abandon()
    return loop.stop(self.call.op, stopped, detail,
      self:error { kind = "cancelled", code = "cancelled", message = "the task was cancelled", not_sent = not_sent })
  end
  local keeper = self.client._keepers[self.call.sandbox_id]
  if keeper then keeper:moved(self) end
  if self.call.on_pump then self:guard(self.call.on_pump, self.transfer:progress()) end
end

local function parse_headers(text)
  local headers = {}
  for name, value in text:gmatch("\n([^:\r\n]+):[ \t]*([^\r\n]*)") do
    name = name:lower()
    value = value:gsub("[ \t]+$", "")
    headers[name] = headers[name] and (headers[name] .. ", " .. value) or value
  end
  return headers
end

--- Waits for the head of the response.
---@return integer? status
---@return table|opensandbox.Error headers by lower-case name, or the error
function Exchange:head()
  while not self.status do
    local status, lines = self.transfer:head()
    if status then
      self.status, self.headers = status, parse_headers(lines)
    elseif self.transfer:outcome() then
      -- libcurl takes a head that was cut off for a whole one.
      return nil, self:failure() or self:error { kind = "transport", code = "receive_failed",
        message = "the connection broke in the head of the response" }
    else
      local err = self:pump()
      if err then return nil, err end
    end
  end
  return self.status, self.headers
end

--- The next bytes of the body, at most `most`.
---@return string? bytes nil at the end of the body
---@return opensandbox.Error? err when it did not end well
function Exchange:read(most)
  while true do
    local bytes = self.transfer:read(most)
    if bytes then return bytes end
    if self.transfer:outcome() then return nil, self:failure() end
    local err = self:pump()
    if err then return nil, err end
  end
end

--- The whole body.
---@param limit number bytes
---@param may_be_longer? boolean a longer one is no error: its beginning will do
---@return string? body
---@return opensandbox.Error? err
---@return boolean? is_beginning
function Exchange:body(limit, may_be_longer)
  local pieces, size = {}, 0
  while true do
    local bytes, err = self:read(1048576)
    if err then return nil, err end
    if not bytes then return table.concat(pieces) end
    size = size + #bytes
    if size > limit and may_be_longer then
      self:close()
      pieces[#pieces + 1] = bytes
      return table.concat(pieces), nil, true
    elseif size > limit then
      self:close()
      return nil, self:error { kind = "protocol", code = "body_too_large",
        message = ("the response is longer than %d bytes"):format(limit) }
    end
    pieces[#pieces + 1] = bytes
  end
end

--- Waits for the end of a response whose body goes to a file.
---@return true? ok
---@return opensandbox.Error? err
function Exchange:finish()
  while not self.transfer:outcome() do
    local err = self:pump()
    if err then return nil, err end
  end
  local err = self:failure()
  return not err and true or nil, err
end

--- The next frame of an event stream.
---@return string? frame nil at the end of the stream
---@return opensandbox.Error? err when it did not end well
function Exchange:frame()
  local transfer = self.transfer
  while true do
    local frame, problem = transfer:next_event()
    if frame then return frame end
    if problem == "too_large" then
      self:close()
      return nil, self:error { kind = "protocol", code = "frame_too_large",
        message = ("an event is longer than %d bytes"):format(self.call.max_event) }
    elseif problem then
      self:close()
      return nil, self:error { kind = "transport", code = "no_memory", message = "not enough memory" }
    end
    if transfer:outcome() then
      -- The end may have come with the last bytes: one more look, now that an unterminated frame counts.
      frame = transfer:next_event()
      if frame then return frame end
      return nil, self:failure()
    end
    local err = self:pump()
    if err then return nil, err end
  end
end

--- Ends the exchange, closing the connection if it still runs.
function Exchange:close()
  self.transfer:close()
end

--- Leaves the rest of the response to the background, so that the connection can be used again; gives up after `seconds`.
function Exchange:drain(seconds)
  self.transfer:detach(seconds)
end

return exchange
