--- `opensandbox dev`: the development server.

local failure = require "opensandbox.cli.base.failure"

local dev = { example = "opensandbox dev --port 8080", is_local = true }

local INSTALL = "the development server needs the Lua module luv: install it, on Debian and Ubuntu with 'apt-get install lua-luv', "
  .. "elsewhere with 'luarocks install luv'"

function dev.declare(parser)
  parser:argument("options", "Options of the server, see 'opensandbox dev --help'."):argname "OPTION":args "*"
  parser:handle_options(false) -- the server reads them itself
end

function dev.run(context)
  local ok, problem = pcall(require, "luv")
  if not ok and tostring(problem):find("module 'luv' not found", 1, true) then failure.raise(failure.EXIT.FAILED, INSTALL) end
  require "opensandbox.devserver.program"(context.args.options, "opensandbox dev")
end

return dev
