--- Shell commands that the library runs in the sandbox where execd has no route. They work in any POSIX shell.
--
-- They run in "/" and name files from there as "./...", so that no name is taken for an option.

local deadline = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local reason = require "opensandbox.base.reason"
local shell = require "opensandbox.base.shell"
local utf8 = require "opensandbox.base.utf8"

local helper_commands = {}

local MAX_SCRIPT_SIZE = 96 * 1024 -- bytes: Linux takes at most 128 KiB in one argument
local HELPER_PROGRAMS = "tar cksum find stat touch readlink ln"

local programs = setmetatable({}, { __mode = "k" }) -- by target: the helper programs that it has

-- Returns a word for bytes that JSON cannot carry. The shell removes newlines at the end of printf's output, so they are quoted.
local function printf_word(bytes)
  local before, newlines = bytes:match("^(.-)(\n*)$")
  local escaped = before:gsub("[^%w/._-]", function(byte) return ("\\%03o"):format(byte:byte()) end)
  return ("\"$(printf '%s')\"%s"):format(escaped, newlines == "" and "" or shell.quote(newlines))
end

--- Returns the word of a command that stands for any bytes without NUL.
---@param bytes string
---@return string
function helper_commands.quoted(bytes)
  return utf8.is_valid(bytes) and shell.quote(bytes) or printf_word(bytes)
end

--- Returns the word of a command that stands for an absolute path.
---@param path string
---@return string
function helper_commands.quoted_path(path)
  return helper_commands.quoted("./" .. path:gsub("^/+", ""))
end

--- Returns the job of a command that takes as long as a plain call at most: the time limit of the target's client.
---@param target opensandbox.FileTarget
---@param op string
---@return table job
function helper_commands.plain_job(target, op)
  local http = target.client.http
  return { op = op, deadline = http.limit or deadline.new(http.timeouts.timeout) }
end

--- Runs a script. An exit code other than 0 is an error of kind `state`.
---@param target opensandbox.FileTarget
---@param job table op, and deadline (of deadline.new)
---@param script string
---@param code string of the error
---@param failure string beginning of the error's message
---@param opts? { ignores_output?: boolean, sink?: fun(bytes: string) } ignores_output: the exit code is enough, so that a lost output is no error; sink: called with its stdout, for a target with `pipe`
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err its `result` is that of the command
function helper_commands.run(target, job, script, code, failure, opts)
  local sink = opts and opts.sink
  local run = sink and target.pipe or target.run
  local result, err = run(job.op, script, { cwd = "/", timeout = job.deadline:remaining() }, sink, target.client.http.limit)
  if not result and opts and opts.ignores_output and err.code == "output_lost" then result = err.result end
  if not result then return nil, err end
  if result.exit_code == 0 then return result end
  if result.timed_out then return nil, job.deadline:error(job.op) end
  local why = reason(result.stderr)
  if why == "" then why = result.signal or "exit code " .. tostring(result.exit_code) end
  return nil, errors.new { kind = "state", code = code, op = job.op, sandbox_id = target.id, result = result,
    message = failure .. ": " .. why }
end

--- Returns the helper programs that the sandbox has. It has none if no command can be started. The sandbox is asked once.
---@param target opensandbox.FileTarget
---@param job table
---@return table<string, boolean>? available by name
---@return opensandbox.Error? err
function helper_commands.available_programs(target, job)
  local whole = target.whole or target
  if not programs[whole] then
    local script = ("for t in %s; do command -v $t >/dev/null 2>&1 && echo $t; done; :"):format(HELPER_PROGRAMS)
    local result, err = helper_commands.run(target, job, script, "no_shell", "the sandbox has no shell")
    if not result and err.code ~= "start_failed" then return nil, err end
    local available = {}
    for name in (result and result.stdout or ""):gmatch("%S+") do available[name] = true end
    programs[whole] = available
  end
  return programs[whole]
end

--- Joins pieces of a script to as few scripts of limited size as possible.
---@param pieces string[]
---@param separator string
---@return string[] scripts
function helper_commands.join_within_limit(pieces, separator)
  local scripts, current, size = {}, {}, 0
  for _, piece in ipairs(pieces) do
    if size > 0 and size + #piece > MAX_SCRIPT_SIZE then
      scripts[#scripts + 1] = table.concat(current, separator)
      current, size = {}, 0
    end
    current[#current + 1] = piece
    size = size + #piece + #separator
  end
  if size > 0 then scripts[#scripts + 1] = table.concat(current, separator) end
  return scripts
end

return helper_commands
