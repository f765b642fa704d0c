--- A terminal of a sandbox in our terminal, for `run -t`, `exec -t` and `shell`.

local check = require "opensandbox.cli.base.check"
local core = require "opensandbox.core"
local error_text = require "opensandbox.cli.base.error_text"
local event_loop = require "opensandbox.cli.base.event_loop"
local failure = require "opensandbox.cli.base.failure"
local opensandbox = require "opensandbox"
local output = require "opensandbox.cli.base.output"
local raw_terminal = require "opensandbox.cli.base.raw_terminal"

local terminal_arguments = {}

local STDIN, STDOUT = 0, 1
local COLUMNS, ROWS = 80, 24 -- of a terminal that does not know its size
local MAX_WAITING = 64 * 1024 -- bytes of keys
local LAST_KEYS_TIMEOUT = 1   -- seconds
local CTRL_P, CTRL_Q, BELL = "\16", "\17", "\a"

--- Declares the option -t.
---@param parser table of argparse
function terminal_arguments.declare(parser)
  parser:flag("-t --terminal", "Give the command a terminal; the default command is a shell then. Ctrl-P Ctrl-Q detaches.")
end

--- Checks that there is a terminal, before anything is created.
---@param args table
function terminal_arguments.check(args)
  if not (core.is_terminal(STDIN) and core.is_terminal(STDOUT)) then
    failure.usage("standard input and output must be a terminal: "
      .. (args.terminal and "leave out -t" or "'opensandbox exec' runs a command without one")) -- `shell` has no -t
  end
  for _, name in ipairs { "timeout", "user", "exact", "no_stdin" } do
    if args[name] then failure.usage(("--%s does not go with a terminal"):format((name:gsub("_", "-")))) end
  end
end

local function size()
  local columns, rows = core.terminal_size(STDOUT)
  return columns or COLUMNS, rows or ROWS
end

-- Returns whether the terminal continues after an error, and shows the error then. Our terminal is in raw mode, where a line needs "\r".
local function has_passed(err)
  if not err.terminal_continues then return false end
  output.write_error "\r\n"
  output.note(error_text.of(err))
  output.write_error "\r"
  return true
end

-- Keys that wait to be sent. A task sends them, so that Ctrl-P Ctrl-Q is read while the terminal takes nothing, as during an outage.
local Keys = {}
Keys.__index = Keys

function Keys:send()
  while self.waiting ~= "" do
    local keys = self.waiting
    self.waiting = ""
    local sent, problem = self.terminal:write(keys)
    if not sent and not has_passed(problem) then -- the code that waits for the terminal receives the error
      self.has_failed = true
      return
    end
    if not sent then output.write(BELL) end -- these keys are lost, because earlier ones may be, and they could mean something else then
  end
end

-- Adds keys, and waits while too many are waiting.
function Keys:add(keys)
  self.waiting = self.waiting .. keys
  if not self.task or self.task:done() then
    self.task = opensandbox.spawn(function() self:send() end)
  end
  if #self.waiting > MAX_WAITING then self.task:wait() end
end

-- Waits a moment for those that are left.
function Keys:finish()
  if not self.task then return end
  self.task:wait { timeout = LAST_KEYS_TIMEOUT }
  self.task:cancel()
end

-- Sends the typed keys, until Ctrl-P Ctrl-Q. A Ctrl-P waits for the next key, which decides its meaning. Returns whether it was detached.
local function send_keys(terminal)
  local typed = setmetatable({ terminal = terminal, waiting = "", task = nil, has_failed = false }, Keys)
  local held = ""
  while true do
    local bytes, err = event_loop.read(STDIN)
    if not bytes and type(err) == "table" then return false end -- the command has ended
    if not bytes or bytes == "" then -- our terminal was closed
      terminal:close()
      return false
    end
    bytes = held .. bytes
    local last = bytes:find(CTRL_P .. CTRL_Q, 1, true)
    held = not last and bytes:sub(-1) == CTRL_P and CTRL_P or ""
    local keys = bytes:sub(1, (last or #bytes - #held + 1) - 1)
    if keys ~= "" then typed:add(keys) end
    if last then typed:finish() end
    if last or typed.has_failed then return not typed.has_failed end
  end
end

-- Connects the two terminals. Returns the exit code, or nil and the results of terminal:detach().
local function connect(terminal)
  local detached
  local keys = opensandbox.spawn(function()
    if send_keys(terminal) then detached = terminal:detach() end
  end)
  event_loop.catch_signals({ "WINCH" }, function()
    local columns, rows = size()
    opensandbox.spawn(function()
      local ok, problem = terminal:resize(columns, rows)
      if not ok then has_passed(problem) end -- the code that waits for the terminal receives any other error
    end)
  end)
  local code, err
  repeat code, err = terminal:wait() until code or not has_passed(err)
  keys:cancel()
  if detached then return nil, detached end
  return check(code, err)
end

-- Returns whether the terminal of an error may still run, so that a person can attach to it.
local function may_run(err)
  return type(err) == "table" and (err.terminal_unreachable or err.code == "TAKEN_OVER") or false
end

-- Lets a terminal and its sandbox continue, and shows how to attach again.
local function leave_running(sandbox, id, state)
  sandbox:detach()
  output.note(("%s; 'opensandbox shell %s --attach %s' attaches again"):format(state, sandbox.id, id))
end

--- Runs a command in a terminal, or attaches to one. A terminal that may still run when this fails is not deleted, nor is its sandbox.
---@param sandbox opensandbox.Sandbox
---@param opts opensandbox.TerminalOpts
---@return integer? exit_code nil when it was detached, and continues in its sandbox
function terminal_arguments.run(sandbox, opts)
  opts.cols, opts.rows = size()
  opts.on_output = output.write
  if not opts.id then opts.term = os.getenv("TERM") end
  local terminal = check(sandbox:terminal(opts))
  raw_terminal.enter()
  local ok, code, detached = opensandbox.pcall(connect, terminal)
  raw_terminal.leave()
  if not ok then
    if not may_run(code) then error(code, 0) end
    output.write_error("\n")
    output.note(error_text.of(code), "red")
    terminal:detach()
    leave_running(sandbox, terminal.id, "the terminal may still run")
    failure.raise(failure.EXIT.CANNOT_RUN)
  end
  if detached then
    output.write("\n")
    return leave_running(sandbox, detached.id, "detached")
  end
  terminal:close()
  return code < 0 and failure.EXIT.SIGNAL or code
end

return terminal_arguments
