--- The files of one sandbox: `sandbox.files`.

local arguments = require "opensandbox.files.arguments"
local class = require "opensandbox.base.class"
local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local deadline = require "opensandbox.loop.deadline"
local endpoint_call = require "opensandbox.http.endpoint_call"
local errors = require "opensandbox.base.errors"
local lazy = require "opensandbox.base.lazy"
local limited_target = require "opensandbox.files.limited_target"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"

-- Files that are loaded when a method first needs them.
local parts = lazy.modules {
  append = "opensandbox.files.append",
  empty_directory = "opensandbox.files.empty_directory",
  file_watcher = "opensandbox.file_watcher",
  literal_paths = "opensandbox.files.literal_paths",
  local_target = "opensandbox.files.local_target",
  verification = "opensandbox.files.verification",
}

---@class opensandbox.FileTarget where file operations happen: a sandbox, or an isolated session inside one
---@field id string of the sandbox
---@field client opensandbox.Client
---@field endpoint opensandbox.EndpointLookup returns the endpoint that has the file routes
---@field run fun(op: string, script: string, opts: table, sink: nil, limit?: opensandbox.Deadline): opensandbox.CommandResult?, opensandbox.Error? runs a script; opts: cwd, timeout
---@field whole? opensandbox.FileTarget of a view: the target itself, see limited_target.lua
---@field literal_paths? boolean the file routes use every path unchanged
---@field temporary_directory? string absolute path, default "/tmp"
---@field ignore? string[] patterns, as in a .gitignore, of files that are not the user's: downloads of directories omit them
---@field absolute? fun(op: string, path: string): string?, opensandbox.Error? the absolute path for any path; default: execd is asked
---@field has_users? boolean its commands can run as any user, and execd may have its file routes for each
---@field base? opensandbox.FileTarget the same as the user of execd, see files:as
---@field pipe? fun(op: string, script: string, opts: table, sink: fun(bytes: string)): opensandbox.CommandResult?, opensandbox.Error? runs a script and passes its stdout to the sink; it is present where a command cannot leave a file for a download

--- The files of a sandbox. Strings are bytes, paths are absolute or relative to the directory of execd.
--- ```lua
--- assert(sandbox.files:write("/work/a.txt", "some bytes"))
--- ```
---@class opensandbox.Files
---@field target opensandbox.FileTarget internal
---@field upload_dir fun(self: opensandbox.Files, from: string, to: string, opts?: opensandbox.UploadDirOpts): opensandbox.TreeCount?, opensandbox.Error?
---@field as fun(self: opensandbox.Files, uid: integer, gid: integer): opensandbox.Files
---@field download_dir fun(self: opensandbox.Files, from: string, to: string, opts?: opensandbox.DownloadDirOpts): opensandbox.TreeCount?, opensandbox.Error?
local Files = {}
Files.__name = "opensandbox.Files"

local files = {}

--- Returns the files of a target.
---@param target opensandbox.FileTarget
---@return opensandbox.Files
function files.of(target)
  return setmetatable({ target = target }, Files)
end

-- Calls a client method with the endpoint of the files.
local function call(target, op, method, ...)
  return endpoint_call.call(target.client, op, target.endpoint, method, ...)
end

-- Returns a view of the target whose calls all end when the time limit of the options has passed, and the limit.
local function within(self, timeout)
  local limit = deadline.new(timeout)
  return limited_target(self.target, limit), limit
end

-- Checks a path. Returns whether execd would change it, so that it needs literal_paths.
local function check_path(self, op, path)
  options.argument(op, "the path", path, "nonempty string")
  return not self.target.literal_paths and paths.expansion(path) ~= nil
end

-- Sends one file. With `verify` the checksums are compared.
local function send(self, op, file, opts)
  file.mode, file.owner, file.group = opts.mode, opts.owner, opts.group
  local upload_opts, target = { on_progress = opts.on_progress, timeout = opts.timeout }, within(self, opts.timeout)
  local path = file.path
  local function upload(to_send)
    if opts.verify then return parts.verification.upload(target, op, to_send, upload_opts, path) end
    return call(target, op, "upload_files", { to_send }, upload_opts)
  end
  if check_path(self, op, path) then return parts.literal_paths.upload(target, op, file, upload) end
  return upload(file)
end

--- The options of `write` and `upload`.
--- ```lua
--- assert(sandbox.files:write("/work/run.sh", script, {
---   mode = "0755", owner = "root", group = "root", verify = true, timeout = 60,
---   on_progress = function(done, total) print(done, total) end,
--- }))
--- ```
---@class opensandbox.WriteOpts
---@field mode? string|integer "0644", "rw-r--r--" or 644; default: 0755 for a new file, that of an existing one
---@field owner? string name of a user
---@field group? string name of a group
---@field verify? boolean compare size and CRC of the file in the sandbox with those of the content
---@field on_progress? fun(done: number, total?: number) called with bytes done, and bytes in all if they are known
---@field timeout? opensandbox.Duration for the whole upload; default: none

local write_options = {
  mode = "any", owner = "nonempty string", group = "nonempty string", on_progress = "function", verify = "boolean",
  timeout = "seconds",
}

--- Writes a file. Its directories are created, and an existing file is overwritten in place: POST /files/upload.
--- ```lua
--- assert(sandbox.files:write("/work/a.txt", "some bytes\0\255", { mode = "0600" }))
--- local number = 0
--- assert(sandbox.files:write("/work/numbers.txt", function()
---   number = number + 1
---   return number <= 1000000 and number .. "\n" or nil
--- end))
--- ```
---@param path string
---@param content string|file*|fun(): string? the bytes, a handle open for reading, or a function that returns the next bytes and nil at the end
---@param opts? opensandbox.WriteOpts
---@return true? ok
---@return opensandbox.Error? err
function Files:write(path, content, opts)
  local op = "files:write"
  check_path(self, op, path)
  opts = options.check(op, opts, write_options)
  return send(self, op, { path = path, content = content }, opts)
end

--- The options of `append`.
--- ```lua
--- assert(sandbox.files:append("/work/log", "one line\n", { on_progress = print, timeout = 60 }))
--- ```
---@class opensandbox.AppendOpts
---@field on_progress? fun(done: number, total?: number) called with bytes done, and bytes in all if they are known
---@field timeout? opensandbox.Duration for the whole; default: none

local append_options = { on_progress = "function", timeout = "seconds" }

--- Appends to a file, which is created with its directories if it is missing: POST /files/upload of a temporary file, and one command that
--- appends it. Bytes that other processes append are not overwritten. The bytes are sent once: after an error, none or some of them may
--- have been appended.
--- ```lua
--- assert(sandbox.files:append("/work/log", "one line\n"))
--- ```
---@param path string
---@param content string|file*|fun(): string? the bytes, a handle open for reading, or a function that returns the next bytes and nil at the end
---@param opts? opensandbox.AppendOpts
---@return true? ok
---@return opensandbox.Error? err
function Files:append(path, content, opts)
  local op = "files:append"
  check_path(self, op, path)
  arguments.check_upload(op, { path = path, content = content })
  opts = options.check(op, opts, append_options)
  local target = within(self, opts.timeout)
  return parts.append(target, op, path, { content = content }, function(file)
    return call(target, op, "upload_files", { file }, { on_progress = opts.on_progress, timeout = opts.timeout })
  end)
end

local function open(self, op, path, opts)
  local is_literal = check_path(self, op, path)
  opts = arguments.check_download(op, opts)
  local target = within(self, opts.timeout)
  if is_literal then return parts.literal_paths.open(target, op, path, opts) end
  return call(target, op, "download_file", path, opts)
end

--- Returns the bytes of a file: GET /files/download.
--- ```lua
--- local bytes = assert(sandbox.files:read("/work/a.txt"))
--- local first = assert(sandbox.files:read("/work/a.txt", { offset = 0, length = 100 }))
--- ```
---@param path string
---@param opts? opensandbox.DownloadOpts
---@return string? bytes
---@return opensandbox.Error? err
function Files:read(path, opts)
  local op = "files:read"
  local reader, err = open(self, op, path, opts)
  if not reader then return nil, err end
  return reader:read("a")
end

--- Opens a file for reading: GET /files/download.
--- ```lua
--- local reader = assert(sandbox.files:open("/work/big.log"))
--- for line in reader:lines() do print(line) end
--- ```
---@param path string
---@param opts? opensandbox.DownloadOpts
---@return opensandbox.Reader? reader
---@return opensandbox.Error? err
function Files:open(path, opts)
  local reader, err = open(self, "files:open", path, opts)
  if reader then reader.target = self.target end
  return reader, err
end

local function stat(self, op, path, opts)
  local is_literal = check_path(self, op, path)
  local target = within(self, options.timeout(op, opts))
  if is_literal then return parts.literal_paths.stat(target, op, path) end
  local infos, err = call(target, op, "file_info", path)
  if not infos then return nil, err end
  local _, info = next(infos)
  if info then return info end
  return nil, errors.new { kind = "protocol", code = "unexpected_response", op = op, message = "the response holds no file",
    sandbox_id = self.target.id }
end

--- Returns facts about a file or directory: GET /files/info. Symlinks are not followed.
--- ```lua
--- local info = assert(sandbox.files:stat("/work/a.txt"))
--- print(info.size, info.mode, info.modified_at)
--- ```
---@param path string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.FileInfo? info
---@return opensandbox.Error? err
function Files:stat(path, opts)
  return stat(self, "files:stat", path, opts)
end

--- Returns whether a file or directory of that name exists.
--- ```lua
--- if sandbox.files:exists("/work/Makefile") then sandbox:run("make", { cwd = "/work" }) end
--- ```
---@param path string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return boolean? exists nil if that is not known
---@return opensandbox.Error? err
function Files:exists(path, opts)
  local info, err = stat(self, "files:exists", path, opts)
  if info then return true end
  if err.status == 404 and err.code == "FILE_NOT_FOUND" then return false end
  if err.status == 500 and err.message:find("not a directory", 1, true) then return false end -- a parent is a file
  return nil, err
end

--- Returns the files below a directory whose base name matches a pattern: GET /files/search. Directories are not included.
--- ```lua
--- for _, file in ipairs(assert(sandbox.files:search("/work", "*.{c,h}"))) do print(file.path, file.size) end
--- ```
---@param dir string
---@param pattern? string `* ? [..] {a,b}`; default: all files
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function Files:search(dir, pattern, opts)
  local op = "files:search"
  local is_literal = check_path(self, op, dir)
  local target = within(self, options.timeout(op, opts))
  if is_literal then return parts.literal_paths.search(target, op, dir, pattern) end
  return call(target, op, "search_files", dir, pattern)
end

local list_options = { depth = "natural", timeout = "seconds" }

--- Returns the entries of a directory: GET /directories/list.
--- ```lua
--- for _, entry in ipairs(assert(sandbox.files:list("/work", { depth = 2 }))) do print(entry.type, entry.path) end
--- ```
---@param path string
---@param opts? { depth?: integer, timeout?: opensandbox.Duration } depth: levels of directories, default 1; timeout in seconds
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function Files:list(path, opts)
  local op = "files:list"
  local is_literal = check_path(self, op, path)
  opts = options.check(op, opts, list_options)
  local target = within(self, opts.timeout)
  if is_literal then return parts.literal_paths.list(target, op, path, opts.depth) end
  return call(target, op, "list_directory", path, { depth = opts.depth })
end

local remove_options = { recursive = "boolean", timeout = "seconds" }

--- Removes files, or with `recursive` directories and everything in them: DELETE /files, DELETE /directories. If a path does not
--- exist, that is a success.
--- ```lua
--- assert(sandbox.files:remove { "/work/a.txt", "/work/b.txt" })
--- assert(sandbox.files:remove("/work/build", { recursive = true }))
--- ```
---@param path string|string[]
---@param opts? { recursive?: boolean, timeout?: opensandbox.Duration } timeout in seconds, for all paths together
---@return true? ok
---@return opensandbox.Error? err
function Files:remove(path, opts)
  local op = "files:remove"
  opts = options.check(op, opts, remove_options)
  if type(path) == "string" then path = { path } end
  path = options.argument(op, "the paths", path, "string list")
  local plain, literal = {}, {}
  for _, entry in ipairs(path) do
    local list = check_path(self, op, entry) and literal or plain
    list[#list + 1] = entry
  end
  local target = within(self, opts.timeout)
  if #plain > 0 or #literal == 0 then
    local ok, err = call(target, op, opts.recursive and "delete_directories" or "delete_files", plain)
    if not ok then return nil, err end
  end
  for _, entry in ipairs(literal) do
    local ok, err = parts.literal_paths.remove(target, op, entry, opts.recursive)
    if not ok then return nil, err end
  end
  return true
end

--- Permissions and owner of a new directory.
--- ```lua
--- assert(sandbox.files:mkdir("/work/private", { mode = "0700", owner = "root", group = "root" }))
--- ```
---@class opensandbox.AccessOpts
---@field mode? string|integer "0755", "rwxr-xr-x" or 755
---@field owner? string name of a user
---@field group? string name of a group

local mkdir_options = { mode = "any", owner = "nonempty string", group = "nonempty string", timeout = "seconds" }

--- Creates a directory and its parents: POST /directories. An existing directory is not changed.
--- ```lua
--- assert(sandbox.files:mkdir("/work/a/b", { mode = "0700" }))
--- ```
---@param path string
---@param opts? opensandbox.MkdirOpts
---@return true? ok
---@return opensandbox.Error? err
function Files:mkdir(path, opts)
  local op = "files:mkdir"
  opts = options.check(op, opts, mkdir_options)
  local is_literal = check_path(self, op, path)
  local target, access = within(self, opts.timeout), { mode = opts.mode, owner = opts.owner, group = opts.group }
  if is_literal then return parts.literal_paths.mkdir(target, op, path, access) end
  return call(target, op, "make_directories", path, access)
end

--- Removes an empty directory, by a command in the sandbox. A directory that is not empty is an error with the code
--- `directory_not_empty`; `remove(path, { recursive = true })` removes it. If the path does not exist, that is a success.
--- ```lua
--- assert(sandbox.files:rmdir("/work/a/b"))
--- ```
---@param path string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function Files:rmdir(path, opts)
  local op = "files:rmdir"
  check_path(self, op, path)
  return parts.empty_directory.remove(within(self, options.timeout(op, opts)), op, path)
end

--- Moves a file or a directory: POST /files/mv. The parents of the new path are created. An existing file is never overwritten.
--- ```lua
--- assert(sandbox.files:move("/work/a.txt", "/work/old/a.txt"))
--- ```
---@param from string
---@param to string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function Files:move(from, to, opts)
  local op = "files:move"
  local from_is_literal, to_is_literal = check_path(self, op, from), check_path(self, op, to)
  local target = within(self, options.timeout(op, opts))
  if from_is_literal or to_is_literal then return parts.literal_paths.move(target, op, from, to) end
  return call(target, op, "move_files", { { from = from, to = to } })
end

local chmod_options = { owner = "nonempty string", group = "nonempty string", timeout = "seconds" }

--- Changes permissions and owner: POST /files/permissions. Symlinks are followed.
--- ```lua
--- assert(sandbox.files:chmod("/work/run.sh", "0755", { owner = "root" }))
--- ```
---@param path string
---@param mode? string|integer "0644", "rw-r--r--" or 644; nil keeps it
---@param opts? { owner?: string, group?: string, timeout?: opensandbox.Duration } names of the owner and the group; timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function Files:chmod(path, mode, opts)
  local op = "files:chmod"
  opts = options.check(op, opts, chmod_options)
  local is_literal = check_path(self, op, path)
  local target, access = within(self, opts.timeout), { mode = mode, owner = opts.owner, group = opts.group }
  if is_literal then return parts.literal_paths.chmod(target, op, path, access) end
  return call(target, op, "set_permissions", { [path] = access })
end

--- Replaces each occurrence of a text in a file, byte for byte: POST /files/replace.
--- ```lua
--- local count = assert(sandbox.files:replace("/work/config.ini", "debug=0", "debug=1"))
--- ```
---@param path string
---@param old string
---@param new string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return integer? count of replacements; 0 also from an execd before 1.0.19, which does not count
---@return opensandbox.Error? err
function Files:replace(path, old, new, opts)
  local op = "files:replace"
  local change = { old = old, new = new }
  local is_literal = check_path(self, op, path)
  local target = within(self, options.timeout(op, opts))
  if is_literal then return parts.literal_paths.replace(target, op, path, change) end
  local counts, err = call(target, op, "replace_in_files", { [path] = change })
  if not counts then return nil, err end
  return counts[path] or 0
end

--- Uploads a local file, which is read while it is sent: POST /files/upload.
--- ```lua
--- assert(sandbox.files:upload("data.tar", "/work/data.tar", { on_progress = function(done, total) print(done, total) end }))
--- ```
---@param from string local path
---@param to string path in the sandbox
---@param opts? opensandbox.WriteOpts
---@return true? ok
---@return opensandbox.Error? err
function Files:upload(from, to, opts)
  local op = "files:upload"
  options.argument(op, "the local path", from, "nonempty string")
  check_path(self, op, to)
  opts = options.check(op, opts, write_options)
  local kind, problem = core.stat(from)
  if kind ~= "file" then
    problem = kind == "directory" and "is a directory" or kind and "is not a regular file" or problem
    return nil, errors.local_file(op, from, problem)
  end
  return send(self, op, { path = to, file = from }, opts)
end

--- The options of `download`.
--- ```lua
--- assert(sandbox.files:download("/work/out.tar", "out.tar", {
---   verify = true, timeout = 600, on_progress = function(done, total) print(done, total) end,
--- }))
--- ```
---@class opensandbox.FileDownloadOpts
---@field on_progress? fun(done: number, total?: number) called with bytes done, and bytes in all if they are known
---@field verify? boolean compare size and CRC of the download with those of the file, before the local file is replaced
---@field timeout? opensandbox.Duration for the download; default: none

local download_options = { on_progress = "function", verify = "boolean", timeout = "seconds" }

-- Downloads into a temporary file, and compares the checksums if that is wanted.
local function download_part(self, source, op, from, target, opts)
  local part = target.part
  local save_opts = { on_progress = opts.on_progress, mode = target.part_mode, timeout = opts.timeout }
  local ok, err
  if check_path(self, op, from) then
    ok, err = parts.literal_paths.save(source, op, from, part, save_opts)
  else
    ok, err = call(source, op, "save_file", from, part, save_opts)
  end
  if not ok and not target.is_copied and err.message:sub(1, #part) == part then
    err.message = target.path .. err.message:sub(#part + 1) -- the caller does not know the temporary name
  end
  if not ok or not opts.verify then return ok, err end
  return parts.verification.compare_file(source, op, from, part)
end

--- Downloads a file to a local path: GET /files/download. It is written under a temporary name and renamed when it is complete.
--- After a failure the old file still exists, and the temporary one does not.
---
--- An existing local file keeps its kind. The bytes are copied into a device, through a symlink, and into a file that is mounted,
--- has other names or another owner. A FIFO, a socket and a file without write permission are errors.
--- ```lua
--- assert(sandbox.files:download("/work/out.tar", "out.tar", { verify = true }))
--- ```
---@param from string path in the sandbox
---@param to string local path
---@param opts? opensandbox.FileDownloadOpts
---@return true? ok
---@return opensandbox.Error? err
function Files:download(from, to, opts)
  local op = "files:download"
  options.argument(op, "the local path", to, "nonempty string")
  check_path(self, op, from)
  opts = options.check(op, opts, download_options)
  local source, limit = within(self, opts.timeout)
  local target, err = parts.local_target.open(op, to)
  if not target then return nil, err end
  if opts.verify then
    local has_cksum
    has_cksum, err = parts.verification.require_cksum(source, { op = op, deadline = limit })
    if not has_cksum then return nil, err end
  end
  local ok, value
  ok, value, err = coxpcall.pcall(download_part, self, source, op, from, target, opts)
  if ok and value then return target:commit() end
  target:discard()
  if not ok then error(value, 0) end
  return nil, err
end

--- Iterates over the changes of a file, or of a directory with everything in it, from now on. They are polled by one short command each
--- time, so a file that exists only between two polls is not reported. Names that hold a newline are not watched. Needs find, stat and cksum in the
--- sandbox. An error is raised by the loop, also one of the first poll.
--- ```lua
--- for change in sandbox.files:watch("/work") do print(change.type, change.path) end
--- ```
---@param path string it need not exist
---@param opts? opensandbox.WatchOpts
---@return opensandbox.FileWatcher watcher for a `for` loop; or call its method `next`
---@return nil state of the loop
---@return nil control of the loop
---@return opensandbox.FileWatcher closing value of the loop
function Files:watch(path, opts)
  check_path(self, "files:watch", path)
  local watcher = parts.file_watcher.new(self.target, path, opts)
  return watcher, nil, nil, watcher
end

class.define(Files, { name = "files", methods = {
  ["opensandbox.files.directories"] = { "upload_dir", "download_dir" },
  ["opensandbox.files.identity"] = { "as" },
} })

return files
