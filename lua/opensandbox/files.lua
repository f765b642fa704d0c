--- The files of one sandbox: `sandbox.files`.

local core = require "opensandbox.core"
local deadline = require "opensandbox.loop.deadline"
local directories = require "opensandbox.files.directories"
local endpoint_call = require "opensandbox.http.endpoint_call"
local errors = require "opensandbox.base.errors"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local coxpcall = require "opensandbox.loop.coxpcall"
local random = require "opensandbox.base.random"
local verify = require "opensandbox.files.checksum"

---@class opensandbox.FileTarget where file operations happen: a sandbox, or an isolated session inside one
---@field id string of the sandbox
---@field client opensandbox.Client
---@field endpoint fun(op: string): opensandbox.Endpoint?, opensandbox.Error? the endpoint that has the file routes
---@field run fun(op: string, script: string, opts: table): opensandbox.CommandResult?, opensandbox.Error? runs a script; opts: cwd, timeout

---@class opensandbox.Files
---@field target opensandbox.FileTarget
---@field upload_dir fun(self: opensandbox.Files, from: string, to: string, opts?: table): opensandbox.TreeCount?, opensandbox.Error?
---@field download_dir fun(self: opensandbox.Files, from: string, to: string, opts?: table): opensandbox.TreeCount?, opensandbox.Error?
local Files = {}
Files.__index = Files
Files.__name = "opensandbox.Files"

local files = {}

--- The files of a target.
---@param target opensandbox.FileTarget
---@return opensandbox.Files
function files.of(target)
  return setmetatable({ target = target }, Files)
end

-- Calls a client method with the endpoint of the files.
local function with_execd(self, op, method, ...)
  return endpoint_call(self.target.client, op, self.target.endpoint, method, ...)
end

for name, method in pairs(directories) do Files[name] = method end

-- Sends one file; with `verify`, what arrived is compared.
local function send(self, op, file, opts, progress)
  file.mode, file.owner, file.group = opts.mode, opts.owner, opts.group
  if opts.verify then return verify.upload(self.target, op, file, { on_progress = progress }) end
  return with_execd(self, op, "upload_files", { file }, { on_progress = progress })
end

local write_options = { mode = "any", owner = "nonempty string", group = "nonempty string", verify = "boolean" }

--- Writes a file; its directories are made.
---@param path string
---@param content string|file*|fun(): string?
---@param opts? table mode ("0644", "rw-r--r--" or 644), owner, group, verify (compare size and CRC of what arrived)
---@return true? ok
---@return opensandbox.Error? err
function Files:write(path, content, opts)
  local op = "files:write"
  paths.check(op, path)
  opts = options.check(op, opts, write_options)
  return send(self, op, { path = path, content = content }, opts)
end

--- The bytes of a file.
---@param path string
---@param opts? table offset, length (bytes), or lines { first, count }
---@return string? bytes
---@return opensandbox.Error? err
function Files:read(path, opts)
  local op = "files:read"
  local reader, err = with_execd(self, op, "download_file", paths.check(op, path), opts)
  if not reader then return nil, err end
  return reader:read("a")
end

--- Opens a file for reading piece by piece.
---@param path string
---@param opts? table as for read
---@return opensandbox.Reader? reader
---@return opensandbox.Error? err
function Files:open(path, opts)
  local op = "files:open"
  return with_execd(self, op, "download_file", paths.check(op, path), opts)
end

--- What is known of a file or directory. Symlinks are not followed.
---@param path string
---@return opensandbox.FileInfo? info
---@return opensandbox.Error? err
function Files:stat(path)
  local op = "files:stat"
  local infos, err = with_execd(self, op, "file_info", paths.check(op, path))
  if not infos then return nil, err end
  local _, info = next(infos)
  if info then return info end
  return nil, errors.new { kind = "protocol", code = "unexpected_response", op = op, message = "the answer holds no file",
    sandbox_id = self.target.id }
end

--- Whether there is a file or directory of that name.
---@param path string
---@return boolean? exists nil when it cannot be told
---@return opensandbox.Error? err
function Files:exists(path)
  local info, err = self:stat(path)
  if info then return true end
  if err.status == 404 and err.code == "FILE_NOT_FOUND" then return false end
  return nil, err
end

--- Files below a directory whose base name matches; never directories.
---@param dir string
---@param pattern? string `* ? [..] {a,b}`; default: all
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function Files:search(dir, pattern)
  local op = "files:search"
  return with_execd(self, op, "search_files", paths.check(op, dir), pattern)
end

--- The entries of a directory.
---@param path string
---@param opts? table depth (default 1)
---@return opensandbox.FileInfo[]? list
---@return opensandbox.Error? err
function Files:list(path, opts)
  local op = "files:list"
  return with_execd(self, op, "list_directory", paths.check(op, path), opts)
end

local remove_options = { recursive = "boolean" }

--- Removes a file, or with `recursive` a directory and all in it. What does not exist is a success.
---@param path string|string[]
---@param opts? table recursive
---@return true? ok
---@return opensandbox.Error? err
function Files:remove(path, opts)
  local op = "files:remove"
  if type(path) == "string" then paths.check(op, path) end
  opts = options.check(op, opts, remove_options)
  return with_execd(self, op, opts.recursive and "delete_directories" or "delete_files", path)
end

local access_options = { mode = "any", owner = "nonempty string", group = "nonempty string" }

--- Makes a directory, and those above it. One that exists stays as it is.
---@param path string
---@param opts? table mode ("0755", the default; "rwxr-xr-x" or 755), owner, group
---@return true? ok
---@return opensandbox.Error? err
function Files:mkdir(path, opts)
  local op = "files:mkdir"
  opts = options.check(op, opts, access_options)
  return with_execd(self, op, "make_directories", paths.check(op, path), opts)
end

--- Removes a directory and all that is in it. One that does not exist is a success.
---@param path string
---@return true? ok
---@return opensandbox.Error? err
function Files:rmdir(path)
  return self:remove(path, { recursive = true })
end

--- Moves a file or a directory. The directories above the new place are made; what exists there is never overwritten.
---@param from string
---@param to string
---@return true? ok
---@return opensandbox.Error? err
function Files:move(from, to)
  local op = "files:move"
  return with_execd(self, op, "move_files", { { from = paths.check(op, from), to = paths.check(op, to) } })
end

--- Changes permissions and owner. Symlinks are followed.
---@param path string
---@param mode? string|integer "0644", "rw-r--r--" or 644; nil: as it is
---@param opts? table owner, group
---@return true? ok
---@return opensandbox.Error? err
function Files:chmod(path, mode, opts)
  local op = "files:chmod"
  opts = options.check(op, opts, { owner = "nonempty string", group = "nonempty string" })
  return with_execd(self, op, "set_permissions",
    { [paths.check(op, path)] = { mode = mode, owner = opts.owner, group = opts.group } })
end

--- Replaces a text in a file, everywhere in it, byte for byte.
---@param path string
---@param old string
---@param new string
---@return integer? count of replacements; 0 also from an execd that does not count
---@return opensandbox.Error? err
function Files:replace(path, old, new)
  local op = "files:replace"
  local counts, err = with_execd(self, op, "replace_in_files", { [paths.check(op, path)] = { old = old, new = new } })
  if not counts then return nil, err end
  return counts[path] or 0
end

local upload_options = {
  mode = "any", owner = "nonempty string", group = "nonempty string", on_progress = "function", verify = "boolean",
}

--- Uploads a local file, reading it while it is sent.
---@param from string local path
---@param to string path in the sandbox
---@param opts? table mode, owner, group, on_progress (called with bytes done and bytes in all), verify (compare size and CRC of what arrived)
---@return true? ok
---@return opensandbox.Error? err
function Files:upload(from, to, opts)
  local op = "files:upload"
  options.argument(op, "the local path", from, "nonempty string")
  paths.check(op, to)
  opts = options.check(op, opts, upload_options)
  local kind, size = core.stat(from)
  if kind ~= "file" then
    local what = kind == "directory" and "is a directory" or kind and "is not a regular file" or size
    return nil, errors.local_file(op, from, what)
  end
  local progress = opts.on_progress and function(done) opts.on_progress(done, size) end
  return send(self, op, { path = to, file = from }, opts, progress)
end

local download_options = { on_progress = "function", verify = "boolean" }

-- Looks whether what arrived is what is there. The partial file is removed, too, when the task is told again that it was cancelled.
local function verified(self, op, from, partial)
  local ok, same, err = coxpcall.pcall(verify.download, self.target, op, from, partial)
  if ok then return same, err end
  os.remove(partial)
  error(same, 0)
end

--- Downloads a file to a local path. It is written under a temporary name beside the target and renamed when it is complete: after
--- any failure the old file is still there, and nothing else.
---@param from string path in the sandbox
---@param to string local path
---@param opts? table on_progress (called with bytes done and bytes in all), verify (compare size and CRC of what arrived, before the rename)
---@return true? ok
---@return opensandbox.Error? err
function Files:download(from, to, opts)
  local op = "files:download"
  options.argument(op, "the local path", to, "nonempty string")
  paths.check(op, from)
  opts = options.check(op, opts, download_options)
  local kind, _, mode = core.stat(to)
  if kind == "directory" then return nil, errors.local_file(op, to, "is a directory") end
  local ok, err
  if opts.verify then
    ok, err = verify.available(self.target, { op = op, deadline = deadline.new() })
    if not ok then return nil, err end
  end
  local partial = ("%s.%s.part"):format(to, random.hex(6))
  ok, err = with_execd(self, op, "save_file", from, partial, {
    on_progress = opts.on_progress, mode = kind and mode, -- who could not read the old file cannot read the new one
  })
  if ok and opts.verify then ok, err = verified(self, op, from, partial) end
  if ok then
    local problem
    ok, problem = os.rename(partial, to)
    if ok then return true end
    err = errors.local_file(op, to, problem)
  end
  os.remove(partial)
  if err.code == "sink_failed" then err.message = ("%s: %s"):format(to, err.message) end
  return nil, err
end

return files
