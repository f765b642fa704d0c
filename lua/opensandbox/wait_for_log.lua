--- Waits until a command in the background has written a line that matches.

local errors = require "opensandbox.base.errors"
local options = require "opensandbox.base.options"

local wait_for_log = {}

local DEFAULT_TIMEOUT = 30     -- seconds
local MAX_LINE = 8 * 1024      -- bytes: a longer line is matched in pieces, because the time for a pattern can grow with its square
local OVERLAP = 1024           -- bytes of a piece that the next one repeats

--- Which output `wait_for_log` matches, and how long it waits.
--- ```lua
--- local line = assert(sandbox:wait_for_log(command, "ready (really)", { plain = true, cursor = 1000, timeout = "1m" }))
--- ```
---@class opensandbox.WaitForLogOpts
---@field plain? boolean the pattern is a text to find, and no pattern
---@field cursor? integer byte offset of the output from which lines are matched, default 0
---@field timeout? opensandbox.Duration default 30

local known_options = { plain = "boolean", cursor = "natural", timeout = "seconds" }

-- Returns the first line of the text that matches, or nil and the rest, which is the beginning of a line.
local function find_line(text, matches)
  local at = 1
  while true do
    local last = text:find("\n", at, true)
    local line = text:sub(at, (last or #text + 1) - 1)
    while #line > MAX_LINE do
      local piece = line:sub(1, MAX_LINE)
      if matches(piece) then return piece end
      line = line:sub(MAX_LINE - OVERLAP + 1)
    end
    line = line:gsub("\r$", "")
    if line ~= "" and matches(line) then return line end
    if not last then return nil, line end
    at = last + 1
  end
end

local function command_of(self, op, command)
  if type(command) == "string" then return self:command(options.path_segment(op, "the command id", command)) end
  if type(command) == "table" and type(command.events_for) == "function" and command.id then return command end
  options.raise(op, "the command must be what sandbox:start returns, or its id")
end

--- Waits until a command in the background has written a line that matches a pattern, to stdout or stderr. A line that is not complete yet
--- is matched, too. The output is followed in short requests: GET /command/{id}/logs of execd.
--- ```lua
--- local command = assert(sandbox:start("npm run dev"))
--- local line = assert(sandbox:wait_for_log(command, "listening on port (%d+)"))
--- ```
---@param self opensandbox.Sandbox
---@param command opensandbox.Command|string the object of sandbox:start, or its id
---@param pattern string a pattern of Lua, for one line
---@param opts? opensandbox.WaitForLogOpts
---@return string? line the line that matched, without its end; of a line of more than 8 KiB the piece
---@return opensandbox.Error? err kind `timeout`, code `not_logged` when it was not written in time; kind `state`, code `command_ended` when the command ended first
function wait_for_log.wait(self, command, pattern, opts)
  local op = "sandbox:wait_for_log"
  command = command_of(self, op, command)
  options.argument(op, "the pattern", pattern, "nonempty string")
  opts = options.check(op, opts, known_options)
  if not opts.plain then
    local ok, problem = pcall(string.find, "", pattern)
    if not ok then options.raise(op, ("%q is no pattern of Lua: %s"):format(pattern, (problem:gsub("^.-: ", "")))) end
  end
  local timeout = opts.timeout or DEFAULT_TIMEOUT
  local function matches(line) return line:find(pattern, 1, opts.plain) end
  local events, rest = command:events_for(op, { cursor = opts.cursor, timeout = timeout }), ""
  while true do
    local event, err = events:next()
    if err then
      if err.code ~= "follow_timeout" then return nil, err end
      return nil, errors.timeout { op = op, code = "not_logged", text = ("no line matches %q"):format(pattern), option = "timeout",
        seconds = timeout, sandbox_id = self.id, cause = err.cause,
        hint = "Check the pattern and command:logs(), or raise the option timeout if it needs longer" }
    elseif event.type == "exit" then
      return nil, errors.new { kind = "state", code = "command_ended", op = op, sandbox_id = self.id, command_id = command.id,
        message = ("the command ended with exit code %s before a line matched %q"):format(tostring(event.exit_code), pattern),
        hint = "Read its output: command:logs()" }
    end
    local line
    line, rest = find_line(rest .. event.text, matches)
    if line then return line end
  end
end

return wait_for_log
