--- A sandbox as a plain table, for another process: `sandbox:handle()`, written as JSON perhaps, is what `client:connect` takes there.
--
-- It holds the endpoint's headers, which may be an access token: keep it as you would keep a password. It never holds the API key.

local errors = require "opensandbox.base.errors"
local headers = require "opensandbox.http.headers"
local options = require "opensandbox.base.options"
local ports = require "opensandbox.lifecycle.ports"
local url = require "opensandbox.base.url"

---@class opensandbox.Handle
---@field id string the sandbox
---@field url string of the server that runs it
---@field endpoints table<string, table> url, headers and proxied, by port

local handle = {}

local EXECD_PORT = ("%d"):format(ports.EXECD) -- a string, because JSON has no numbers as keys

--- A table that stands for the sandbox in another process. It keeps nothing alive: a sandbox that was created here ends with its
--- object, unless that is detached.
---@param self opensandbox.Sandbox
---@return opensandbox.Handle? handle
---@return opensandbox.Error? err
function handle.of(self)
  local execd, err = self:execd_endpoint("sandbox:handle")
  if not execd then return nil, err end
  return {
    id = self.id, url = self.client.url,
    endpoints = { [EXECD_PORT] = {
      url = execd.url, headers = next(execd.headers) and options.merge(execd.headers) or nil, proxied = execd.proxied or nil,
    } },
  }
end

-- The endpoint as get_endpoint would give it.
local function endpoint(op, id, given)
  options.argument(op, "the handle's endpoint", given, "table")
  local to_send = options.argument(op, "the headers of the handle's endpoint", given.headers or {}, "strings")
  local parsed, problem = url.parse(options.argument(op, "the url of the handle's endpoint", given.url, "text"))
  problem = problem or headers.problem_in(to_send)
  if problem then options.raise(op, "the handle's endpoint is not valid: " .. problem) end
  return { url = given.url, host = parsed.host, port = parsed.port, headers = options.merge(to_send), sandbox_id = id,
    proxied = given.proxied == true }
end

--- What a handle says. One that is malformed raises.
---@param client opensandbox.Client
---@param op string
---@param given table
---@return string? id
---@return opensandbox.Endpoint|opensandbox.Error|nil execd the endpoint if the handle holds it, or the error when it is of another server
function handle.read(client, op, given)
  local id = options.identifier(op, "the sandbox id of the handle", given.id)
  options.argument(op, "the handle's url", given.url, "text")
  local execd = options.argument(op, "the handle's endpoints", given.endpoints or {}, "table")[EXECD_PORT]
  if execd ~= nil then execd = endpoint(op, id, execd) end
  if given.url ~= client.url then
    return nil, errors.new { kind = "state", code = "other_server", op = op, sandbox_id = id,
      message = ("the handle is of a sandbox of %s, and this client's server is %s"):format(url.shown(given.url), client.url),
      hint = "Make a client for that server: opensandbox.new(handle.url, key)" }
  end
  return id, execd
end

return handle
