--- Command lines that run a program with limited rights.

-- The capabilities that programs run by root keep, so that they can install and build things, and cannot undo the isolation.
local each = require "opensandbox.base.each"

local CAPABILITIES = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+net_bind_service,+sys_chroot"

-- Variables that would change the programs before the command, which run outside of the sandbox.
local HAZARDOUS = { "^LD_", "^GLIBC_", "^GCONV_", "^LOCPATH$", "^NLSPATH$", "^MALLOC_" }

local function is_hazardous(name)
  for _, pattern in ipairs(HAZARDOUS) do
    if name:find(pattern) then return true end
  end
  return false
end

--- Returns the command line that runs a program with limited rights, and the environment to start it in.
--
-- Hazardous variables are set by an argument just before the program. The others are not, because every user can read arguments.
---@param programs table<string, string> paths of `setpriv` and `env`
---@param options table `argv`, `env`, `uid` and `gid` (of another user), `prefix` (arguments before `argv`)
---@return table command `argv`, `env`
return function(programs, options)
  local argv = { programs.setpriv, "--bounding-set=" .. CAPABILITIES, "--inh-caps=-all", "--ambient-caps=-all" }
  local function add(items)
    for _, item in ipairs(items) do argv[#argv + 1] = item end
  end
  if options.uid then add { "--reuid=" .. options.uid, "--regid=" .. (options.gid or 0), "--clear-groups" } end
  add { "--" }
  add(options.prefix or {})
  local env, late = {}, { programs.env, "--" }
  for name, value in each(options.env) do
    if is_hazardous(name) then late[#late + 1] = name .. "=" .. value else env[name] = value end
  end
  if late[3] then add(late) end
  add(options.argv)
  return { argv = argv, env = env }
end
