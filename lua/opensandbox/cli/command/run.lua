--- `opensandbox run`: a sandbox for one command.

local check = require "opensandbox.cli.base.check"
local command_arguments = require "opensandbox.cli.base.command_arguments"
local create_arguments = require "opensandbox.cli.base.create_arguments"
local failure = require "opensandbox.cli.base.failure"
local output = require "opensandbox.cli.base.output"
local terminal_arguments = require "opensandbox.cli.base.terminal_arguments"
local values = require "opensandbox.cli.base.values"
local volumes = require "opensandbox.cli.base.volumes"

local run = {
  example = "opensandbox run python:3.12 -v .:/work -w /work -- python3 main.py", runs_command = true, has_no_result = true,
}

local DEFAULT_LIFETIME = 600   -- seconds from the last activity
local TERMINAL_LIFETIME = 3600 -- the same for a terminal, at which a person may think for a while

function run.declare(parser)
  parser:argument("image", "Image of the sandbox."):argname "IMAGE"
  command_arguments.declare_command(parser, "*")
  create_arguments.declare(parser, "--lifetime")
  command_arguments.declare(parser)
  command_arguments.declare_streams(parser)
  terminal_arguments.declare(parser)
  parser:option("-v --volume", "Copy a local file or directory into the sandbox, and back after the command. "
    .. "MODE ro: only in; out: only back."):argname "LOCAL:REMOTE[:MODE]":count "*":convert(values.volume)
  parser:flag("--gitignore", "Leave out of -v what .gitignore files name, and .git.")
  parser:flag("--keep", "Keep the sandbox, and print its id on standard error.")
end

function run.run(context)
  local args = context.args
  if args.terminal then
    terminal_arguments.check(args)
  elseif #args.command == 0 then
    failure.usage("a command is missing: opensandbox run IMAGE -- COMMAND, or -t for a shell")
  end
  volumes.check(args.volume)
  local opts = create_arguments.options(args)
  -- Without a lifetime of the user's, it is short and renewed while the command runs, so that nothing stays for long if this machine fails.
  local default = args.terminal and TERMINAL_LIFETIME or DEFAULT_LIFETIME
  if opts.timeout == nil then opts.timeout, opts.keep_alive = default, default end
  local sandbox = check(context:client():create(opts))
  if args.keep then
    sandbox:detach()
    output.note("kept sandbox " .. sandbox.id)
  end
  volumes.upload(sandbox, args.volume, args.gitignore)
  local code
  if args.terminal then
    code = terminal_arguments.run(sandbox, { command = command_arguments.command(args.command), cwd = args.cwd })
    if not code then return 0 end
  else
    code = command_arguments.run(sandbox, args)
  end
  volumes.download(sandbox, args.volume)
  if not args.keep then check(sandbox:kill()) end
  return code
end

return run
