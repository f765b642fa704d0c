--- An isolated session of a sandbox: `sandbox:isolated()`.

local background_process = require "opensandbox.background_process"
local child_resource = require "opensandbox.child_resource"
local class = require "opensandbox.base.class"
local files = require "opensandbox.files"
local options = require "opensandbox.base.options"
local shell = require "opensandbox.base.shell"

---@class opensandbox.Isolated: opensandbox.ChildResource
---@field id string what sandbox:isolated{ id = } takes, in another process too
---@field files opensandbox.Files its own files: what an overlay holds is only seen here and by what runs in it
local Isolated = child_resource.class { __name = "opensandbox.Isolated", _op_prefix = "isolated", _noun = "isolated session",
  _delete = "delete_isolated_session" }

---@class opensandbox.IsolatedRunHandle: opensandbox.BackgroundProcess
---@field id string
local Run = background_process.class { __name = "opensandbox.IsolatedRun", _op_prefix = "isolated_run", _noun = "run",
  _timeout_hint = "It goes on: wait again, or close its session" }

function Run:_status(op)
  return self._session:call_execd(op, "get_isolated_run", self._session.id, self.id)
end

function Run:_logs(op, cursor)
  local text, following = self._session:call_execd(op, "get_isolated_run_logs", self._session.id, self.id, cursor)
  if not text then return nil, following end
  return { text = text, cursor = following }
end

local isolated = {}

-- The files of a session are reached through an endpoint of their own; whole directories also need commands.
local function with_files(self)
  local client = self.client
  self.files = files.of {
    id = self.sandbox.id, client = client,
    endpoint = function(op)
      local execd, err = self:execd_endpoint(op)
      if not execd then return nil, err end
      return client:for_op(op):isolated_endpoint(execd, self.id)
    end,
    run = function(op, script, opts)
      local code = ("( cd %s && { %s\n} ) </dev/null"):format(shell.quote(opts.cwd), script)
      return self:call_execd(op, "run_isolated", self.id, code, { timeout = opts.timeout })
    end,
  }
  return self
end

--- Makes an isolated session of a sandbox, or attaches to one.
function isolated.open(sandbox, opts)
  local op = "sandbox:isolated"
  options.argument(op, "the options", opts, "table")
  if opts.id == nil then
    local self, err = child_resource.create(Isolated, sandbox, op, "create_isolated_session", opts)
    if not self then return nil, err end
    return with_files(self)
  end
  for name in pairs(opts) do
    if name ~= "id" then
      options.raise(op, ("option '%s' is for a new session, and option 'id' for one that is there"):format(tostring(name)))
    end
  end
  return with_files(child_resource.attach(Isolated, sandbox, { id = options.path_segment(op, "option 'id'", opts.id) }))
end

--- Runs code in the session's bash and waits for its end. What it writes to stderr comes as stdout, and blank lines are missing. Never
--- `exit` outside of ( ): that ends the session.
---@param code string
---@param opts? table env (runs it in a subshell), timeout (whole seconds), on_stdout (called with text as it comes), on_event, max_output (bytes), idle_timeout (seconds)
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function Isolated:run(code, opts)
  return self:call_execd("isolated:run", "run_isolated", self.id, code, opts)
end

--- Starts code in the background (execd 1.0.22). It goes on when the handle is dropped, and ends with the session.
---@param code string
---@param opts? table env
---@return opensandbox.IsolatedRunHandle? run
---@return opensandbox.Error? err
function Isolated:start(code, opts)
  local started, err = self:call_execd("isolated:start", "start_isolated", self.id, code, opts)
  if not started then return nil, err end
  return setmetatable({ id = started.id, _session = self, sandbox = self.sandbox }, Run)
end

--- How it is doing.
---@return opensandbox.IsolatedSessionInfo? info
---@return opensandbox.Error? err
function Isolated:info()
  return self:call_execd("isolated:info", "get_isolated_session", self.id)
end

class.check_colon(Isolated, "isolated")
class.check_colon(Run, "run")

return isolated
