--- The names in a directory of this machine.
--
-- Not by uv.fs_scandir: luv 1.44 keeps the request of a synchronous scan for ever, which costs a server 14 KiB a sandbox.

local uv = require "luv"

local AT_A_TIME = 256

-- @treturn[1] {string,...} in no order
-- @treturn[2] nil
-- @treturn[2] string what is wrong
-- @treturn[2] string the error's code
return function(path)
  local directory, problem, code = uv.fs_opendir(path, nil, AT_A_TIME)
  if not directory then return nil, problem, code end
  local names = {}
  while true do
    local entries
    entries, problem, code = uv.fs_readdir(directory)
    if not entries then break end
    for _, entry in ipairs(entries) do names[#names + 1] = entry.name end
  end
  uv.fs_closedir(directory)
  if problem then return nil, problem, code end
  return names
end
