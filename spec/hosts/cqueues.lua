--- cqueues: coroutines of one controller, and what its users do besides.

local cqueues = require "cqueues"
local opensandbox = require "opensandbox"
local runner = require "spec.hosts.scenario_runner"

local unpack = table.unpack or unpack -- luacheck: std max

local cq = cqueues.new()

local function beat()
  while not runner.over do
    runner.beat()
    cqueues.sleep(runner.heartbeat)
  end
end

local function echo(sandbox, word)
  return (opensandbox.assert(sandbox:run("sleep 0.3; echo " .. word)).stdout:gsub("\n", ""))
end

local own = {}

-- Coroutines that we have not made call us, at once.
function own.wrapped()
  local sandbox = runner.sandbox()
  local began, slowest, outputs, left = opensandbox.now(), 0, {}, 10
  for i = 1, left do
    cq:wrap(function()
      local started = opensandbox.now()
      outputs[i] = echo(sandbox, i)
      slowest = math.max(slowest, opensandbox.now() - started)
      left = left - 1
    end)
  end
  while left > 0 do cqueues.sleep(0.01) end
  runner.record("outputs", table.concat(outputs, " "))
  runner.record("seconds", opensandbox.now() - began)
  runner.record("slowest", slowest)
  sandbox.client:close()
end

-- A callback raises in a coroutine of the controller: loop() returns the error, and the others and the next loop() continue.
function own.failing()
  local sandbox = runner.sandbox()
  local failed, outputs = false, {}
  cq:wrap(function()
    failed = true
    sandbox:run("echo now; sleep 60", { on_stdout = function() error("raised in a callback", 0) end })
  end)
  cq:wrap(function() outputs[1] = echo(sandbox, "other") end)
  while not (failed and outputs[1]) do cqueues.sleep(0.01) end
  runner.record("outputs", table.concat(outputs, " "))
  sandbox.client:close()
end

-- A controller inside a coroutine of another; both wait for us.
function own.nested()
  local sandbox = runner.sandbox()
  local inner, outputs = cqueues.new(), {}
  local function run(i) outputs[i] = echo(sandbox, i) end
  inner:wrap(run, 1)
  inner:wrap(run, 2)
  local outer = opensandbox.spawn(run, 3)
  assert(inner:loop())
  outer:wait()
  runner.record("outputs", table.concat(outputs, " "))
  sandbox.client:close()
end

-- Code that is not a scenario of one controller.
local outside = {}

function outside.blocking()
  runner.block(function(fn)
    cq:wrap(fn)
    assert(cq:step(0))
  end, function() assert(cq:loop()) end)
end

-- The loop ends, and is run again with other coroutines.
function outside.twice()
  local sandbox, outputs = runner.sandbox(), {}
  for i = 1, 2 do
    cq:wrap(function() outputs[i] = echo(sandbox, i) end)
    assert(cq:loop())
  end
  runner.record("outputs", table.concat(outputs, " "))
  sandbox.client:close()
end

-- Two controllers that wait at once, stepped in turn. Neither may keep the other busy.
function outside.two()
  local sandbox, outputs, turns = runner.sandbox(), {}, 0
  local both = { cq, cqueues.new() }
  for i, one in ipairs(both) do one:wrap(function() outputs[i] = echo(sandbox, i) end) end
  local all = cqueues.new()
  for _, one in ipairs(both) do
    all:wrap(function()
      while not one:empty() do
        turns = turns + 1
        assert(one:step())
      end
    end)
  end
  local processor = os.clock()
  assert(all:loop())
  runner.record("processor", os.clock() - processor)
  runner.record("turns", turns)
  runner.record("outputs", table.concat(outputs, " "))
  sandbox.client:close()
end

-- A controller is dropped while its coroutines wait: it can be collected, and everybody else goes on.
function outside.dropped()
  local sandbox = runner.sandbox()
  local held = setmetatable({}, { __mode = "k" })
  do
    local one = cqueues.new()
    held[one] = true
    one:wrap(function() sandbox:run("sleep 60") end)
    opensandbox.now()
    for _ = 1, 20 do assert(one:step(0.01)) end
  end
  for _ = 1, 4 do collectgarbage() end
  runner.record("collected", next(held) == nil)
  local output
  cq:wrap(function() output = echo(sandbox, "after") end)
  assert(cq:loop())
  runner.record("outputs", output)
  sandbox.client:close()
end

if outside[runner.scenario] then
  outside[runner.scenario]()
  runner.over = true
else
  cq:wrap(beat)
  cq:wrap(runner.run, unpack { own[runner.scenario] })
  repeat
    local ok, problem = cq:loop()
    if not ok then runner.record("problem", problem) end
  until ok
end
runner.report()
