--- The file methods of a client, for the files of an isolated session.
--
-- execd's routes for these files differ from those for the files of a sandbox. Every path is taken as one below the session's
-- directories, also "/etc/x". Symlinks are refused in the mode "rw". A move overwrites existing files, the deletion of a missing
-- file is an error, and times and owners are empty. This module makes a view of the client whose methods behave as those for a
-- sandbox. The field `mounts` of the endpoint lists the session's directories.

local download_routes = require "opensandbox.files.download_routes"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local file_routes = require "opensandbox.files.file_routes"
local isolated_errors = require "opensandbox.execution.isolated_errors"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local reason = require "opensandbox.base.reason"
local shell = require "opensandbox.base.shell"
local tables = require "opensandbox.base.tables"
local upload_routes = require "opensandbox.files.upload_routes"

local isolated_files = {}

local MAX_PATTERNS = 64        -- requests of one search
local ZERO_TIME = -62135596800 -- Unix seconds of the year 1, which execd reports for an unknown time

--- Returns the directories of a session, from the options of its creation or from its info. The list is empty if execd does not
--- report them.
---@param facts table workspace (a path, or { path, mode }), mode, overlays
---@return opensandbox.IsolatedMount[]
function isolated_files.mounts(facts)
  local mounts = {}
  local function add(mount, mode)
    if type(mount) == "table" and type(mount.path) == "string" then
      mounts[#mounts + 1] = { path = paths.clean(mount.path), mode = mount.mode or mode, persist = mount.persist }
    end
  end
  local workspace, overlays = facts.workspace, facts.overlays or {}
  if type(workspace) == "string" then workspace = { path = workspace, mode = facts.mode } end
  add(workspace, facts.mode or "rw")
  for _, overlay in ipairs(overlays) do
    local is_workspace = type(overlay) == "table" and mounts[1] and overlay.path == mounts[1].path
    if not is_workspace then add(overlay, "overlay") end
  end
  return mounts
end

local function is_below(path, directory)
  return directory == "/" or path == directory or path:sub(1, #directory + 1) == directory .. "/"
end

local function outside(op, endpoint, path)
  local names = {}
  for i, mount in ipairs(endpoint.mounts) do names[i] = mount.path end
  return errors.new { kind = "state", code = "outside_workspace", op = op, sandbox_id = endpoint.sandbox_id,
    message = ("%q is not below %s, and the files of an isolated session reach nothing else"):format(path,
      table.concat(names, ", ")),
    hint = "Use a path below it, a run of the session, or sandbox.files for the files of the sandbox" }
end

-- Locates a path: `path` is absolute, and `mount` is the directory of the session that contains it. A relative path is below the
-- first directory. If the directories are not known, the path is used as it is given.
local function locate(op, endpoint, given)
  paths.check_at(endpoint, op, given)
  local mounts = endpoint.mounts
  if #mounts == 0 then return { given = given, path = given } end
  local path = paths.clean(given:sub(1, 1) == "/" and given or mounts[1].path .. "/" .. given)
  local found
  for _, mount in ipairs(mounts) do
    if is_below(path, mount.path) and (not found or #mount.path > #found.path) then found = mount end
  end
  if not found then return nil, outside(op, endpoint, given) end
  return { given = given, path = path, mount = found }
end

local function locate_all(op, endpoint, list)
  if type(list) == "string" then list = { list } end
  list = options.argument(op, "the paths", list, "string list")
  local locations, names = {}, {}
  for i, given in ipairs(list) do
    local location, err = locate(op, endpoint, given)
    if not location then return nil, err end
    locations[i], names[i] = location, location.path
  end
  return locations, names
end

--- Returns the absolute path for a path in one of the session's directories.
---@param op string the method that the user called
---@param endpoint opensandbox.Endpoint with `mounts`
---@param path string
---@return string? path
---@return opensandbox.Error? err
function isolated_files.absolute(op, endpoint, path)
  local location, err = locate(op, endpoint, path)
  if not location then return nil, err end
  if location.mount then return location.path end
  return nil, isolated_errors.unsupported(op, endpoint, "isolated workspace")
end

local function is_link_refused(err)
  return err.status == 500 and err.message:find("symlink target denied", 1, true) ~= nil
end

local function is_missing(err)
  return err.status == 500 and err.message == "file does not exist"
end

-- Adds the meaning to an error of execd.
local function explain(err)
  if is_link_refused(err) then
    err.code = "symlink_refused"
    err.hint = "The files of a session with mode \"rw\" do not follow symlinks: use the path that the link means, or a run"
  elseif err.status == 500 and err.message:find("workspace is read-only", 1, true) then
    err.kind, err.code, err.hint = "state", "read_only", "The directory has the mode \"ro\", or is an overlay in memory"
  elseif err.status == 500 and err.message:find("no such file or directory", 1, true) then
    err.code = "FILE_NOT_FOUND"
  end
  return isolated_errors.explain(err)
end

local function explained(value, err)
  if value == nil and err then return nil, explain(err) end
  return value, err
end

-- Removes the fields that execd leaves empty from the facts about a file.
local function tidy(info)
  if info.created_at == ZERO_TIME then info.created_at = nil end
  if info.owner == "" then info.owner = nil end
  if info.group == "" then info.group = nil end
  return info
end

local function tidy_all(list)
  for _, info in ipairs(list) do tidy(info) end
  return list
end

local function refuse_owner(op, given)
  if given.owner or given.group then
    options.raise(op, "options 'owner' and 'group' are not for the files of an isolated session: they belong to the session's uid")
  end
end

local access_options = { mode = "any", owner = "nonempty string", group = "nonempty string" }

local methods = {}

-- Returns the facts about a path from the listing of its parent, which includes symlinks in the mode "rw" too.
local function entry_of(self, endpoint, location)
  local parent = location.path:match("^(.+)/[^/]*$") or (location.mount and "/" or ".")
  local list, err = file_routes.list_directory(self, endpoint, parent)
  if not list then return nil, err end
  for _, info in ipairs(list) do
    if info.path == location.path then return tidy(info) end
  end
end

function methods.file_info(self, endpoint, list)
  local op = self.op or "file_info"
  local locations, names = locate_all(op, endpoint, list)
  if not locations then return nil, names end
  local found, err = file_routes.file_info(self, endpoint, names)
  local infos = {}
  for _, location in ipairs(locations) do
    local info = found and found[location.path]
    if not found and is_link_refused(err) then
      -- The error does not name the path, so each path is asked for separately.
      local by_path, problem = file_routes.file_info(self, endpoint, location.path)
      info = by_path and by_path[location.path]
      if not by_path and is_link_refused(problem) then info = entry_of(self, endpoint, location) end
      if not info then return nil, explain(problem or err) end
    end
    infos[location.given] = info and tidy(info)
  end
  if not next(infos) and err then return nil, explain(err) end
  return infos
end

-- Checks that an empty list is that of a directory, because execd returns it for a file too.
local function check_directory(self, op, endpoint, location)
  local infos, err = methods.file_info(self, endpoint, location.path)
  if not infos then return nil, err end
  local info = infos[location.path]
  if not info or info.type == nil or info.type == "directory" or info.type == "symlink" then return true end
  return nil, errors.new { kind = "state", code = "not_a_directory", op = op, sandbox_id = endpoint.sandbox_id,
    message = ("%s is not a directory"):format(location.given) }
end

function methods.list_directory(self, endpoint, path, opts)
  local op = self.op or "list_directory"
  local location, err = locate(op, endpoint, path)
  if not location then return nil, err end
  local list
  list, err = file_routes.list_directory(self, endpoint, location.path, opts)
  if not list then return nil, explain(err) end
  if #list == 0 then
    local ok
    ok, err = check_directory(self, op, endpoint, location)
    if not ok then return nil, err end
  end
  return tidy_all(list)
end

-- Returns the position after one part of a pattern: a character, an escaped character, or a bracket expression.
local function next_part(pattern, at)
  local first = pattern:sub(at, at)
  if first == "\\" then return at + 2 end
  local closing = first == "[" and pattern:find("]", at + 2, true)
  return (closing or at) + 1
end

-- Expands {a,b} in a pattern, because execd does not support braces here. Appends the patterns to `list`.
local function expand(pattern, list)
  local depth, cuts, at = 0, {}, 1
  while at <= #pattern do
    local char = pattern:sub(at, at)
    if char == "{" then depth = depth + 1 end
    if depth == 1 and char:find("[{,}]") then cuts[#cuts + 1] = at end
    if char == "}" and depth > 0 then
      depth = depth - 1
      if depth == 0 then break end
    end
    at = next_part(pattern, at)
  end
  if depth > 0 or #cuts == 0 then
    list[#list + 1] = pattern
    return list
  end
  for i = 1, #cuts - 1 do
    if #list > MAX_PATTERNS then return list end
    expand(pattern:sub(1, cuts[1] - 1) .. pattern:sub(cuts[i] + 1, cuts[i + 1] - 1) .. pattern:sub(at + 1), list)
  end
  return list
end

-- Returns the patterns to search for. A leading "**/" is removed, because execd compares base names only.
local function patterns_of(op, pattern)
  if pattern == nil then return { "*" } end
  options.argument(op, "the pattern", pattern, "nonempty string")
  local list = expand((pattern:gsub("^%*%*/", "")), {})
  if #list > MAX_PATTERNS then
    options.raise(op, ("the pattern stands for more than %d patterns without braces"):format(MAX_PATTERNS))
  end
  return list
end

function methods.search_files(self, endpoint, dir, pattern)
  local op = self.op or "search_files"
  local location, err = locate(op, endpoint, dir)
  if not location then return nil, err end
  local found, by_path = {}, {}
  for _, expanded in ipairs(patterns_of(op, pattern)) do
    local list
    list, err = file_routes.search_files(self, endpoint, location.path, expanded)
    if not list then return nil, explain(err) end
    for _, info in ipairs(list) do
      if location.mount and info.path:sub(1, 1) ~= "/" then info.path = paths.clean(location.mount.path .. "/" .. info.path) end
      if not by_path[info.path] then found[#found + 1] = info end
      by_path[info.path] = info
    end
  end
  if #found == 0 then
    local infos
    infos, err = methods.file_info(self, endpoint, location.path)
    if not infos then return nil, err end
  end
  table.sort(found, function(a, b) return a.path < b.path end)
  return tidy_all(found)
end

-- Deletes one file. execd does not find a symlink whose target is missing, so the shell deletes that.
local function delete_file(self, endpoint, location)
  local ok, err = file_routes.delete_files(self, endpoint, location.path)
  if ok then return true end
  if not is_missing(err) then return nil, explain(err) end
  if not entry_of(self, endpoint, location) then return true end
  local result
  result, err = self.run_helper(self.op, "rm -f -- " .. shell.quote(location.path), { cwd = "/" })
  if not result then return nil, err end
  if result.exit_code == 0 then return true end
  return nil, errors.new { kind = "state", code = "delete_failed", op = self.op, sandbox_id = endpoint.sandbox_id, result = result,
    message = ("%s could not be deleted: %s"):format(location.given, reason(result.stdout)) }
end

function methods.delete_files(self, endpoint, list)
  local op = self.op or "delete_files"
  local locations, names = locate_all(op, endpoint, list)
  if not locations then return nil, names end
  local ok, err = file_routes.delete_files(self, endpoint, names)
  if ok then return true end
  if not is_missing(err) then return nil, explain(err) end
  for _, location in ipairs(locations) do
    ok, err = delete_file(self, endpoint, location)
    if not ok then return nil, err end
  end
  return true
end

function methods.delete_directories(self, endpoint, list)
  local locations, names = locate_all(self.op or "delete_directories", endpoint, list)
  if not locations then return nil, names end
  return explained(file_routes.delete_directories(self, endpoint, names))
end

-- execd applies the mode to every directory that it creates, so the parents are created before with the default mode.
function methods.make_directories(self, endpoint, list, opts)
  local op = self.op or "make_directories"
  local locations, names = locate_all(op, endpoint, list)
  if not locations then return nil, names end
  opts = options.check(op, opts, access_options)
  refuse_owner(op, opts)
  if opts.mode then
    local parents = {}
    for _, location in ipairs(locations) do
      local parent = location.path:match("^(.+)/[^/]*$")
      if parent and location.mount and location.path ~= location.mount.path then parents[#parents + 1] = parent end
    end
    if #parents > 0 then
      local ok, err = file_routes.make_directories(self, endpoint, parents)
      if not ok then return nil, explain(err) end
    end
  end
  return explained(file_routes.make_directories(self, endpoint, names, opts))
end

-- Moves one file or directory, unless the new path exists, because execd would overwrite it.
local function move_one(self, op, endpoint, move)
  local from, to, infos, err
  from, err = locate(op, endpoint, move.from)
  if not from then return nil, err end
  to, err = locate(op, endpoint, move.to)
  if not to then return nil, err end
  infos, err = methods.file_info(self, endpoint, to.path)
  if infos then
    return nil, errors.new { kind = "state", code = "file_exists", op = op, sandbox_id = endpoint.sandbox_id,
      message = ("%s exists, and is not overwritten"):format(move.to), hint = "Remove it first" }
  end
  if err.code ~= "FILE_NOT_FOUND" then return nil, err end
  return explained(file_routes.move_files(self, endpoint, { { from = from.path, to = to.path } }))
end

function methods.move_files(self, endpoint, moves)
  local op = self.op or "move_files"
  options.argument(op, "the moves", moves, "table")
  if #moves == 0 then options.raise(op, "the list of moves must not be empty") end
  for i, move in ipairs(moves) do
    options.argument(op, "move " .. i, move, "table")
    local ok, err = move_one(self, op, endpoint, options.check(op, move, { from = "nonempty string", to = "nonempty string" }))
    if not ok then return nil, err end
  end
  return true
end

-- Returns a table by path with the located paths as keys, and the given paths by the located ones.
local function locate_keys(op, what, endpoint, by_path)
  options.argument(op, what, by_path, "table")
  local located, given = {}, {}
  for path, value in each(by_path) do
    local location, err = locate(op, endpoint, path)
    if not location then return nil, err end
    located[location.path], given[location.path] = value, path
  end
  return located, given
end

function methods.set_permissions(self, endpoint, wanted)
  local op = self.op or "set_permissions"
  local located, err = locate_keys(op, "the permissions", endpoint, wanted)
  if not located then return nil, err end
  for _, given in each(located) do
    options.argument(op, "the permissions of a path", given, "table")
    refuse_owner(op, given)
  end
  return explained(file_routes.set_permissions(self, endpoint, located))
end

function methods.replace_in_files(self, endpoint, changes)
  local located, given = locate_keys(self.op or "replace_in_files", "the changes", endpoint, changes)
  if not located then return nil, given end
  local counts, err = file_routes.replace_in_files(self, endpoint, located)
  if not counts then return nil, explain(err) end
  local by_given = {}
  for path, count in each(counts) do by_given[given[path] or path] = count end
  return by_given
end

function methods.upload_files(self, endpoint, files, opts)
  local op = self.op or "upload_files"
  options.argument(op, "the files", files, "table")
  local located = {}
  for i, file in ipairs(files) do
    options.argument(op, "file " .. i, file, "table")
    refuse_owner(op, file)
    local location, err = locate(op, endpoint, file.path)
    if not location then return nil, err end
    located[i] = tables.merge(file, { path = location.path })
  end
  return explained(upload_routes.upload_files(self, endpoint, located, opts))
end

function methods.download_file(self, endpoint, path, opts)
  local location, err = locate(self.op or "download_file", endpoint, path)
  if not location then return nil, err end
  return explained(download_routes.download_file(self, endpoint, location.path, opts))
end

function methods.save_file(self, endpoint, path, to, opts)
  local location, err = locate(self.op or "save_file", endpoint, path)
  if not location then return nil, err end
  return explained(download_routes.save_file(self, endpoint, location.path, to, opts))
end

--- Makes a view of a client with these methods.
---@param client opensandbox.Client
---@param run_helper fun(op: string, script: string, opts: table): opensandbox.CommandResult?, opensandbox.Error? runs a script in the session
---@return opensandbox.Client
function isolated_files.view(client, run_helper)
  return setmetatable({ run_helper = run_helper }, { __index = function(_, name) return methods[name] or client[name] end })
end

return isolated_files
