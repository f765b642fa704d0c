--- File operations on paths that execd would change: it expands `$NAME`, drops some `$`, and knows no escape for them.
--
-- Bytes, permissions and replacements go through a temporary symlink with a plain name, because execd's routes follow it. Facts are
-- taken from the listing of the nearest parent with a plain path. Commands, which take every path as it is, do the rest.

local arguments = require "opensandbox.files.arguments"
local coxpcall = require "opensandbox.loop.coxpcall"
local endpoint_call = require "opensandbox.http.endpoint_call"
local errors = require "opensandbox.base.errors"
local helper_commands = require "opensandbox.files.helper_commands"
local modes = require "opensandbox.base.modes"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local remote_paths = require "opensandbox.files.remote_paths"
local temporary_files = require "opensandbox.files.temporary_files"
local utf8 = require "opensandbox.base.utf8"

local literal_paths = {}

local EXIT_MISSING = 66 -- exit codes of our scripts
local EXIT_EXISTS = 67
local DEFAULT_DIRECTORY_MODE = 755

-- Calls a client method with the endpoint of the target.
local function call(target, op, method, ...)
  return endpoint_call.call(target.client, op, target.endpoint, method, ...)
end

-- The error for a missing file, as execd reports it.
local function not_found(target, op, path)
  return errors.new { kind = "http", status = 404, code = "FILE_NOT_FOUND", op = op, sandbox_id = target.id,
    message = ("file not found: %s"):format(path) }
end

-- Returns the word of a command for any path.
local function word_of(target, op, path)
  local absolute, err = remote_paths.absolute(target, op, path)
  if not absolute then return nil, err end
  return helper_commands.quoted_path(absolute)
end

-- Runs a script about `path`.
local function run(target, op, path, script, code, failure)
  local result, err = helper_commands.run(target, helper_commands.plain_job(target, op), script, code, failure)
  if result then return true end
  if err.result and err.result.exit_code == EXIT_MISSING then return nil, not_found(target, op, path) end
  return nil, err
end

---@class opensandbox.PathAlias: opensandbox.RemovalGuard a temporary symlink
---@field path string a path that execd does not change

-- Creates a symlink to a file. A missing file is an error, unless it is to be created: then its parents are created.
local function create_alias(target, op, path, is_created)
  local absolute, err = remote_paths.absolute(target, op, path)
  if not absolute then return nil, err end
  local alias = temporary_files.path(target, ".link")
  local word = helper_commands.quoted_path(absolute)
  local check = is_created and ('f=%s; mkdir -p -- "${f%%/*}" || exit'):format(word)
    or ("[ -e %s ] || exit %d"):format(word, EXIT_MISSING)
  local ok
  ok, err = run(target, op, path, ("%s\nln -s -- %s %s"):format(check, helper_commands.quoted(absolute),
    helper_commands.quoted_path(alias)), "link_failed", "a temporary symlink could not be created in the sandbox")
  if not ok then return nil, err end
  local endpoint
  endpoint, err = target.endpoint(op)
  if not endpoint then return nil, err end
  local guard = temporary_files.guard(function() temporary_files.remove_link(target.client, endpoint, alias) end)
  guard.path = alias
  return guard
end

-- Names the caller's path in an error about the alias.
local function rename_in(err, alias, path)
  local first, last = tostring(err.message):find(alias.path, 1, true)
  if first then err.message = err.message:sub(1, first - 1) .. path .. err.message:sub(last + 1) end
  return err
end

-- Calls a function with the path of an alias, and removes the alias.
local function with_alias(target, op, path, is_created, fn)
  local alias, err = create_alias(target, op, path, is_created)
  if not alias then return nil, err end
  local ok, value
  ok, value, err = coxpcall.pcall(fn, alias.path)
  alias.remove()
  if not ok then error(value, 0) end
  if not value and err then return nil, rename_in(err, alias, path) end
  return value, err
end

--- Uploads one file.
---@param target opensandbox.FileTarget
---@param op string the method that the user called
---@param file opensandbox.FileUpload
---@param upload fun(file: opensandbox.FileUpload): true?, opensandbox.Error? uploads it to a path that execd does not change
---@return true? ok
---@return opensandbox.Error? err
function literal_paths.upload(target, op, file, upload)
  arguments.check_upload(op, file)
  local path = file.path
  return with_alias(target, op, path, true, function(alias)
    file.path = alias
    return upload(file)
  end)
end

--- Opens a file for reading.
---@return opensandbox.Reader? reader
---@return opensandbox.Error? err
function literal_paths.open(target, op, path, opts)
  opts = arguments.check_download(op, opts)
  local alias, err = create_alias(target, op, path)
  if not alias then return nil, err end
  local reader
  reader, err = call(target, op, "download_file", alias.path, opts)
  if reader then
    reader:on_close(alias)
    return reader
  end
  alias.remove()
  return nil, rename_in(err, alias, path)
end

--- Downloads a file into a new local file.
---@return true? ok
---@return opensandbox.Error? err
function literal_paths.save(target, op, path, to, opts)
  return with_alias(target, op, path, false, function(alias) return call(target, op, "save_file", alias, to, opts) end)
end

-- Splits an absolute path into its longest parent with a plain path, and the number of segments below that.
local function plain_parent(path)
  local parent, depth = path, 0
  repeat
    parent = parent:match("^(.*)/[^/]*$")
    depth = depth + 1
  until not paths.expansion(parent)
  return parent == "" and "/" or parent, depth
end

-- Returns the directory that a symlink in the sandbox means.
local function resolve_directory(target, op, path)
  local script = ("cd -- %s && pwd -P"):format(helper_commands.quoted_path(path))
  local result, err = helper_commands.run(target, helper_commands.plain_job(target, op), script, "not_a_directory",
    ("%s is not a directory"):format(path))
  return result and result.stdout:match("^(/[^%z\n]*)\n$"), err
end

-- Lists the entries below the plain parent of a path, and returns the path as execd reports it: JSON has U+FFFD for bytes that are
-- not UTF-8.
local function list_from_parent(target, op, path, depth)
  local absolute, err = remote_paths.absolute(target, op, path)
  if not absolute then return nil, err end
  absolute = paths.clean(absolute)
  local parent, levels = plain_parent(absolute)
  local list
  list, err = call(target, op, "list_directory", parent, { depth = levels + depth })
  absolute = utf8.replace_invalid(absolute)
  if list then return list, absolute end
  -- execd does not list a symlink to a directory.
  if err.status ~= 400 then return nil, err end
  local real, problem = resolve_directory(target, op, parent)
  if problem and problem.code == "not_a_directory" then return nil, not_found(target, op, path) end
  if not real or paths.expansion(real) then return nil, problem or err end
  list, err = call(target, op, "list_directory", real, { depth = levels + depth })
  for _, info in ipairs(list or {}) do
    if info.path:sub(1, #real + 1) == real .. "/" then info.path = parent .. info.path:sub(#real + 1) end
  end
  return list, list and absolute or err
end

--- Returns facts about a file or directory.
---@return opensandbox.FileInfo? info
---@return opensandbox.Error? err
function literal_paths.stat(target, op, path)
  local list, absolute = list_from_parent(target, op, path, 0)
  if not list then return nil, absolute end
  for _, info in ipairs(list) do
    if info.path == absolute then return info end
  end
  return nil, not_found(target, op, path)
end

-- Returns the entries below a directory out of those of its parent.
local function entries_below(target, op, path, absolute, list)
  local found, entries = nil, {}
  for _, info in ipairs(list) do
    if info.path == absolute then found = info end
    if info.path:sub(1, #absolute + 1) == absolute .. "/" then entries[#entries + 1] = info end
  end
  if found and found.type == "directory" then return entries end
  if not found then return nil, not_found(target, op, path) end
  return nil, errors.new { kind = "state", code = "not_a_directory", op = op, sandbox_id = target.id,
    message = ("%s is not a directory"):format(path) }
end

--- Returns the entries of a directory.
---@param depth? integer levels of directories, default 1
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function literal_paths.list(target, op, path, depth)
  local list, absolute = list_from_parent(target, op, path, depth or 1)
  if not list then return nil, absolute end
  return entries_below(target, op, path, absolute, list)
end

--- Returns the files below a directory whose base name matches a pattern.
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function literal_paths.search(target, op, dir, pattern)
  if pattern ~= nil then options.argument(op, "the pattern", pattern, "nonempty string") end
  local list, absolute = list_from_parent(target, op, dir, 0)
  if not list then return nil, absolute end
  local _, err = entries_below(target, op, dir, absolute, list)
  if err then return nil, err end
  list, err = call(target, op, "search_files", (plain_parent(absolute)), pattern)
  if not list then return nil, err end
  local entries = {}
  for _, info in ipairs(list) do
    if info.path:sub(1, #absolute + 1) == absolute .. "/" then entries[#entries + 1] = info end
  end
  return entries
end

--- Removes a file, or with `recursive` a directory and everything in it.
---@return true? ok
---@return opensandbox.Error? err
function literal_paths.remove(target, op, path, recursive)
  local word, err = word_of(target, op, path)
  if not word then return nil, err end
  return run(target, op, path, ("rm %s -- %s"):format(recursive and "-rf" or "-f", word), "remove_failed",
    ("%s could not be removed"):format(path))
end

--- Creates a directory and its parents. An existing directory is not changed.
---@param access opensandbox.AccessOpts
---@return true? ok
---@return opensandbox.Error? err
function literal_paths.mkdir(target, op, path, access)
  local word, err = word_of(target, op, path)
  if not word then return nil, err end
  local lines = { ("d=%s\n[ -d \"$d\" ] && exit 0\nmkdir -p -- \"$d\""):format(word),
    ("chmod %03d -- \"$d\""):format(modes.number(op, access.mode) or DEFAULT_DIRECTORY_MODE) }
  if access.owner or access.group then
    local owner = helper_commands.quoted((access.owner or "") .. (access.group and ":" .. access.group or ""))
    lines[#lines + 1] = ("chown %s -- \"$d\""):format(owner)
  end
  return run(target, op, path, table.concat(lines, " && "), "mkdir_failed", ("%s could not be created"):format(path))
end

local MOVE_SCRIPT = [[
from=%s to=%s
[ -e "$from" ] || [ -h "$from" ] || exit %d
if [ -e "$to" ] || [ -h "$to" ]; then exit %d; fi
mkdir -p -- "${to%%/*}" && mv -- "$from" "$to"]]

--- Moves a file or a directory. An existing file is never overwritten.
---@return true? ok
---@return opensandbox.Error? err
function literal_paths.move(target, op, from, to)
  local from_word, err = word_of(target, op, from)
  if not from_word then return nil, err end
  local to_word
  to_word, err = word_of(target, op, to)
  if not to_word then return nil, err end
  local ok
  ok, err = run(target, op, from, MOVE_SCRIPT:format(from_word, to_word, EXIT_MISSING, EXIT_EXISTS), "move_failed",
    ("%s could not be moved"):format(from))
  if not ok and err.result and err.result.exit_code == EXIT_EXISTS then
    err.code, err.message = "file_exists", ("%s exists, and is not overwritten"):format(to)
  end
  return ok, err
end

--- Changes permissions and owner. Symlinks are followed.
---@param access opensandbox.AccessOpts
---@return true? ok
---@return opensandbox.Error? err
function literal_paths.chmod(target, op, path, access)
  modes.number(op, access.mode)
  return with_alias(target, op, path, false, function(alias)
    return call(target, op, "set_permissions", { [alias] = access })
  end)
end

--- Replaces each occurrence of a text in a file.
---@param change { old: string, new: string }
---@return integer? count
---@return opensandbox.Error? err
function literal_paths.replace(target, op, path, change)
  arguments.check_change(op, change)
  return with_alias(target, op, path, false, function(alias)
    local counts, err = call(target, op, "replace_in_files", { [alias] = change })
    if not counts then return nil, err end
    return counts[alias] or 0
  end)
end

return literal_paths
