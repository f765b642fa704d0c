--- `opensandbox completion`: the completions of a shell.

local output = require "opensandbox.cli.base.output"

local completion = { example = "eval \"$(opensandbox completion bash)\"", is_local = true }

local WRITERS = { bash = "get_bash_complete", zsh = "get_zsh_complete", fish = "get_fish_complete" }

function completion.declare(parser)
  parser:argument("shell", "bash, zsh or fish."):argname "SHELL":choices { "bash", "zsh", "fish" }
end

-- zsh loads such a file as a function of its own, or with `source`, which has to register it.
local ZSH_END = [[
if [ "$funcstack[1]" = "_opensandbox" ]; then
  _opensandbox "$@"
else
  compdef _opensandbox opensandbox
fi
]]

function completion.run(context)
  local parser, shell = context.full_parser(), context.args.shell
  local text = parser[WRITERS[shell]](parser)
  if shell == "zsh" then text = text:gsub("\n_opensandbox\n*$", "\n" .. ZSH_END) end
  output.write(text)
end

return completion
