--- The development server as a program: reads its arguments, starts the server, prints how to reach it, and stops it cleanly.

local ok, uv = pcall(require, "luv")
if not ok then
  if not tostring(uv):find("module 'luv' not found", 1, true) then error(uv, 0) end
  error("the development server needs the Lua module luv: install it, on Debian and Ubuntu with 'apt-get install lua-luv', "
    .. ("elsewhere with '%s'"):format(require("opensandbox.base.luarocks").install "luv"), 0)
end
local devserver = require "opensandbox.devserver"
local timer = require "opensandbox.devserver.base.timer"

local CLEANUP_TIMEOUT = 60 -- seconds after which the program exits although something is left

local USAGE = [[
Usage: %s [options]

Runs a development server for OpenSandbox clients on this machine: sandboxes are directories, commands are processes.
It prints two lines for your shell on standard output; everything else goes to standard error.

  --port N           port of the API (default 8080; 0 takes a free one)
  --gateway-port N   port of the sandboxes (default: a free one)
  --key KEY          API key (default: a random one)
  --root DIR         where sandboxes keep their files (default: a fresh temporary directory, removed at the end)
  --isolation MODE   auto, bwrap or none (default auto: bubblewrap where it works)
  --grace SECONDS    how long a command's stream stays open after its end, as real servers keep it (default 1)
  --create-delay SECONDS
                     how long a create takes: in the first half, the sandbox does not exist yet; in the second, it is listed
                     (default 0)
  --delete-delay SECONDS
                     how long a delete takes; the sandbox runs meanwhile (default 0)
  --collect-interval SECONDS
                     how often isolated sessions are closed whose idle time is over (default 60, as on real servers)
  --lose-output-at-exit
                     terminals lose the output of the last moments before the exit, as real servers sometimes do
  --newest-execd     be as the execd of server 1.1.1: with file routes as another user, of which only the server's own can be one,
                     and with several directories in an isolated session
  --templates        have templates and make sandboxes from them, as a server on Kubernetes does
  --exit-with-stdin  stop when standard input ends
  --help, --version
]]

local BANNER = [[
opensandbox-devserver %s on %s, sandboxes at %s
  %s
  network policies and credentials are kept and shown, but not enforced
  sandboxes keep their files in %s
  Copy the two "export" lines into the shell that runs your client. Ctrl-C stops the server and removes everything.
]]

local program_name

local function fail(message)
  io.stderr:write(program_name, ": ", message, "\n")
  os.exit(1)
end

local NUMBERS = {
  ["--port"] = "port", ["--gateway-port"] = "gateway_port", ["--grace"] = "grace", ["--create-delay"] = "create_delay",
  ["--delete-delay"] = "delete_delay", ["--collect-interval"] = "collect_interval",
}
local TIMES = { "grace", "create_delay", "delete_delay", "collect_interval" }
local TEXTS = { ["--key"] = "key", ["--root"] = "root", ["--isolation"] = "isolation" }
local FLAGS = {
  ["--exit-with-stdin"] = "exit_with_stdin", ["--lose-output-at-exit"] = "lose_output_at_exit", ["--templates"] = "templates",
  ["--newest-execd"] = "newest_execd",
}
local MODES = { auto = true, bwrap = true, none = true }

local function parse(arguments)
  local options, index = {}, 1
  while arguments[index] do
    local name, value = arguments[index]:match("^(%-%-[%w-]+)=(.*)$")
    name = name or arguments[index]
    if name == "--help" or name == "-h" then
      io.stdout:write(USAGE:format(program_name))
      os.exit(0)
    elseif name == "--version" then
      io.stdout:write("opensandbox-devserver ", devserver.VERSION, "\n")
      os.exit(0)
    elseif FLAGS[name] then
      options[FLAGS[name]] = true
    elseif NUMBERS[name] or TEXTS[name] then
      if not value then
        index = index + 1
        value = arguments[index] or fail(name .. " needs a value")
      end
      if NUMBERS[name] then
        options[NUMBERS[name]] = tonumber(value) or fail(("%s needs a number, not '%s'"):format(name, value))
      else
        options[TEXTS[name]] = value
      end
    else
      fail(("unknown option '%s'; --help lists them"):format(name))
    end
    index = index + 1
  end
  for _, name in ipairs { "port", "gateway_port" } do
    local port = options[name]
    if port and (port < 0 or port > 65535 or port % 1 ~= 0) then fail("a port is a number from 0 to 65535") end
  end
  for _, name in ipairs(TIMES) do
    local seconds = options[name] or 0
    if not (seconds >= 0 and seconds < math.huge) then
      fail(("--%s is a number of seconds, not negative"):format((name:gsub("_", "-"))))
    end
  end
  if not MODES[options.isolation or "auto"] then fail("--isolation is auto, bwrap or none") end
  return options
end

-- The signals whose default action ends a process, except those by which the system reports a fault of the program itself.
local ENDING_SIGNALS = {
  "sigint", "sigterm", "sighup", "sigquit", "sigusr1", "sigusr2", "sigalrm", "sigvtalrm", "sigprof", "sigxcpu", "sigxfsz",
}

local server, stopping

local function finish()
  -- The state is not closed, because closing a signal's handle restores its default action: the next signal would kill this process.
  io.stdout:flush()
  os.exit(0)
end

-- Called by every signal; only the first one has an effect, so that no signal interrupts the clean-up.
local function stop()
  if stopping or not server then
    stopping = true
    return
  end
  stopping = true
  timer.after(CLEANUP_TIMEOUT * 1000, function()
    fail(("could not remove everything within %d seconds; see %s"):format(CLEANUP_TIMEOUT, server.root))
  end)
  server:stop(finish)
end

--- Runs the program until a signal stops it.
---@param arguments string[]
---@param name string the program's name in messages
return function(arguments, name)
  program_name = name
  local options = parse(arguments)
  -- Before the server starts, because it creates its directory while it starts.
  local signals = {} -- a handle that nothing refers to is closed by the collector
  for index, signal in ipairs(ENDING_SIGNALS) do
    signals[index] = uv.new_signal()
    signals[index]:start(signal, stop)
  end

  local problem
  server, problem = devserver.start(options)
  if not server then fail(problem) end

  if options.exit_with_stdin then
    -- A file, such as /dev/null, has no end to wait for.
    local kind = uv.guess_handle(0)
    if kind == "pipe" or kind == "tty" then
      local input = kind == "tty" and uv.new_tty(0, true) or uv.new_pipe(false)
      if kind == "pipe" then input:open(0) end
      input:read_start(function(_, data)
        if not data then stop() end
      end)
    end
  end

  io.stderr:write(BANNER:format(devserver.VERSION, server.url, server.gateway_url, server.isolation, server.root))

  io.stdout:write("export OPEN_SANDBOX_DOMAIN=", server.url, "\n")
  io.stdout:write("export OPEN_SANDBOX_API_KEY=", server.key, "\n")
  io.stdout:flush()

  if stopping then
    stopping = false
    stop()
  end
  uv.run()
end
