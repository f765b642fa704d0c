--- The arguments of the program: a parser of argparse with all subcommands, of which only the chosen one is loaded.

local failure = require "opensandbox.cli.base.failure"
local luarocks = require "opensandbox.base.luarocks"
local output = require "opensandbox.cli.base.output"

local arguments = {}

local PROGRAM = "opensandbox"
local MAX_WIDTH = 100 -- columns of the help

-- The subcommands: groups of names with their summaries.
local GROUPS = {
  { "Sandboxes", {
    { "run", "create a sandbox, run a command in it, and delete it" },
    { "create", "create a sandbox" },
    { "ls", "list sandboxes" },
    { "info", "show a sandbox" },
    { "kill", "delete sandboxes" },
    { "renew", "set the lifetime of a sandbox" },
    { "pause", "pause sandboxes" },
    { "resume", "resume paused sandboxes" },
  } },
  { "Commands", {
    { "exec", "run a command in a sandbox" },
    { "shell", "open a shell of a sandbox in this terminal" },
    { "start", "start a command in the background" },
    { "status", "show commands in the background, or the processes of a sandbox" },
    { "stop", "stop commands in the background" },
    { "logs", "print the output of a command in the background" },
  } },
  { "Files, network, state", {
    { "cp", "copy files and directories into a sandbox, or out of it" },
    { "port", "print the URL of a port" },
    { "wait", "wait for a sandbox, a port, a file or a command" },
    { "snapshot", "make, list and delete snapshots" },
    { "egress", "show and change the network policy" },
    { "metrics", "show load and memory" },
  } },
  { "Help", {
    { "diagnose", "show what the server knows about a sandbox" },
    { "doctor", "check this installation, the server and the key" },
    { "dev", "run a development server on this machine" },
    { "completion", "print the completions for a shell" },
    { "mcp", "serve sandboxes to agents, with the Model Context Protocol" },
  } },
}

local EPILOG = "Server: OPEN_SANDBOX_DOMAIN and OPEN_SANDBOX_API_KEY, or --url and --key.\n"
  .. "Exit codes: 0 success; 1 failure; 2 wrong arguments; 124 a time limit ran out; 130 and 143 after Ctrl-C and SIGTERM; 141 "
  .. "nobody reads the output. run, exec and shell exit with the code of the command, with 128+N if signal N ended it, and with "
  .. "125 if opensandbox failed itself."

local INSTALL = "the Lua module argparse is missing, which reads the arguments: install it, on Debian and Ubuntu with "
  .. "'apt-get install lua-argparse', elsewhere with '" .. luarocks.install "argparse" .. "'"

local function load_argparse()
  local ok, argparse = pcall(require, "argparse")
  if ok then
    if argparse("").help_max_width then return argparse end
    failure.raise(failure.EXIT.FAILED, "the Lua module argparse is too old: 0.7.0 or newer is needed")
  end
  if tostring(argparse):find("module 'argparse' not found", 1, true) then failure.raise(failure.EXIT.FAILED, INSTALL) end
  error(argparse, 0)
end

local function load_command(name)
  return require("opensandbox.cli.command." .. name)
end

-- Options of every subcommand that talks to the server.
local function add_common_options(parser, command)
  if not command.has_no_result then
    parser:option("-o --output", "How results are printed: as a table, or as JSON."):choices { "table", "json" }:argname "FORMAT"
  end
  parser:option("--url", "URL of the server. Default: OPEN_SANDBOX_DOMAIN, else http://localhost:8080."):argname "URL"
  parser:option("--key", "API key. Default: OPEN_SANDBOX_API_KEY. Other users can see the arguments of a process."):argname "KEY"
  parser:flag("--use-server-proxy", "Reach sandboxes through the server.")
end

local full_names = setmetatable({}, { __mode = "k" }) -- by parser

-- Replaces argparse's own ends of the program.
local function set_ends(parser, name)
  full_names[parser] = name
  parser:add_help(false)
  parser:flag("-h --help", "Show this help message and exit."):action(function()
    output.write(parser:get_help() .. "\n")
    failure.raise(0)
  end)
  function parser.error(failed, message)
    if message:find("^unknown option") then
      local is_before_subcommand = full_names[failed] == PROGRAM
      message = message .. "\nOptions " .. (is_before_subcommand and "come after the subcommand"
        or "of a command in a sandbox come after --")
    end
    message = message:gsub("%?\n", "? "):gsub("\n", ". ")
    failure.raise(failure.EXIT.USAGE, ("%s (see '%s --help')"):format(message, full_names[failed]))
  end
end

local function sentence(summary)
  return summary:gsub("^%l", string.upper) .. "."
end

local function declare(parser, command_name, command)
  local function add_action(name, summary)
    local action = parser:command(name):summary(summary):description(sentence(summary))
    set_ends(action, ("opensandbox %s %s"):format(command_name, name))
    parser:command_target("action")
    return action
  end
  command.declare(parser, add_action)
  if not command.is_local then add_common_options(parser, command) end
  parser:epilog("Example:\n  " .. command.example)
end

-- Builds the parser. `wanted` decides by its name whether a subcommand is loaded.
local function build(wanted)
  local argparse = load_argparse()
  local parser = argparse("opensandbox"):description "Creates sandboxes, runs commands in them, and moves files in and out."
  local width = math.min(output.columns() or 80, MAX_WIDTH)
  parser:help_max_width(width):usage_max_width(width):command_target("subcommand"):require_command(false)
  parser:help_description_margin(width < 60 and 14 or 25):epilog(EPILOG)
  set_ends(parser, PROGRAM)
  parser:flag("--version", "Show the version and exit."):action(function()
    output.write("opensandbox " .. require "opensandbox.version" .. "\n")
    failure.raise(0)
  end)
  local commands = {}
  for _, group in ipairs(GROUPS) do
    local members = {}
    for _, entry in ipairs(group[2]) do
      local name, summary = entry[1], entry[2]
      local subparser = parser:command(name):summary(summary):description(sentence(summary))
      members[#members + 1] = subparser
      if wanted(name) then
        set_ends(subparser, "opensandbox " .. name)
        commands[name] = load_command(name)
        declare(subparser, name, commands[name])
      end
    end
    parser:group(group[1], (table.unpack or unpack)(members)) -- luacheck: std max
  end
  return parser, commands
end

--- Returns the parser with all subcommands and their options.
---@return table parser of argparse
function arguments.full_parser()
  return (build(function() return true end))
end

--- Reads the arguments of the program.
---@param argv string[]
---@return string? name of the subcommand; nil if help was printed
---@return table? args
---@return table? command
function arguments.parse(argv)
  local chosen
  for _, argument in ipairs(argv) do
    if argument:sub(1, 1) ~= "-" then
      chosen = argument
      break
    end
  end
  local parser, commands = build(function(name) return name == chosen end)
  if #argv == 0 then
    output.write(parser:get_help() .. "\n")
    return nil
  end
  local args = parser:parse(argv)
  if not args.subcommand then failure.usage("a subcommand is missing") end
  return args.subcommand, args, commands[args.subcommand]
end

return arguments
