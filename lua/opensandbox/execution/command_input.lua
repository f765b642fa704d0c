--- The standard input of a command: the option `stdin`.
--
-- The standard input of execd's commands is empty. So the bytes are uploaded to a temporary file in the sandbox, from which the
-- command reads. The file is removed afterwards, also after a failure.
--
-- The file is /tmp/NAME for execd. A development server without isolation has another /tmp, which is the TMPDIR of its commands.

local coxpcall = require "opensandbox.loop.coxpcall"
local options = require "opensandbox.base.options"
local random = require "opensandbox.base.random"
local shell = require "opensandbox.base.shell"
local temporary_files = require "opensandbox.files.temporary_files"

local command_input = {}

local path_options = { path = "any" }

--- Checks the option `stdin`.
---@param op string
---@param stdin any
---@return table? input content or file, as of opensandbox.FileUpload; nil: none is needed
function command_input.check(op, stdin)
  if stdin == nil or stdin == "" then return nil end -- execd's own is empty
  if type(stdin) == "string" or type(stdin) == "function" or io.type(stdin) == "file" then return { content = stdin } end
  local meta = getmetatable(stdin)
  if type(meta) == "table" and meta.__call then return { content = function() return stdin() end } end
  if type(stdin) ~= "table" then
    options.raise(op, ("option 'stdin' must be a string, an open file, { path = ... } or a function, not %s"):format(
      io.type(stdin) or "a " .. type(stdin)))
  end
  options.check(op, stdin, path_options)
  options.argument(op, "the path of option 'stdin'", stdin.path, "nonempty string")
  return { file = stdin.path }
end

local REDIRECTION_TO_FILE = [[set -- /tmp/NAME; [ -f "$1" ] || set -- "${TMPDIR:-/tmp}/NAME"; exec <"$1"]]
local REPLACEMENT = [[; case "${BASH:-}" in */bash) set -- -a bash "$BASH";; *) set -- sh;; esac; exec "$@" -c ]]

--- Returns a command line whose shell redirects its input, and is then replaced by another shell that runs the command. The command is its
--- argument, so that nothing else changes for it: the shell's name, line numbers, syntax errors, here-documents, `exec`, exit codes and
--- signals. It sets no variable.
---@param redirection string for the shell
---@param line string the command
---@return string
function command_input.redirect(redirection, line)
  return redirection .. REPLACEMENT .. shell.quote(line)
end

-- A session keeps the state of its own shell, so the command runs in that.
local REDIRECTION = [[if [ -f /tmp/NAME ]; then exec </tmp/NAME; else exec <"${TMPDIR:-/tmp}/NAME"; fi]] .. "\n"

-- Returns the error of the upload in the words of the option.
local function upload_error(err)
  if err.code == "body_failed" then
    err.message, err.url = err.message:gsub("^the content", "option 'stdin'"), nil
  end
  return err
end

-- Calls a function with the name of the file while the input is in it.
local function with_file(client, endpoint, input, mode, run)
  local name = ".opensandbox-" .. random.hex(12) .. ".stdin"
  local path = "/tmp/" .. name
  local guard = temporary_files.guard(function() temporary_files.remove(client, endpoint, { path }) end)
  local ok, value, err = coxpcall.pcall(function()
    local file = { path = path, content = input.content, file = input.file, mode = mode }
    local uploaded, problem = client:upload_files(endpoint, { file })
    if not uploaded then return nil, upload_error(problem) end
    return run(name)
  end)
  guard.remove()
  if not ok then error(value, 0) end
  return value, err
end

--- Wraps a function that runs commands, so that they have the input.
---@param run fun(body: table, opts: table): opensandbox.CommandResult?, opensandbox.Error?
---@param client opensandbox.Client a view for the method that the user called
---@param endpoint opensandbox.Endpoint|string
---@param input table of command_input.check
---@return fun(body: table, opts: table): opensandbox.CommandResult?, opensandbox.Error?
function command_input.wrap(run, client, endpoint, input)
  return function(body, opts)
    local mode = body.uid and "0644" or "0600" -- another user reads it, too
    return with_file(client, endpoint, input, mode, function(name)
      body.command = command_input.redirect((REDIRECTION_TO_FILE:gsub("NAME", name)), body.command)
      return run(body, opts)
    end)
  end
end

--- Runs a command of a session with the input.
---@param client opensandbox.Client a view for the method that the user called
---@param endpoint opensandbox.Endpoint|string
---@param input table of command_input.check
---@param line string the command
---@param run fun(line: string): opensandbox.CommandResult?, opensandbox.Error?
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function command_input.run_in_session(client, endpoint, input, line, run)
  return with_file(client, endpoint, input, "0600", function(name) return run(REDIRECTION:gsub("NAME", name) .. line) end)
end

return command_input
