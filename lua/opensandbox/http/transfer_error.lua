--- The error for a failed transfer of the core: its kind, text and hint.

local errors = require "opensandbox.base.errors"
local find_proxy = require("opensandbox.http.proxy").of

local transfer_error = {}

local SERVER_HINT = "Check that the server runs and that the URL (OPEN_SANDBOX_DOMAIN, or the first argument of opensandbox.new) "
  .. "is right"

local PROXY_HINT = "Check the proxy, unset it, or set the option proxy (\"\" for none)"

local WEBSOCKET_HINT = "Check that the URL points at execd, and that no proxy before it changes the connection"

-- By the core's outcome: kind and text of the error, a hint, and the core's time limit.
local outcomes = {
  resolve_failed = { kind = "transport", text = "the host name cannot be resolved",
    hint = "Check the host in the URL (OPEN_SANDBOX_DOMAIN, or the first argument of opensandbox.new)" },
  proxy_failed = { kind = "transport", text = "the proxy cannot be reached, or refuses to connect", hint = PROXY_HINT },
  connect_failed = { kind = "transport", text = "connection refused or unreachable", hint = SERVER_HINT },
  tls_failed = { kind = "transport", text = "TLS failed",
    hint = "Check the certificate, or the tls options (ca_file, verify)" },
  connect_timeout = { kind = "timeout", text = "no connection in time", timer = "connect_timeout" },
  timeout = { kind = "timeout", text = "not finished in time", timer = "timeout" },
  idle_timeout = { kind = "timeout", text = "no byte arrived in time", timer = "idle_timeout" },
  send_failed = { kind = "transport", text = "the connection broke while the request was sent" },
  receive_failed = { kind = "transport", text = "the connection broke before the response was complete" },
  bad_response = { kind = "protocol", text = "the response is not HTTP",
    hint = "Check that the URL points at an OpenSandbox server" },
  websocket_violation = { kind = "protocol", text = "the server violated the WebSocket protocol", hint = WEBSOCKET_HINT },
  message_too_large = { kind = "protocol", text = "the server sent too much at once", hint = WEBSOCKET_HINT },
  sink_failed = { kind = "state", text = "the local file could not be written" },
  body_failed = { kind = "state", text = "the content could not be read" },
  closed = { kind = "closed", text = "the client is closed" },
  forked = { kind = "closed", text = "the process forked while the request ran" },
  no_memory = { kind = "transport", text = "not enough memory" },
  no_descriptors = { kind = "transport", text = "too many open files in this process, or in the system",
    hint = "Close what is not used any more, or raise the limit (ulimit -n)" },
  failed = { kind = "transport", text = "the request failed" },
}

local TLS_HINT = "The server does not use TLS at this port: try http:// in the URL"
local PLAIN_HINT = "The server may expect TLS at this port: try https:// in the URL"

-- The hint for a server that uses TLS where the URL says http, or the other way round. `has_head`: the response has begun.
local function scheme_hint(outcome, message, target, has_head)
  if target:sub(1, 6) == "https:" then
    local is_plain = outcome == "tls_failed" and (message:find("wrong version number", 1, true)
      or message:find("packet length too long", 1, true) or message:find("unexpected message", 1, true))
    if is_plain then return TLS_HINT end
    if outcome == "connect_timeout" then return "If the server does not use TLS at this port, use http:// in the URL" end
  elseif not has_head and (outcome == "bad_response" or (outcome == "receive_failed" and message:find("Empty reply", 1, true))) then
    return PLAIN_HINT
  end
end

local THREAD_HINT = "The name lookup needs a thread: raise the limit of threads, or of memory (ulimit -u, ulimit -v)"

local SLOW_LOOKUP_HINT = "Check the DNS server. The name lookup needs a thread, too: see the limits of threads and of memory "
  .. "(ulimit -u, ulimit -v)"

-- Returns whether the name lookup took the time for the connection. libcurl 8.23 also waits when the lookup gets no thread.
local function is_slow_lookup(outcome, message)
  return outcome == "connect_timeout" and message:find("Resolving timed out", 1, true) == 1
end

-- Returns the hint for a name lookup, of the server or of a proxy, that could not begin or was slow: the name is not the cause then.
local function lookup_hint(outcome, message)
  if message:find("getaddrinfo() thread failed to start", 1, true) then return THREAD_HINT end
  return is_slow_lookup(outcome, message) and SLOW_LOOKUP_HINT or nil
end

local may_blame_proxy = { resolve_failed = true, proxy_failed = true, connect_timeout = true }

-- Returns the outcome, and the proxy that may be its cause. libcurl 8.14 blames the server for the lookup of a proxy that cannot begin.
local function find_culprit(outcome, facts)
  local proxy = may_blame_proxy[outcome] and find_proxy(facts.url, facts.proxy) or nil
  if outcome ~= "resolve_failed" or not proxy then return outcome, proxy end
  if proxy.resolves_hosts then return "proxy_failed", proxy end
  return outcome
end

--- Returns the fields of the error for a transfer that failed.
---@param outcome string of the core
---@param message string of the core
---@param facts table url; seconds(timer) returns the value of a time limit; option_name(timer) returns its option; sent (bytes of the request may have reached the server); has_head (the response has begun); proxy (the client's option)
---@return table fields
function transfer_error.fields(outcome, message, facts)
  local proxy
  outcome, proxy = find_culprit(outcome, facts)
  local known = outcomes[outcome]
  local not_sent = not facts.sent
  if outcome == "closed" or outcome == "forked" then
    return { kind = known.kind, code = outcome, message = known.text, not_sent = not_sent }
  elseif outcome == "receive_failed" and facts.has_head then
    return { kind = "stream", code = "cut", message = "the response was cut off: " .. message, not_sent = not_sent }
  end
  local hint = lookup_hint(outcome, message) or scheme_hint(outcome, message, facts.url, facts.has_head)
  if known.timer then
    local text = is_slow_lookup(outcome, message) and "a name was not resolved in time" or known.text
    -- The core does not know whether the proxy hangs or the server behind it.
    if proxy then text = ("%s through the proxy %s (%s)"):format(text, proxy.url, proxy.source) end
    local fields = errors.timeout_fields { code = outcome, text = text, option = facts.option_name(known.timer),
      seconds = facts.seconds(known.timer), timer = known.timer, not_sent = not_sent, retryable = not_sent }
    if proxy then fields.hint = fields.hint .. ". " .. PROXY_HINT end
    if hint then fields.hint = fields.hint .. ". " .. hint end
    return fields
  end
  local text = known.text
  if proxy then text = ("the proxy %s (%s) failed"):format(proxy.url, proxy.source) end
  return {
    kind = known.kind, code = outcome, message = text .. ": " .. message, hint = hint or known.hint,
    not_sent = not_sent, retryable = not_sent and known.kind ~= "closed" and known.kind ~= "state",
  }
end

return transfer_error
