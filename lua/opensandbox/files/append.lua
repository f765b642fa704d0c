--- Appends to a file of the sandbox. execd writes only whole files, so the bytes are uploaded to a temporary file, which a command appends.

local coxpcall = require "opensandbox.loop.coxpcall"
local deadline = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local helper_commands = require "opensandbox.files.helper_commands"
local remote_paths = require "opensandbox.files.remote_paths"
local temporary_files = require "opensandbox.files.temporary_files"

-- `cat` appends with O_APPEND, so that bytes that others append are not overwritten.
local APPEND_SCRIPT = [[
f=%s from=%s
mkdir -p -- "${f%%/*}" && cat -- "$from" >> "$f"
code=$?
rm -f -- "$from"
exit $code]]

local function append(target, op, path, temporary, file, upload)
  local absolute, err = remote_paths.absolute(target, op, path)
  if not absolute then return nil, err end
  local ok
  ok, err = upload { path = temporary, content = file.content, mode = "0600" }
  if not ok then return nil, err end
  local script = APPEND_SCRIPT:format(helper_commands.quoted_path(absolute), helper_commands.quoted_path(temporary))
  local job = { op = op, deadline = target.client.http.limit or deadline.new() }
  ok, err = helper_commands.run(target, job, script, "append_failed", ("the bytes could not be appended to %s"):format(path),
    { ignores_output = true })
  return ok and true or nil, err
end

--- Appends bytes to a file, which is created if it is missing.
---@param target opensandbox.FileTarget
---@param op string the method that the user called
---@param path string
---@param file { content: string|file*|fun(): string? }
---@param upload fun(file: opensandbox.FileUpload): true?, opensandbox.Error?
---@return true? ok
---@return opensandbox.Error? err
return function(target, op, path, file, upload)
  local endpoint, err = target.endpoint(op, target.client.http.limit)
  if not endpoint then return nil, err end
  if target.pipe then
    return nil, errors.new { kind = "state", code = "unsupported", op = op, sandbox_id = target.id,
      message = "the files of an isolated session with the mode \"overlay\" or \"ro\" cannot be appended to",
      hint = "Append by a run of the session, or write the whole file" }
  end
  local temporary = temporary_files.path(target, ".part")
  local guard = temporary_files.guard(function() temporary_files.remove(target.client, endpoint, { temporary }) end)
  local ok, value, problem = coxpcall.pcall(append, target, op, path, temporary, file, upload)
  if ok and value then guard.release() end -- the command has removed it
  guard.remove()
  if not ok then error(value, 0) end
  return value, problem
end
