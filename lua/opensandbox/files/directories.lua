--- Whole directories up and down: `sandbox.files:upload_dir` and `sandbox.files:download_dir`.
--
-- As one tar archive where the sandbox has tar, else file by file. Everything that is made on the way is removed at the end, however
-- that comes: an error, a callback that raises, a task that is cancelled, a host that ends our coroutine.

local by_archive = require "opensandbox.files.tar_transfer"
local by_file = require "opensandbox.files.file_transfer"
local endpoint_call = require "opensandbox.http.endpoint_call"
local deadline = require "opensandbox.loop.deadline"
local finalizer = require "opensandbox.base.finalizer"
local ignore = require "opensandbox.files.ignore"
local inside = require "opensandbox.files.helper_commands"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local coxpcall = require "opensandbox.loop.coxpcall"
local tables = require "opensandbox.base.tables"
local tree = require "opensandbox.files.directory_walk"
local verify = require "opensandbox.files.checksum"

local directories = {}

-- One directory on its way: target, op, opts, from, to, deadline, patterns and ignored; count.
local Job = {}
Job.__index = Job

local function new(target, op, from, to, opts)
  local patterns = ignore.new(opts.ignore or {})
  local clearing = {} -- functions, to be called once
  local function clear()
    while #clearing > 0 do table.remove(clearing)() end
  end
  return setmetatable({
    target = target, op = op, from = from, to = to, opts = opts, deadline = deadline.new(opts.timeout), patterns = patterns,
    ignored = patterns:filter(), clearing = clearing, clear = clear, keeper = finalizer(clear),
  }, Job)
end

--- Has a function called when the job is over, the last one first.
function Job:at_end(fn)
  self.clearing[#self.clearing + 1] = fn
end

--- Calls a client method with the sandbox's execd.
function Job:call(method, ...)
  return endpoint_call(self.target.client, self.op, self.target.endpoint, method, ...)
end

--- The seconds without a byte that end a transfer.
function Job:idle_timeout()
  return self.deadline:clamp(self.target.client.http.timeouts.transfer_idle_timeout)
end

--- Tells the caller how far it is, when that has changed.
function Job:progress(done, all)
  if not self.opts.on_progress or done == self.told then return end
  self.told = done
  self.opts.on_progress(done, all)
end

-- Does the work, and clears away whatever comes of it.
local function run(job, work)
  local ok, count, err = coxpcall.pcall(work, job)
  job.clear()
  if not ok then error(count, 0) end
  if count then return count end
  if err.kind ~= "cancelled" and err.timer ~= "timeout" and job.deadline:has_passed() then err = job.deadline:error(job.op, err) end
  return nil, err
end

-- What both ways begin with: how it will go.
local function prepare(job)
  local tools, err = inside.tools(job.target, job)
  if not tools then return nil, err end
  if job.opts.verify then
    local ok
    ok, err = verify.available(job.target, job)
    if not ok then return nil, err end
  end
  job.execd, err = job.target.endpoint(job.op)
  if not job.execd then return nil, err end
  return tools.tar and by_archive or by_file
end

local function upload(job)
  local entries, count = tree.walk(job.op, job.from, job.patterns, job.opts.gitignore)
  if not entries then return nil, count end
  job.entries, job.count = entries, count
  local way, err = prepare(job)
  if not way then return nil, err end
  job.to, err = inside.absolute(job.target, job, job.to)
  if not job.to then return nil, err end
  return way.upload(job)
end

local function download(job)
  local way, err = prepare(job)
  if not way then return nil, err end
  job.from, err = inside.absolute(job.target, job, job.from)
  if not job.from then return nil, err end
  return way.download(job)
end

local download_options = {
  ignore = "string list", on_progress = "function", verify = "boolean", timeout = "seconds",
}
local upload_options = tables.merge(download_options, { gitignore = "boolean" })

--- Uploads what is in a local directory into a directory of the sandbox, which is made if it is not there. Regular files, directories and
--- symlinks, which are not followed; permission bits and times of change are kept. What else is in the target stays.
---
--- Where the sandbox has `tar` it is one streamed request (POST /files/upload) and one command; else many files to a request, and times
--- are kept where it has `touch`.
---@param from string local path
---@param to string path in the sandbox
---@param opts? table ignore (patterns as in a .gitignore), gitignore (honour the .gitignore files there, and leave out .git), verify (compare sums of what arrived), timeout (seconds for all of it), on_progress (called with bytes done and bytes in all)
---@return opensandbox.TreeCount? count what was sent
---@return opensandbox.Error? err
function directories.upload_dir(self, from, to, opts)
  local op = "files:upload_dir"
  options.argument(op, "the local path", from, "nonempty string")
  paths.check(op, to)
  opts = options.check(op, opts, upload_options)
  return run(new(self.target, op, from, to, opts), upload)
end

--- Downloads what is in a directory of the sandbox into a local directory, which is made if it is not there. Regular files, directories
--- and symlinks; permission bits and times of change are kept. What else is in the target stays.
---
--- Whatever the sandbox sends, nothing is written outside of the target: that is an error with the code `unsafe_archive`. Each file is
--- written under a temporary name and renamed. After a failure what was complete stays.
---@param from string path in the sandbox
---@param to string local path
---@param opts? table ignore (patterns as in a .gitignore; what a plain name leaves out is not even sent), verify (compare sums of what arrived before anything is written), timeout (seconds for all of it), on_progress (called with bytes done, and bytes in all or nil)
---@return opensandbox.TreeCount? count what has come
---@return opensandbox.Error? err
function directories.download_dir(self, from, to, opts)
  local op = "files:download_dir"
  options.argument(op, "the local path", to, "nonempty string")
  paths.check(op, from)
  opts = options.check(op, opts, download_options)
  return run(new(self.target, op, from, to, opts), download)
end

return directories
