--- Builds the text that execd feeds to the shell of an isolated session.
--
-- execd writes the code to the standard input of the shell, followed by a line that prints the end marker and the exit code. A
-- program that reads its standard input would take that line. The run would then succeed with a wrong output, and later runs
-- would be lost. An open quote would take the line too, and a syntax error would make the shell exit.
--
-- So the code becomes the argument of `eval`, whose standard input is /dev/null. The shell parses the whole argument before it
-- reads the next line. A syntax error becomes an exit code. Directory, variables, functions and options stay in the session.
-- `command` makes `eval` an ordinary builtin: assignments before it last only while it runs, and a syntax error does not end a
-- shell in POSIX mode.
--
-- These limits remain: `exit`, `exec` and a failure under `set -e` end the shell, and so do errors of syntax inside `$( )` in
-- bash 5.2. `exec >file` redirects the end marker too, so that the run does not end. `set -x` and `set -v` print the line of the
-- end marker, and the rest of it appears in the next run; under `set -v` the exit code is always 0. A trap on ERR or DEBUG runs
-- once more, because of the `eval`.

local base64 = require "opensandbox.base.base64"
local each = require "opensandbox.base.each"
local options = require "opensandbox.base.options"
local reason = require "opensandbox.base.reason"
local tables = require "opensandbox.base.tables"

local isolated_script = {}

local CD_FAILED = 125 -- exit code when the shell cannot enter the directory, as that of `env --chdir`
local MAX_STDERR = 4096 -- bytes

--- Checks the names of the variables of a run, because a shell cannot assign to other names.
---@param op string
---@param env? table<string, string>
function isolated_script.check_env(op, env)
  for name in each(env or {}) do
    if not name:find("^[A-Za-z_][A-Za-z0-9_]*$") then
      options.raise(op, ("option 'env': %q is not a name of a shell variable (letters, digits and _)"):format(name))
    end
  end
end

-- Quotes one word. bash 5.2 does not take \' for a quote any more after some errors of syntax, so a quote is never written like
-- that here.
local function quote(text)
  return "'" .. text:gsub("'", [['"'"']]) .. "'"
end

-- Returns the command that enters a directory. A relative directory is below the current one; it is never "-" or found by CDPATH.
local function cd(directory)
  if directory:sub(1, 1) ~= "/" then directory = "./" .. directory end
  return "command cd -- " .. quote(directory)
end

--- Returns the text for a run in the foreground.
---@param code string
---@param opts table cwd, env
---@return string
function isolated_script.foreground(code, opts)
  local words = {}
  if opts.cwd then words[1] = ("{ %s || (exit %d); } &&"):format(cd(opts.cwd), CD_FAILED) end
  for _, name in ipairs(tables.sorted_keys(opts.env or {})) do words[#words + 1] = name .. "=" .. quote(opts.env[name]) end
  -- The newline completes a line that ends with a backslash.
  words[#words + 1] = ("command eval %s </dev/null"):format(quote(code .. "\n"))
  return table.concat(words, " ")
end

--- Returns the text for a run in the background. execd starts another shell for it, without standard input.
---@param code string
---@param opts table cwd
---@return string
function isolated_script.background(code, opts)
  if not opts.cwd then return code end
  return ("%s || exit %d\n%s"):format(cd(opts.cwd), CD_FAILED, code)
end

--- Returns the text for a script of the library. Options, functions and aliases of the session's shell do not affect the script,
--- and its failure does not end a shell under `set -e`.
---@param script string for any POSIX shell
---@param directory string to run in
---@return string
function isolated_script.helper(script, directory)
  local text = ("%s || exit %d\n%s"):format(cd(directory), CD_FAILED, script)
  return ("( { set +x; } 2>/dev/null; exec sh -c %s ) </dev/null && :"):format(quote(text))
end

-- Writes the stdout of a script as lines of base64, because the events of a run carry text. After a failure the script's stderr
-- follows, with a "!" before it.
local BASE64_SCRIPT = [[
command -v base64 >/dev/null || { echo '!the session has no program base64'; exit 127; }
w=$(echo | base64 -w 60000 >/dev/null 2>&1 && echo '-w 60000')
exec 3>&1
e=$({ { ( %s
); echo "exit $?" >&2; } | base64 $w >&3; } 2>&1)
code=${e##*exit }
[ "$code" = 0 ] || printf '!%%s\n' "$e"
exit "$code"]]

--- Returns a script that writes the output of another script as lines of base64, for `decoder`.
---@param script string for any POSIX shell
---@return string
function isolated_script.as_base64(script)
  return BASE64_SCRIPT:format(script)
end

--- Makes a decoder for the output of such a script. Returns a function for `on_stdout`, and a function that returns the script's
--- stderr.
---@param sink fun(bytes: string) called with the bytes of each line
---@return fun(text: string) on_text
---@return fun(): string stderr
function isolated_script.decoder(sink)
  local stderr
  local function on_text(text)
    local bytes = not stderr and base64.decode(text)
    if bytes then return sink(bytes) end
    stderr = ((stderr or "") .. text):sub(1, MAX_STDERR)
  end
  return on_text, function() return ((stderr or ""):gsub("^!", ""):gsub("exit %d+%s*$", "")) end
end

--- Returns the message of the shell when it could not enter the directory of a run. None of the code has run then.
---@param result opensandbox.CommandResult
---@param opts table cwd
---@return string? problem
function isolated_script.cd_problem(result, opts)
  if not opts.cwd or result.exit_code ~= CD_FAILED then return nil end
  local at = result.stdout:find("cd: ", 1, true)
  if at and result.stdout:find(opts.cwd, at, true) then return reason(result.stdout) end
end

return isolated_script
