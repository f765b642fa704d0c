--- Counts the entries of a directory tree that is transferred.

local tree_count = {}

--- The numbers of files and bytes that `upload_dir` or `download_dir` has transferred.
--- ```lua
--- local count = assert(sandbox.files:upload_dir(".", "/work"))
--- print(count.files, count.directories, count.symlinks, count.bytes, count.skipped, count.unchanged, count.deleted)
--- ```
---@class opensandbox.TreeCount
---@field files integer regular files
---@field directories integer without the root
---@field symlinks integer symbolic links, which are kept as links
---@field bytes integer in all files
---@field skipped integer sockets, FIFOs and devices
---@field unchanged? integer files that were not transferred, with only_changed or delete_extra
---@field deleted? integer entries that were deleted from the target, with only_changed or delete_extra

local plurals = { file = "files", directory = "directories", symlink = "symlinks" }

--- Creates a count of nothing.
---@return opensandbox.TreeCount
function tree_count.new()
  return { files = 0, directories = 0, symlinks = 0, bytes = 0, skipped = 0 }
end

--- Returns whether entries of this kind are transferred.
---@param kind string
---@return boolean
function tree_count.is_transferred(kind)
  return plurals[kind] ~= nil
end

--- Counts one entry.
---@param count opensandbox.TreeCount
---@param kind string
---@param size? integer bytes of a file
function tree_count.add(count, kind, size)
  local name = plurals[kind] or "skipped"
  count[name] = count[name] + 1
  if kind == "file" then count.bytes = count.bytes + size end
end

return tree_count
