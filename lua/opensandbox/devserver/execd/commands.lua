--- The commands of one sandbox: how they are started, how they ended, and where their output is.
--
-- Output goes to files, as in execd: a command never blocks on a slow reader, processes that it leaves running may write on, and the
-- bytes can be downloaded later.

local uv = require "luv"
local each = require "opensandbox.base.each"
local errno = require "opensandbox.devserver.base.errno"
local safe_callback = require "opensandbox.devserver.base.safe_callback"
local json = require "opensandbox.base.json"
local path_lookup = require "opensandbox.devserver.base.path_lookup"
local random = require "opensandbox.base.random"
local clock = require "opensandbox.devserver.base.clock"
local go_text = require "opensandbox.devserver.execd.go_text"
local timer = require "opensandbox.devserver.base.timer"

local MAX_ARGUMENT_SIZE = 128 * 1024 -- of the kernel, for one argument with its terminating zero
local OUTPUT_MODE = 493              -- 0755
local SIGNALS = {
  [1] = "hangup", [2] = "interrupt", [3] = "quit", [4] = "illegal instruction", [5] = "trace/breakpoint trap",
  [6] = "aborted", [7] = "bus error", [8] = "floating point exception", [9] = "killed", [10] = "user defined signal 1",
  [11] = "segmentation fault", [12] = "user defined signal 2", [13] = "broken pipe", [14] = "alarm clock",
  [15] = "terminated",
}

local Command = {}
Command.__index = Command

--- Calls back when the command has ended, at once when it has ended already.
function Command:when_ended(callback)
  if not self.running then return callback() end
  table.insert(self.waiting, callback)
end

--- Sends a signal to the command's process group.
function Command:signal(name)
  if self.running then self.send_signal(name) end
end

function Command:_on_exit(code, signal)
  if self.timer then self.timer:close() end
  self.running = false
  self.exit_code = signal > 0 and -1 or code
  if signal > 0 then
    self.problem = "signal: " .. (SIGNALS[signal] or tostring(signal))
  elseif code > 0 then
    self.problem = "exit status " .. code
  end
  self.milliseconds = math.floor((uv.hrtime() - self.start_time) / 1e6)
  self.finished = clock.now()
  for _, callback in ipairs(self.waiting) do safe_callback.call(nil, callback) end
  self.waiting = {}
end

--- Returns the command as `GET /command/status/{id}` shows it.
function Command:status()
  return {
    id = self.id, content = self.content, running = self.running, exit_code = self.exit_code, error = self.problem,
    started_at = go_text.instant(self.started), finished_at = go_text.instant(self.finished),
  }
end

local Commands = {}
Commands.__index = Commands

local function new(sandbox)
  return setmetatable({ sandbox = sandbox, by_id = {} }, Commands)
end

function Commands:get(id)
  return self.by_id[id]
end

-- Creates an output file of a command in the sandbox's /tmp.
local function output_file(sandbox, name)
  local place = sandbox.paths:resolve("/tmp/" .. name, true)
  if not place then return nil, "ENOTDIR" end
  local fd, _, code = uv.fs_open(place.path, "ax", OUTPUT_MODE)
  return fd, code, place.path
end

local function start_problem(program, code)
  return ("fork/exec %s: %s"):format(program, errno.text(code))
end

-- Returns the arguments that run a request's shell command or its program, and the path that messages name; nil and the problem.
local function arguments(sandbox, request, env)
  local strategy = sandbox.strategy
  if not request.argv then
    -- The shell is called by its name, because its messages begin with it; by its path when PATH is another one.
    local usual = env.PATH == strategy:environment(sandbox.root).PATH
    return { usual and strategy.shell:match("[^/]+$") or strategy.shell, "-c", request.command }, strategy.shell
  end
  local name = request.argv[1]
  local path = path_lookup.find(sandbox, name, env.PATH)
  if not path then return nil, ('exec: "%s": executable file not found in $PATH'):format(name) end
  if path:find("/", 1, true) and path:sub(1, 1) ~= "/" then
    path = strategy:name_of(request.cwd):gsub("/$", "") .. "/" .. path
  end
  local place = strategy:place_of(sandbox.paths, path)
  local stat = place and uv.fs_stat(place.path)
  local code = not stat and "ENOENT" or (stat.type ~= "file" or not uv.fs_access(place.path, "X")) and "EACCES"
  if code then return nil, start_problem(path, code) end
  local argv = { path }
  for index = 2, #request.argv do argv[index] = request.argv[index] end
  return argv, path
end

--- Starts a command.
---@param request table `command` for the shell, or `argv`; `background`, `timeout` (milliseconds), `uid`, `gid`, `envs`; `cwd` is a
-- resolved path
---@return table? command its `files` are its output files in the order stdout, stderr
---@return string? problem why it cannot be started
---@return string? id that it would have had
function Commands:start(request)
  local sandbox, strategy = self.sandbox, self.sandbox.strategy
  local id = random.hex(16)
  local env = sandbox:variables(request.envs)
  local argv, program = arguments(sandbox, request, env)
  if not argv then return nil, program, id end
  local function fail(code) return nil, start_problem(program, code), id end
  for _, argument in ipairs(argv) do
    if argument:find("\0", 1, true) then return fail("EINVAL") end
    if #argument >= MAX_ARGUMENT_SIZE then return fail("E2BIG") end
  end
  for name, value in each(request.envs or {}) do
    if (name .. value):find("\0", 1, true) then return nil, "exec: environment variable contains NUL", id end
    if #name + #value + 1 >= MAX_ARGUMENT_SIZE then return fail("E2BIG") end
  end

  local command = setmetatable({
    id = id, content = request.argv and json.encode(json.array(request.argv)) or request.command,
    background = request.background or false, running = true, waiting = {},
    files = {}, start_time = uv.hrtime(), started = clock.now(),
  }, Command)
  local outputs = {}
  for index, name in ipairs(request.background and { ".output" } or { ".stdout", ".stderr" }) do
    local fd, code, path = output_file(sandbox, id .. name)
    if not fd then
      for _, open in ipairs(outputs) do uv.fs_close(open) end
      return fail(code)
    end
    outputs[index], command.files[index] = fd, path
  end

  local send, code = strategy:spawn(sandbox.container, {
    argv = argv, env = env, cwd = request.cwd, uid = request.uid,
    gid = request.gid, stdout = outputs[1], stderr = outputs[2] or outputs[1],
    on_exit = function(...) command:_on_exit(...) end,
  })
  for _, fd in ipairs(outputs) do uv.fs_close(fd) end
  if not send then return fail(code) end
  command.send_signal = send
  if (request.timeout or 0) > 0 then
    command.timer = timer.after(request.timeout, function() command:signal("sigkill") end)
  end
  self.by_id[id] = command
  return command
end

return { new = new }
