--- The files and directories of a sandbox: a client method for each of execd's routes below /files and /directories.

local json = require "opensandbox.base.json"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local DEFAULT_DIRECTORY_MODE = 755 -- as the official clients send; execd reads octal digits as a decimal number

local filesystem = {}

---@class opensandbox.FileInfo
---@field path string absolute
---@field type? string "file", "directory", "symlink" or "other"; nil from execd before 1.0.19
---@field size integer bytes
---@field modified_at? number Unix seconds
---@field created_at? number Unix seconds; on Linux the time of the last change to the inode
---@field owner? string
---@field group? string
---@field mode? string octal digits: "0644"

local function file_info(item)
  if type(item) ~= "table" or type(item.path) ~= "string" then return nil end
  return {
    path = item.path, type = item.type, size = item.size, owner = item.owner, group = item.group,
    modified_at = time.parse(item.modified_at), created_at = time.parse(item.created_at),
    mode = type(item.mode) == "number" and ("%04d"):format(item.mode) or nil,
  }
end

local function file_list(answer)
  local list = {}
  for i, item in ipairs(answer) do
    list[i] = file_info(item)
    if not list[i] then return nil, "list of files" end
  end
  return list
end

--- Files below a directory whose base name matches a pattern: GET /files/search. Directories are never in the result.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param dir string
---@param pattern? string `* ? [..] {a,b}`, for base names only; default: all
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function filesystem.search_files(self, endpoint, dir, pattern)
  local op = self.op or "search_files"
  paths.check(op, dir)
  if pattern ~= nil then options.argument(op, "the pattern", pattern, "nonempty string") end
  return self.http:call_endpoint(endpoint, { op = op, method = "GET", decode = file_list,
    path = "/files/search" .. url.query { { "path", dir }, { "pattern", pattern } } })
end

local function path_query(op, list)
  if type(list) == "string" then list = { list } end
  list = options.argument(op, "the paths", list, "string list")
  if #list == 0 then options.raise(op, "the list of paths must not be empty") end
  local query = {}
  for i, path in ipairs(list) do query[i] = { "path", paths.check(op, path) } end
  return url.query(query)
end

--- What is known of files and directories: GET /files/info. Symlinks are not followed.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param list string|string[] one that is missing fails the whole call
---@return table<string, opensandbox.FileInfo>? infos by the path asked for
---@return opensandbox.Error? err
function filesystem.file_info(self, endpoint, list)
  local op = self.op or "file_info"
  return self.http:call_endpoint(endpoint, { op = op, method = "GET",
    path = "/files/info" .. path_query(op, list), decode = function(answer)
    local infos = {}
    for path, item in pairs(answer) do
      infos[path] = file_info(item)
      if not infos[path] then return nil, "files" end
    end
    return infos
  end })
end

--- Removes files: DELETE /files. Those that do not exist are passed over; a directory is an error.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param list string|string[]
---@return true? ok
---@return opensandbox.Error? err
function filesystem.delete_files(self, endpoint, list)
  local op = self.op or "delete_files"
  local _, err = self.http:call_endpoint(endpoint, { op = op, method = "DELETE", path = "/files" .. path_query(op, list) })
  if err then return nil, err end
  return true
end

--- Removes directories and all that is in them, as `rm -rf` does: DELETE /directories.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param list string|string[]
---@return true? ok
---@return opensandbox.Error? err
function filesystem.delete_directories(self, endpoint, list)
  local op = self.op or "delete_directories"
  local _, err = self.http:call_endpoint(endpoint, { op = op, method = "DELETE", path = "/directories" .. path_query(op, list) })
  if err then return nil, err end
  return true
end

local list_options = { depth = "natural" }

--- The entries of a directory: GET /directories/list.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param path string
---@param opts? table depth (default 1)
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function filesystem.list_directory(self, endpoint, path, opts)
  local op = self.op or "list_directory"
  paths.check(op, path)
  opts = options.check(op, opts, list_options)
  return self.http:call_endpoint(endpoint, { op = op, method = "GET", decode = file_list,
    path = "/directories/list" .. url.query { { "path", path }, { "depth", opts.depth } } })
end

local access_options = { mode = "any", owner = "nonempty string", group = "nonempty string" }

local function access(op, given)
  options.check(op, given, access_options)
  return { mode = paths.mode(op, given.mode), owner = given.owner, group = given.group }
end

-- A call that sends a JSON body and gets an empty answer.
local function change(self, endpoint, request)
  local _, err = self.http:call_endpoint(endpoint, request)
  if err then return nil, err end
  return true
end

--- Makes directories, and those above them: POST /directories. One that exists stays as it is.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param list string|string[]
---@param opts? table mode ("0755", "rwxr-xr-x" or 755; the default), owner, group: of the directories named, where they are new
---@return true? ok
---@return opensandbox.Error? err
function filesystem.make_directories(self, endpoint, list, opts)
  local op = self.op or "make_directories"
  local wanted = access(op, opts or {})
  wanted.mode = wanted.mode or DEFAULT_DIRECTORY_MODE
  if type(list) == "string" then list = { list } end
  list = options.argument(op, "the paths", list, "string list")
  if #list == 0 then options.raise(op, "the list of paths must not be empty") end
  local body = {}
  for _, path in ipairs(list) do body[paths.check(op, path)] = wanted end
  return change(self, endpoint, { op = op, method = "POST", path = "/directories", json = body, may_repeat = true })
end

--- Moves files and directories, in order: POST /files/mv. The directories above the new place are made; what exists there is never
--- overwritten. It stops at the first that fails, and those before it stay moved.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param moves table[] { from = path, to = path }
---@return true? ok
---@return opensandbox.Error? err
function filesystem.move_files(self, endpoint, moves)
  local op = self.op or "move_files"
  options.argument(op, "the moves", moves, "table")
  local body = {}
  for i, move in ipairs(moves) do
    options.argument(op, "move " .. i, move, "table")
    options.check(op, move, { from = "nonempty string", to = "nonempty string" })
    body[i] = { src = paths.check(op, move.from), dest = paths.check(op, move.to) }
  end
  if #body == 0 then options.raise(op, "the list of moves must not be empty") end
  return change(self, endpoint, { op = op, method = "POST", path = "/files/mv", json = json.array(body) })
end

--- Changes permissions and owners: POST /files/permissions. Symlinks are followed.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param wanted table<string, table> by path: mode ("0644", "rw-r--r--" or 644), owner, group; what is left out stays
---@return true? ok
---@return opensandbox.Error? err
function filesystem.set_permissions(self, endpoint, wanted)
  local op = self.op or "set_permissions"
  options.argument(op, "the permissions", wanted, "table")
  local body = {}
  for path, given in pairs(wanted) do
    options.argument(op, "the permissions of a path", given, "table")
    body[paths.check(op, path)] = access(op, given)
  end
  if not next(body) then options.raise(op, "the table of paths must not be empty") end
  return change(self, endpoint, { op = op, method = "POST", path = "/files/permissions", json = body, may_repeat = true })
end

--- Replaces text in files, every occurrence, byte for byte: POST /files/replace.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param changes table<string, table> by path: { old = text, new = text }
---@return table<string, integer>? counts how many were replaced, by path; empty from an execd that does not count
---@return opensandbox.Error? err
function filesystem.replace_in_files(self, endpoint, changes)
  local op = self.op or "replace_in_files"
  options.argument(op, "the changes", changes, "table")
  local body = {}
  for path, given in pairs(changes) do
    options.argument(op, "the change of a path", given, "table")
    options.check(op, given, { old = "string", new = "string" })
    if not given.old or given.old == "" then options.raise(op, "what to replace ('old') must be a string that is not empty") end
    if not given.new then options.raise(op, "a replacement ('new') is needed") end
    body[paths.check(op, path)] = { old = given.old, new = given.new }
  end
  if not next(body) then options.raise(op, "the table of paths must not be empty") end
  local answer, err = self.http:call_endpoint(endpoint, { op = op, method = "POST", path = "/files/replace?verbose=true",
    json = body })
  if not answer then return nil, err end
  local counts = {}
  for path, item in pairs(json.decode(answer) or {}) do
    counts[path] = type(item) == "table" and item.replacedCount or nil
  end
  return counts
end

return filesystem
