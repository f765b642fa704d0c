--- The execd API: a client method for each route. The first argument is the endpoint of a sandbox's execd, from `discover_execd`,
--- or a plain URL.

local command = require "opensandbox.command"
local options = require "opensandbox.options"
local paths = require "opensandbox.paths"
local reader = require "opensandbox.reader"
local time = require "opensandbox.time"
local upload = require "opensandbox.upload"
local url = require "opensandbox.url"

local execd = {
  run_command = command.run_command,
  upload_files = upload.upload_files,
  download_file = reader.download_file,
  save_file = reader.save_file,
}

local ping_options = { timeout = "seconds" }

--- Asks execd whether it is there: GET /ping.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param opts? table timeout (seconds)
---@return true? ok
---@return opensandbox.Error? err
function execd.ping(self, endpoint, opts)
  opts = options.check("ping", opts, ping_options)
  local _, err = self:_execd(endpoint, { op = "ping", method = "GET", path = "/ping", timeout = opts.timeout })
  if err then return nil, err end
  return true
end

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
function execd.search_files(self, endpoint, dir, pattern)
  local op = "search_files"
  paths.check(op, dir)
  if pattern ~= nil then options.argument(op, "the pattern", pattern, "text") end
  return self:_execd(endpoint, { op = op, method = "GET", decode = file_list,
    path = "/files/search" .. url.query { { "path", dir }, { "pattern", pattern } } })
end

local function path_query(op, list)
  if type(list) == "string" then list = { list } end
  options.argument(op, "the paths", list, "list")
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
function execd.file_info(self, endpoint, list)
  local op = "file_info"
  return self:_execd(endpoint, { op = op, method = "GET", path = "/files/info" .. path_query(op, list), decode = function(answer)
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
function execd.delete_files(self, endpoint, list)
  local op = "delete_files"
  local _, err = self:_execd(endpoint, { op = op, method = "DELETE", path = "/files" .. path_query(op, list) })
  if err then return nil, err end
  return true
end

--- Removes directories and all that is in them, as `rm -rf` does: DELETE /directories.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param list string|string[]
---@return true? ok
---@return opensandbox.Error? err
function execd.delete_directories(self, endpoint, list)
  local op = "delete_directories"
  local _, err = self:_execd(endpoint, { op = op, method = "DELETE", path = "/directories" .. path_query(op, list) })
  if err then return nil, err end
  return true
end

local list_options = { depth = "count" }

--- The entries of a directory: GET /directories/list.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param path string
---@param opts? table depth (default 1)
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function execd.list_directory(self, endpoint, path, opts)
  local op = "list_directory"
  paths.check(op, path)
  opts = options.check(op, opts, list_options)
  return self:_execd(endpoint, { op = op, method = "GET", decode = file_list,
    path = "/directories/list" .. url.query { { "path", path }, { "depth", opts.depth } } })
end

---@class opensandbox.CommandStatus
---@field id string
---@field command string
---@field running boolean
---@field exit_code? integer nil while it runs; -1 when a signal ended it
---@field error? string
---@field started_at? number Unix seconds
---@field finished_at? number Unix seconds

--- How a command is doing: GET /command/status/{id}.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param id string
---@return opensandbox.CommandStatus? status
---@return opensandbox.Error? err
function execd.get_command_status(self, endpoint, id)
  local op = "get_command_status"
  options.identifier(op, "the command id", id)
  return self:_execd(endpoint, { op = op, method = "GET", path = "/command/status/" .. url.escape(id), decode = function(answer)
    if type(answer.running) ~= "boolean" then return nil, "status" end
    return { id = answer.id, command = answer.content, running = answer.running, exit_code = answer.exit_code, error = answer.error,
      started_at = time.parse(answer.started_at), finished_at = time.parse(answer.finished_at) }
  end })
end

--- Output of a background command, stdout and stderr in the order they were written: GET /command/{id}/logs.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param id string
---@param cursor? integer byte offset to go on from, default 0
---@return string? text
---@return integer|opensandbox.Error cursor for the next call, or the error
function execd.get_command_logs(self, endpoint, id, cursor)
  local op = "get_command_logs"
  options.identifier(op, "the command id", id)
  if cursor ~= nil then options.argument(op, "the cursor", cursor, "count") end
  local text, err, ex = self:_execd(endpoint, { op = op, method = "GET",
    path = "/command/" .. url.escape(id) .. "/logs" .. url.query { { "cursor", ("%d"):format(cursor or 0) } } })
  if not text then return nil, err end
  return text, tonumber(ex.headers["execd-commands-tail-cursor"]) or (cursor or 0) + #text
end

--- Ends a running command: SIGTERM to its process group, SIGKILL after 3 seconds: DELETE /command.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param id string
---@return true? ok
---@return opensandbox.Error? err
function execd.interrupt_command(self, endpoint, id)
  local op = "interrupt_command"
  options.identifier(op, "the command id", id)
  local path = "/command" .. url.query { { "id", id } }
  local _, err = self:_execd(endpoint, { op = op, method = "DELETE", path = path, may_repeat = false, ends_things = true })
  if err then return nil, err end
  return true
end


return execd
