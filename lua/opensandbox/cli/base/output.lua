--- The output of the program: results on standard output, as a table or as JSON; everything else on standard error.

local core = require "opensandbox.core"
local failure = require "opensandbox.cli.base.failure"
local lazy = require "opensandbox.base.lazy"

local parts = lazy.modules {
  json_text = "opensandbox.cli.base.json_text",
  text_table = "opensandbox.cli.base.text_table",
  printable = "opensandbox.base.printable",
}

local output = {}

local STDOUT, STDERR = 1, 2
local MAX_NOTE = 4000 -- bytes

local COLORS = { bold = "1", red = "31", green = "32", yellow = "33" }

-- Returns whether a stream can show colors, see https://no-color.org.
local function is_colored(fd)
  local no_color, term = os.getenv("NO_COLOR"), os.getenv("TERM")
  return not (no_color and no_color ~= "") and term ~= nil and term ~= "dumb" and core.is_terminal(fd)
end

local function paint(fd, color, text)
  if not color or not is_colored(fd) then return text end
  return ("\27[%sm%s\27[0m"):format(COLORS[color], text)
end

--- Writes bytes to standard output. If their reader has closed the pipe, the program exits as if SIGPIPE had ended it, after it has cleaned
--- up.
---@param bytes string
function output.write(bytes)
  local ok, problem, name = core.write(STDOUT, bytes)
  if ok then return end
  if name == "EPIPE" then failure.raise(failure.EXIT.CLOSED_OUTPUT) end
  failure.raise(failure.EXIT.FAILED, "cannot write the output: " .. problem)
end

--- Writes bytes of a command to standard error.
---@param bytes string
function output.write_error(bytes)
  core.write(STDERR, bytes) -- where that is closed, no message can be seen either
end

--- Writes a line for people to standard error.
---@param text string
---@param color? string
function output.note(text, color)
  output.write_error(paint(STDERR, color, "opensandbox:") .. " " .. parts.printable(text, MAX_NOTE) .. "\n")
end

--- Returns the width of the terminal.
---@return integer? columns nil if standard output is no terminal
function output.columns()
  return (core.terminal_size(STDOUT))
end

--- Returns whether progress can be shown on standard error.
---@return boolean
function output.shows_progress()
  return core.is_terminal(STDERR)
end

--- Shows a line of progress in place of the last one; "" removes it.
---@param text string
function output.progress(text)
  local columns = core.terminal_size(STDERR) or 80
  output.write_error("\r\27[K" .. text:sub(1, columns - 1))
end

--- Writes a value as JSON.
---@param value any
function output.json(value)
  output.write(parts.json_text(value))
end

--- Writes rows as a table.
---@param columns opensandbox.cli.Column[]
---@param rows string[][]
function output.table(columns, rows)
  output.write(parts.text_table(columns, rows, output.columns(), function(color, text) return paint(STDOUT, color, text) end))
end

--- Returns foreign text of several lines without characters that control a terminal.
---@param text string
---@return string
function output.printable_lines(text)
  local lines = {}
  for line in (text:gsub("\n$", "") .. "\n"):gmatch("([^\n]*)\n") do lines[#lines + 1] = parts.printable(line, MAX_NOTE) end
  return table.concat(lines, "\n")
end

--- Writes facts as lines "name: value".
---@param facts { [1]: string, [2]: any }[] facts without a value are left out
function output.facts(facts)
  local longest, lines = 0, {}
  for _, fact in ipairs(facts) do longest = math.max(longest, #fact[1]) end
  for _, fact in ipairs(facts) do
    if fact[2] ~= nil and fact[2] ~= "" then
      local value = paint(STDOUT, fact.color, parts.printable(tostring(fact[2]), MAX_NOTE))
      lines[#lines + 1] = ("%-" .. longest + 1 .. "s %s\n"):format(fact[1] .. ":", value)
    end
  end
  output.write(table.concat(lines))
end

return output
