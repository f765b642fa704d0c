--- Waits until a port or a path exists in the sandbox. One command polls inside; it needs only a shell, sleep and cat.

local deadline = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local numbers = require "opensandbox.base.numbers"
local options = require "opensandbox.base.options"
local shell = require "opensandbox.base.shell"

local wait_for = {}

local DEFAULT_TIMEOUT = 30    -- seconds
local DEFAULT_INTERVAL = 0.1  -- seconds
local GRACE_PERIOD = 1        -- seconds that execd gets, after the timeout, to report that it ended the command
local EXIT_NO_PROGRAMS, EXIT_NO_TABLES = 3, 4 -- exit codes of the script

-- Not every sleep accepts a fraction.
local POLL_SCRIPT = [[
while ! exists; do sleep %s 2>/dev/null || sleep 1 || exit %d; done]]

-- A line of the tables contains the local address and port in hexadecimal, the remote ones, and the state, which is 0A for LISTEN. All
-- lines are matched as one text, because there may be thousands of them and a shell's `read` takes one byte at a time.
local LISTEN_SCRIPT = [[
exists() {
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

local PATH_SCRIPT = [[
exists() { [ -e %s ]; }
]]

--- How long `wait_for_port` and `wait_for_file` wait.
--- ```lua
--- assert(sandbox:wait_for_port(8080, { timeout = 60, interval = 0.5 }))
--- ```
---@class opensandbox.WaitForOpts
---@field timeout? opensandbox.Duration default 30
---@field interval? opensandbox.Duration between two checks, default 0.1

local known_options = { timeout = "seconds", interval = "seconds" }

-- Runs a script until its function `exists` succeeds. execd kills it when the time is over. `timeout_error`: code, text and hint of the
-- error for that.
local function wait_until(sandbox, op, script, opts, timeout_error)
  opts = options.check(op, opts, known_options)
  local timeout = opts.timeout or DEFAULT_TIMEOUT
  local limit = deadline.new(timeout)
  local interval = numbers.format(math.max(opts.interval or DEFAULT_INTERVAL, 0.001), "%.3f")
  local command = script .. POLL_SCRIPT:format(interval, EXIT_NO_PROGRAMS)
  local result, err = sandbox:call_execd_within(op, { timeout = timeout + GRACE_PERIOD }, "run_command", command,
    { timeout = timeout })
  if not result then return nil, err.kind == "timeout" and limit:has_passed() and limit:error(op, err) or err end
  if result.exit_code == 0 then return true end
  if result.timed_out then
    return nil, errors.timeout { op = op, code = timeout_error.code, text = timeout_error.text, option = "timeout",
      seconds = timeout, hint = timeout_error.hint, sandbox_id = sandbox.id }
  end
  local message, hint = "the command that polls ended with " .. tostring(result.signal or result.exit_code), nil
  if result.exit_code == EXIT_NO_PROGRAMS then
    message, hint = "the sandbox has no sleep or cat that works", "Use an image with coreutils or busybox"
  elseif result.exit_code == EXIT_NO_TABLES then
    message = "the sandbox has no /proc/net/tcp, so its listening sockets are not visible"
    hint = "Try to connect to sandbox:endpoint(port) instead"
  elseif result.stderr ~= "" then
    message = message .. ": " .. result.stderr
  end
  return nil, errors.new { kind = "state", code = "cannot_poll", op = op, sandbox_id = sandbox.id, message = message, hint = hint }
end

--- Waits until a process in the sandbox listens on a TCP port, even if only on 127.0.0.1: POST /command of execd.
--- ```lua
--- assert(sandbox:wait_for_port(8080, { timeout = "1m", interval = 0.5 }))
--- ```
---@param self opensandbox.Sandbox
---@param port integer 1 to 65535
---@param opts? opensandbox.WaitForOpts
---@return true? ok
---@return opensandbox.Error? err kind `timeout`, code `not_listening` when no process listened in time
function wait_for.port(self, port, opts)
  local op = "sandbox:wait_for_port"
  options.port(op, port)
  return wait_until(self, op, LISTEN_SCRIPT:format(EXIT_NO_PROGRAMS, EXIT_NO_TABLES, port, port), opts, {
    code = "not_listening", text = ("nothing listens on port %d"):format(port),
    hint = "Check that the server in the sandbox has started and uses that port, or raise the option timeout if it needs longer",
  })
end

--- Waits until a path exists in the sandbox: a file, a directory, a socket. A symbolic link counts when its target exists. POST /command
--- of execd.
--- ```lua
--- assert(sandbox:wait_for_file("/tmp/ready", { timeout = 60 }))
--- ```
---@param self opensandbox.Sandbox
---@param path string
---@param opts? opensandbox.WaitForOpts
---@return true? ok
---@return opensandbox.Error? err kind `timeout`, code `not_found` when it did not exist in time
function wait_for.file(self, path, opts)
  local op = "sandbox:wait_for_file"
  options.argument(op, "the path", path, "nonempty string")
  return wait_until(self, op, PATH_SCRIPT:format(shell.quote(path)), opts, {
    code = "not_found", text = path .. " does not exist",
    hint = "Check the path, or raise the option timeout if it needs longer",
  })
end

return wait_for
