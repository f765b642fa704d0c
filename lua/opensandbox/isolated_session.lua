--- An isolated session of a sandbox: `sandbox:isolated()`.

local background_process = require "opensandbox.background_process"
local child_resource = require "opensandbox.child_resource"
local class = require "opensandbox.base.class"
local deadline = require "opensandbox.loop.deadline"
local each = require "opensandbox.base.each"
local endpoint_call = require "opensandbox.http.endpoint_call"
local files = require "opensandbox.files"
local isolated_files = require "opensandbox.execution.isolated_files"
local isolated_script = require "opensandbox.execution.isolated_script"
local options = require "opensandbox.base.options"
local tables = require "opensandbox.base.tables"

--- A shell in namespaces of its own, with its own files, inside a sandbox.
--- ```lua
--- local isolated = assert(sandbox:isolated { workspace = "/work" })
--- assert(isolated.files:write("data.txt", "3\n1\n2\n"))
--- print(isolated.id, assert(isolated:run("sort data.txt")).stdout)
--- ```
---@class opensandbox.Isolated: opensandbox.ChildResource
---@field id string for sandbox:isolated{ id = }, in another process too
---@field files opensandbox.Files the files in its workspace and overlays
local Isolated = child_resource.class { __name = "opensandbox.Isolated", _op_prefix = "isolated", _noun = "isolated session",
  _delete = "delete_isolated_session" }

--- A run of an isolated session in the background.
--- ```lua
--- local run = assert(isolated:start("./server"))
--- print(run.id)
--- ```
---@class opensandbox.IsolatedRunHandle: opensandbox.BackgroundProcess
---@field id string execd's name for it
local Run = background_process.class { __name = "opensandbox.IsolatedRun", _op_prefix = "isolated_run", _noun = "run",
  _timeout_hint = "It continues: wait again, or close its session" }

function Run:_status(op, opts)
  return self._session:call_execd_within(op, opts, "get_isolated_run", self._session.id, self.id)
end

function Run:_logs(op, cursor, opts)
  local text, following = self._session:call_execd_within(op, opts, "get_isolated_run_logs", self._session.id, self.id, cursor)
  if not text then return nil, following end
  return { text = text, cursor = following }
end

local isolated_session = {}

local EXECD_FILES = { "/.execd/" } -- the output of runs in the background, in the first directory of the session

-- Calls a client method within a limit, whose errors name the whole limit.
local function call_within(self, op, limit, method, ...)
  local function endpoint_of(...) return self:execd_endpoint(...) end
  return endpoint_call.within(self.client, op, limit or deadline.new(), endpoint_of, method, ...)
end

-- Returns the directories of the session. execd is asked once if this process has not created the session.
local function mounts_of(self, op, limit)
  if not self._mounts then
    local info, err = call_within(self, op, limit, "get_isolated_session", self.id)
    if not info then return nil, err end
    self._mounts = isolated_files.mounts(info)
  end
  return self._mounts
end

-- Returns the endpoint of the session's files. It is the same table for the same execd, because capabilities are remembered by
-- table.
local function files_endpoint(self, op, limit)
  local execd, err = self:execd_endpoint(op, limit)
  if not execd then return nil, err end
  if self._files_execd ~= execd then
    local mounts
    mounts, err = mounts_of(self, op, limit)
    if not mounts then return nil, err end
    self._files_endpoint = tables.merge(self.client:for_op(op):isolated_endpoint(execd, self.id), { mounts = mounts })
    self._files_execd = execd
  end
  return self._files_endpoint
end

-- Runs a helper script. Its stderr arrives as stdout, so after a failure the text is used as both.
local function run_helper(self, op, script, opts, limit)
  local client = limit and self.client:within(limit) or self.client
  local result, err = endpoint_call.call(client, op, function(...) return self:execd_endpoint(...) end,
    "run_isolated_helper", self.id, script, opts)
  if result and result.exit_code ~= 0 then result.stderr = result.stdout end
  return result, err
end

-- Runs a helper script and passes the bytes of its stdout to `sink`.
local function pipe(self, op, script, opts, sink)
  local on_text, stderr = isolated_script.decoder(sink)
  local result, err = self:call_execd(op, "run_isolated_helper", self.id, isolated_script.as_base64(script),
    tables.merge(opts, { on_stdout = on_text, max_output = 0 }))
  if result then result.stdout, result.stderr = "", stderr() end
  return result, err
end

-- Returns the directory for temporary files, and whether the shell and the files API can both use a file of the other. In an
-- overlay the shell sees a new file of the files API, but a file of the shell cannot be deleted for both.
local function temporary_directory(mounts)
  local overlay
  for _, mount in ipairs(mounts) do
    if mount.mode == "rw" then return mount.path, true end
    if mount.mode == "overlay" and mount.persist ~= false then overlay = overlay or mount.path end
  end
  return overlay or mounts[1] and mounts[1].path, false -- execd refuses to write into a read-only one
end

-- Makes the target of the session's files. The fields that depend on its directories are set when those are known.
local function file_target(self)
  local target = { id = self.sandbox.id, ignore = EXECD_FILES, literal_paths = true }
  function target.run(op, script, opts, _, limit) return run_helper(self, op, script, opts, limit) end
  function target.endpoint(op, limit)
    local endpoint, err = files_endpoint(self, op, limit)
    if not endpoint then return nil, err end
    local is_shared
    target.temporary_directory, is_shared = temporary_directory(endpoint.mounts)
    target.pipe = not is_shared and function(...) return pipe(self, ...) end or nil
    return endpoint
  end
  function target.absolute(op, path)
    local endpoint, err = target.endpoint(op)
    if not endpoint then return nil, err end
    return isolated_files.absolute(op, endpoint, path)
  end
  target.client = isolated_files.view(self.client, target.run)
  return target
end

local function with_files(self)
  self.files = files.of(file_target(self))
  return self
end

local NO_WORKSPACE = "The shell starts in the workspace: check its rights and option 'uid'. In a development server without "
  .. "bubblewrap, a shell sees the directories of its machine instead"

local function create(sandbox, op, opts)
  local limit = deadline.new(options.timeout(op, { timeout = opts.timeout }))
  local self, err = child_resource.create(Isolated, sandbox, op, opts, "create_isolated_session", opts)
  if not self then return nil, err end
  self._mounts = isolated_files.mounts(opts)
  -- The shell starts in "/", which is read-only.
  local result
  result, err = call_within(self, op, limit, "run_isolated", self.id, ":", { cwd = self._mounts[1].path })
  if result then return with_files(self) end
  if err.code == "start_failed" then err.hint = NO_WORKSPACE end
  self:close { timeout = limit:remaining() } -- if that fails, the session is deleted when the object is collected
  return nil, err
end

--- Creates an isolated session of a sandbox, or attaches to one.
function isolated_session.open(sandbox, opts)
  local op = "sandbox:isolated"
  options.argument(op, "the options", opts, "table")
  if opts.id == nil then return create(sandbox, op, opts) end
  for name in each(opts) do
    if name ~= "id" then
      options.raise(op, ("option '%s' is for a new session, and option 'id' for an existing one"):format(tostring(name)))
    end
  end
  return with_files(child_resource.attach(Isolated, sandbox, { id = options.path_segment(op, "option 'id'", opts.id) }))
end

--- Runs code in the session's shell and waits for its end. Directory, variables, functions and options of the shell stay for the
--- next run. stderr arrives as stdout, blank lines are missing, and the code has no standard input.
---
--- `exit`, `exec` and a failure under `set -e` end the session, and so do a timeout, a cancelled task and an error in a callback.
--- Then `session_ended` of the result or of the error is true. Write `( set -e; ... )` for code that may exit.
--- ```lua
--- local result = assert(isolated:run("sort data.txt", { env = { LC_ALL = "C" } }))
--- if result.session_ended then print("the session has ended with the run") end
--- ```
---@param code string
---@param opts? opensandbox.IsolatedRunOpts
---@return opensandbox.IsolatedResult? result
---@return opensandbox.Error? err
function Isolated:run(code, opts)
  return self:call_execd("isolated:run", "run_isolated", self.id, code, opts)
end

--- Starts code in the background, in another shell (execd 1.0.22). It continues when the object is collected, and ends with the
--- session.
--- ```lua
--- local run = assert(isolated:start("./server --port 8000"))
--- print(assert(run:wait { timeout = 10 }).exit_code)
--- ```
---@param code string
---@param opts? opensandbox.IsolatedStartOpts
---@return opensandbox.IsolatedRunHandle? run
---@return opensandbox.Error? err
function Isolated:start(code, opts)
  local started, err = self:call_execd("isolated:start", "start_isolated", self.id, code, opts)
  if not started then return nil, err end
  return setmetatable({ id = started.id, _session = self, sandbox = self.sandbox }, Run)
end

--- Returns the status of the session.
--- ```lua
--- print(assert(isolated:info()).idle_remaining)
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.IsolatedSessionInfo? info
---@return opensandbox.Error? err
function Isolated:info(opts)
  return self:call_execd_within("isolated:info", opts, "get_isolated_session", self.id)
end

class.check_colon(Isolated, "isolated")
class.check_colon(Run, "run")

return isolated_session
