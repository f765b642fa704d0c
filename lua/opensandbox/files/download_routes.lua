--- Downloads: GET /files/download, to a reader or to a local file.

local call = require "opensandbox.http.call"
local core = require "opensandbox.core"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local reader = require "opensandbox.files.reader"
local url = require "opensandbox.base.url"

local download_routes = {}

local RECEIVE_BUFFER = 120 * 1024 -- bytes received at a time on their way to a reader
local HIGH_WATER = 480 * 1024     -- bytes queued for a reader
local SINK_BUFFER = 256 * 1024    -- bytes received at a time on their way to a local file

---@class opensandbox.DownloadOpts
---@field offset? integer first byte, default 0
---@field length? integer bytes, default: to the end
---@field lines? { first?: integer, count?: integer } instead of bytes: lines, from 1. execd then omits the last newline
---@field idle_timeout? number seconds without a byte; default: the client's transfer_idle_timeout

local download_options = { offset = "natural", length = "natural", lines = "table", idle_timeout = "seconds" }

local function line_range(op, lines)
  options.check(op, lines, { first = "natural", count = "natural" })
  if lines.first == 0 or lines.count == 0 then options.raise(op, "option 'lines': first and count begin at 1") end
  return lines.first, lines.count
end

local function request_of(op, path, opts)
  local headers = { Accept = "*/*" }
  local first, count
  if opts.lines then first, count = line_range(op, opts.lines) end
  if opts.offset or opts.length then
    if opts.lines then options.raise(op, "options 'lines' and 'offset' or 'length' do not go together") end
    if opts.length == 0 then options.raise(op, "option 'length' must be greater than 0") end
    local from = opts.offset or 0
    headers.Range = ("bytes=%d-%s"):format(from, opts.length and ("%d"):format(from + opts.length - 1) or "")
  end
  return {
    op = op, method = "GET", headers = headers, may_repeat = true, timeout = 0,
    high_water = HIGH_WATER, receive_buffer = RECEIVE_BUFFER,
    path = "/files/download" .. url.query { { "path", path }, { "offset", first }, { "limit", count } },
  }
end

-- Starts a download. Returns the exchange and its Content-Length.
local function start(self, endpoint, request, opts)
  request.idle_timeout = opts.idle_timeout or self.http.timeouts.transfer_idle_timeout
  request.option_names = { idle_timeout = "transfer_idle_timeout" }
  local ex, err = call.open(self.http, self.http:endpoint_request(endpoint, request))
  if ex then return ex, tonumber(ex.headers["content-length"] or "") end
  if err.status == 416 then err.code, err.message = "range_not_satisfiable", "the file ends before the offset" end
  return nil, err
end

--- Opens a file of the sandbox for reading: GET /files/download.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param path string
---@param opts? opensandbox.DownloadOpts
---@return opensandbox.Reader? reader
---@return opensandbox.Error? err
function download_routes.download_file(self, endpoint, path, opts)
  local op = self.op or "download_file"
  paths.check(op, path)
  opts = options.check(op, opts, download_options)
  local ex, announced = start(self, endpoint, request_of(op, path, opts), opts)
  if not ex then return nil, announced end
  local range_ignored = (opts.offset or opts.length) and ex.status == 200
  return reader.new(ex, announced, range_ignored and { offset = opts.offset or 0, length = opts.length } or nil)
end

---@class opensandbox.SaveOpts
---@field on_progress? fun(done: number, total?: number) called with bytes done and bytes in all
---@field idle_timeout? number seconds without a byte; default: the client's transfer_idle_timeout
---@field mode? string|integer permissions of the file: "0644", "rw-r--r--" or 644; default: 0666 less the umask

local save_options = { on_progress = "function", idle_timeout = "seconds", mode = "any" }

-- Calls the user's function when the number of bytes received has changed.
local function report_progress(ex, on_progress, total)
  local last
  ex:on_progress(function(received)
    if received == last then return end
    last = received
    on_progress(received, total)
  end)
end

--- Downloads a file of the sandbox into a new local file: GET /files/download. No byte of it passes through Lua. After a failure
--- the local file may be incomplete. It is removed if nothing is returned, because a callback raised or the task was cancelled.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param path string
---@param to string local path of a file that does not exist
---@param opts? opensandbox.SaveOpts
---@return true? ok
---@return opensandbox.Error? err
function download_routes.save_file(self, endpoint, path, to, opts)
  local op = self.op or "save_file"
  paths.check(op, path)
  options.argument(op, "the local path", to, "nonempty string")
  opts = options.check(op, opts, save_options)
  local is_new = not core.lstat(to) -- an existing file is not ours to remove: the core will refuse to write to it
  local request = request_of(op, path, {})
  request.sink, request.sink_mode, request.receive_buffer = to, paths.permission_bits(op, opts.mode), SINK_BUFFER
  function request.on_abandon(ex)
    ex:close()
    if is_new then os.remove(to) end
  end
  local ex, announced = start(self, endpoint, request, opts)
  if not ex then return nil, announced end
  if opts.on_progress then report_progress(ex, opts.on_progress, announced) end
  local ok, err = ex:finish()
  if err then return nil, reader.explain_directory(err, announced) end
  return ok
end

return download_routes
