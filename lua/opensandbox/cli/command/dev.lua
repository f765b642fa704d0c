--- `opensandbox dev`: the development server.

local failure = require "opensandbox.cli.base.failure"

local dev = { example = "opensandbox dev --port 8080", is_local = true }

function dev.declare(parser)
  parser:argument("options", "Options of the server, see 'opensandbox dev --help'."):argname "OPTION":args "*"
  parser:handle_options(false) -- the server reads them itself
end

function dev.run(context)
  local found, program = pcall(require, "opensandbox.devserver.program")
  if not found then failure.raise(failure.EXIT.FAILED, tostring(program)) end
  program(context.args.options, "opensandbox dev")
end

return dev
