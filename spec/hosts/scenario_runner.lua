--- What the programs of the hosts have in common. Each is started as `program scenario url key [loop]`, runs that scenario in its loop while a
-- heartbeat of the loop's own is measured, and prints the observations as lines of `name=value`.

local opensandbox = require "opensandbox"
local websocket = require "spec.hosts.websocket"
local workflow = require "spec.hosts.workflow"

require "spec.hosts.preload"

local HEARTBEAT = 0.01 -- seconds

local runner = { heartbeat = HEARTBEAT, scenario = arg[1], over = false }

local url, key = arg[2], arg[3]
local options = arg[4] and { loop = arg[4] } or {}
local seen, last, latest = {}, nil, 0

-- Scenarios: called where code can wait, they put their observations into `seen`.
local scenarios = {}

function runner.client()
  return opensandbox.new(url, key, options)
end

function runner.sandbox()
  return opensandbox.assert(runner.client():create { image = "any" })
end

local function run(sandbox, command)
  return (opensandbox.assert(sandbox:run(command)).stdout:gsub("\n$", ""))
end

function runner.record(name, value)
  seen[name] = value
end

function scenarios.workflow()
  local result = workflow(opensandbox, url, key, options)
  for name, value in pairs(result) do seen[name] = value end
  seen.text = result.text:gsub("\n", "|")
  seen.outputs = table.concat(result.outputs, " ")
end

-- Three clients, each in a task that runs two commands.
function scenarios.clients()
  local began, slowest = opensandbox.now(), 0
  local results = opensandbox.map({ "a", "b", "c" }, function(name)
    local started = opensandbox.now()
    local client = runner.client()
    local sandbox = opensandbox.assert(client:create { image = "any" })
    local output = run(sandbox, "sleep 0.3; echo " .. name) .. run(sandbox, "echo " .. name:upper())
    client:close()
    slowest = math.max(slowest, opensandbox.now() - started)
    return output
  end)
  seen.outputs, seen.seconds, seen.slowest = table.concat(results, " "), opensandbox.now() - began, slowest
end

-- A generator of the user's, inside code that can wait, calls us: its yields are its own.
function scenarios.generator()
  local sandbox = runner.sandbox()
  local yielded = {}
  for value in coroutine.wrap(function()
    for i = 1, 3 do coroutine.yield(run(sandbox, "echo " .. i)) end
    -- What calls us through opensandbox.pcall is still the generator.
    local ok, value = opensandbox.pcall(run, sandbox, "echo 4")
    coroutine.yield(ok and value or "failed: " .. tostring(value))
  end) do
    yielded[#yielded + 1] = tostring(value)
  end
  seen.outputs = table.concat(yielded, " ")
  sandbox.client:close()
end

-- Waiting inside opensandbox.pcall, two of them deep; errors come through. Another task goes on meanwhile.
function scenarios.pcall()
  local sandbox = runner.sandbox()
  local steps = 0
  local other = opensandbox.spawn(function()
    while steps >= 0 do
      steps = steps + 1
      opensandbox.sleep(0.01)
    end
  end)
  local ok, output = opensandbox.pcall(function()
    local inner, problem = opensandbox.pcall(function()
      seen.inner = run(sandbox, "sleep 0.3; echo inner")
      error({ "raised" }, 0)
    end)
    seen.problem = not inner and problem[1]
    return run(sandbox, "echo outer")
  end)
  seen.ok, seen.output, seen.others_went_on = ok, output, steps >= 5
  steps = -1
  other:wait()
  sandbox.client:close()
end

-- Tasks are cancelled before they begin, while they sleep, while a command runs, and in the moment in which the command ends.
function scenarios.cancel()
  local sandbox = runner.sandbox()
  local ran = false
  local unborn = opensandbox.spawn(function() ran = true end)
  unborn:cancel()
  local _, err = unborn:wait()
  seen.unborn = err.kind
  seen.unborn_ran = ran

  local sleeping = opensandbox.spawn(function() return select(2, opensandbox.sleep(60)).kind end)
  local running = opensandbox.spawn(function() return select(2, sandbox:run("sleep 60")).kind end)
  opensandbox.sleep(0.2)
  local began = opensandbox.now()
  sleeping:cancel()
  running:cancel()
  seen.sleeping, seen.running, seen.seconds = sleeping:wait(), running:wait(), opensandbox.now() - began

  local raced = 0
  for i = 1, 10 do
    local ending = opensandbox.spawn(function()
      local result, problem = sandbox:run("true")
      return result and "done" or problem.kind
    end)
    opensandbox.sleep(i / 1000)
    ending:cancel()
    ending:cancel()
    local how, problem = ending:wait()
    how = how or problem.kind -- it may not have begun
    if how == "done" or how == "cancelled" then raced = raced + 1 end
  end
  seen.raced = raced
  seen.afterwards = run(sandbox, "echo fine")
  sandbox.client:close()
end

-- A WebSocket to the server that the environment names.
function scenarios.websocket()
  local client = runner.client()
  for name, value in pairs(websocket.run(opensandbox, client, os.getenv("OPENSANDBOX_TEST_WEBSOCKET"))) do seen[name] = value end
  client:close()
end

-- Nothing is closed: two requests are left in the background. The loop ends all the same.
function scenarios.unclosed()
  run(runner.sandbox(), "echo unclosed")
  seen.ended = opensandbox.now()
end

--- The host's heartbeat, to be called every `runner.heartbeat` seconds by its own means.
function runner.beat()
  local now = opensandbox.now()
  if last and not runner.over then latest = math.max(latest, now - last - HEARTBEAT) end
  last = now
end

--- Runs a scenario, the one that was asked for or one of the host's own.
function runner.run(scenario)
  local ok, problem = opensandbox.pcall(scenario or scenarios[runner.scenario])
  if not ok then seen.error = tostring(problem):gsub("\n", "|") end
  runner.over = true
end

--- Plays the scenario in which code outside of any coroutine calls us while the host's coroutines wait. `start` begins a function in a
--- coroutine of the host's and lets it come to its first wait, `finish` runs the host's loop to its end.
function runner.block(start, finish)
  local sandbox = runner.sandbox()
  local output
  start(function() output = run(sandbox, "sleep 0.2; echo inside") end)
  seen.outside = run(sandbox, "sleep 0.4; echo outside")
  seen.went_on_meanwhile = output ~= nil
  finish(function() return output end)
  seen.inside = output
  seen.again = run(sandbox, "echo again")
  sandbox.client:close()
  runner.over = true
end

--- Prints the observations.
function runner.report()
  seen.late, seen.over = latest, runner.over
  if seen.ended then seen.ended_after = opensandbox.now() - seen.ended end
  for name, value in pairs(seen) do io.write(name, "=", tostring(value), "\n") end
end

return runner
