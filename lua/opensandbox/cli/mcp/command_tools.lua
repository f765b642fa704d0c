--- The tools of the MCP server that run something. Names and parameters are those of the official server, and some more.

local check = require "opensandbox.cli.base.check"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local tool_parameters = require "opensandbox.cli.mcp.parameters"
local utf8 = require "opensandbox.base.utf8"

local ID, CONNECT = tool_parameters.SANDBOX_ID, tool_parameters.CONNECT

local MAX_OUTPUT = 64 * 1024 -- bytes of each stream: a model reads the result

local COMMAND = {
  { "working_directory", "string", "Directory in which it starts." }, { "env", "string map", "Environment variables." },
  { "timeout_seconds", "number", "Time limit of the command." }, { "stdin", "string", "Its standard input." },
  { "max_output_bytes", "integer", "How much of each stream is returned: its beginning and its end.", default = MAX_OUTPUT },
}

-- Returns the parameters of a tool that runs a command.
local function with_command(...)
  local list = {}
  for _, parameter in ipairs { ... } do list[#list + 1] = parameter end
  for _, parameter in ipairs(COMMAND) do list[#list + 1] = parameter end
  return list
end

-- Runs a command, and reports its output as progress.
local function run(sandbox, args, report)
  local opts = {
    cwd = args.working_directory, env = args.env, timeout = args.timeout_seconds, stdin = args.stdin,
    max_output = args.max_output_bytes or MAX_OUTPUT, on_stdout = report, on_stderr = report,
  }
  local result = check(sandbox:run(args.command, opts))
  return {
    id = result.id, exit_code = result.exit_code, signal = result.signal, timed_out = result.timed_out,
    stdout = utf8.replace_invalid(result.stdout), stderr = utf8.replace_invalid(result.stderr),
    stdout_dropped = result.stdout_dropped > 0 and result.stdout_dropped or nil,
    stderr_dropped = result.stderr_dropped > 0 and result.stderr_dropped or nil, duration = result.duration,
  }
end

local function tool(name, description, parameters, fn, read_only)
  return { name = name, description = description, parameters = parameters, run = fn, read_only = read_only }
end

return {
  tool("command_run", "Runs a shell command in a sandbox and returns its output and exit code; in the background it returns an id.",
    with_command(ID, { "command", "string", "Line for the shell.", required = true },
      { "background", "boolean", "Return at once; see command_status and command_logs." }, CONNECT),
    function(sandboxes, args, report)
      local sandbox = sandboxes:get(args.sandbox_id)
      if not args.background then return run(sandbox, args, report) end
      local opts = { cwd = args.working_directory, env = args.env, timeout = args.timeout_seconds }
      return { id = check(sandbox:start(args.command, opts)).id, running = true }
    end),
  tool("command_interrupt", "Stops a running command.", {
    ID, { "execution_id", "string", "Id that command_run returned.", required = true }, CONNECT,
  }, function(sandboxes, args)
    check(sandboxes:get(args.sandbox_id):command(args.execution_id):kill())
    return { status = "interrupted" }
  end),
  tool("command_status", "Returns whether a command in the background runs, and its exit code.", {
    ID, { "execution_id", "string", "Id that command_run returned.", required = true },
  }, function(sandboxes, args)
    return check(sandboxes:get(args.sandbox_id):command(args.execution_id):status())
  end, true),
  tool("command_logs", "Returns the output of a command in the background from a byte offset.", {
    ID, { "execution_id", "string", "Id that command_run returned.", required = true },
    { "cursor", "integer", "Byte offset, the cursor of the last call.", default = 0 },
  }, function(sandboxes, args)
    local text, cursor = check(sandboxes:get(args.sandbox_id):command(args.execution_id):logs(args.cursor))
    return { text = utf8.replace_invalid(text), cursor = cursor }
  end, true),
  tool("sandbox_run", "Creates a sandbox, runs one shell command in it, and deletes it.",
    with_command({ "image", "string", "Image, for example python:3.12.", required = true },
      { "command", "string", "Line for the shell.", required = true }),
    function(sandboxes, args, report)
      local sandbox = check(sandboxes.client:create { image = args.image, keep_alive = 600 })
      local ok, result = opensandbox.pcall(run, sandbox, args, report)
      sandbox:close() -- a failure is repeated when the session ends
      if not ok then error(result, 0) end
      return result
    end),
  tool("code_run", "Runs code in a kernel of a sandbox, which keeps its variables. Needs an image with kernels.", {
    ID, { "code", "string", "The code.", required = true },
    { "language", "string", "python, bash, java, javascript, typescript or go.", default = "python" },
  }, function(sandboxes, args, report)
    local code = sandboxes:code(args.sandbox_id, args.language or "python")
    local result = check(code:run(args.code, { on_stdout = report, on_stderr = report }))
    return {
      stdout = utf8.replace_invalid(result.stdout), stderr = utf8.replace_invalid(result.stderr), text = result.text,
      error = result.error and { name = result.error.name, value = result.error.value,
        traceback = json.array(result.error.traceback or {}) } or nil,
      duration = result.duration,
    }
  end),
}
