--- Diagnostics: what a server tells about a sandbox that does not work.

local options = require "opensandbox.base.options"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local diagnostics = {}

---@class opensandbox.Diagnostics
---@field kind string "logs" or "events"
---@field scope string
---@field content? string the text, where the server sends it along
---@field content_url? string where it can be fetched otherwise
---@field content_type? string
---@field content_length? integer
---@field expires_at? number Unix seconds: until when the URL is good
---@field truncated boolean
---@field warnings string[]

local function descriptor(answer)
  if type(answer.kind) ~= "string" or not (answer.content or answer.contentUrl) then return nil, "diagnostics" end
  return {
    kind = answer.kind, scope = answer.scope, content = answer.content, content_url = answer.contentUrl,
    content_type = answer.contentType, content_length = answer.contentLength, expires_at = time.parse(answer.expiresAt),
    truncated = answer.truncated == true, warnings = type(answer.warnings) == "table" and answer.warnings or {},
  }
end

local function get(self, op, id, kind, scope)
  options.argument(op, "the scope", scope, "text")
  local path = "/sandboxes/" .. url.escape(options.identifier(op, "the sandbox id", id)) .. "/diagnostics/" .. kind
  return self.http:call { op = op, method = "GET", path = path .. url.query { { "scope", scope } }, sandbox_id = id,
    decode = descriptor }
end

--- Logs about a sandbox: GET /sandboxes/{id}/diagnostics/logs. Servers before 0.2.3 answer 501.
---@param self opensandbox.Client
---@param id string
---@param scope string "container" or "all"
---@return opensandbox.Diagnostics? diagnostics
---@return opensandbox.Error? err
function diagnostics.get_diagnostic_logs(self, id, scope)
  return get(self, "get_diagnostic_logs", id, "logs", scope)
end

--- Events of a sandbox: GET /sandboxes/{id}/diagnostics/events. Servers before 0.2.3 answer 501.
---@param self opensandbox.Client
---@param id string
---@param scope string "runtime", "lifecycle" or "all"
---@return opensandbox.Diagnostics? diagnostics
---@return opensandbox.Error? err
function diagnostics.get_diagnostic_events(self, id, scope)
  return get(self, "get_diagnostic_events", id, "events", scope)
end

return diagnostics
