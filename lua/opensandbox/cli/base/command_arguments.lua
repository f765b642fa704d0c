--- A command in a sandbox, for `run`, `exec` and `start`: its options, its input and output, and its exit code.

local check = require "opensandbox.cli.base.check"
local core = require "opensandbox.core"
local failure = require "opensandbox.cli.base.failure"
local input = require "opensandbox.cli.base.input"
local output = require "opensandbox.cli.base.output"
local values = require "opensandbox.cli.base.values"

local command_arguments = {}

local STDIN = 0
local INPUT_NOTE_DELAY = 3        -- seconds without input after which we explain that we wait for input
local MAX_OUTPUT = 1024           -- bytes of a command's output kept in memory: it is printed as it arrives
local MAX_EXACT_OUTPUT = 2 ^ 30   -- bytes of a command's output with --exact, which is printed at the end

-- The numbers of signals, by the names that execd reports.
local SIGNALS = {
  hangup = 1, interrupt = 2, quit = 3, ["illegal instruction"] = 4, ["trace/breakpoint trap"] = 5, aborted = 6, ["bus error"] = 7,
  ["floating point exception"] = 8, killed = 9, ["user defined signal 1"] = 10, ["segmentation fault"] = 11,
  ["user defined signal 2"] = 12, ["broken pipe"] = 13, ["alarm clock"] = 14, terminated = 15,
}

--- Declares the options of every command.
---@param parser table of argparse
function command_arguments.declare(parser)
  parser:option("-w --cwd", "Directory in which the command starts."):argname "DIR"
  parser:option("--timeout", "Time limit of the command: 90s, 10m, 1h30m. Default: none."):argname "DURATION"
    :convert(values.duration)
  parser:option("-u --user", "User who runs the command: UID or UID:GID."):argname "USER":convert(values.user)
end

--- Declares the options of a command for which the program waits.
---@param parser table of argparse
function command_arguments.declare_streams(parser)
  parser:flag("-n --no-stdin", "Give the command no input. By default it gets our standard input unless that is a terminal.")
  parser:flag("--exact", "Print the output's bytes as they were written, at the end; by default text, as it arrives.")
end

--- Declares the command itself.
---@param parser table of argparse
---@param count string of arguments: "+" or "*"
function command_arguments.declare_command(parser, count)
  parser:argument("command", "The command, after --. One word is a line for the shell; several are a program and its arguments.")
    :argname "COMMAND":args(count)
end

--- Returns the command as sandbox:run takes it.
---@param argv string[]
---@return string|string[]|nil command nil for none
function command_arguments.command(argv)
  if #argv == 0 then return nil end
  if argv[1] == "" then failure.usage("the command is empty") end
  return #argv == 1 and argv[1] or argv
end

--- Returns the options that every command has.
---@param args table
---@param env? string[] pairs
---@return table
function command_arguments.options(args, env)
  local user = args.user or {}
  return { cwd = args.cwd, env = values.map(env), timeout = args.timeout, uid = user.uid, gid = user.gid }
end

-- Reads a piece of the standard input. A closed one is an empty one.
local function read_input(seconds)
  return input.read(seconds, "")
end

-- Returns our standard input as the option `stdin`, or nil when it is empty. It is sent before the command starts.
local function stdin_option()
  if core.is_terminal(STDIN) then return nil end
  local first = read_input(INPUT_NOTE_DELAY)
  if not first then
    output.note("the command starts when the standard input ends; -n gives it no input")
    first = read_input()
  end
  if first == "" then return nil end
  return function()
    local bytes = first or read_input()
    first = nil
    return bytes ~= "" and bytes or nil
  end
end

--- Returns the exit code for the end of a command.
---@param result { exit_code?: integer, signal?: string, timed_out?: boolean }
---@return integer
function command_arguments.exit_code(result)
  if result.timed_out then return failure.EXIT.TIMEOUT end
  if result.signal then return failure.EXIT.SIGNAL + (SIGNALS[result.signal] or 0) end
  return result.exit_code or failure.EXIT.CANNOT_RUN
end

--- Runs a command with its output live, and our standard input.
---@param sandbox opensandbox.Sandbox
---@param args table
---@param env? string[] pairs
---@return integer exit_code
function command_arguments.run(sandbox, args, env)
  local opts = command_arguments.options(args, env)
  if not args.no_stdin then opts.stdin = stdin_option() end
  if args.exact then
    opts.capture, opts.max_output = "exact", MAX_EXACT_OUTPUT
  else
    opts.on_stdout, opts.on_stderr, opts.max_output = output.write, output.write_error, MAX_OUTPUT
  end
  local result = check(sandbox:run(command_arguments.command(args.command), opts))
  if args.exact then
    output.write(result.stdout)
    output.write_error(result.stderr)
    local dropped = result.stdout_dropped + result.stderr_dropped
    if dropped > 0 then output.note("the output is too long for --exact, so a part is missing") end
  end
  if result.timed_out then output.note(("the command was stopped after %s"):format(args.timeout .. " s")) end
  return command_arguments.exit_code(result)
end

return command_arguments
