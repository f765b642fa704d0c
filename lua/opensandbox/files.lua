--- The files of one sandbox: `sandbox.files`.

local class = require "opensandbox.base.class"
local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local deadline = require "opensandbox.loop.deadline"
local endpoint_call = require "opensandbox.http.endpoint_call"
local errors = require "opensandbox.base.errors"
local lazy = require "opensandbox.base.lazy"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"

-- Files that are loaded when a method first needs them.
local parts = lazy.modules {
  empty_directory = "opensandbox.files.empty_directory",
  literal_paths = "opensandbox.files.literal_paths",
  local_target = "opensandbox.files.local_target",
  verification = "opensandbox.files.verification",
}

---@class opensandbox.FileTarget where file operations happen: a sandbox, or an isolated session inside one
---@field id string of the sandbox
---@field client opensandbox.Client
---@field endpoint fun(op: string): opensandbox.Endpoint?, opensandbox.Error? the endpoint that has the file routes
---@field run fun(op: string, script: string, opts: table): opensandbox.CommandResult?, opensandbox.Error? runs a script; opts: cwd, timeout
---@field temporary_directory? string absolute path, default "/tmp"
---@field ignore? string[] patterns, as in a .gitignore, of files that are not the user's: downloads of directories omit them
---@field absolute? fun(op: string, path: string): string?, opensandbox.Error? the absolute path for any path; default: execd is asked
---@field pipe? fun(op: string, script: string, opts: table, sink: fun(bytes: string)): opensandbox.CommandResult?, opensandbox.Error? runs a script and passes its stdout to the sink; it is present where a command cannot leave a file for a download

---@class opensandbox.Files
---@field target opensandbox.FileTarget
---@field upload_dir fun(self: opensandbox.Files, from: string, to: string, opts?: opensandbox.UploadDirOpts): opensandbox.TreeCount?, opensandbox.Error?
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
local function call(self, op, method, ...)
  return endpoint_call(self.target.client, op, self.target.endpoint, method, ...)
end

-- Checks a path. Returns whether execd would change it, so that it needs literal_paths.
local function check_path(op, path)
  options.argument(op, "the path", path, "nonempty string")
  return paths.expansion(path) ~= nil
end

-- Sends one file. With `verify` the checksums are compared.
local function send(self, op, file, opts)
  file.mode, file.owner, file.group = opts.mode, opts.owner, opts.group
  local upload_opts = { on_progress = opts.on_progress, timeout = opts.timeout }
  local path = file.path
  local function upload(one)
    if opts.verify then return parts.verification.upload(self.target, op, one, upload_opts, path) end
    return call(self, op, "upload_files", { one }, upload_opts)
  end
  if paths.expansion(path) then return parts.literal_paths.upload(self.target, op, file, upload) end
  return upload(file)
end

---@class opensandbox.WriteOpts
---@field mode? string|integer "0644", "rw-r--r--" or 644; default: 0755 for a new file, that of an existing one
---@field owner? string name of a user
---@field group? string name of a group
---@field verify? boolean compare size and CRC of the file in the sandbox with those of the content
---@field on_progress? fun(done: number, total?: number) called with bytes done, and bytes in all if they are known
---@field timeout? number seconds for the whole upload; default: none

local write_options = {
  mode = "any", owner = "nonempty string", group = "nonempty string", on_progress = "function", verify = "boolean",
  timeout = "seconds",
}

--- Writes a file. Its directories are created, and an existing file is overwritten in place: POST /files/upload.
---@param path string
---@param content string|file*|fun(): string? the bytes, a handle open for reading, or a function that returns the next bytes and nil at the end
---@param opts? opensandbox.WriteOpts
---@return true? ok
---@return opensandbox.Error? err
function Files:write(path, content, opts)
  local op = "files:write"
  check_path(op, path)
  opts = options.check(op, opts, write_options)
  return send(self, op, { path = path, content = content }, opts)
end

local function open(self, op, path, opts)
  if check_path(op, path) then return parts.literal_paths.open(self.target, op, path, opts) end
  return call(self, op, "download_file", path, opts)
end

--- Returns the bytes of a file: GET /files/download.
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
---@param path string
---@param opts? opensandbox.DownloadOpts
---@return opensandbox.Reader? reader
---@return opensandbox.Error? err
function Files:open(path, opts)
  return open(self, "files:open", path, opts)
end

local function stat(self, op, path)
  if check_path(op, path) then return parts.literal_paths.stat(self.target, op, path) end
  local infos, err = call(self, op, "file_info", path)
  if not infos then return nil, err end
  local _, info = next(infos)
  if info then return info end
  return nil, errors.new { kind = "protocol", code = "unexpected_response", op = op, message = "the response holds no file",
    sandbox_id = self.target.id }
end

--- Returns facts about a file or directory: GET /files/info. Symlinks are not followed.
---@param path string
---@return opensandbox.FileInfo? info
---@return opensandbox.Error? err
function Files:stat(path)
  return stat(self, "files:stat", path)
end

--- Returns whether a file or directory of that name exists.
---@param path string
---@return boolean? exists nil if that is not known
---@return opensandbox.Error? err
function Files:exists(path)
  local info, err = stat(self, "files:exists", path)
  if info then return true end
  if err.status == 404 and err.code == "FILE_NOT_FOUND" then return false end
  if err.status == 500 and err.message:find("not a directory", 1, true) then return false end -- a parent is a file
  return nil, err
end

--- Returns the files below a directory whose base name matches a pattern: GET /files/search. Directories are not included.
---@param dir string
---@param pattern? string `* ? [..] {a,b}`; default: all files
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function Files:search(dir, pattern)
  local op = "files:search"
  if check_path(op, dir) then return parts.literal_paths.search(self.target, op, dir, pattern) end
  return call(self, op, "search_files", dir, pattern)
end

--- Returns the entries of a directory: GET /directories/list.
---@param path string
---@param opts? { depth?: integer } depth: levels of directories, default 1
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function Files:list(path, opts)
  local op = "files:list"
  if check_path(op, path) then return parts.literal_paths.list(self.target, op, path, opts) end
  return call(self, op, "list_directory", path, opts)
end

local remove_options = { recursive = "boolean" }

--- Removes files, or with `recursive` directories and everything in them: DELETE /files, DELETE /directories. If a path does not
--- exist, that is a success.
---@param path string|string[]
---@param opts? { recursive?: boolean }
---@return true? ok
---@return opensandbox.Error? err
function Files:remove(path, opts)
  local op = "files:remove"
  opts = options.check(op, opts, remove_options)
  if type(path) == "string" then path = { path } end
  path = options.argument(op, "the paths", path, "string list")
  local plain, literal = {}, {}
  for _, one in ipairs(path) do
    local list = check_path(op, one) and literal or plain
    list[#list + 1] = one
  end
  if #plain > 0 or #literal == 0 then
    local ok, err = call(self, op, opts.recursive and "delete_directories" or "delete_files", plain)
    if not ok then return nil, err end
  end
  for _, one in ipairs(literal) do
    local ok, err = parts.literal_paths.remove(self.target, op, one, opts.recursive)
    if not ok then return nil, err end
  end
  return true
end

---@class opensandbox.AccessOpts
---@field mode? string|integer "0755", "rwxr-xr-x" or 755
---@field owner? string name of a user
---@field group? string name of a group

local access_options = { mode = "any", owner = "nonempty string", group = "nonempty string" }

--- Creates a directory and its parents: POST /directories. An existing directory is not changed.
---@param path string
---@param opts? opensandbox.AccessOpts mode: default "0755"
---@return true? ok
---@return opensandbox.Error? err
function Files:mkdir(path, opts)
  local op = "files:mkdir"
  opts = options.check(op, opts, access_options)
  if check_path(op, path) then return parts.literal_paths.mkdir(self.target, op, path, opts) end
  return call(self, op, "make_directories", path, opts)
end

--- Removes an empty directory, by a command in the sandbox. A directory that is not empty is an error with the code
--- `directory_not_empty`; `remove(path, { recursive = true })` removes it. If the path does not exist, that is a success.
---@param path string
---@return true? ok
---@return opensandbox.Error? err
function Files:rmdir(path)
  local op = "files:rmdir"
  check_path(op, path)
  return parts.empty_directory.remove(self.target, op, path)
end

--- Moves a file or a directory: POST /files/mv. The parents of the new path are created. An existing file is never overwritten.
---@param from string
---@param to string
---@return true? ok
---@return opensandbox.Error? err
function Files:move(from, to)
  local op = "files:move"
  local from_is_literal, to_is_literal = check_path(op, from), check_path(op, to)
  if from_is_literal or to_is_literal then return parts.literal_paths.move(self.target, op, from, to) end
  return call(self, op, "move_files", { { from = from, to = to } })
end

local owner_options = { owner = "nonempty string", group = "nonempty string" }

--- Changes permissions and owner: POST /files/permissions. Symlinks are followed.
---@param path string
---@param mode? string|integer "0644", "rw-r--r--" or 644; nil keeps it
---@param opts? { owner?: string, group?: string } names
---@return true? ok
---@return opensandbox.Error? err
function Files:chmod(path, mode, opts)
  local op = "files:chmod"
  opts = options.check(op, opts, owner_options)
  local access = { mode = mode, owner = opts.owner, group = opts.group }
  if check_path(op, path) then return parts.literal_paths.chmod(self.target, op, path, access) end
  return call(self, op, "set_permissions", { [path] = access })
end

--- Replaces each occurrence of a text in a file, byte for byte: POST /files/replace.
---@param path string
---@param old string
---@param new string
---@return integer? count of replacements; 0 also from an execd before 1.0.19, which does not count
---@return opensandbox.Error? err
function Files:replace(path, old, new)
  local op = "files:replace"
  local change = { old = old, new = new }
  if check_path(op, path) then return parts.literal_paths.replace(self.target, op, path, change) end
  local counts, err = call(self, op, "replace_in_files", { [path] = change })
  if not counts then return nil, err end
  return counts[path] or 0
end

--- Uploads a local file, which is read while it is sent: POST /files/upload.
---@param from string local path
---@param to string path in the sandbox
---@param opts? opensandbox.WriteOpts
---@return true? ok
---@return opensandbox.Error? err
function Files:upload(from, to, opts)
  local op = "files:upload"
  options.argument(op, "the local path", from, "nonempty string")
  check_path(op, to)
  opts = options.check(op, opts, write_options)
  local kind, problem = core.stat(from)
  if kind ~= "file" then
    problem = kind == "directory" and "is a directory" or kind and "is not a regular file" or problem
    return nil, errors.local_file(op, from, problem)
  end
  return send(self, op, { path = to, file = from }, opts)
end

---@class opensandbox.FileDownloadOpts
---@field on_progress? fun(done: number, total?: number) called with bytes done, and bytes in all if they are known
---@field verify? boolean compare size and CRC of the download with those of the file, before the local file is replaced
---@field timeout? number seconds for the download; default: none

local download_options = { on_progress = "function", verify = "boolean", timeout = "seconds" }

-- Downloads into a temporary file, and compares the checksums if that is wanted.
local function download_part(self, op, from, target, opts)
  local part = target.part
  local save_opts = { on_progress = opts.on_progress, mode = target.part_mode, timeout = opts.timeout }
  local ok, err
  if paths.expansion(from) then
    ok, err = parts.literal_paths.save(self.target, op, from, part, save_opts)
  else
    ok, err = call(self, op, "save_file", from, part, save_opts)
  end
  if not ok and not target.is_copied and err.message:sub(1, #part) == part then
    err.message = target.path .. err.message:sub(#part + 1) -- the caller does not know the temporary name
  end
  if not ok or not opts.verify then return ok, err end
  return parts.verification.compare_file(self.target, op, from, part)
end

--- Downloads a file to a local path: GET /files/download. It is written under a temporary name and renamed when it is complete.
--- After a failure the old file still exists, and the temporary one does not.
---
--- An existing local file keeps its kind. The bytes are copied into a device, through a symlink, and into a file that is mounted,
--- has other names or another owner. A FIFO, a socket and a file without write permission are errors.
---@param from string path in the sandbox
---@param to string local path
---@param opts? opensandbox.FileDownloadOpts
---@return true? ok
---@return opensandbox.Error? err
function Files:download(from, to, opts)
  local op = "files:download"
  options.argument(op, "the local path", to, "nonempty string")
  check_path(op, from)
  opts = options.check(op, opts, download_options)
  local target, err = parts.local_target.open(op, to)
  if not target then return nil, err end
  if opts.verify then
    local has_cksum
    has_cksum, err = parts.verification.require_cksum(self.target, { op = op, deadline = deadline.new() })
    if not has_cksum then return nil, err end
  end
  local ok, value
  ok, value, err = coxpcall.pcall(download_part, self, op, from, target, opts)
  if ok and value then return target:commit() end
  target:discard()
  if not ok then error(value, 0) end
  return nil, err
end

class.define(Files, { name = "files", methods = {
  ["opensandbox.files.directories"] = { "upload_dir", "download_dir" },
} })

return files
