--- A command in the background: started by this process or by another, watched, waited for, ended.

local background = require "opensandbox.background_process"
local core = require "opensandbox.core"
local routes = require "opensandbox.execution.command_requests"

---@class opensandbox.Command: opensandbox.Background
---@field id string execd's id: what sandbox:command() takes, in another process too
local Command = background.class { __name = "opensandbox.Command", _name = "command", _what = "command",
  _goes_on = "It goes on: wait again, or kill it" }

local command = {}

--- A handle on a command of a sandbox.
---@param sandbox opensandbox.Sandbox
---@param id string
---@param is_fresh boolean it was started just now
function command.attach(sandbox, id, is_fresh)
  local known_by = is_fresh and core.now() + routes.REGISTRATION_TIMEOUT or 0
  return setmetatable({ id = id, sandbox = sandbox, _known_by = known_by }, Command)
end

-- Asks execd about this command. One that was started a moment ago may not be known yet.
local function ask(self, op, route, ...)
  local execd, err = self.sandbox:execd_endpoint(op)
  if not execd then return nil, err end
  local client, arguments = self.sandbox.client:for_op(op), { ... }
  return routes.retry_until_registered(op, self._known_by, function()
    return route(client, execd, self.id, arguments[1])
  end)
end

function Command:_status(op)
  return ask(self, op, routes.status)
end

function Command:_logs(op, cursor)
  return ask(self, op, routes.logs, cursor)
end

local function interrupt(client, execd, id)
  return client:interrupt_command(execd, id)
end

--- Ends it: SIGTERM to its processes, SIGKILL after 3 seconds. One that has ended already is a success.
---@return true? ok
---@return opensandbox.Error? err
function Command:kill()
  local ok, err = ask(self, "command:kill", interrupt)
  if ok then return true end
  if tostring(err.message):find("is not running", 1, true) then return true end
  return nil, err
end

return command
