--- Downloads: GET /files/download, to a reader or to a local file.

local arguments = require "opensandbox.files.arguments"
local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local download_stream = require "opensandbox.files.download_stream"
local errors = require "opensandbox.base.errors"
local modes = require "opensandbox.base.modes"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local reader = require "opensandbox.files.reader"

---@class (partial) opensandbox.Client
local download_routes = {}

local SINK_BUFFER = 256 * 1024 -- bytes received at a time on their way to a local file
local CHUNK_SIZE = 120 * 1024  -- bytes read at a time after a connection broke
local MODE_0600 = 384          -- of a local file until it is complete, if it gets a mode

--- Which part of a file is read, and how long that may take.
--- ```lua
--- local part = assert(sandbox.files:read("/work/big.bin", { offset = 1000, length = 100, timeout = 60, idle_timeout = 10 }))
--- local lines = assert(sandbox.files:read("/work/big.log", { lines = { first = 1, count = 20 } }))
--- ```
---@class opensandbox.DownloadOpts
---@field offset? integer first byte, default 0
---@field length? integer bytes, default: to the end
---@field lines? { first?: integer, count?: integer } instead of bytes: lines, from 1. execd then omits the last newline
---@field timeout? opensandbox.Duration for the whole download; default: none
---@field idle_timeout? opensandbox.Duration without a byte; default: the client's transfer_idle_timeout

--- Opens a file of the sandbox for reading: GET /files/download. After a connection broke, the reader requests the rest by a range.
--- ```lua
--- local bytes = assert(client:download_file(execd, "/work/a.txt")):read("a")
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param path string
---@param opts? opensandbox.DownloadOpts
---@return opensandbox.Reader? reader
---@return opensandbox.Error? err kind `state` with the code `not_a_file` for a directory, `file_changed` when the file changed after a connection broke
function download_routes:download_file(endpoint, path, opts)
  local op = self.op or "download_file"
  paths.check_at(endpoint, op, path)
  opts = arguments.check_download(op, opts)
  local stream, err = download_stream.open(self:for_op(op), endpoint, path, opts)
  if not stream then return nil, err end
  return reader.new(stream)
end

--- The options of `client:save_file`.
--- ```lua
--- assert(client:save_file(execd, "/work/out.tar", "out.tar", {
---   mode = "0600", timeout = 600, idle_timeout = 30, on_progress = function(done, total) print(done, total) end,
--- }))
--- ```
---@class opensandbox.SaveOpts
---@field on_progress? fun(done: number, total?: number) called with bytes done, and bytes in all if they are known
---@field timeout? opensandbox.Duration for the whole download; default: none
---@field idle_timeout? opensandbox.Duration without a byte; default: the client's transfer_idle_timeout
---@field mode? string|integer permissions of the file: "0644", "rw-r--r--" or 644; default: 0666 less the umask

local save_options = { on_progress = "function", timeout = "seconds", idle_timeout = "seconds", mode = "any" }

-- Returns a function that calls the user's function when the number of bytes has changed.
local function progress_reporter(on_progress, total)
  local last
  return function(done)
    if done == last then return end
    last = done
    on_progress(done, total)
  end
end

-- Receives the rest of a file whose first bytes have been written.
local function append_rest(stream, to, report)
  local handle, problem = io.open(to, "ab")
  if not handle then return nil, errors.local_file(stream.client.op, to, problem) end
  local ok, bytes, err = coxpcall.pcall(function()
    local bytes, err
    repeat
      bytes, err = stream:read(CHUNK_SIZE)
      if bytes then
        local written
        written, problem = handle:write(bytes)
        if not written then return nil, errors.local_file(stream.client.op, to, problem) end
        if report then stream.exchange:call_user(report, stream.position) end
      end
    until not bytes
    return not err, err
  end)
  stream:close()
  local closed
  closed, problem = handle:close()
  if not ok then error(bytes, 0) end
  if bytes and not closed then return nil, errors.local_file(stream.client.op, to, problem) end
  return bytes or nil, err
end

-- Downloads into the file.
local function save(self, endpoint, path, to, opts, extra)
  local stream, err = download_stream.open(self, endpoint, path, opts, extra)
  if not stream then return nil, err end
  local ex = stream.exchange
  local report = opts.on_progress and progress_reporter(opts.on_progress, stream:size())
  if report then ex:on_progress(report) end
  local ok
  ok, err = ex:finish()
  if ok then return true end
  if err.code == "sink_failed" then
    err.message = ("%s: %s"):format(to, err.message)
    return nil, err
  end
  -- The core has closed the file. The written bytes are complete up to the file's size.
  stream.extra = { on_abandon = extra.on_abandon }
  stream.position = select(2, core.stat(to)) or 0
  err = stream:resume(err)
  if err then return nil, err end
  return append_rest(stream, to, report)
end

--- Downloads a file of the sandbox into a new local file: GET /files/download. The bytes do not pass through Lua. After a
--- connection broke, the rest is requested by a range. If nothing is returned, or an error, the local file is removed.
--- ```lua
--- assert(client:save_file(execd, "/work/out.tar", "out.tar", { mode = "0600" }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param path string
---@param to string local path at which nothing exists
---@param opts? opensandbox.SaveOpts
---@return true? ok
---@return opensandbox.Error? err
function download_routes:save_file(endpoint, path, to, opts)
  local op = self.op or "save_file"
  paths.check_at(endpoint, op, path)
  options.argument(op, "the local path", to, "nonempty string")
  opts = options.check(op, opts, save_options)
  local mode = modes.permission_bits(op, opts.mode)
  if core.lstat(to) then return nil, errors.local_file(op, to, "exists already") end
  local extra = { sink = to, sink_mode = mode and MODE_0600, receive_buffer = SINK_BUFFER }
  function extra.on_abandon(ex)
    ex:close()
    os.remove(to)
  end
  local ok, saved, err = coxpcall.pcall(save, self:for_op(op), endpoint, path, to, opts, extra)
  if ok and saved and mode then
    local problem
    saved, problem = core.chmod(to, mode)
    if not saved then err = errors.local_file(op, to, problem) end
  end
  if ok and saved then return true end
  os.remove(to)
  if not ok then error(saved, 0) end
  return nil, err
end

return download_routes
