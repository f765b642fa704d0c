--- One run of a subcommand that talks to a server: its client, its task, and its end.
--
-- A signal that would end the process cancels the task. The library then stops the command that runs, and closing the client deletes the
-- sandboxes that this process created. Afterwards the process ends by that signal, so that its parent sees how it ended. A second signal ends
-- it at once.

local check = require "opensandbox.cli.base.check"
local core = require "opensandbox.core"
local event_loop = require "opensandbox.cli.base.event_loop"
local opensandbox = require "opensandbox"
local raw_terminal = require "opensandbox.cli.base.raw_terminal"

local session = {}

-- The signals whose default action ends a process. The others are SIGKILL, SIGPIPE, which no write of this program causes, and those by which
-- the system reports a fault of the program itself.
local ENDING_SIGNALS = { "INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "XCPU", "XFSZ" }
local REPETITION = 0.5 -- seconds in which the same signal counts once: timeout(1) sends it to the process and to its group

local Context = {}
Context.__index = Context

--- Returns the client, which is made when it is first needed.
---@return opensandbox.Client
function Context:client()
  local args = self.args
  self._client = self._client or opensandbox.new(args.url, args.key, { use_server_proxy = args.use_server_proxy })
  return self._client
end

--- Returns an object for an existing sandbox. Nothing is sent.
---@param id string
---@return opensandbox.Sandbox
function Context:sandbox(id)
  return check(self:client():connect(id, { wait = false }))
end

--- Returns whether results are printed as JSON.
---@return boolean
function Context:wants_json()
  return self.args.output == "json"
end

--- Runs a subcommand.
---@param command table
---@param context table args, name
---@return boolean ok
---@return any value the exit code, or the raised error
function session.run(command, context)
  setmetatable(context, Context)
  event_loop.use()
  local task = opensandbox.spawn(command.run, context)
  local received, received_at
  event_loop.catch_signals(ENDING_SIGNALS, function(name)
    if received and core.now() - received_at > REPETITION then
      raw_terminal.leave()
      core.die_by_signal(name)
    end
    if received then return end
    received, received_at = name, core.now()
    task:cancel()
  end)
  local ok, value = opensandbox.pcall(task.wait, task)
  if context._client then context._client:close() end
  if received then core.die_by_signal(received) end
  return ok, value
end

return session
