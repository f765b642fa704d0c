--- An isolated session of a sandbox: `sandbox:isolated()`.

local background = require "opensandbox.background_process"
local files = require "opensandbox.files"
local options = require "opensandbox.base.options"
local part = require "opensandbox.child_resource"
local shell = require "opensandbox.base.shell"

---@class opensandbox.Isolated: opensandbox.Part
---@field id string what sandbox:isolated{ id = } takes, in another process too
---@field files opensandbox.Files its own files: what an overlay holds is only seen here and by what runs in it
local Isolated = part.class { _class = "Isolated", _name = "isolated", _what = "isolated session",
  _delete = "delete_isolated_session", _route = "/v1/isolated/session/" }

---@class opensandbox.IsolatedRunHandle: opensandbox.Background
---@field id string
local Run = background.class { __name = "opensandbox.IsolatedRun", _name = "isolated_run", _what = "run",
  _goes_on = "It goes on: wait again, or close its session" }

function Run:_status(op)
  return self._session:_ask(op, "get_isolated_run", self._session.id, self.id)
end

function Run:_logs(op, cursor)
  local text, following = self._session:_ask(op, "get_isolated_run_logs", self._session.id, self.id, cursor)
  if not text then return nil, following end
  return { text = text, cursor = following }
end

local isolated = {}

-- What the files of a session are reached through, as those of a sandbox are through it; whole directories also through commands.
local function with_files(self)
  local sandbox = self._sandbox
  local through = { id = sandbox.id, client = sandbox.client }
  function through._execd(_, op)
    local execd, err = self:_execd(op)
    if not execd then return nil, err end
    return sandbox.client:isolated_endpoint(execd, self.id)
  end
  function through.run(_, script, opts)
    return self:run(("( cd %s && { %s\n} ) </dev/null"):format(shell.quote(opts.cwd), script), { timeout = opts.timeout })
  end
  self.files = files.of(through)
  return self
end

--- Makes an isolated session of a sandbox, or attaches to one.
function isolated.open(sandbox, opts)
  local op = "isolated"
  options.argument(op, "the options", opts, "table")
  if opts.id == nil then
    local self, err = part.make(Isolated, sandbox, op, "create_isolated_session", opts)
    if not self then return nil, err end
    return with_files(self)
  end
  for name in pairs(opts) do
    if name ~= "id" then
      options.raise(op, ("option '%s' is for a new session, and option 'id' for one that is there"):format(tostring(name)))
    end
  end
  return with_files(part.attach(Isolated, sandbox, { id = options.identifier(op, "option 'id'", opts.id) }))
end

--- Runs code in the session's bash and waits for its end. What it writes to stderr comes as stdout, and blank lines are missing. Never
--- `exit` outside of ( ): that ends the session.
---@param code string
---@param opts? table env (runs it in a subshell), timeout (whole seconds), on_stdout (called with text as it comes), on_event, max_output (bytes), idle_timeout (seconds)
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function Isolated:run(code, opts)
  return self:_ask("isolated:run", "run_isolated", self.id, code, opts)
end

--- Starts code in the background (execd 1.0.22). It goes on when the handle is dropped, and ends with the session.
---@param code string
---@param opts? table env
---@return opensandbox.IsolatedRunHandle? run
---@return opensandbox.Error? err
function Isolated:start(code, opts)
  local started, err = self:_ask("isolated:start", "start_isolated", self.id, code, opts)
  if not started then return nil, err end
  return setmetatable({ id = started.id, _session = self, _sandbox = self._sandbox }, Run)
end

--- How it is doing.
---@return opensandbox.IsolatedSessionInfo? info
---@return opensandbox.Error? err
function Isolated:info()
  return self:_ask("isolated:info", "get_isolated_session", self.id)
end

return isolated
