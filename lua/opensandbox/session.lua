--- A shell session of a sandbox: `sandbox:session()`.

local child_resource = require "opensandbox.child_resource"
local class = require "opensandbox.base.class"
local options = require "opensandbox.base.options"

--- A shell that keeps its directory and its exported variables from one run to the next.
--- ```lua
--- local session = assert(sandbox:session { cwd = "/work" })
--- print(session.id)
--- ```
---@class opensandbox.Session: opensandbox.ChildResource
---@field id string sandbox:session { id = } attaches to it, in any process
local Session = child_resource.class { __name = "opensandbox.Session", _op_prefix = "session", _noun = "session",
  _delete = "delete_session" }

local sessions = {}

--- The options of `sandbox:session`.
--- ```lua
--- local session = assert(sandbox:session { cwd = "/work", timeout = 10 })
--- local same = assert(sandbox:session { id = session.id })
--- ```
---@class opensandbox.SessionOpts
---@field cwd? string for a new session; created if it is missing
---@field timeout? opensandbox.Duration for the create; default: the client's
---@field id? string of an existing session, which is not deleted then; nothing is sent

local session_options = { cwd = "nonempty string", timeout = "seconds", id = "nonempty string" }

--- Creates a session of a sandbox, or attaches to one: POST /session of execd.
---@param sandbox opensandbox.Sandbox
---@param opts? opensandbox.SessionOpts
---@return opensandbox.Session? session
---@return opensandbox.Error? err
function sessions.open(sandbox, opts)
  local op = "sandbox:session"
  opts = options.check(op, opts, session_options)
  if not opts.id then return child_resource.create(Session, sandbox, op, opts, "create_session", { cwd = opts.cwd }) end
  for _, name in ipairs { "cwd", "timeout" } do
    if opts[name] then options.raise(op, ("option '%s' is for a new session, and option 'id' for an existing one"):format(name)) end
  end
  return child_resource.attach(Session, sandbox, { id = options.path_segment(op, "option 'id'", opts.id) })
end

--- Runs a command in the session and waits for its end: POST /session/{id}/run of execd. Its stderr arrives as stdout, without blank
--- lines.
--- ```lua
--- local result = assert(session:run("cd src && make", { timeout = 60 }))
--- ```
---@param command string|string[] as for sandbox:run
---@param opts? opensandbox.SessionRunOpts
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function Session:run(command, opts)
  return self:call_execd("session:run", "run_in_session", self.id, command, opts)
end

class.check_colon(Session, "session")

return sessions
