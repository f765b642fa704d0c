--- A reference to a sandbox for another process: `sandbox:handle()` returns it as a plain table, and `client:connect` accepts it.
--
-- It contains the endpoint's headers, which may include an access token: protect it like a password. It never contains the API key.

local deadline = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local headers = require "opensandbox.http.headers"
local options = require "opensandbox.base.options"
local ports = require "opensandbox.lifecycle.ports"
local tables = require "opensandbox.base.tables"
local url = require "opensandbox.base.url"

--- A sandbox for another process, as plain data that can be written as JSON. Protect it like a password.
--- ```lua
--- local handle = assert(sandbox:handle())
--- print(handle.id, handle.url, handle.endpoints["44772"].url)
--- ```
---@class opensandbox.Handle
---@field id string the sandbox
---@field url string of its server
---@field endpoints table<string, { url: string, headers?: table<string, string>, proxied?: boolean, origin?: string }> by port, as text

local sandbox_reference = {}

local EXECD_PORT = ("%d"):format(ports.EXECD) -- because the keys of JSON objects are strings

--- Returns a table that refers to the sandbox, which can be written as JSON. It keeps nothing alive: a sandbox that was created here is
--- deleted with its object, unless that is detached.
--- ```lua
--- local id = assert(sandbox:handle()).id
--- -- In another process, without a request for the endpoint:
--- local same = assert(client:connect(handle, { wait = false }))
--- ```
---@param self opensandbox.Sandbox
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, for the lookup of the endpoint if that is not known yet
---@return opensandbox.Handle? handle
---@return opensandbox.Error? err
function sandbox_reference.of(self, opts)
  local op = "sandbox:handle"
  local execd, err = self:execd_endpoint(op, deadline.new(options.timeout(op, opts)))
  if not execd then return nil, err end
  return {
    id = self.id, url = self.client.url,
    endpoints = { [EXECD_PORT] = {
      url = execd.url, headers = next(execd.headers) and tables.merge(execd.headers) or nil, proxied = execd.proxied or nil,
      origin = execd.origin,
    } },
  }
end

-- Checks an endpoint and returns it in the form of get_endpoint.
local function endpoint(op, id, given)
  options.argument(op, "the handle's endpoint", given, "table")
  local to_send = options.argument(op, "the headers of the handle's endpoint", given.headers or {}, "string map")
  local parsed, problem = url.parse(options.argument(op, "the url of the handle's endpoint", given.url, "nonempty string"))
  problem = problem or headers.validate_all(to_send)
  if problem then options.raise(op, "the handle's endpoint is not valid: " .. problem) end
  return { url = given.url, host = parsed.host, port = parsed.port, headers = tables.merge(to_send), sandbox_id = id,
    proxied = given.proxied == true, origin = given.origin ~= nil and options.argument(op, "the origin of the handle's endpoint",
      given.origin, "string") or nil }
end

--- Reads a handle. A malformed one raises.
---@param client opensandbox.Client
---@param op string the method that the user called
---@param given table
---@return string? id
---@return opensandbox.Endpoint|opensandbox.Error|nil execd the endpoint if the handle contains it, or the error when it belongs to another server
function sandbox_reference.read(client, op, given)
  local id = options.path_segment(op, "the sandbox id of the handle", given.id)
  options.argument(op, "the handle's url", given.url, "nonempty string")
  local execd = options.argument(op, "the handle's endpoints", given.endpoints or {}, "table")[EXECD_PORT]
  if execd ~= nil then execd = endpoint(op, id, execd) end
  if given.url ~= client.url then
    return nil, errors.new { kind = "state", code = "other_server", op = op, sandbox_id = id,
      message = ("the handle belongs to a sandbox of %s, and this client's server is %s"):format(
        url.redacted(given.url), client.url),
      hint = "Make a client for that server: opensandbox.new(handle.url, key)" }
  end
  return id, execd
end

return sandbox_reference
