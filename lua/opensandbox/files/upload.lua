--- Uploads: POST /files/upload, from strings, files, file handles and reader functions, never held in memory as a whole.

local call = require "opensandbox.http.call"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local random = require "opensandbox.base.random"

local upload = {}

local FILES_A_REQUEST = 500 -- execd reads 1000 parts at most, two for each file
local PIECE = 120 * 1024     -- bytes read from a handle at a time: malloc needs no mmap for them

local file_options = {
  path = "any", content = "any", file = "nonempty string", mode = "any", owner = "nonempty string",
  group = "nonempty string", size = "natural",
}

---@class opensandbox.FileUpload
---@field path string where it goes in the sandbox; its directories are made
---@field content? string|file*|fun(): string? the bytes, a handle open for reading, or a function that gives the next bytes and nil at the end
---@field file? string path of a local file, instead of content
---@field size? integer bytes a reader function will give; not needed
---@field mode? string|integer "0644", "rw-r--r--" or 644; default: execd's
---@field owner? string name of a user
---@field group? string name of a group

-- Bytes from the current position of a handle to its end, or nil for what cannot be measured.
local function rest_of(handle)
  local here = handle:seek("cur")
  local last = here and handle:seek("end")
  if not last or not handle:seek("set", here) then return nil end
  return last - here
end

-- The bytes of a handle, for the binding: it must not give more than was promised, even when the file grows.
local function handle_reader(handle, size)
  local left = size or math.huge
  return function()
    if left <= 0 then return nil end
    local bytes, problem = handle:read(math.min(PIECE, left))
    if bytes then left = left - #bytes end
    return bytes, problem
  end
end

-- The part of a file's content, and its reader when it has one.
local function content_part(op, file)
  local content = file.content
  if (content == nil) == (file.file == nil) then options.raise(op, "a file needs 'content' or 'file', and not both") end
  if file.file then return { path = file.file } end
  if type(content) == "string" then return { data = content } end
  if type(content) == "function" then return { reader = true, size = file.size }, content end
  if io.type(content) == "file" then
    local size = rest_of(content)
    return { reader = true, size = size }, handle_reader(content, size)
  end
  options.raise(op, "the content must be a string, an open file or a function, not " .. (io.type(content) or "a " .. type(content)))
end

local function metadata_of(op, file)
  return call.encode(op, { path = file.path, mode = paths.mode(op, file.mode), owner = file.owner, group = file.group })
end

-- The multipart body for files[first..last]. execd pairs the i-th metadata with the i-th file; both need a filename.
local function body_of(op, files, first, last)
  local parts, readers, overhead = {}, {}, 0
  for i = first, last do
    local file = files[i]
    local metadata = metadata_of(op, file)
    overhead = overhead + #metadata
    parts[#parts + 1] = { name = "metadata", filename = "metadata", type = "application/json", data = metadata }
    local part, reader = content_part(op, file)
    part.name, part.filename, part.type = "file", "file", "application/octet-stream"
    parts[#parts + 1] = part
    readers[#parts] = reader
  end
  return parts, readers, overhead
end

local function check_files(op, files)
  options.argument(op, "the files", files, "table")
  for i, file in ipairs(files) do
    options.argument(op, "file " .. i, file, "table")
    options.check(op, file, file_options)
    paths.check(op, file.path)
    metadata_of(op, file)
    content_part(op, file)
  end
  if #files == 0 then options.raise(op, "the list of files must not be empty") end
end

local known_options = { on_progress = "function", idle_timeout = "seconds" }

--- Writes files into the sandbox: POST /files/upload, 500 files to a request. A file that exists is overwritten in place.
---
--- An upload is never sent twice. Several files are written in order, and those before a failing one stay.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param files opensandbox.FileUpload[]
---@param opts? table on_progress (called with the bytes sent so far), idle_timeout (seconds without a byte)
---@return true? ok
---@return opensandbox.Error? err
function upload.upload_files(self, endpoint, files, opts)
  local op = self.op or "upload_files"
  check_files(op, files)
  opts = options.check(op, opts, known_options)
  local sent_before = 0
  for first = 1, #files, FILES_A_REQUEST do
    local parts, readers, overhead = body_of(op, files, first, math.min(first + FILES_A_REQUEST - 1, #files))
    local boundary = "opensandbox-" .. random.hex(16)
    local request = {
      op = op, method = "POST", path = "/files/upload", parts = parts, boundary = boundary, readers = readers, may_repeat = false,
      headers = { ["Content-Type"] = "multipart/form-data; boundary=" .. boundary },
      timeout = 0, idle_timeout = opts.idle_timeout or self.http.timeouts.transfer_idle_timeout,
      option_names = { idle_timeout = "transfer_idle_timeout" },
    }
    local last = -1
    if opts.on_progress then
      request.on_transfer_progress = function(_, sent)
        sent = math.max(sent - overhead, 0)
        if sent == last then return end
        last = sent
        opts.on_progress(sent_before + sent)
      end
    end
    local _, err = self.http:call_endpoint(endpoint, request)
    if err then return nil, err end
    sent_before = sent_before + math.max(last, 0)
  end
  return true
end

return upload
