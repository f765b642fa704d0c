--- Waiting until something is there in the sandbox: one command that looks again and again inside, with nothing but a shell, sleep and cat.

local errors = require "opensandbox.base.errors"
local options = require "opensandbox.base.options"
local shell = require "opensandbox.base.shell"

local wait_for = {}

local DEFAULT_TIMEOUT = 30    -- seconds
local DEFAULT_INTERVAL = 0.1  -- seconds
local NO_TOOLS, NO_TABLES = 3, 4 -- exit codes of our script

-- Not every sleep takes a fraction.
local LOOP = [[
while ! there; do sleep %s 2>/dev/null || sleep 1 || exit %d; done]]

-- A line of the tables holds the local address and port in hexadecimal, the remote ones, and the state; 0A is LISTEN. They are looked
-- at as one text: there may be thousands of lines, and a shell's `read` takes a byte at a time, or seeks.
local LISTENS = [[
there() {
  tables=
  for table in /proc/net/tcp /proc/net/tcp6; do
    [ -r "$table" ] || continue
    tables=$tables$(cat "$table") || exit %d
  done
  case $tables in
    '') exit %d;;
    *":%04X "????????:????" 0A "* | *":%04X "????????????????????????????????:????" 0A "*) return 0;;
  esac
  return 1
}
]]

local known_options = { timeout = "seconds", interval = "seconds" }

-- Runs a script until its function `there` succeeds. execd ends it when the time is over. `late`: code, message and hint of the error
-- then.
local function wait_until(sandbox, op, script, opts, late)
  opts = options.check(op, opts, known_options)
  local timeout = opts.timeout or DEFAULT_TIMEOUT
  local interval = ("%.3f"):format(math.max(opts.interval or DEFAULT_INTERVAL, 0.001)):gsub(",", ".")
  local result, err = sandbox:call_execd(op, "run_command", script .. LOOP:format(interval, NO_TOOLS), { timeout = timeout })
  if not result then return nil, err end
  if result.exit_code == 0 then return true end
  if result.timed_out then
    return nil, errors.timeout { op = op, code = late.code, text = late.message, option = "timeout", seconds = timeout,
      hint = late.hint, sandbox_id = sandbox.id }
  end
  local message, hint = "the command that looks ended with " .. tostring(result.signal or result.exit_code), nil
  if result.exit_code == NO_TOOLS then
    message, hint = "the sandbox has no sleep or cat that works", "Use an image with coreutils or busybox"
  elseif result.exit_code == NO_TABLES then
    message = "the sandbox has no /proc/net/tcp, so what listens in it cannot be seen"
    hint = "Try to connect to sandbox:endpoint(port) instead"
  elseif result.stderr ~= "" then
    message = message .. ": " .. result.stderr
  end
  return nil, errors.new { kind = "state", code = "cannot_look", op = op, sandbox_id = sandbox.id, message = message, hint = hint }
end

--- Waits until something in the sandbox listens on a TCP port, be it on 127.0.0.1 only.
---@param self opensandbox.Sandbox
---@param port integer 1 to 65535
---@param opts? table timeout (seconds, default 30), interval (seconds between two looks, default 0.1)
---@return true? ok
---@return opensandbox.Error? err kind `timeout`, code `not_listening` when nothing did in time
function wait_for.port(self, port, opts)
  local op = "sandbox:wait_for_port"
  options.port(op, port)
  return wait_until(self, op, LISTENS:format(NO_TOOLS, NO_TABLES, port, port), opts, {
    code = "not_listening", message = ("nothing listens on port %d"):format(port),
    hint = "Check that the server in the sandbox has started and uses that port, or raise the option timeout if it needs longer",
  })
end

--- Waits until a path exists in the sandbox: a file, a directory, a socket. A symbolic link counts when what it points to is there.
---@param self opensandbox.Sandbox
---@param path string
---@param opts? table timeout (seconds, default 30), interval (seconds between two looks, default 0.1)
---@return true? ok
---@return opensandbox.Error? err kind `timeout`, code `not_there` when it did not in time
function wait_for.file(self, path, opts)
  local op = "sandbox:wait_for_file"
  options.argument(op, "the path", path, "text")
  return wait_until(self, op, ("there() { [ -e %s ]; }\n"):format(shell.quote(path)), opts, {
    code = "not_there", message = ("there is no %s"):format(path),
    hint = "Check the path, or raise the option timeout if it needs longer",
  })
end

return wait_for
