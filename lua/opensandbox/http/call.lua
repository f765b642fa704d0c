--- A plain call: a request whose whole response is small. Tries again where that is safe, within one budget of time.

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

call.LONGEST_BODY = 64 * 1024 * 1024 -- bytes

local idempotent = { GET = true, PUT = true, DELETE = true }

local hints = {
  [401] = "Check the API key (OPEN_SANDBOX_API_KEY, or the second argument of opensandbox.new)",
  [403] = "The API key does not allow this",
}

--- The error for a response with status 400 or above. Reads its body.
---@param ex table exchange whose head has arrived
function call.refusal(ex)
  local body, err = ex:body(call.LONGEST_BODY)
  if err and err.kind ~= "stream" then return err end -- a cut error body says less, but the status stands
  local function scrub(text) return ex:scrub(text) end
  local code, message = response.explain(ex.status, body or "", ex.headers["content-type"], scrub)
  local hint = hints[ex.status]
  if ex.call.is_execd and ex.status == 401 then
    hint = "Check the endpoint's headers: use what client:discover_execd returns"
  elseif ex.status == 404 and message == "Not Found" then
    hint = "The server does not know this route: check the path of the URL, and the server's version"
  end
  return ex:error { kind = "http", code = code, message = message, hint = hint, retry_after = response.retry_after(ex.headers) }
end

--- The error for an answer that is not what the route gives.
function call.surprise(ex, what)
  local content_type = ex.headers["content-type"] or "no content type"
  return ex:error { kind = "protocol", code = "unexpected_answer", message = ("%s (%s)"):format(what, content_type),
    hint = "Check that the URL points at an OpenSandbox server, and not at a proxy's or another service's page" }
end

-- Starts a request and waits for the head of its response. Gives the exchange when the server said yes.
local function open(client, request)
  local ex = exchange.start(client, request)
  local status, err = ex:head()
  if not status then return nil, err end
  client:_responded(ex)
  if status >= 400 then return nil, call.refusal(ex) end
  if status >= 300 then
    ex:close()
    return nil, ex:error { kind = "protocol", code = "redirect",
      message = ("redirects are not followed, and the server sent us to %s"):format(url.shown(tostring(ex.headers.location))),
      hint = "Use the URL it names, if you trust it" }
  end
  return ex
end

-- One whole try: the answer, decoded if the request says how.
local function complete(client, request)
  local ex, err = open(client, request)
  if not ex then return nil, err end
  local body, is_beginning
  body, err, is_beginning = ex:body(request.at_most or call.LONGEST_BODY, request.at_most ~= nil)
  if err then return nil, err end
  local value, problem
  if request.read then
    value, problem = request.read(body, ex.headers, is_beginning)
    if value == nil then return nil, call.surprise(ex, "the answer holds no " .. problem) end
    return value
  end
  if not request.decode then return body end
  value, problem = json.decode(body)
  if problem or type(value) ~= "table" then
    return nil, call.surprise(ex, body:find("%S") and "the answer is not the JSON that was expected" or "the answer is empty")
  end
  value, problem = request.decode(value)
  if value == nil then return nil, call.surprise(ex, "the answer holds no " .. problem) end
  return value
end

-- Tries until it works, as long as trying again is safe and `seconds` have not passed. `shared`: the request's timeout is for all
-- tries together.
local function persist(client, request, try, seconds, shared)
  if request.may_repeat == nil then request.may_repeat = idempotent[request.method] or false end
  local deadline = core.now() + seconds
  local tries = 0
  while true do
    tries = tries + 1
    local value, err = try(client, request)
    if not err then return value end
    retry.judge(err, request.may_repeat)
    local left = deadline - core.now()
    local delay = retry.delay(client._retry, tries, err, left)
    if not delay then
      err.attempts = tries
      return nil, err
    end
    err = loop.pause(request.op, delay, request.ends_things)
    if err then return nil, err end
    if shared then request.timeout = math.max(left - delay, 0.001) end
  end
end

--- Opens a response that is read piece by piece: gives the exchange once the head of a good response has arrived.
---@return table? exchange
---@return opensandbox.Error? err
function call.open(client, request)
  return persist(client, request, open, client._clocks.timeout)
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

--- Makes a call. `request` as in exchange.start, and: json (a value to send); decode (makes the result of the decoded JSON answer, or
--- gives nil and the name of what is missing) or read (makes it of the body's bytes, the headers, and whether there was more); at_most
--- (bytes of the body to take, where its beginning will do); may_repeat (default: by method); timeout = seconds for all tries together,
--- 0: the idle clock is enough.
---@return any value what decode or read gives, or the body's bytes
---@return opensandbox.Error? err
function call.run(client, request)
  request.budget = request.timeout
  local bounded = request.timeout > 0
  return persist(client, request, complete, bounded and request.timeout or client._clocks.timeout, bounded)
end

return call
