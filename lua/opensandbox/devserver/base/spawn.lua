--- Starts a program of this machine in a process group of its own.

local uv = require "luv"
local each = require "opensandbox.base.each"
local safe_callback = require "opensandbox.devserver.base.safe_callback"

local no_input

--- Starts a program.
---@param options table `argv` (the program by its absolute path first), `env` (map), `cwd`, `stdin` (default /dev/null), `stdout` and
-- `stderr` (descriptors), `pipes` (luv pipes or descriptors that become descriptors 3, 4, ...), `uid`, `gid`, `on_exit(code, signal)`,
-- `detached` (default true; false for a program that begins a session itself)
---@return integer? pid also the id of its process group
---@return string? code of an error
return function(options)
  no_input = no_input or assert(uv.fs_open("/dev/null", "r", 0))
  local args, env = {}, {}
  for index = 2, #options.argv do args[index - 1] = options.argv[index] end
  for name, value in each(options.env or {}) do env[#env + 1] = name .. "=" .. value end
  local stdio = { options.stdin or no_input, options.stdout, options.stderr }
  for _, pipe in ipairs(options.pipes or {}) do stdio[#stdio + 1] = pipe end
  local handle, pid, code
  handle, pid, code = uv.spawn(options.argv[1], {
    args = args, env = env, cwd = options.cwd, stdio = stdio, uid = options.uid, gid = options.gid,
    detached = options.detached ~= false,
  }, safe_callback.wrap(function(exit_code, signal)
    handle:close()
    options.on_exit(exit_code, signal)
  end))
  if not handle then return nil, code or tostring(pid):match("^(%u%w+)") end
  return pid
end
