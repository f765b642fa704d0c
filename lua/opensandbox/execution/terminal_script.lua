--- The command that a terminal's session runs: the user's command, between two marks in the output.
--
-- execd loses output that it has not read when the command ends, and its exit code reaches only the client that is connected then. So the
-- session's shell outlives the user's command: it writes the exit code into the output, and waits until the client has read it. The last
-- byte before that mark is the last one of the command. The first mark tells where the output begins: an execd that ignores the command
-- of a session writes none.
--
-- The marks are application program commands (ESC _ ... ESC \), which terminals ignore. They contain a random token that only this session
-- uses.

local each = require "opensandbox.base.each"
local shell = require "opensandbox.base.shell"

local terminal_script = {}

-- The traps keep the shell alive when the terminal interrupts the command, which has the default actions. The process that becomes the command
-- writes the first mark, so that no interrupt behind the mark is lost in the shell. The shell's own messages about an interrupt ("Killed") are
-- not for the terminal. When the command has ended, its input that was not read is skipped: the client sends the token when it has the exit
-- code. A read fails at Ctrl-D, and always when the terminal is gone.
local SCRIPT = [[exec 2>/dev/null
trap : HUP INT QUIT TERM
stty cols COLUMNS rows ROWS
case "${BASH:-}" in */bash) set -- "$BASH";; *) set -- sh;; esac
(printf '\033_TOKEN\033\\'
exec env -- ENVIRONMENT "$@" ARGUMENTS 2>&1)
c=$?
stty icanon -echo
printf '\033_TOKEN;%d\033\\' $c
n=0
while IFS= read -r l || [ $((n += 1)) -lt 9999 ]; do
  case $l in *TOKEN*) break;; esac
done
exit $c]]

---@class opensandbox.TerminalCommand
---@field token string of the marks
---@field command? string command line for the shell; nil: an interactive shell
---@field env table<string, string>
---@field cols integer
---@field rows integer

--- Returns the command of the session.
---@param options opensandbox.TerminalCommand
---@return string
function terminal_script.command(options)
  local variables = {}
  for name, value in each(options.env) do variables[#variables + 1] = shell.quote(name .. "=" .. value) end
  table.sort(variables)
  local values = {
    TOKEN = options.token, COLUMNS = tostring(options.cols), ROWS = tostring(options.rows),
    ENVIRONMENT = table.concat(variables, " "), ARGUMENTS = options.command and "-c " .. shell.quote(options.command) or "",
  }
  return (SCRIPT:gsub("%u%u%u%u+", values))
end

--- Returns the mark before the output.
---@param token string
---@return string
function terminal_script.start_mark(token)
  return "\27_" .. token .. "\27\\"
end

--- Returns the beginning of the mark after the output. The exit code and ESC \ follow.
---@param token string
---@return string
function terminal_script.end_mark(token)
  return "\27_" .. token .. ";"
end

--- Returns the input that ends the session after its end mark. A newline before it ends a line that was not read.
---@param token string
---@return string
function terminal_script.acknowledgement(token)
  return "\n" .. token .. "\n"
end

return terminal_script
