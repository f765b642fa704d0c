--- A plain call: a request whose whole response is small. It is retried where that is safe, within one budget of time.

local core = require "opensandbox.core"
local exchange = require "opensandbox.http.exchange"
local json = require "opensandbox.base.json"
local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local response = require "opensandbox.http.error_body"
local retry = require "opensandbox.http.retry"
local url = require "opensandbox.base.url"
local utf8 = require "opensandbox.base.utf8"

local call = {}

call.MAX_BODY_SIZE = 64 * 1024 * 1024 -- bytes

local idempotent = { GET = true, PUT = true, DELETE = true }

local hints = {
  [401] = "Check the API key (OPEN_SANDBOX_API_KEY, or the second argument of opensandbox.new)",
  [403] = "The API key does not allow this",
}

--- The error for a response with status 400 or above. Reads its body.
---@param ex table exchange whose head has arrived
function call.http_error(ex)
  local body, err = ex:body(call.MAX_BODY_SIZE)
  if err and err.kind ~= "stream" then return err end -- a cut error body says less, but the status stands
  local function redact(text) return ex:redact(text) end
  local code, message = response.explain(ex.status, body or "", ex.headers["content-type"], redact)
  local hint = hints[ex.status]
  if ex.call.to_endpoint and ex.status == 401 then
    hint = "Check the endpoint's headers: use what client:discover_execd returns"
  elseif ex.status == 404 and message == "Not Found" then
    hint = "The server does not know this route: check the path of the URL, and the server's version"
  end
  return ex:error { kind = "http", code = code, message = message, hint = hint, retry_after = response.retry_after(ex.headers) }
end

--- The error for a response that is not of the route's form.
function call.unexpected_response(ex, what)
  local content_type = ex.headers["content-type"] or "no content type"
  return ex:error { kind = "protocol", code = "unexpected_answer", message = ("%s (%s)"):format(what, content_type),
    hint = "Check that the URL points at an OpenSandbox server, and not at a proxy's or another service's page" }
end

-- Starts a request and waits for the head of its response. Returns the exchange when the status is a success.
local function open(http, request)
  local ex = exchange.start(http, request)
  local status, err = ex:head()
  if not status then return nil, err end
  http:notify_response(ex)
  if status >= 400 then return nil, call.http_error(ex) end
  if status >= 300 then
    ex:close()
    return nil, ex:error { kind = "protocol", code = "redirect",
      message = ("redirects are not followed, and the server sent us to %s"):format(url.shown(tostring(ex.headers.location))),
      hint = "Use the URL it names, if you trust it" }
  end
  return ex
end

-- One whole attempt. Returns the response, decoded if the request says how.
local function request_once(http, request)
  local ex, err = open(http, request)
  if not ex then return nil, err end
  local body, truncated
  body, err, truncated = ex:body(request.max_body or call.MAX_BODY_SIZE, request.max_body ~= nil)
  if err then return nil, err end
  local value, problem
  if request.parse_body then
    value, problem = request.parse_body(body, ex.headers, truncated)
    if value == nil then return nil, call.unexpected_response(ex, "the answer holds no " .. problem) end
    return value
  end
  if not request.decode then return body end
  value, problem = json.decode(body)
  if problem or type(value) ~= "table" then
    return nil, call.unexpected_response(ex,
      body:find("%S") and "the answer is not the JSON that was expected" or "the answer is empty")
  end
  value, problem = request.decode(value)
  if value == nil then return nil, call.unexpected_response(ex, "the answer holds no " .. problem) end
  return value
end

-- Repeats `attempt` until it succeeds, as long as a retry is safe and `seconds` have not passed. `shared_budget`: the request's timeout is
-- for all attempts together.
local function with_retries(http, request, attempt, seconds, shared_budget)
  if request.may_repeat == nil then request.may_repeat = idempotent[request.method] or false end
  local deadline = core.now() + seconds
  local attempts = 0
  while true do
    attempts = attempts + 1
    local value, err = attempt(http, request)
    if not err then return value end
    retry.set_retryable(err, request.may_repeat)
    local left = deadline - core.now()
    local delay = retry.delay(http.retry, attempts, err, left)
    if not delay then
      err.attempts = attempts
      return nil, http:explain_error(request, err)
    end
    err = loop.sleep(request.op, delay, request.shielded)
    if err then return nil, err end
    if shared_budget then request.timeout = math.max(left - delay, 0.001) end
  end
end

--- Opens a response that is read in chunks. Returns the exchange once the head of a successful response has arrived.
---@param http opensandbox.HttpClient
---@param request table prepared by it
---@return table? exchange
---@return opensandbox.Error? err
function call.open(http, request)
  return with_retries(http, request, open, http.timeouts.timeout)
end

--- The JSON text of what a request sends. JSON is UTF-8: in the place of every other byte servers put U+FFFD, and so would write
--- another file, or run another command, without a word.
---@param op string
---@param value any
function call.encode(op, value)
  local text, problem = json.encode(value)
  if text and not utf8.is_sound(text) then
    problem = "what would be sent is not UTF-8, and JSON carries nothing else; put such bytes into a file with upload_files, and "
      .. "reach a file of such a name through a command that makes it up, as printf does"
  end
  if problem then options.raise(op, problem) end
  return text
end

--- Makes a call.
---@param http opensandbox.HttpClient
---@param request table prepared by it: the fields of exchange.start, and: decode (returns the result for the decoded JSON response, or nil and the name of the missing part) or parse_body (returns the result for the body's bytes, the headers and whether the body was truncated); max_body (bytes of the body to read, where its beginning is enough); may_repeat (default: by method); timeout (seconds for all attempts together; 0: idle_timeout is enough)
---@return any value the result of decode or parse_body, or the body's bytes
---@return opensandbox.Error? err
function call.run(http, request)
  request.budget = request.budget or request.timeout
  local bounded = request.timeout > 0
  return with_retries(http, request, request_once, bounded and request.timeout or http.timeouts.timeout, bounded)
end

return call
