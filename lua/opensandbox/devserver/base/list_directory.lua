--- The names in a directory of this machine.
--
-- uv.fs_scandir is not used, because luv 1.44 never frees the request of a synchronous scan, which costs 14 KiB a sandbox.

local uv = require "luv"

local BATCH_SIZE = 256

--- Returns the names in a directory, in no order.
---@param path string
---@return string[]? names
---@return string? problem
---@return string? code of the error
return function(path)
  local directory, problem, code = uv.fs_opendir(path, nil, BATCH_SIZE)
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
