--- Transfers of single files whose checksums are compared afterwards: the option `verify`. The sandbox's own `cksum` computes the
--- remote one.

local checksum = require "opensandbox.files.checksum"
local deadline = require "opensandbox.loop.deadline"
local endpoint_call = require "opensandbox.http.endpoint_call"
local errors = require "opensandbox.base.errors"
local helper_commands = require "opensandbox.files.helper_commands"
local remote_paths = require "opensandbox.files.remote_paths"

local verification = {}

--- Checks that the sandbox has cksum.
---@param target opensandbox.FileTarget
---@param job table op, and deadline (of deadline.new)
---@return true? ok
---@return opensandbox.Error? err
function verification.require_cksum(target, job)
  local available, err = helper_commands.available_programs(target, job)
  if not available then return nil, err end
  if available.cksum then return true end
  return nil, errors.new { kind = "state", code = "verify_unavailable", op = job.op, sandbox_id = target.id,
    message = "the sandbox has no program cksum, which verification needs",
    hint = "Install coreutils or busybox in the image, or omit the option 'verify'" }
end

--- Returns the checksums of files in the sandbox, with as few commands as possible.
---@param target opensandbox.FileTarget
---@param job table
---@param list string[] absolute paths
---@return string[]? sums
---@return opensandbox.Error? err
function verification.remote_checksums(target, job, list)
  local words, sums = {}, {}
  for i, path in ipairs(list) do words[i] = helper_commands.quoted_path(path) end
  for _, names in ipairs(helper_commands.join_within_limit(words, " ")) do
    local script = ('for f in %s; do cksum < "$f" || exit; done'):format(names)
    local result, err = helper_commands.run(target, job, script, "verify_failed",
      "the checksum of a file in the sandbox cannot be computed")
    if not result then return nil, err end
    for _, sum in ipairs(checksum.parse_cksum(result.stdout)) do sums[#sums + 1] = sum end
  end
  if #sums == #list then return sums end
  return nil, errors.new { kind = "protocol", code = "unexpected_response", op = job.op, sandbox_id = target.id,
    message = ("expected %d checksums of cksum, received %d"):format(#list, #sums) }
end

-- Compares a checksum with that of a file in the sandbox.
local function compare_remote(target, job, path, sum)
  local absolute, err = remote_paths.absolute(target, job.op, path)
  if not absolute then return nil, err end
  local sums
  sums, err = verification.remote_checksums(target, job, { absolute })
  if not sums then return nil, err end
  return checksum.compare(job.op, path, sum, sums[1])
end

--- Uploads one file and compares the checksums.
---@param target opensandbox.FileTarget
---@param op string
---@param file opensandbox.FileUpload
---@param opts table as for upload_files
---@param path string as the user wrote it; a command finds it there, because a command need not see where a symlink of execd leads
---@return true? ok
---@return opensandbox.Error? err
function verification.upload(target, op, file, opts, path)
  local job = { op = op, deadline = deadline.new() }
  local ok, err = verification.require_cksum(target, job)
  if not ok then return nil, err end
  local sum
  if file.file then
    sum, err = checksum.of_file(op, file.file)
    if not sum then return nil, err end
  else
    file.content, sum = checksum.with_checksum(file.content)
  end
  ok, err = endpoint_call.call(target.client, op, target.endpoint, "upload_files", { file }, opts)
  if not ok then return nil, err end
  return compare_remote(target, job, path, sum)
end

--- Compares a local file with a file of the sandbox.
---@param target opensandbox.FileTarget
---@param op string
---@param path string in the sandbox
---@param local_path string
---@return true? ok
---@return opensandbox.Error? err
function verification.compare_file(target, op, path, local_path)
  local sum, err = checksum.of_file(op, local_path)
  if not sum then return nil, err end
  return compare_remote(target, { op = op, deadline = deadline.new() }, path, sum)
end

return verification
