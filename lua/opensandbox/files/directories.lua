--- Whole directories up and down: `sandbox.files:upload_dir` and `sandbox.files:download_dir`.
--
-- They are transferred as one tar archive if the sandbox has tar, otherwise file by file. Every temporary object is removed at the
-- end: after an error, when a callback raises, when the task is cancelled, and when the host ends the coroutine.

local coxpcall = require "opensandbox.loop.coxpcall"
local deadline = require "opensandbox.loop.deadline"
local directory_walk = require "opensandbox.files.directory_walk"
local endpoint_call = require "opensandbox.http.endpoint_call"
local file_transfer = require "opensandbox.files.file_transfer"
local finalizer = require "opensandbox.base.finalizer"
local helper_commands = require "opensandbox.files.helper_commands"
local ignore = require "opensandbox.files.ignore"
local lazy = require "opensandbox.base.lazy"
local limited_target = require "opensandbox.files.limited_target"
local options = require "opensandbox.base.options"
local remote_paths = require "opensandbox.files.remote_paths"
local tables = require "opensandbox.base.tables"
local tar_transfer = require "opensandbox.files.tar_transfer"
local verification = require "opensandbox.files.verification"

-- Files that are loaded when an option first needs them.
local parts = lazy.modules { tree_changes = "opensandbox.files.tree_changes" }

local directories = {}

---@class opensandbox.DirectoryJob the transfer of one directory
---@field target opensandbox.FileTarget
---@field op string
---@field from string
---@field to string
---@field opts table
---@field deadline table of deadline.new
---@field patterns table of ignore.new
---@field ignored fun(name: string, is_directory: boolean): boolean
---@field endpoint? opensandbox.Endpoint of the target, once it is known
---@field entries? opensandbox.TarEntry[] of an upload
---@field count? opensandbox.TreeCount of an upload
---@field names? string[] of a download: the entries to fetch; nil: all
---@field unchanged table<string, true> of a download: files that are not written
---@field deferred (fun())[] functions to call when the job is over
---@field run_deferred fun()
---@field finalizer table calls run_deferred if the host ends the coroutine
---@field last_reported? number bytes
local Job = {}
Job.__index = Job

local function new_job(target, op, from, to, opts, own_patterns)
  local limit = deadline.new(opts.timeout)
  local lines = tables.copy_list(own_patterns)
  for _, line in ipairs(opts.ignore or {}) do lines[#lines + 1] = line end
  local patterns = ignore.new(lines)
  local deferred = {}
  local function run_deferred()
    while #deferred > 0 do table.remove(deferred)() end
  end
  return setmetatable({
    target = limited_target(target, limit), op = op, from = from, to = to, opts = opts, deadline = limit, patterns = patterns,
    ignored = patterns:filter(), unchanged = {}, deferred = deferred, run_deferred = run_deferred,
    finalizer = finalizer(run_deferred),
  }, Job)
end

--- Has a function called when the job is over, in reverse order.
---@param fn fun()
function Job:defer(fn)
  self.deferred[#self.deferred + 1] = fn
end

--- Calls a client method with the endpoint of the target.
function Job:call(method, ...)
  return endpoint_call.call(self.target.client, self.op, self.target.endpoint, method, ...)
end

--- Returns the seconds without a byte after which a transfer of the job fails.
---@return number
function Job:idle_timeout()
  return self.deadline:clamp(self.target.client.http.timeouts.transfer_idle_timeout)
end

--- Reports progress to the caller, if it has changed.
---@param done number bytes
---@param total? number bytes
function Job:progress(done, total)
  if not self.opts.on_progress or done == self.last_reported then return end
  self.last_reported = done
  self.opts.on_progress(done, total)
end

-- Does the work, and runs the deferred functions whatever its outcome.
local function run(job, work)
  local ok, count, err = coxpcall.pcall(work, job)
  job.run_deferred()
  if not ok then error(count, 0) end
  if count then return count end
  if err.kind ~= "cancelled" and err.timer ~= "timeout" and job.deadline:has_passed() then err = job.deadline:error(job.op, err) end
  return nil, err
end

-- Chooses how the directory is transferred.
local function choose_transfer(job)
  local available, err = helper_commands.available_programs(job.target, job)
  if not available then return nil, err end
  if job.opts.verify then
    local ok
    ok, err = verification.require_cksum(job.target, job)
    if not ok then return nil, err end
  end
  job.endpoint, err = job.target.endpoint(job.op)
  if not job.endpoint then return nil, err end
  return available.tar and tar_transfer or file_transfer
end

local function upload(job)
  local entries, count, ignored = directory_walk.entries(job.op, job.from, job.patterns, job.opts.gitignore)
  if not entries then return nil, count end
  job.entries, job.count = entries, count
  local transfer, err = choose_transfer(job)
  if not transfer then return nil, err end
  job.to, err = remote_paths.absolute(job.target, job.op, job.to)
  if not job.to then return nil, err end
  if job.opts.only_changed or job.opts.delete_extra then return parts.tree_changes.upload(job, transfer, ignored) end
  return transfer.upload(job)
end

local function download(job)
  local transfer, err = choose_transfer(job)
  if not transfer then return nil, err end
  job.from, err = remote_paths.absolute(job.target, job.op, job.from)
  if not job.from then return nil, err end
  if job.opts.only_changed or job.opts.delete_extra then return parts.tree_changes.download(job, transfer) end
  return transfer.download(job)
end

--- The options of `download_dir`.
--- ```lua
--- assert(sandbox.files:download_dir("/work/out", "out", {
---   ignore = { "*.tmp" }, verify = true, only_changed = true, delete_extra = true, timeout = 600,
---   on_progress = function(done, total) print(done, total) end,
--- }))
--- ```
---@class opensandbox.DownloadDirOpts
---@field ignore? string[] patterns as in a .gitignore. Names that a plain name ignores are not even sent
---@field verify? boolean compare the checksums before anything is written
---@field only_changed? boolean omit files that have the same size and checksum locally, whatever their times and modes are; needs find and cksum in the sandbox
---@field delete_extra? boolean delete local entries that the sandbox does not have, at the end; entries that `ignore` names stay. A directory in the place of a file, or the other way round, is an error
---@field timeout? opensandbox.Duration for the whole transfer; default: none
---@field on_progress? fun(done: number, total?: number) called with bytes done, and bytes in all if they are known

--- The options of `upload_dir`.
--- ```lua
--- assert(sandbox.files:upload_dir(".", "/work", {
---   ignore = { "*.o", "build/" }, gitignore = true, verify = true, only_changed = true, delete_extra = true, timeout = 600,
---   on_progress = function(done, total) print(done, total) end,
--- }))
--- ```
---@class opensandbox.UploadDirOpts
---@field ignore? string[] patterns as in a .gitignore
---@field gitignore? boolean honour the .gitignore files in the directory, and ignore .git
---@field verify? boolean compare the checksums of the sent and the received files
---@field only_changed? boolean omit files that have the same size and checksum in the sandbox, whatever their times and modes are; needs find and cksum in the sandbox
---@field delete_extra? boolean delete entries in the sandbox that the local directory does not have, at the end; entries that are ignored stay. A directory in the place of a file, or the other way round, is deleted before
---@field timeout? opensandbox.Duration for the whole transfer; default: none
---@field on_progress? fun(done: number, total: number) called with bytes done and bytes in all

local download_options = {
  ignore = "string list", on_progress = "function", verify = "boolean", timeout = "seconds",
  only_changed = "boolean", delete_extra = "boolean",
}
local upload_options = tables.merge(download_options, { gitignore = "boolean" })

--- Uploads the entries of a local directory into a directory of the sandbox, which is created if it is missing. Regular files,
--- directories and symlinks are transferred; symlinks are not followed. Permissions and modification times are kept. Other entries
--- of the target stay.
---
--- If the sandbox has `tar`, this is one streamed request (POST /files/upload) and one command. Otherwise each request carries many
--- files, and modification times are kept if the sandbox has `touch`.
--- ```lua
--- local count = assert(sandbox.files:upload_dir(".", "/work", { gitignore = true, ignore = { "*.o", "build/" } }))
--- print(count.files, count.bytes)
--- ```
---@param from string local path
---@param to string path in the sandbox
---@param opts? opensandbox.UploadDirOpts
---@return opensandbox.TreeCount? count of the entries that were sent
---@return opensandbox.Error? err
function directories.upload_dir(self, from, to, opts)
  local op = "files:upload_dir"
  options.argument(op, "the local path", from, "nonempty string")
  options.argument(op, "the path", to, "nonempty string")
  opts = options.check(op, opts, upload_options)
  return run(new_job(self.target, op, from, to, opts), upload)
end

--- Downloads the entries of a directory of the sandbox into a local directory, which is created if it is missing. Regular files,
--- directories and symlinks are transferred. Permissions and modification times are kept. Other entries of the target stay.
---
--- Nothing is written outside of the target, whatever the sandbox sends: an archive that tries it is an error with the code
--- `unsafe_archive`. Each file is written under a temporary name and renamed. After a failure the files that were complete stay.
--- ```lua
--- local count = assert(sandbox.files:download_dir("/work/out", "out", { verify = true }))
--- ```
---@param from string path in the sandbox
---@param to string local path
---@param opts? opensandbox.DownloadDirOpts
---@return opensandbox.TreeCount? count of the entries that were written
---@return opensandbox.Error? err
function directories.download_dir(self, from, to, opts)
  local op = "files:download_dir"
  options.argument(op, "the local path", to, "nonempty string")
  options.argument(op, "the path", from, "nonempty string")
  opts = options.check(op, opts, download_options)
  return run(new_job(self.target, op, from, to, opts, self.target.ignore), download)
end

return directories
