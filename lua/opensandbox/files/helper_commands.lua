--- Small commands that the library itself runs in a sandbox, for what execd has no route for. They are written for any POSIX shell.
--
-- They run in "/", and name files from there as "./...", so that no name is taken for an option.

local endpoint_call = require "opensandbox.http.endpoint_call"
local errors = require "opensandbox.base.errors"
local random = require "opensandbox.base.random"
local shell = require "opensandbox.base.shell"
local url = require "opensandbox.base.url"

local inside = {}

local LONGEST_SCRIPT = 96 * 1024 -- bytes: the kernel takes 128 KiB for one argument
local programs = setmetatable({}, { __mode = "k" }) -- by target: the helper programs that it has
local USED = "tar cksum touch readlink ln"

--- The word of a command that means an absolute path.
function inside.word(path)
  return shell.quote("./" .. path:gsub("^/+", ""))
end

--- Runs a script. One that ends with anything but 0 is an error of kind `state`, with the code that is given.
---@param target opensandbox.FileTarget
---@param job table op, and deadline (of deadline.new)
---@param code string
---@param what string what the script was for
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err whose `result` is the command's
function inside.run(target, job, script, code, what)
  local result, err = target.run(job.op, script, { cwd = "/", timeout = job.deadline:remaining() })
  if not result then return nil, err end
  if result.exit_code == 0 then return result end
  local text = result.stderr:sub(1, 500):gsub("%s+$", "")
  return nil, errors.new { kind = "state", code = code, op = job.op, sandbox_id = target.id, result = result,
    message = ("%s: %s"):format(what, text ~= "" and text or result.signal or "exit code " .. tostring(result.exit_code)) }
end

--- Which of the programs that we use there are in the sandbox: none where no command can be started. Asked once.
---@return table<string, boolean>? tools
---@return opensandbox.Error? err
function inside.tools(target, job)
  if not programs[target] then
    local result, err = inside.run(target, job,
      ("for t in %s; do command -v $t >/dev/null 2>&1 && echo $t; done; :"):format(USED), "no_shell", "the sandbox has no shell")
    if not result and err.code ~= "start_failed" then return nil, err end
    local tools = {}
    for name in (result and result.stdout or ""):gmatch("%S+") do tools[name] = true end
    programs[target] = tools
  end
  return programs[target]
end

--- An absolute path for one that is not: execd knows its own directory, and its home.
---@return string? path
---@return opensandbox.Error? err
function inside.absolute(target, job, path)
  if path:find("^/") then return path end
  local home, rest = path:match("^~(/*)(.*)$")
  if home == "" and rest ~= "" then home = nil end -- "~name" is a file's name
  local infos, err = endpoint_call(target.client, job.op, target.endpoint, "file_info", home and "~" or ".")
  if not infos then return nil, err end
  local _, info = next(infos)
  if not info then
    return nil, errors.new { kind = "protocol", code = "unexpected_response", op = job.op, sandbox_id = target.id,
      message = "the answer holds no file" }
  end
  return info.path .. "/" .. (home and rest or path)
end

--- The path of a temporary file in the sandbox that nobody else has.
function inside.temporary(suffix)
  return "/tmp/.opensandbox-" .. random.hex(12) .. suffix
end

--- Removes a temporary file without waiting, also when the task was cancelled: DELETE /files. Closing the client waits.
function inside.forget(target, execd, path)
  local client = target.client
  client.http:send_detached(client.http:endpoint_request(execd, {
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
