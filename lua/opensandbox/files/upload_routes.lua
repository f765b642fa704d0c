--- Uploads: POST /files/upload, from strings, files, file handles and reader functions. The content is never held in memory as a
--- whole.

local arguments = require "opensandbox.files.arguments"
local call = require "opensandbox.http.call"
local core = require "opensandbox.core"
local deadlines = require "opensandbox.loop.deadline"
local modes = require "opensandbox.base.modes"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local random = require "opensandbox.base.random"

---@class (partial) opensandbox.Client
local upload_routes = {}

local MAX_FILES_PER_REQUEST = 500 -- execd reads at most 1000 parts, and a file is two
local CHUNK_SIZE = 120 * 1024     -- bytes read from a handle at a time: malloc needs no mmap for them

--- A file to upload.
--- ```lua
--- local function reader() return nil end
--- assert(client:upload_files(execd, {
---   { path = "/work/a.txt", content = "some bytes", mode = "0644", owner = "root", group = "root" },
---   { path = "/work/b.txt", file = "b.txt" },
---   { path = "/work/c.txt", content = reader, size = 0 },
--- }))
--- ```
---@class opensandbox.FileUpload
---@field path string the file to write in the sandbox; its directories are created
---@field content? string|file*|fun(): string? the bytes, a handle open for reading, or a function that returns the next bytes and nil at the end
---@field file? string path of a local file, instead of content
---@field size? integer number of bytes that a reader function will return; not needed
---@field mode? string|integer "0644", "rw-r--r--" or 644; default: execd's
---@field owner? string name of a user
---@field group? string name of a group

-- Returns the number of bytes from the position of a handle to its end, or nil if that cannot be measured.
local function remaining_size(handle)
  local position = handle:seek("cur")
  local last = position and handle:seek("end")
  if not last or not handle:seek("set", position) then return nil end
  return last - position
end

-- Returns the size of a local file as the system reports it, or nil.
local function reported_size(path)
  local kind, size = core.stat(path)
  return kind and size
end

-- Returns the part for the content of a file, its reader function if it has one, and its size for the progress if that is known.
-- Files and handles are read to their end, and no length is announced for them: a file can grow or shrink, and files of /proc
-- report no size.
local function content_part(file)
  local content = file.content
  if file.file then return { path = file.file }, nil, reported_size(file.file) end
  if type(content) == "string" then return { data = content }, nil, #content end
  if type(content) == "function" then return { reader = true, size = file.size }, content, file.size end
  return { reader = true }, function() return content:read(CHUNK_SIZE) end, remaining_size(content)
end

local function metadata_of(op, file)
  return call.encode(op, { path = file.path, mode = modes.number(op, file.mode), owner = file.owner, group = file.group })
end

-- Returns the multipart body for files[first..last]. execd pairs the i-th metadata with the i-th file, and requires a filename for
-- both.
local function body_of(op, files, first, last)
  local parts, readers, metadata_size = {}, {}, 0
  for i = first, last do
    local file = files[i]
    local metadata = metadata_of(op, file)
    metadata_size = metadata_size + #metadata
    parts[#parts + 1] = { name = "metadata", filename = "metadata", type = "application/json", data = metadata }
    local part, reader = content_part(file)
    part.name, part.filename, part.type = "file", "file", "application/octet-stream"
    parts[#parts + 1] = part
    readers[#parts] = reader
  end
  return parts, readers, metadata_size
end

-- Checks all files before the first is sent. Returns the bytes of all of them, or nil if a size is not known.
local function check_files(endpoint, op, files)
  local total = 0
  options.argument(op, "the files", files, "table")
  for i, file in ipairs(files) do
    options.argument(op, "file " .. i, file, "table")
    paths.check_at(endpoint, op, file.path)
    arguments.check_upload(op, file)
    metadata_of(op, file)
    local _, _, size = content_part(file)
    total = total and size and total + size
  end
  if #files == 0 then options.raise(op, "the list of files must not be empty") end
  return total
end

-- Reports to the caller when bytes of content were sent. `progress` is that of all requests: callback, done, total.
local function report_progress(request, progress, metadata_size)
  local before, last = progress.done, -1
  function request.on_transfer_progress(_, sent)
    local done = before + math.max(sent - metadata_size, 0)
    if done == last then return end
    last, progress.done = done, done
    if progress.total and done > progress.total then progress.total = nil end -- a file has grown
    progress.callback(done, progress.total)
  end
end

--- The options of `client:upload_files`.
--- ```lua
--- assert(client:upload_files(execd, { { path = "/work/b.txt", file = "b.txt" } }, {
---   timeout = 600, idle_timeout = 30, on_progress = function(done, total) print(done, total) end,
--- }))
--- ```
---@class opensandbox.UploadOpts
---@field on_progress? fun(done: number, total?: number) called with bytes done, and bytes in all if the size of every file is known
---@field timeout? opensandbox.Duration for the whole upload; default: none
---@field idle_timeout? opensandbox.Duration without a byte; default: the client's transfer_idle_timeout

local upload_options = { on_progress = "function", timeout = "seconds", idle_timeout = "seconds" }

--- Writes files into the sandbox: POST /files/upload, for each 500 files. An existing file is overwritten in place.
---
--- An upload is never sent twice. Several files are written in order, and those before a failing one stay.
--- ```lua
--- assert(client:upload_files(execd, { { path = "/work/a.txt", content = "some bytes" }, { path = "/work/b.txt", file = "b.txt" } }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param files opensandbox.FileUpload[]
---@param opts? opensandbox.UploadOpts
---@return true? ok
---@return opensandbox.Error? err
function upload_routes:upload_files(endpoint, files, opts)
  local op = self.op or "upload_files"
  local total = check_files(endpoint, op, files)
  opts = options.check(op, opts, upload_options)
  local deadline = deadlines.new(opts.timeout)
  local progress = opts.on_progress and { callback = opts.on_progress, done = 0, total = total }
  for first = 1, #files, MAX_FILES_PER_REQUEST do
    local parts, readers, metadata_size = body_of(op, files, first, math.min(first + MAX_FILES_PER_REQUEST - 1, #files))
    local boundary = "opensandbox-" .. random.hex(16)
    local request = {
      op = op, method = "POST", path = "/files/upload", parts = parts, boundary = boundary, readers = readers, may_repeat = false,
      headers = { ["Content-Type"] = "multipart/form-data; boundary=" .. boundary },
      timeout = deadline:remaining() or 0, budget = deadline.seconds,
      idle_timeout = opts.idle_timeout or self.http.timeouts.transfer_idle_timeout,
      option_names = { idle_timeout = opts.idle_timeout and "idle_timeout" or "transfer_idle_timeout" },
    }
    if progress then report_progress(request, progress, metadata_size) end
    local _, err = self.http:call_endpoint(endpoint, request)
    if err then return nil, err end
  end
  return true
end

return upload_routes
