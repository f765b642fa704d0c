--- The sandboxes of one session of the MCP server: those that it created, and those that it only uses.
--
-- A sandbox that it created is deleted when the session ends, unless the program was started with --keep.

local check = require "opensandbox.cli.base.check"

local Sandboxes = {}
Sandboxes.__index = Sandboxes

local sandboxes = {}

---@param client opensandbox.Client
---@param keeps boolean the sandboxes stay after the end
function sandboxes.new(client, keeps)
  return setmetatable({ client = client, keeps = keeps, by_id = {}, contexts = {} }, Sandboxes)
end

--- Creates a sandbox.
---@param opts opensandbox.CreateOpts
---@return opensandbox.Sandbox
function Sandboxes:create(opts)
  local sandbox = check(self.client:create(opts))
  if self.keeps then sandbox:detach() end
  self.by_id[sandbox.id] = sandbox
  return sandbox
end

--- Returns a sandbox by its id. Nothing is sent.
---@param id string
---@return opensandbox.Sandbox
function Sandboxes:get(id)
  local known = self.by_id[id]
  if known then return known end
  local sandbox = check(self.client:connect(id, { wait = false }))
  self.by_id[id] = sandbox
  return sandbox
end

--- Waits until commands can run in a sandbox, and returns it.
---@param id string
---@param seconds? number
---@return opensandbox.Sandbox
function Sandboxes:connect(id, seconds)
  if not self.by_id[id] then self.by_id[id] = check(self.client:connect(id, { ready_timeout = seconds })) end
  return self.by_id[id]
end

--- Deletes a sandbox.
---@param id string
function Sandboxes:kill(id)
  local sandbox = self.by_id[id]
  if sandbox then check(sandbox:kill()) else check(self.client:delete_sandbox(id)) end
  self.by_id[id], self.contexts[id] = nil, nil
end

--- Returns the kernel of a language in a sandbox, which keeps its variables during the session.
---@param id string
---@param language string
---@return opensandbox.Code
function Sandboxes:code(id, language)
  local contexts = self.contexts[id] or {}
  self.contexts[id] = contexts
  contexts[language] = contexts[language] or check(self:get(id):code(language))
  return contexts[language]
end

return sandboxes
