--- A plain call: a request with a small response. It is retried where that is safe, within one time limit.

local core = require "opensandbox.core"
local deadlines = require "opensandbox.loop.deadline"
local error_body = require "opensandbox.http.error_body" -- now, because no more files may be open when a response is first an error
local errors = require "opensandbox.base.errors"
local exchange = require "opensandbox.http.exchange"
local headers = require "opensandbox.http.headers"
local json = require "opensandbox.base.json"
local options = require "opensandbox.base.options"
local retry = require "opensandbox.http.retry"
local url = require "opensandbox.base.url"
local utf8 = require "opensandbox.base.utf8"

local call = {}

call.MAX_BODY_SIZE = 64 * 1024 * 1024 -- bytes
call.MAX_EVENT_SIZE = 64 * 1024 * 1024 -- bytes, of one event of a stream

local idempotent = { GET = true, PUT = true, DELETE = true }

local hints = {
  [401] = "Check the API key (OPEN_SANDBOX_API_KEY, or the second argument of opensandbox.new)",
  [403] = "The API key does not allow this",
}

--- Makes the error for a response with status 400 or above. Reads its body.
---@param ex opensandbox.Exchange its head has arrived
---@return opensandbox.Error
function call.http_error(ex)
  local body, err = ex:body(error_body.MAX_SIZE, true)
  if err and err.kind ~= "stream" then return err end -- after a cut body the status is still known
  local function redact(text) return ex:redact(text) end
  local code, message = error_body.parse(ex.status, body or "", ex.headers["content-type"], redact)
  local hint = hints[ex.status]
  if ex.request.to_endpoint and ex.status == 401 then
    hint = "Check the endpoint's headers: use what client:discover_execd returns"
  elseif ex.request.to_endpoint and ex.status >= 500 and message:find("too many open files", 1, true) then
    hint = "execd keeps two descriptors for ten minutes for each request through its /proxy/PORT. Send fewer requests for a while, "
      .. "or reach the sandbox through the server's proxy: use_server_proxy = true"
  elseif ex.status == 404 and message == "Not Found" then
    hint = "The server does not know this route: check the path of the URL, and the server's version"
  end
  return ex:error { kind = "http", code = code, message = message, hint = hint,
    retry_after = headers.retry_after(ex.headers, core.wall_clock()) }
end

--- Makes the error for a response that does not have the form of its route.
---@param ex opensandbox.Exchange
---@param text string describes the problem
---@return opensandbox.Error
function call.unexpected_response(ex, text)
  local encoding = ex.headers["content-encoding"]
  local hint = "Check that the URL points at an OpenSandbox server, and not at a proxy's or another service's page"
  if encoding then
    text = ("%s: it is compressed (%s), which was not requested"):format(text, encoding)
    hint = "Turn off compression in the server or in the proxy before it"
  end
  return ex:error { kind = "protocol", code = "unexpected_response", hint = hint,
    message = ("%s (%s)"):format(text, ex.headers["content-type"] or "no content type") }
end

-- Starts a request and waits for the head of its response. Returns the exchange if the status is a success.
local function open(http, request)
  local ex = exchange.start(http, request)
  local status, err = ex:head()
  if not status then return nil, err end
  http:notify_response(ex)
  if status >= 400 then return nil, call.http_error(ex) end
  if status >= 300 then
    ex:close()
    return nil, ex:error { kind = "protocol", code = "redirect",
      message = ("the server redirects to %s, and redirects are not followed"):format(url.redacted(tostring(ex.headers.location))),
      hint = "Use that URL if you trust it" }
  end
  return ex
end

-- Makes one attempt. Returns the response, decoded as the request says.
local function request_once(http, request)
  local ex, err = open(http, request)
  if not ex then return nil, err end
  local body, truncated
  body, err, truncated = ex:body(request.max_body or call.MAX_BODY_SIZE, request.max_body ~= nil)
  if err then return nil, err end
  local value, problem
  if request.parse_body then
    value, problem = request.parse_body(body, ex.headers, truncated)
    if value == nil then return nil, call.unexpected_response(ex, "the response contains no " .. problem) end
    return value
  end
  if not request.decode then return body end
  value, problem = json.decode(body)
  if problem or type(value) ~= "table" then
    return nil, call.unexpected_response(ex,
      body:find("%S") and "the response is not the expected JSON" or "the response is empty")
  end
  value, problem = request.decode(value, ex.headers)
  if value == nil then return nil, call.unexpected_response(ex, "the response contains no " .. problem) end
  return value
end

-- Repeats `attempt` until it succeeds, while a retry is safe and `seconds` have not passed. `shared_budget`: the request's timeout is for
-- all attempts together.
local function with_retries(http, request, attempt, seconds, shared_budget)
  if request.may_repeat == nil then request.may_repeat = idempotent[request.method] or false end
  local deadline = deadlines.new(seconds)
  request.deadline = deadlines.new(request.timeout > 0 and request.timeout or nil)
  local attempts = 0
  while true do
    attempts = attempts + 1
    local value, err = attempt(http, request)
    if not err then return value end
    retry.set_retryable(err, request.may_repeat)
    local delay = retry.delay(http.retry, attempts, err, deadline:remaining())
    if not delay then
      err.attempts = attempts
      return nil, http:explain_error(request, err)
    end
    http:notify_retry(request, attempts, delay, err)
    err = http:sleep(request.op, delay, request.shielded)
    if err then return nil, err end
    if shared_budget then request.timeout = deadline:remaining() end
  end
end

-- Returns the error of a request for which no time is left, or nil. A server on the same machine could answer it nevertheless, so that a
-- series of requests would go on after its limit.
local function no_time_error(request)
  if request.timeout == 0 or request.timeout > deadlines.NO_TIME then return nil end
  local fields = { kind = "timeout", message = "no time was left for the request", timer = "timeout",
    timeout_option = request.option_names and request.option_names.timeout or "timeout" }
  if request.budget and request.budget > deadlines.NO_TIME then
    fields = errors.timeout_fields { text = "not finished in time", option = fields.timeout_option, seconds = request.budget,
      timer = "timeout" }
  end
  fields.code, fields.op, fields.sandbox_id, fields.not_sent = "timeout", request.op, request.sandbox_id, true
  fields.url = request.method .. " " .. url.redacted(request.url)
  return retry.set_retryable(errors.new(fields), true)
end

-- Shortens the time limit of a request to the time that is left to the view of the HTTP client that sends it. Returns an error if nothing
-- is left.
local function limit_time(http, request)
  local left = http.limit and http.limit:remaining()
  local own = request.timeout or 0
  if left and not (own > 0 and own < left) then request.timeout, request.budget = left, http.limit.seconds end
  return no_time_error(request)
end

--- Opens a response that is read in chunks. Returns the exchange once the head of a successful response has arrived.
---@param http opensandbox.HttpClient
---@param request table prepared by it
---@return table? exchange
---@return opensandbox.Error? err
function call.open(http, request)
  local err = limit_time(http, request)
  if err then return nil, err end
  return with_retries(http, request, open, http:default_timeout())
end

--- Encodes the JSON body of a request. Raises for a text that is not UTF-8: servers silently replace such bytes by U+FFFD, and would write
--- another file or run another command.
---@param op string
---@param value any
---@return string
function call.encode(op, value)
  local text, problem = json.encode(value)
  if text and not utf8.is_valid(text) then
    problem = "the request contains bytes that are not UTF-8, which JSON cannot carry; write such bytes to a file with "
      .. "upload_files, and reach a file with such a name by a command that builds the name, as printf does"
  end
  if problem then options.raise(op, problem) end
  return text
end

--- Makes a call.
---@param http opensandbox.HttpClient
---@param request table prepared by it: the fields of exchange.start, and: decode (returns the result for the decoded JSON response and the headers, or nil and the name of the missing part) or parse_body (returns the result for the body's bytes, the headers and whether the body was truncated); max_body (bytes of the body to read, where its beginning is enough); may_repeat (default: by method); timeout (seconds for all attempts together; 0: idle_timeout is enough)
---@return any value the result of decode or parse_body, or the body's bytes
---@return opensandbox.Error? err
function call.run(http, request)
  local err = limit_time(http, request)
  if err then return nil, err end
  request.budget = request.budget or request.timeout
  local bounded = request.timeout > 0
  return with_retries(http, request, request_once, bounded and request.timeout or http.timeouts.timeout, bounded)
end

return call
