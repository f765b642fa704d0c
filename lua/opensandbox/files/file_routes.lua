--- The files and directories of a sandbox: a client method for each of execd's routes below /files and /directories, except uploads
--- and downloads.

local arguments = require "opensandbox.files.arguments"
local each = require "opensandbox.base.each"
local fields = require "opensandbox.base.fields"
local json = require "opensandbox.base.json"
local modes = require "opensandbox.base.modes"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local tables = require "opensandbox.base.tables"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local DEFAULT_DIRECTORY_MODE = 755 -- as the official clients; execd takes octal digits as a decimal number

---@class (partial) opensandbox.Client
local file_routes = {}

--- A file or a directory of a sandbox.
--- ```lua
--- local info = assert(sandbox.files:stat("/work/a.txt"))
--- print(info.path, info.type, info.size, info.mode, info.owner, info.group, info.modified_at, info.created_at)
--- ```
---@class opensandbox.FileInfo
---@field path string absolute
---@field type? string "file", "directory", "symlink" or "other"; nil from execd before 1.0.19
---@field size? integer bytes
---@field modified_at? number Unix seconds
---@field created_at? number Unix seconds; on Linux the time of the last change to the inode
---@field owner? string name of the user
---@field group? string name of the group
---@field mode? string octal digits: "0644"

local function file_info(item)
  if type(item) ~= "table" or type(item.path) ~= "string" then return nil end
  local mode = fields.natural(item.mode)
  return {
    path = item.path, type = fields.text(item.type), size = fields.natural(item.size),
    owner = fields.text(item.owner), group = fields.text(item.group),
    modified_at = time.parse(item.modified_at), created_at = time.parse(item.created_at),
    mode = mode and ("%04d"):format(mode) or nil,
  }
end

local function file_list(array)
  return fields.decode_list(array, file_info), "list of files"
end

--- Returns the files below a directory whose base name matches a pattern: GET /files/search. Directories are not included.
--- ```lua
--- for _, file in ipairs(assert(client:search_files(execd, "/work", "*.txt"))) do print(file.path) end
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param dir string
---@param pattern? string `* ? [..] {a,b}`; default: all files
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function file_routes:search_files(endpoint, dir, pattern, opts)
  local op = self.op or "search_files"
  paths.check_at(endpoint, op, dir)
  if pattern ~= nil then options.argument(op, "the pattern", pattern, "nonempty string") end
  return self.http:call_endpoint(endpoint, { op = op, timeout = options.timeout(op, opts), method = "GET", decode = file_list,
    path = "/files/search" .. url.query { { "path", dir }, { "pattern", pattern } } })
end

local function path_query(endpoint, op, list)
  if type(list) == "string" then list = { list } end
  list = options.argument(op, "the paths", list, "string list")
  if #list == 0 then options.raise(op, "the list of paths must not be empty") end
  local query = {}
  for i, path in ipairs(list) do query[i] = { "path", paths.check_at(endpoint, op, path) } end
  return url.query(query)
end

--- Returns facts about files and directories: GET /files/info. Symlinks are not followed.
--- ```lua
--- local infos = assert(client:file_info(execd, { "/work/a.txt", "/work/b.txt" }))
--- print(infos["/work/a.txt"].size)
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param list string|string[] if one of them is missing, the whole call fails
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return table<string, opensandbox.FileInfo>? infos by the given path
---@return opensandbox.Error? err
function file_routes:file_info(endpoint, list, opts)
  local op = self.op or "file_info"
  return self.http:call_endpoint(endpoint, { op = op, timeout = options.timeout(op, opts), method = "GET",
    path = "/files/info" .. path_query(endpoint, op, list), decode = function(object)
    local infos = {}
    for path, item in each(object) do
      infos[path] = file_info(item)
      if not infos[path] then return nil, "files" end
    end
    return infos
  end })
end

--- Removes files: DELETE /files. Missing files are ignored; a directory is an error.
--- ```lua
--- assert(client:delete_files(execd, { "/work/a.txt" }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param list string|string[]
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function file_routes:delete_files(endpoint, list, opts)
  local op = self.op or "delete_files"
  local _, err = self.http:call_endpoint(endpoint, { op = op, timeout = options.timeout(op, opts),
    method = "DELETE", path = "/files" .. path_query(endpoint, op, list) })
  if err then return nil, err end
  return true
end

--- Removes directories with everything in them, as `rm -rf` does: DELETE /directories. Missing directories are ignored.
--- ```lua
--- assert(client:delete_directories(execd, { "/work/build" }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param list string|string[]
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function file_routes:delete_directories(endpoint, list, opts)
  local op = self.op or "delete_directories"
  local _, err = self.http:call_endpoint(endpoint, { op = op, timeout = options.timeout(op, opts),
    method = "DELETE", path = "/directories" .. path_query(endpoint, op, list) })
  if err then return nil, err end
  return true
end

local list_options = { depth = "natural", timeout = "seconds" }

--- Returns the entries of a directory: GET /directories/list.
--- ```lua
--- for _, entry in ipairs(assert(client:list_directory(execd, "/work"))) do print(entry.path) end
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param path string
---@param opts? { depth?: integer, timeout?: opensandbox.Duration } depth: levels of directories, default 1; timeout in seconds
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function file_routes:list_directory(endpoint, path, opts)
  local op = self.op or "list_directory"
  paths.check_at(endpoint, op, path)
  opts = options.check(op, opts, list_options)
  return self.http:call_endpoint(endpoint, { op = op, timeout = opts.timeout, method = "GET", decode = file_list,
    path = "/directories/list" .. url.query { { "path", path }, { "depth", opts.depth } } })
end

--- The options of `client:make_directories`: permissions and owner, and the time limit.
--- ```lua
--- assert(client:make_directories(execd, "/work/private", { mode = "0700", timeout = 10 }))
--- ```
---@class opensandbox.MkdirOpts: opensandbox.AccessOpts
---@field mode? string|integer default "0755"
---@field timeout? opensandbox.Duration for the whole call; default: the client's `timeout`

local access_options = { mode = "any", owner = "nonempty string", group = "nonempty string" }
local mkdir_options = tables.merge(access_options, { timeout = "seconds" })

-- Returns the checked fields as execd takes them.
local function access(op, given)
  options.check(op, given, access_options)
  return { mode = modes.number(op, given.mode), owner = given.owner, group = given.group }
end

-- Makes a call whose response is empty.
local function call_without_result(self, endpoint, request)
  local _, err = self.http:call_endpoint(endpoint, request)
  if err then return nil, err end
  return true
end

--- Creates directories and their parents: POST /directories. Existing directories are not changed.
--- ```lua
--- assert(client:make_directories(execd, { "/work/a", "/work/b" }, { mode = "0700" }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param list string|string[]
---@param opts? opensandbox.MkdirOpts of the named directories that are new, not of their parents
---@return true? ok
---@return opensandbox.Error? err
function file_routes:make_directories(endpoint, list, opts)
  local op = self.op or "make_directories"
  opts = options.check(op, opts, mkdir_options)
  local wanted = access(op, { mode = opts.mode, owner = opts.owner, group = opts.group })
  wanted.mode = wanted.mode or DEFAULT_DIRECTORY_MODE
  if type(list) == "string" then list = { list } end
  list = options.argument(op, "the paths", list, "string list")
  if #list == 0 then options.raise(op, "the list of paths must not be empty") end
  local body = {}
  for _, path in ipairs(list) do body[paths.check_at(endpoint, op, path)] = wanted end
  return call_without_result(self, endpoint, { op = op, timeout = opts.timeout,
    method = "POST", path = "/directories", json = body, may_repeat = true })
end

--- Moves files and directories, in order: POST /files/mv. The parents of the new paths are created. An existing file is never
--- overwritten. The call stops at the first move that fails; the moves before it stay.
--- ```lua
--- assert(client:move_files(execd, { { from = "/work/a.txt", to = "/work/b.txt" } }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param moves table[] { from = path, to = path }
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function file_routes:move_files(endpoint, moves, opts)
  local op = self.op or "move_files"
  options.argument(op, "the moves", moves, "table")
  local body = {}
  for i, move in ipairs(moves) do
    options.argument(op, "move " .. i, move, "table")
    options.check(op, move, { from = "nonempty string", to = "nonempty string" })
    body[i] = { src = paths.check_at(endpoint, op, move.from), dest = paths.check_at(endpoint, op, move.to) }
  end
  if #body == 0 then options.raise(op, "the list of moves must not be empty") end
  return call_without_result(self, endpoint, { op = op, timeout = options.timeout(op, opts),
    method = "POST", path = "/files/mv", json = json.array(body) })
end

--- Changes permissions and owners: POST /files/permissions. Symlinks are followed.
--- ```lua
--- assert(client:set_permissions(execd, { ["/work/run.sh"] = { mode = "0755", owner = "root" } }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param wanted table<string, opensandbox.AccessOpts> by path; fields that are nil are not changed
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function file_routes:set_permissions(endpoint, wanted, opts)
  local op = self.op or "set_permissions"
  options.argument(op, "the permissions", wanted, "table")
  local body = {}
  for path, given in each(wanted) do
    options.argument(op, "the permissions of a path", given, "table")
    body[paths.check_at(endpoint, op, path)] = access(op, given)
  end
  if not next(body) then options.raise(op, "the table of paths must not be empty") end
  return call_without_result(self, endpoint,
    { op = op, timeout = options.timeout(op, opts), method = "POST", path = "/files/permissions", json = body, may_repeat = true })
end

--- Replaces each occurrence of a text in files, byte for byte: POST /files/replace.
--- ```lua
--- local counts = assert(client:replace_in_files(execd, { ["/work/a.txt"] = { old = "one", new = "two" } }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param changes table<string, { old: string, new: string }> by path
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return table<string, integer>? counts of replacements, by path; empty from an execd before 1.0.19, which does not count
---@return opensandbox.Error? err
function file_routes:replace_in_files(endpoint, changes, opts)
  local op = self.op or "replace_in_files"
  options.argument(op, "the changes", changes, "table")
  local body = {}
  for path, given in each(changes) do
    arguments.check_change(op, given)
    body[paths.check_at(endpoint, op, path)] = { old = given.old, new = given.new }
  end
  if not next(body) then options.raise(op, "the table of paths must not be empty") end
  local text, err = self.http:call_endpoint(endpoint, { op = op, timeout = options.timeout(op, opts),
    method = "POST", path = "/files/replace?verbose=true",
    json = body })
  if not text then return nil, err end
  local counts, object = {}, json.decode(text)
  for path, item in each(type(object) == "table" and object or {}) do
    counts[path] = type(item) == "table" and fields.natural(item.replacedCount) or nil
  end
  return counts
end

return file_routes
