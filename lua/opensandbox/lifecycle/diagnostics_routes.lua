--- Diagnostics: the server's logs and events of one sandbox. Servers before 0.2.3 return 501.

local fields = require "opensandbox.base.fields"
local options = require "opensandbox.base.options"
local sandbox_requests = require "opensandbox.lifecycle.sandbox_requests"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

---@class (partial) opensandbox.Client
local diagnostics_routes = {}

--- Logs or events of a sandbox.
--- ```lua
--- local logs = assert(client:get_diagnostic_logs(id, "container"))
--- print(logs.kind, logs.scope, logs.content or logs.content_url, logs.content_type, logs.content_length, logs.truncated)
--- print(logs.expires_at, table.concat(logs.warnings, "\n"))
--- ```
---@class opensandbox.Diagnostics
---@field kind string "logs" or "events"
---@field scope string their subject
---@field content? string the text, if the response contains it
---@field content_url? string where the text can be fetched, if the response does not contain it
---@field content_type? string the MIME type of the text
---@field content_length? integer bytes
---@field expires_at? number Unix seconds: when the URL becomes invalid
---@field truncated boolean the text is not complete
---@field warnings string[] about sources that the server could not read

local function diagnostics(object)
  local content, content_url = fields.text(object.content), fields.text(object.contentUrl)
  if type(object.kind) ~= "string" or not (content or content_url) then return nil, "diagnostics" end
  return {
    kind = object.kind, scope = fields.text(object.scope), content = content, content_url = content_url,
    content_type = fields.text(object.contentType), content_length = fields.natural(object.contentLength),
    expires_at = time.parse(object.expiresAt), truncated = object.truncated == true, warnings = fields.texts(object.warnings) or {},
  }
end

local call_options = { timeout = "seconds" }

local function get(self, op, id, kind, scope, opts)
  options.argument(op, "the scope", scope, "nonempty string")
  opts = options.check(op, opts, call_options)
  local path = sandbox_requests.path(op, id, "/diagnostics/" .. kind)
  return self.http:call { op = op, method = "GET", path = path .. url.query { { "scope", scope } }, sandbox_id = id,
    timeout = opts.timeout, decode = diagnostics }
end

--- Returns logs about a sandbox: GET /sandboxes/{id}/diagnostics/logs.
--- ```lua
--- print(assert(client:get_diagnostic_logs(id, "container")).content)
--- ```
---@param id string
---@param scope string "container" or "all"
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.Diagnostics? diagnostics
---@return opensandbox.Error? err
function diagnostics_routes:get_diagnostic_logs(id, scope, opts)
  return get(self, self.op or "get_diagnostic_logs", id, "logs", scope, opts)
end

--- Returns events of a sandbox: GET /sandboxes/{id}/diagnostics/events.
--- ```lua
--- print(assert(client:get_diagnostic_events(id, "all")).content)
--- ```
---@param id string
---@param scope string "runtime", "lifecycle" or "all"
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.Diagnostics? diagnostics
---@return opensandbox.Error? err
function diagnostics_routes:get_diagnostic_events(id, scope, opts)
  return get(self, self.op or "get_diagnostic_events", id, "events", scope, opts)
end

return diagnostics_routes
