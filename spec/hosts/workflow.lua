--- The workflow that runs, unchanged, in every host: create a sandbox, write and read a file, run fifty commands at once, cancel one,
--- use a terminal, write a command's input, kill the sandbox. It must be called where a host lets code wait: in a task, a light thread, a coroutine of the host's.
--
-- Returns its observations: `text` (of the file), `outputs`, `seconds` (wall time of the fifty), `slowest` (the longest of them),
-- `cancelled` (the kind of the error that a cancelled run returned), `stopped` (whether that command was gone from the sandbox afterwards),
-- `terminal` (the output of a terminal, without line ends, and its exit code), `sorted` (the output of a command for its input).

local COMMANDS = 50

return function(opensandbox, url, key, options)
  local client = opensandbox.new(url, key, options)
  local sandbox = opensandbox.assert(client:create { image = "any" })
  local seen = { outputs = {}, slowest = 0 }

  opensandbox.assert(sandbox.files:write("/tmp/in.txt", "some bytes\n"))
  seen.text = opensandbox.assert(sandbox.files:read("/tmp/in.txt"))

  local numbers = {}
  for i = 1, COMMANDS do numbers[i] = i end
  local began = opensandbox.now()
  local outputs, errors = opensandbox.map(numbers, function(number)
    local started = opensandbox.now()
    local result, err = sandbox:run("sleep 0.5; echo " .. number)
    if not result then return nil, err end
    seen.slowest = math.max(seen.slowest, opensandbox.now() - started)
    return (result.stdout:gsub("\n", ""))
  end, { concurrency = COMMANDS })
  seen.seconds = opensandbox.now() - began
  seen.outputs = outputs
  opensandbox.assert(not errors, errors and next(errors) and select(2, next(errors)))

  local task = opensandbox.spawn(function()
    local _, err = sandbox:run("echo $$ > tmp/pid; exec sleep 100")
    return err and err.kind
  end)
  while not sandbox.files:exists("/tmp/pid") do opensandbox.sleep(0.01) end
  task:cancel()
  seen.cancelled = task:wait()
  local deadline = opensandbox.now() + 5
  repeat
    local result = opensandbox.assert(sandbox:run("kill -0 $(cat tmp/pid)"))
    seen.stopped = result.exit_code ~= 0
    if not seen.stopped then opensandbox.sleep(0.05) end
  until seen.stopped or opensandbox.now() > deadline

  local pieces = {}
  local terminal = opensandbox.assert(sandbox:terminal { command = "stty -echo; echo ready; read x; echo got $x; exit 5",
    on_output = function(bytes) pieces[#pieces + 1] = bytes end })
  while not table.concat(pieces):find("ready", 1, true) do opensandbox.sleep(0.01) end -- it echoes no more
  opensandbox.assert(terminal:write "it\r")
  local code = opensandbox.assert(terminal:wait { timeout = 20 })
  seen.terminal = table.concat(pieces):gsub("\r\n", " ") .. code
  opensandbox.assert(terminal:close())

  local command = opensandbox.assert(sandbox:start("sort", { stdin = true }))
  opensandbox.assert(command:write "b\na\n")
  opensandbox.assert(command:close_stdin())
  opensandbox.assert(command:wait { timeout = 20 })
  seen.sorted = opensandbox.assert(command:logs()):gsub("\n", " ")

  opensandbox.assert(sandbox:kill())
  client:close()
  return seen
end
