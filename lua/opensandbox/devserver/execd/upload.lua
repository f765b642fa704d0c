--- `POST /files/upload`: `metadata` and `file` parts, which are paired by their order.
--
-- A file may come before the metadata that names it, so contents wait in a spool directory beside the sandbox's root. A new file is then
-- renamed into its place. An existing file is written over, because it keeps its mode and its links.

local uv = require "luv"
local json = require "opensandbox.base.json"
local errno = require "opensandbox.devserver.base.errno"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local safe_callback = require "opensandbox.devserver.base.safe_callback"
local go_json = require "opensandbox.devserver.execd.go_json"
local multipart = require "opensandbox.devserver.http.multipart"
local random = require "opensandbox.base.random"
local utf8 = require "opensandbox.base.utf8"

local MAX_METADATA_SIZE = 10 * 1024 * 1024
local CHUNK_SIZE = 16 * 1024 * 1024

local Upload = {}
Upload.__index = Upload

local function answer(status, code, message)
  return { status = status, code = code, message = message }
end

-- Returns the answer to an error of the file system; for a named pipe an answer that is not sent.
local function failed(problem, words)
  if filesystem.is_pipe(problem) then return { is_unanswered = true } end
  return answer(500, "RUNTIME_ERROR", (words and words .. " " or "") .. problem.message)
end

-- Copies a spooled file into an open one, and closes that. `done` receives the code of an error or nothing.
local function copy(path, target, done)
  local source = assert(uv.fs_open(path, "r", 0))
  local offset = 0
  local function finish(code)
    uv.fs_close(source)
    uv.fs_close(target)
    done(code)
  end
  local function step()
    uv.fs_sendfile(target, source, offset, CHUNK_SIZE, safe_callback.wrap(function(message, count)
      if message then return finish(message:match("^%u+")) end
      if count == 0 then return finish() end
      offset = offset + count
      step()
    end))
  end
  step()
end

function Upload:part(name, filename)
  self.current = nil
  if filename == "" then return end
  if name == "metadata" then
    self.current = { pieces = {}, size = 0 }
    table.insert(self.metadata, self.current)
  elseif name == "file" then
    local path = ("%s/%s"):format(self.sandbox.spool, random.hex(8))
    self.current = { path = path, fd = assert(uv.fs_open(path, "wx", 511)), written = 0 }
    table.insert(self.files, self.current)
  end
end

function Upload:data(bytes)
  local part = self.current
  if not part or self.problem then return end
  if part.pieces then
    part.size = part.size + #bytes
    if part.size <= MAX_METADATA_SIZE then part.pieces[#part.pieces + 1] = bytes end
    return
  end
  local written = 0
  while written < #bytes do
    local count, _, code = uv.fs_write(part.fd, written == 0 and bytes or bytes:sub(written + 1), -1)
    if not count then
      self.problem = failed(errno.new(code, "write", "the uploaded file"), "error copying file.")
      return
    end
    written = written + count
  end
end

function Upload:finished()
  local part = self.current
  if part and part.fd then
    uv.fs_close(part.fd)
    part.fd = nil
  end
  self.current = nil
end

-- Removes the files that are left in the spool.
function Upload:clean()
  for _, file in ipairs(self.files) do
    if file.fd then uv.fs_close(file.fd) end
    uv.fs_unlink(file.path)
  end
end

-- Returns the problem of the parts as a whole.
function Upload:check(complete)
  if self.problem then return self.problem end
  if not complete then return answer(400, "INVALID_FILE", "multipart form is empty") end
  if #self.metadata == 0 then return answer(400, "INVALID_FILE_METADATA", "metadata file is missing") end
  if #self.files == 0 then return answer(400, "INVALID_FILE_CONTENT", "file is missing") end
  if #self.metadata ~= #self.files then
    local message = ("metadata and file count mismatch: %d vs %d"):format(#self.metadata, #self.files)
    return answer(400, "INVALID_FILE", message)
  end
end

local function parse_metadata(part)
  local value, problem = json.decode(utf8.replace_invalid(table.concat(part.pieces)))
  if problem then
    problem = (problem:find("T_END", 1, true) or problem:find("end", 1, true)) and "unexpected end of JSON input" or problem
  elseif type(value) ~= "table" then
    problem = go_json.value_problem(value, "model.FileMetadata")
  else
    problem = go_json.type_problem(value, "FileMetadata", { { "path", "string" } })
      or go_json.type_problem(value, "FileMetadata.Permission", filesystem.PERMISSION_FIELDS)
  end
  if problem then return nil, answer(400, "INVALID_FILE_METADATA", "invalid metadata format. " .. problem) end
  if (value.path or "") == "" then return nil, answer(400, "INVALID_FILE_METADATA", "metadata path is empty") end
  return value
end

-- Copies a spooled file over an existing one. `done` receives a problem or nothing.
local function overwrite(file, place, done)
  local target, problem = filesystem.call("open", filesystem.open, place, true, "w", 511)
  if not target then return done(failed(problem, ("error opening destination file %s."):format(place.named))) end
  copy(file.path, target, function(code)
    done(code and failed(errno.new(code, "write", place.named), ("error copying file %s."):format(place.named)))
  end)
end

-- Puts a file into its place in the sandbox. `done` receives a problem or nothing.
local function store_in_sandbox(sandbox, file, wanted, done)
  local function permit(outcome)
    if outcome then return done(outcome) end
    local ok, wrong = filesystem.set_permission(sandbox, wanted.path, wanted)
    done(not ok and failed(wrong, ("error chmoding file %s."):format(wanted.path)) or nil)
  end

  local parent = wanted.path:match("^(.*)/[^/]*$") or ""
  local made, problem = filesystem.make_all(sandbox, parent == "" and "/" or parent, 511)
  if made == nil then return done(failed(problem, ("error creating target directory %s."):format(parent))) end
  local place
  place, problem = filesystem.locate(sandbox, wanted.path, false, "open")
  if not place then return done(failed(problem, ("error opening destination file %s."):format(wanted.path))) end
  local exists = uv.fs_stat(place.path)
  if exists or place.read_only == "EROFS" then return overwrite(file, place, permit) end
  local ok, code = nil, "ENOENT" -- the error of a new file in /proc and /dev
  local _
  if not place.read_only then ok, _, code = uv.fs_rename(file.path, place.path) end
  if code == "EXDEV" then return overwrite(file, place, permit) end
  if not ok then
    local wrong = errno.new(code, "open", place.named)
    return done(failed(wrong, ("error opening destination file %s."):format(place.named)))
  end
  permit()
end

function Upload:store_all(index, done)
  if index > #self.files then return done() end
  local wanted, problem = parse_metadata(self.metadata[index])
  if not wanted then return done(problem) end
  self.store(self.sandbox, self.files[index], wanted, function(failure)
    if failure then return done(failure) end
    self:store_all(index + 1, done)
  end)
end

local routes = {}

--- Handles an upload.
---@param call table
---@param store fun(sandbox: table, file: table, wanted: table, done: fun(problem?: table)) puts a file into its place
local function handle(call, store)
  local response = call.response
  local upload = setmetatable({ sandbox = call.sandbox, metadata = {}, files = {}, store = store }, Upload)
  local kind = call.request.headers["content-type"] or ""
  local boundary = kind:match('^multipart/form%-data;.*boundary="([^"]+)"')
    or kind:match("^multipart/form%-data;.*boundary=([^;%s]+)")
  if not boundary then return response:fail(400, "INVALID_FILE", "multipart form is empty") end
  local parser = multipart.new(boundary, {
    part = function(...) upload:part(...) end,
    data = function(bytes) upload:data(bytes) end,
    finished = function() upload:finished() end,
  })
  call.request:receive(function(bytes) parser:feed(bytes) end, function(complete)
    if not complete then return upload:clean() end
    local function done(problem)
      upload:clean()
      if problem and problem.is_unanswered then return end
      if problem then return response:fail(problem.status, problem.code, problem.message) end
      response:empty(200)
    end
    local problem = upload:check(parser:finish())
    if problem then return done(problem) end
    upload:store_all(1, done)
  end)
end

routes["POST /files/upload"] = function(call) handle(call, store_in_sandbox) end

return { routes = routes, handle = handle, failed = failed, copy = copy }
