--- Small commands that the library itself runs in a sandbox, for what execd has no route for. They are written for any POSIX shell.
--
-- They run in "/", and name files from there as "./...", so that no name is taken for an option.

local errors = require "opensandbox.base.errors"
local random = require "opensandbox.base.random"
local shell = require "opensandbox.base.shell"
local url = require "opensandbox.base.url"

local inside = {}

local LONGEST_SCRIPT = 96 * 1024 -- bytes: the kernel takes 128 KiB for one argument
local USED = "tar cksum touch readlink ln"

--- The word of a command that means an absolute path.
function inside.word(path)
  return shell.quote("./" .. path:gsub("^/+", ""))
end

--- Runs a script. One that ends with anything but 0 is an error of kind `state`, with the code that is given.
---@param files opensandbox.Files
---@param job table op, and deadline (of deadline.new)
---@param code string
---@param what string what the script was for
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err whose `result` is the command's
function inside.run(files, job, script, code, what)
  local result, err = files._sandbox:run(script, { cwd = "/", timeout = job.deadline:left() })
  if not result then
    err.op = job.op
    return nil, err
  end
  if result.exit_code == 0 then return result end
  local text = result.stderr:sub(1, 500):gsub("%s+$", "")
  return nil, errors.new { kind = "state", code = code, op = job.op, sandbox_id = files._sandbox.id, result = result,
    message = ("%s: %s"):format(what, text ~= "" and text or result.signal or "exit code " .. tostring(result.exit_code)) }
end

--- Which of the programs that we use there are in the sandbox: none where no command can be started. Asked once.
---@return table<string, boolean>? tools
---@return opensandbox.Error? err
function inside.tools(files, job)
  local sandbox = files._sandbox
  if not sandbox._tools then
    local result, err = inside.run(files, job,
      ("for t in %s; do command -v $t >/dev/null 2>&1 && echo $t; done; :"):format(USED), "no_shell", "the sandbox has no shell")
    if not result and err.code ~= "start_failed" then return nil, err end
    local tools = {}
    for name in (result and result.stdout or ""):gmatch("%S+") do tools[name] = true end
    sandbox._tools = tools
  end
  return sandbox._tools
end

--- An absolute path for one that is not: execd knows its own directory, and its home.
---@return string? path
---@return opensandbox.Error? err
function inside.absolute(files, job, path)
  if path:find("^/") then return path end
  local home, rest = path:match("^~(/*)(.*)$")
  if home == "" and rest ~= "" then home = nil end -- "~name" is a file's name
  local info, err = files:stat(home and "~" or ".")
  if not info then
    err.op = job.op
    return nil, err
  end
  return info.path .. "/" .. (home and rest or path)
end

--- The path of a temporary file in the sandbox that nobody else has.
function inside.temporary(suffix)
  return "/tmp/.opensandbox-" .. random.hex(12) .. suffix
end

--- Removes a temporary file without waiting, also when the task was cancelled: DELETE /files. Closing the client waits.
function inside.forget(files, execd, path)
  local client = files._sandbox.client
  client:_forget(client:_endpoint(execd, {
    op = "delete_files", method = "DELETE", path = "/files" .. url.query { { "path", path } }, may_repeat = false,
  }), true)
end

--- Joins pieces of a script to as few scripts as possible.
---@param pieces string[]
---@param separator string
---@return string[] scripts
function inside.batches(pieces, separator)
  local scripts, current, size = {}, {}, 0
  for _, piece in ipairs(pieces) do
    if size > 0 and size + #piece > LONGEST_SCRIPT then
      scripts[#scripts + 1] = table.concat(current, separator)
      current, size = {}, 0
    end
    current[#current + 1] = piece
    size = size + #piece + #separator
  end
  if size > 0 then scripts[#scripts + 1] = table.concat(current, separator) end
  return scripts
end

return inside
