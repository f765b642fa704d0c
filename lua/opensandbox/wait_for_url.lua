--- Waits until a server in the sandbox answers an HTTP request, which is sent from here to the endpoint of its port.

local deadline = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local options = require "opensandbox.base.options"
local polling = require "opensandbox.loop.polling"
local sandbox_state = require "opensandbox.lifecycle.sandbox_state"

local wait_for_url = {}

local DEFAULT_TIMEOUT = 30   -- seconds
local DEFAULT_INTERVAL = 0.1 -- seconds
local MAX_INTERVAL = 1       -- seconds, to which the default interval grows
local MAX_BODY = 4096        -- bytes of a response that are read

--- The options of `sandbox:wait_for_url`.
--- ```lua
--- assert(sandbox:wait_for_url(8080, "/health", { status = 204, timeout = "2m", interval = 0.5 }))
--- ```
---@class opensandbox.WaitForUrlOpts
---@field status? integer the status to wait for; default: any from 200 to 399
---@field timeout? opensandbox.Duration default 30
---@field interval? opensandbox.Duration between two requests, default: from 0.1 up to 1

local known_options = { status = "natural", timeout = "seconds", interval = "seconds" }

local function check_path(op, path)
  options.argument(op, "the path", path, "nonempty string")
  if path:sub(1, 1) ~= "/" or path:find("[%c #]") then
    options.raise(op, ("the path must begin with \"/\", without white space and \"#\", not %q"):format(path))
  end
end

-- Sends one request. Returns its status, or nil and the error.
local function request_status(client, endpoint, op, path, seconds)
  local exchange
  local _, err = client.http:call_endpoint(endpoint, { op = op, method = "GET", path = path, timeout = seconds, max_body = MAX_BODY,
    headers = { Accept = "*/*", ["OpenSandbox-Access-Renew"] = "skip" }, -- polling is no use of the sandbox
    on_start = function(started) exchange = started end, parse_body = function() return true end })
  if exchange and exchange.status and not (err and (err.kind == "state" or err.kind == "cancelled" or err.kind == "closed")) then
    return exchange.status
  end
  return nil, err
end

-- Returns whether an error does not depend on the server in the sandbox.
local function is_permanent(err)
  return err.kind == "state" or err.kind == "cancelled" or err.kind == "closed" or err.code == "tls_failed"
end

--- Waits until a GET request to a port of the sandbox is answered with the right status. The request is sent to the endpoint of the port,
--- so the server can then be reached from here, too. Redirects are not followed.
--- ```lua
--- assert(sandbox:start("python3 -m http.server 8080"))
--- local status = assert(sandbox:wait_for_url(8080, "/"))
--- ```
---@param self opensandbox.Sandbox
---@param port integer 1 to 65535
---@param path? string with a query if it needs one; default "/"
---@param opts? opensandbox.WaitForUrlOpts
---@return integer? status
---@return opensandbox.Error? err kind `timeout`, code `not_answered` when it was not answered in time; its cause is the last failure
function wait_for_url.wait(self, port, path, opts)
  local op = "sandbox:wait_for_url"
  options.port(op, port)
  path = path == nil and "/" or path
  check_path(op, path)
  opts = options.check(op, opts, known_options)
  local timeout = opts.timeout or DEFAULT_TIMEOUT
  local limit, client = deadline.new(timeout), self.client:for_op(op)
  local endpoint, last, last_text
  local function check()
    local seconds, err, status = limit:request_timeout(), nil, nil
    if not endpoint then
      endpoint, err = self:call_server(op, limit, "get_endpoint", port)
      if err and sandbox_state.is_absence(err) then err = sandbox_state.gone(op, self.id, err) end
    end
    if endpoint then status, err = request_status(client, endpoint, op, path, seconds) end
    if status and (status == opts.status or (not opts.status and status >= 200 and status < 400)) then return status end
    if err and (is_permanent(err) or (not endpoint and not err.retryable)) then return nil, err end
    -- The time limit cuts off the last request, so an earlier failure is more informative.
    if not (last_text and limit:has_passed()) then
      last, last_text = err, status and ("the last answer was HTTP %d"):format(status) or "the last request failed: " .. err.message
    end
  end
  local status, err = polling.poll(op, { deadline = limit, initial_delay = opts.interval or DEFAULT_INTERVAL,
    max_delay = opts.interval or MAX_INTERVAL, sleeper = client.http }, check)
  if status or err then return status, err end
  err = errors.timeout { op = op, code = "not_answered", text = ("%s of port %d was not answered as wanted"):format(path, port),
    option = "timeout", seconds = timeout, sandbox_id = self.id, cause = last,
    hint = "Check that the server in the sandbox listens on all addresses (0.0.0.0), and the path, or raise the option timeout" }
  err.message = err.message .. "; " .. tostring(last_text)
  return nil, err
end

return wait_for_url
