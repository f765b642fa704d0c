--- One request and its response, while they are on the way.
--
-- An exchange wraps a transfer of the core and waits for the head of the response, for bytes, or for events. All waiting for the
-- network happens here, in `wait_for_progress`.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local loop = require "opensandbox.loop"
local coxpcall = require "opensandbox.loop.coxpcall"
local scheduler = require "opensandbox.loop.scheduler"
local url = require "opensandbox.base.url"

local Exchange = {}
Exchange.__index = Exchange

local exchange = {}

local MIN_SECRET_LENGTH = 4 -- bytes: shorter secrets are not redacted, because they would match ordinary text

-- The fields of a request that the core takes.
local core_fields = {
  "method", "url", "body", "parts", "boundary", "may_repeat", "sink", "sink_mode", "framed", "frame_limit", "high_water",
  "receive_buffer", "connect_timeout", "timeout", "idle_timeout",
}

-- For each outcome of the core: kind and text of the error, the option that is the time limit, and a hint.
local failure_kinds = {
  resolve_failed = { kind = "transport", text = "the host name cannot be resolved",
    hint = "Check the host in the URL (OPEN_SANDBOX_DOMAIN, or the first argument of opensandbox.new)" },
  connect_failed = { kind = "transport", text = "connection refused or unreachable",
    hint = "Check that the server runs and that the URL (OPEN_SANDBOX_DOMAIN, or the first argument of opensandbox.new) is right" },
  tls_failed = { kind = "transport", text = "TLS failed",
    hint = "Check the certificate, or the tls options (ca_file, verify)" },
  connect_timeout = { kind = "timeout", text = "no connection in time", timer = "connect_timeout" },
  timeout = { kind = "timeout", text = "not finished in time", timer = "timeout" },
  idle_timeout = { kind = "timeout", text = "nothing came for too long", timer = "idle_timeout" },
  send_failed = { kind = "transport", text = "the connection broke while the request was sent" },
  receive_failed = { kind = "transport", text = "the connection broke before the response was complete" },
  bad_response = { kind = "protocol", text = "the answer is not HTTP",
    hint = "Check that the URL points at an OpenSandbox server" },
  sink_failed = { kind = "state", text = "the local file could not be written" },
  body_failed = { kind = "state", text = "the content could not be read" },
  closed = { kind = "closed", text = "the client is closed" },
  forked = { kind = "closed", text = "the process forked while the request ran" },
  no_memory = { kind = "transport", text = "not enough memory" },
  failed = { kind = "transport", text = "the request failed" },
}

--- Starts a request. `call`: op, method, url, headers (name -> value), body | parts, may_repeat, framed, frame_limit,
--- connect_timeout, timeout, idle_timeout (seconds), sandbox_id, secrets (values never to be shown), on_start (called with the exchange),
--- explained (false: its errors are not explained by the state of the sandbox).
---@return table exchange
function exchange.start(http, call)
  local headers = {}
  for name, value in pairs(call.headers or {}) do headers[#headers + 1] = name .. ": " .. value end
  local request = { headers = headers }
  for _, name in ipairs(core_fields) do request[name] = call[name] end
  local transfer = http.transport:start(request)
  local self = setmetatable({ http = http, call = call, transfer = transfer, started = core.now() }, Exchange)
  self.wait = { registry = http.transport.waiters, key = transfer:id(), shielded = call.shielded, owner = self }
  if call.on_start then call.on_start(self) end
  return self
end

--- A text without the secrets that were sent: a server may repeat them.
function Exchange:redact(text)
  for _, secret in ipairs(self.call.secrets or {}) do
    if #secret >= MIN_SECRET_LENGTH then text = text:gsub(secret:gsub("%W", "%%%0"), "***") end
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
    if fields[name] then fields[name] = self:redact(fields[name]) end
  end
  return errors.new(fields)
end

--- Explains an error by the state of the sandbox, see HttpClient:explain_error.
---@param err opensandbox.Error
---@return opensandbox.Error err
function Exchange:explain(err)
  return self.http:explain_error(self.call, err)
end

--- The error for a transfer that failed, or nil while it runs or when it is complete.
function Exchange:failure()
  local outcome, message, sent = self.transfer:outcome()
  if not outcome or outcome == "complete" then return nil end
  local failure = failure_kinds[outcome]
  local call = self.call
  local not_sent = not sent
  if failure.timer then
    local option = call.option_names and call.option_names[failure.timer] or failure.timer
    local seconds = failure.timer == "timeout" and call.budget or call[failure.timer]
    return self:error(errors.timeout_fields { code = outcome, text = failure.text, option = option, seconds = seconds,
      timer = failure.timer, not_sent = not_sent, retryable = not_sent })
  end
  local text, hint = failure.text .. ": " .. message, failure.hint
  if outcome == "closed" or outcome == "forked" then
    text = failure.text
  elseif outcome == "receive_failed" and self.status then
    return self:error { kind = "stream", code = "cut", message = "the response was cut off: " .. message }
  end
  return self:error {
    kind = failure.kind, code = outcome, message = text, hint = hint,
    not_sent = not_sent, retryable = not_sent and failure.kind ~= "closed" and failure.kind ~= "state",
  }
end

--- Calls a function of the user's. When it raises, the exchange is abandoned before the error is raised again.
function Exchange:call_user(callback, ...)
  local ok, value, problem = coxpcall.pcall(callback, ...)
  if ok then return value, problem end
  self:abandon()
  error(value, 0)
end

-- Sends the bytes that the current part of the body waits for. Returns an error when the reader function fails.
function Exchange:send_body_chunks()
  local readers = self.call.readers
  local part = readers and self.transfer:wants()
  while part do
    local bytes, problem = self:call_user(readers[part])
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

--- Ends the exchange because nobody waits for its result any more. The request's `on_abandon` may stop something on the server. If it
--- returns true it has taken the exchange over (see take_over), which then continues in the background.
function Exchange:abandon()
  local on_abandon = self.call.on_abandon
  if not (on_abandon and on_abandon(self)) then self:close() end
end

--- Returns whether bytes of the request may have reached the server.
function Exchange:sent()
  return self.transfer:sent()
end

--- Returns whether the call deletes or stops something.
function Exchange:is_shielded()
  return self.call.shielded == true
end

--- For `on_abandon`: the exchange belongs to its caller from now on, and is not abandoned again.
function Exchange:take_over()
  self.call.on_abandon = nil
end

--- Has a function called with the bytes received and sent so far whenever the transfer has moved, and once now.
---@param fn fun(received: number, sent: number)
function Exchange:on_progress(fn)
  self.call.on_transfer_progress = fn
  self:call_user(fn, self.transfer:progress())
end

-- Stands for the transfer of an exchange that was handed over.
local closed_transfer = {
  outcome = function() return "closed", "it was closed", true end, sent = function() return true end,
  head = function() end, read = function() end, frame = function() end, event = function() end, wants = function() end,
  progress = function() return 0, 0 end, close = function() end, detach = function() end,
}

--- Hands the exchange over to a new owner, although other code waits for it. That code receives an error of kind `closed`.
---@return table exchange for the new owner
function Exchange:hand_over()
  local wait = self.wait
  local registry, key = wait.registry, wait.key
  local waiter = key and registry[key] -- a transfer has no id once its client is closed
  local heir = setmetatable({ http = self.http, call = self.call, transfer = self.transfer, started = self.started,
    status = self.status, headers = self.headers, pieces = self.pieces, size = self.size }, Exchange)
  heir.wait = { registry = registry, key = key, shielded = true, owner = heir }
  heir:take_over()
  if waiter then registry[key], wait.registry = nil, nil end -- the waiter must not remove its successor
  self.transfer = closed_transfer
  if waiter then scheduler.wake(waiter) end
  return heir
end

--- Receives the whole response in code that cannot wait in the loop, as in a finalizer: drives the transport until then.
---@param deadline number on the clock of core.now()
---@param limit integer bytes of the body
---@return integer? status nil when the response is not complete
---@return string? body
function Exchange:finish_blocking(deadline, limit)
  local transfer, pieces, size = self.transfer, self.pieces or {}, self.size or 0
  while true do
    local bytes = transfer:read(1048576)
    if bytes then
      size = size + #bytes
      if size > limit then return nil end
      pieces[#pieces + 1] = bytes
    elseif transfer:outcome() then
      break
    else
      local left = deadline - core.now()
      if left <= 0 then return nil end
      self.http.transport:step(left)
    end
  end
  if transfer:outcome() ~= "complete" then return nil end
  return self.status or (transfer:head()), table.concat(pieces)
end

--- The facts about a response for the user's hook `on_response`.
---@return table
function Exchange:summary()
  local call = self.call
  return { op = call.op, method = call.method, url = url.shown(call.url), sandbox_id = call.sandbox_id, status = self.status,
    duration = core.now() - self.started, request_id = self.headers["x-request-id"] }
end

--- Waits until there is news of the transfer.
---@return opensandbox.Error? err when the exchange has failed
function Exchange:wait_for_progress()
  local err = self:send_body_chunks()
  if err then return err end
  local interruption, reason = loop.wait(self.wait)
  if interruption then
    local not_sent = not self:sent()
    self:abandon()
    return loop.interrupted(self.call.op, interruption, reason,
      self:error { kind = "cancelled", code = "cancelled", message = "the task was cancelled", not_sent = not_sent })
  end
  self.http:notify_activity(self)
  if self.call.on_transfer_progress then self:call_user(self.call.on_transfer_progress, self.transfer:progress()) end
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
      local err = self:wait_for_progress()
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
    local err = self:wait_for_progress()
    if err then return nil, err end
  end
end

--- The whole body.
---@param limit number bytes
---@param truncate? boolean a longer body is no error: its beginning is returned
---@return string? body
---@return opensandbox.Error? err
---@return boolean? truncated
function Exchange:body(limit, truncate)
  local pieces = self.pieces or {} -- in a field, because another owner may continue to read
  local size = self.size or 0
  self.pieces = pieces
  while true do
    local bytes, err = self:read(1048576)
    if err then return nil, err end
    if not bytes then return table.concat(pieces) end
    size = size + #bytes
    self.size = size
    if size > limit and truncate then
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
    local err = self:wait_for_progress()
    if err then return nil, err end
  end
  local err = self:failure()
  return not err and true or nil, err
end

--- The next event of an event stream, if it has arrived. Does not wait. The core decodes plain lines of output itself.
---@return string? stream "stdout" or "stderr" for a decoded line; nil for any other event
---@return string? text the line's text, or the event's JSON; nil: no event is there yet
function Exchange:output_event()
  return self.transfer:event()
end

--- The same without the short cut: `stream` is always nil.
function Exchange:any_event()
  return nil, (self.transfer:frame())
end

--- The next frame of an event stream.
---@return string? frame nil at the end of the stream
---@return opensandbox.Error? err when it did not end well
function Exchange:frame()
  local transfer = self.transfer
  while true do
    local frame, problem = transfer:frame()
    if frame then return frame end
    if problem == "too_large" then
      self:close()
      return nil, self:error { kind = "protocol", code = "frame_too_large",
        message = ("an event is longer than %d bytes"):format(self.call.frame_limit) }
    elseif problem then
      self:close()
      return nil, self:error { kind = "transport", code = "no_memory", message = "not enough memory" }
    end
    if transfer:outcome() then
      -- The end may have come with the last bytes: one more look, now that an unterminated frame counts.
      frame = transfer:frame()
      if frame then return frame end
      return nil, self:failure()
    end
    local err = self:wait_for_progress()
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
