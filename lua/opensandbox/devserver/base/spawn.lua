--- Starts a program of this machine in a process group of its own.

local uv = require "luv"
local guard = require "opensandbox.devserver.base.safe_callback"

local no_input

--- @param options `argv` (the program by its absolute path first), `env` (map), `cwd`, `stdout` and `stderr`
-- (descriptors), `pipes` (luv pipes or descriptors that become descriptors 3, 4, ...), `uid`, `gid`, `on_exit(code, signal)`
-- @treturn[1] number the process id, which is also its group's
-- @treturn[2] nil
-- @treturn[2] string the error's code
return function(options)
  no_input = no_input or assert(uv.fs_open("/dev/null", "r", 0))
  local args, env = {}, {}
  for index = 2, #options.argv do args[index - 1] = options.argv[index] end
  for name, value in pairs(options.env or {}) do env[#env + 1] = name .. "=" .. value end
  local stdio = { no_input, options.stdout, options.stderr }
  for _, pipe in ipairs(options.pipes or {}) do stdio[#stdio + 1] = pipe end
  local handle, pid, code
  handle, pid, code = uv.spawn(options.argv[1], {
    args = args, env = env, cwd = options.cwd, stdio = stdio, detached = true, uid = options.uid, gid = options.gid,
  }, guard.wrap(function(exit_code, signal)
    handle:close()
    options.on_exit(exit_code, signal)
  end))
  if not handle then return nil, code or tostring(pid):match("^(%u%w+)") end
  return pid
end
