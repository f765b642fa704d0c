--- `opensandbox mcp`: a server of the Model Context Protocol on standard input and output.

local rpc = require "opensandbox.cli.mcp.rpc"
local sandboxes = require "opensandbox.cli.mcp.sandboxes"
local server = require "opensandbox.cli.mcp.server"

local mcp = { example = "opensandbox mcp --url http://localhost:8080", has_no_result = true }

function mcp.declare(parser)
  parser:flag("--keep", "Keep the sandboxes of a session after its end; by default they are deleted.")
end

function mcp.run(context)
  rpc.serve(server.methods(sandboxes.new(context:client(), context.args.keep or false)))
end

return mcp
