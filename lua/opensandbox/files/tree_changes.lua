--- Transfers of changed files of a directory, and deletes of files that the source does not have: `only_changed` and `delete_extra`.
--
-- One command in the sandbox lists the entries, and the size and the CRC of each file. A file with the same size and CRC on both sides is
-- not transferred. The command's output is text, so that names with control characters and names that are not UTF-8 cannot be compared:
-- such files are always transferred and never deleted.

local checksum = require "opensandbox.files.checksum"
local core = require "opensandbox.core"
local directory_walk = require "opensandbox.files.directory_walk"
local errors = require "opensandbox.base.errors"
local helper_commands = require "opensandbox.files.helper_commands"
local tree_count = require "opensandbox.files.tree_count"
local utf8 = require "opensandbox.base.utf8"

local tree_changes = {}

local EXIT_NOT_A_DIRECTORY = 66   -- exit code of our script
local MAX_NAMES_SIZE = 64 * 1024  -- bytes of the names in one archive command
local REPLACEMENT = "\239\191\189" -- U+FFFD, which stands for a byte that is not UTF-8

local LIST_SCRIPT = [[
d=%s
[ -d "$d" ] || exit %d
cd -- "$d" || exit
odd='*
*'
list() {
  kind=$1; shift
  find . -name "$odd" -prune -o "$@" -exec sh -c 'k=$1; shift; for f; do printf "%%s %%s\\n" "$k" "$f"; done' sh "$kind" {} +
}
find . -name "$odd" -prune -o -type f -exec cksum {} + || exit
list d -type d && list l -type l && list o ! -type f ! -type d ! -type l || exit
find . -name "$odd" -prune -exec sh -c 'echo odd' sh \;]]

---@class opensandbox.RemoteTree
---@field names string[] sorted
---@field entries table<string, { kind: string, sum?: string }> by name; sum: "CRC SIZE" of a file
---@field has_odd_names boolean some names could not be listed

local kinds = { d = "directory", l = "symlink", o = "other" }

local function parse(text)
  local tree = { names = {}, entries = {}, has_odd_names = false }
  for line in text:gmatch("[^\n]+") do -- line by line, so that the time is linear whatever the sandbox prints
    local crc, size, file = line:match("^(%d+) (%d+) %./(.+)$")
    local letter, other = line:match("^([dlo]) %./(.+)$")
    local name = file or other
    if not name then
      tree.has_odd_names = tree.has_odd_names or line ~= "d ."
    else
      if name:find(REPLACEMENT, 1, true) then tree.has_odd_names = true end
      tree.names[#tree.names + 1] = name
      tree.entries[name] = file and { kind = "file", sum = crc .. " " .. size } or { kind = kinds[letter] }
    end
  end
  table.sort(tree.names)
  return tree
end

-- Lists a directory of the sandbox. Returns false if it does not exist.
local function list_remote(job, path)
  local available, err = helper_commands.available_programs(job.target, job)
  if not available then return nil, err end
  if not (available.find and available.cksum) then
    return nil, errors.new { kind = "state", code = "compare_unavailable", op = job.op, sandbox_id = job.target.id,
      message = "the sandbox has no programs find and cksum, which the options only_changed and delete_extra need",
      hint = "Install findutils and coreutils, or busybox, in the image, or omit the options" }
  end
  local result
  result, err = helper_commands.run(job.target, job, LIST_SCRIPT:format(helper_commands.quoted_path(path), EXIT_NOT_A_DIRECTORY),
    "list_failed", "the directory in the sandbox could not be listed")
  if not result then
    if err.result and err.result.exit_code == EXIT_NOT_A_DIRECTORY then return false end
    return nil, err
  end
  if result.stdout_dropped > 0 then
    return nil, errors.new { kind = "state", code = "list_too_long", op = job.op, sandbox_id = job.target.id,
      message = "the list of the files in the sandbox is longer than the client's option max_output",
      hint = "Raise it, or omit only_changed and delete_extra" }
  end
  return parse(result.stdout)
end

-- Returns whether a local file has the size and the CRC of the remote one.
local function is_same_file(job, path, entry, remote)
  if entry.kind ~= "file" or not remote or remote.kind ~= "file" then return false end
  if remote.sum:match("%d+$") ~= ("%d"):format(entry.size) then return false end
  local sum, err = checksum.of_file(job.op, path)
  if not sum then return nil, err end
  return tostring(sum) == remote.sum
end

-- Returns the entries of an upload that the sandbox does not have as they are, and the number of files that it has.
local function select_changed(job, remote)
  local changed, unchanged = {}, 0
  for _, entry in ipairs(job.entries) do
    local remote_entry = remote.entries[entry.name]
    local is_same, err = is_same_file(job, job.from .. "/" .. entry.name, entry, remote_entry)
    if err then return nil, err end
    if is_same then
      unchanged = unchanged + 1
    elseif not (entry.kind == "directory" and remote_entry and remote_entry.kind == "directory") then
      changed[#changed + 1] = entry
    end
  end
  return changed, unchanged
end

local function count_of(entries, skipped)
  local count = tree_count.new()
  for _, entry in ipairs(entries) do tree_count.add(count, entry.kind, entry.size) end
  count.skipped = skipped
  return count
end

-- Runs a command with many paths of the sandbox below `job.to`.
local function run_with_names(job, command, names, after)
  local words = {}
  for i, name in ipairs(names) do words[i] = helper_commands.quoted_path(job.to .. "/" .. name) end
  for _, batch in ipairs(helper_commands.join_within_limit(words, " ")) do
    local ok, err = helper_commands.run(job.target, job, command .. " -- " .. batch .. (after or ""), "delete_failed",
      "a file in the sandbox could not be deleted", { ignores_output = true })
    if not ok then return nil, err end
  end
  return true
end

-- Removes entries that are a directory on one side only, because nothing else can be written there.
local function remove_conflicts(job, remote)
  local names = {}
  for _, entry in ipairs(job.entries) do
    local remote_entry = remote.entries[entry.name]
    if remote_entry and (remote_entry.kind == "directory") ~= (entry.kind == "directory") then names[#names + 1] = entry.name end
  end
  return run_with_names(job, "rm -rf", names)
end

-- Returns the remote entries that the local directory does not have: files and others, and directories, the deepest first.
local function extra_entries(job, remote, ignored)
  local kept, files, directories = {}, {}, {}
  for _, entry in ipairs(job.entries) do kept[utf8.replace_invalid(entry.name)] = true end
  for i = #remote.names, 1, -1 do -- backwards, so that a directory comes after its entries
    local name = remote.names[i]
    local is_directory = remote.entries[name].kind == "directory"
    if kept[name] or ignored(name, is_directory) or name:find(REPLACEMENT, 1, true) then
      local parent = name:match("^(.*)/")
      if parent then kept[parent] = true end
    else
      local list = is_directory and directories or files
      list[#list + 1] = name
    end
  end
  return files, directories
end

--- Uploads `job.entries` as the options only_changed and delete_extra want it.
---@param job opensandbox.DirectoryJob
---@param transfer table tar_transfer or file_transfer
---@param ignored fun(name: string, is_directory: boolean): boolean of the local directory
---@return opensandbox.TreeCount? count
---@return opensandbox.Error? err
function tree_changes.upload(job, transfer, ignored)
  local remote, err = list_remote(job, job.to)
  if remote == nil then return nil, err end
  if not remote then
    local count
    count, err = transfer.upload(job)
    if count then count.unchanged, count.deleted = 0, 0 end
    return count, err
  end
  local files, directories = {}, {}
  if job.opts.delete_extra then
    files, directories = extra_entries(job, remote, ignored)
    err = select(2, remove_conflicts(job, remote))
    if err then return nil, err end
  end
  local unchanged = 0
  if job.opts.only_changed then
    local changed
    changed, unchanged = select_changed(job, remote)
    if not changed then return nil, unchanged end
    job.entries, job.count = changed, count_of(changed, job.count.skipped)
  end
  local count = job.count
  if #job.entries > 0 then count, err = transfer.upload(job) end
  if not count then return nil, err end
  local ok
  ok, err = run_with_names(job, "rm -f", files)
  if ok then ok, err = run_with_names(job, "rmdir", directories, " 2>/dev/null; :") end -- a directory may hold names that were not listed
  if not ok then return nil, err end
  count.unchanged, count.deleted = unchanged, #files + #directories
  return count
end

-- Lists the local directory of a download. Returns its entries in order and by name.
local function list_local(job)
  local entries, err = directory_walk.entries(job.op, job.to, job.patterns)
  if not entries then return nil, err end
  local by_name = {}
  for _, entry in ipairs(entries) do by_name[utf8.replace_invalid(entry.name)] = entry end
  return entries, by_name
end

-- Returns the names to fetch: of a new directory its own, because everything in it is new. Returns nil if all must be fetched, because
-- names are odd or too many for one command.
local function names_to_fetch(job, remote, by_name, unchanged)
  if remote.has_odd_names then return nil end
  local names, size, new_directory = {}, 0, nil
  for _, name in ipairs(remote.names) do
    local kind = remote.entries[name].kind
    local is_directory = kind == "directory"
    local is_covered = new_directory and name:sub(1, #new_directory) == new_directory
    local is_known = unchanged[name] or (is_directory and by_name[name] and by_name[name].kind == "directory")
    if not is_covered and not is_known and kind ~= "other" and not job.ignored(name, is_directory) then
      names[#names + 1], size = name, size + #name + 6
      if is_directory then new_directory = name .. "/" end
    end
  end
  return size <= MAX_NAMES_SIZE and names or nil
end

-- Deletes the local entries that the sandbox does not have, the deepest first.
local function delete_local(job, entries, remote)
  local deleted = 0
  for i = #entries, 1, -1 do
    local entry = entries[i]
    if not remote.entries[utf8.replace_invalid(entry.name)] and not entry.name:find("%c") then
      local path = job.to .. "/" .. entry.name
      local ok, problem = os.remove(path)
      if ok then
        deleted = deleted + 1
      elseif entry.kind ~= "directory" then -- a directory that holds ignored entries stays
        return nil, errors.local_file(job.op, path, problem)
      end
    end
  end
  return deleted
end

--- Downloads `job.from` as the options only_changed and delete_extra want it. Nothing is deleted before the rest is complete.
---@param job opensandbox.DirectoryJob
---@param transfer table tar_transfer or file_transfer
---@return opensandbox.TreeCount? count
---@return opensandbox.Error? err
function tree_changes.download(job, transfer)
  local remote, err = list_remote(job, job.from)
  if remote == nil then return nil, err end
  local entries, by_name = {}, {}
  if core.lstat(job.to) then
    entries, by_name = list_local(job)
    if not entries then return nil, by_name end
  end
  local unchanged, unchanged_count = {}, 0
  if remote and job.opts.only_changed and #entries > 0 then
    for _, entry in ipairs(entries) do
      local is_same
      is_same, err = is_same_file(job, job.to .. "/" .. entry.name, entry, remote.entries[entry.name])
      if err then return nil, err end
      if is_same then unchanged[entry.name], unchanged_count = true, unchanged_count + 1 end
    end
    job.names = names_to_fetch(job, remote, by_name, unchanged)
  end
  job.unchanged = unchanged
  local count = tree_count.new()
  if not job.names or #job.names > 0 then count, err = transfer.download(job) end
  if not count then return nil, err end
  count.unchanged, count.deleted = unchanged_count, 0
  if not (remote and job.opts.delete_extra) then return count end
  count.deleted, err = delete_local(job, entries, remote)
  if not count.deleted then return nil, err end
  return count
end

return tree_changes
