--- A shell session of a sandbox: `sandbox:session()`.

local options = require "opensandbox.base.options"
local part = require "opensandbox.child_resource"

---@class opensandbox.Session: opensandbox.Part
---@field id string what sandbox:session{ id = } takes, in another process too
local Session = part.class { _class = "Session", _name = "session", _what = "session", _delete = "delete_session",
  _route = "/session/" }

local sessions = {}

local session_options = { cwd = "text", id = "text" }

--- Makes a session of a sandbox, or attaches to one.
function sessions.open(sandbox, opts)
  local op = "sandbox:session"
  opts = options.check(op, opts, session_options)
  if not opts.id then return part.make(Session, sandbox, op, "create_session", opts) end
  if opts.cwd then options.raise(op, "option 'cwd' is for a new session, and option 'id' for one that is there") end
  return part.attach(Session, sandbox, { id = options.identifier(op, "option 'id'", opts.id) })
end

--- Runs a command in the session and waits for its end. What it writes to stderr comes as stdout, and blank lines are missing.
---@param given string|string[] as for sandbox:run
---@param opts? table cwd (stays for the runs after it), timeout (seconds), on_stdout (called with text as it comes), on_event, max_output (bytes), idle_timeout (seconds)
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function Session:run(given, opts)
  return self:call_execd("session:run", "run_in_session", self.id, given, opts)
end

return sessions
