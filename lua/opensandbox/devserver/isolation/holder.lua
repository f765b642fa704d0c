--- A bubblewrap process, which holds namespaces as long as its program runs.

local uv = require "luv"
local json = require "opensandbox.base.json"
local safe_callback = require "opensandbox.devserver.base.safe_callback"
local spawn = require "opensandbox.devserver.base.spawn"

local holder = {}

--- Starts bubblewrap.
---@param options table `arguments` (of bubblewrap, `--json-status-fd 3` among them), `command` (`argv` and `env` of the program),
-- `setup` (a script of the shell that runs before the program, with the rights of bubblewrap), `stdin`, `stdout`, `stderr` (descriptors),
-- `on_ready(problem, init)` (called when the program has been started, with the pid of the first process of the namespace, or when that
-- failed), `on_exit(code, signal)` (called after `on_ready`)
---@return integer? pid nil when it could not be started; `on_ready` has been called then
function holder.start(options)
  local status, entered = uv.new_pipe(false), uv.new_pipe(false)
  local report, has_entered, init, exit = "", nil, nil, nil
  local on_ready, on_exit = options.on_ready, options.on_exit
  -- A program may end before the server has read that it was started.
  local function settle()
    if has_entered == nil or (has_entered and not init and not exit) then return end
    local callback = on_ready
    on_ready = nil
    if callback then callback(not has_entered and "bubblewrap could not start the program" or nil, init) end
    callback = exit and on_exit
    if not callback then return end
    on_exit = nil
    callback(exit.code, exit.signal)
  end

  local argv = {}
  local function add(items)
    for _, item in ipairs(items) do argv[#argv + 1] = item end
  end
  add(options.arguments)
  -- The line on descriptor 4 reports that the namespaces are complete.
  local setup = options.setup and options.setup .. " || exit 125; " or ""
  add { "--", "/bin/sh", "-c", setup .. 'echo >&4; exec "$@" 3>&- 4>&-', "sh" }
  add(options.command.argv)
  local pid, code = spawn {
    argv = argv, env = options.command.env, stdin = options.stdin, stdout = options.stdout, stderr = options.stderr,
    pipes = { status, entered },
    on_exit = function(exit_code, signal)
      exit = { code = exit_code, signal = signal }
      settle()
    end,
  }
  if not pid then
    status:close()
    entered:close()
    on_ready(code)
    return nil
  end
  status:read_start(safe_callback.wrap(function(_, data)
    if not data then return status:close() end
    report = report .. data
    local line = not init and report:match("^[^\n]*\n")
    if line then init = (json.decode(line) or {})["child-pid"] end
    settle()
  end))
  entered:read_start(safe_callback.wrap(function(_, data)
    has_entered = data ~= nil
    entered:close()
    settle()
  end))
  return pid
end

return holder
