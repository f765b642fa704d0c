--- What spec/hosts/nginx.conf runs in nginx. Each handler answers with JSON or a line of text.

local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local scheduler = require "opensandbox.loop.scheduler"

local ngx = rawget(_G, "ngx")
local seen = ngx.shared.seen -- of all workers

local handlers = {}
local shared = {}
local client -- made before the fork, used after it

local function sandbox()
  return assert(client:connect(ngx.var.arg_sandbox))
end

-- Runs the command of the query in its sandbox.
local function run()
  return assert(sandbox():run(ngx.unescape_uri(ngx.var.arg_command)))
end

function handlers.refused(phase)
  local ok, problem = pcall(function() return client:list_sandboxes() end)
  seen:set(phase, ok and "it was not refused" or tostring(problem))
end

function handlers.init()
  client = opensandbox.new()
  if os.getenv("SPEC_LOOKS") then require("opensandbox.core").notifier = function() end end -- as where there are no threads
  handlers.refused("init")
  local _, problem = pcall(function()
    local task = opensandbox.spawn(function() end)
    return task
  end)
  seen:set("spawn", tostring(problem))
end

--- Runs the command in any phase that can send an answer.
function handlers.phase()
  local result = run()
  ngx.say(ngx.get_phase(), " ", result.stdout)
  return ngx.exit(200)
end

shared.phase = handlers.phase

function shared.timer()
  local id, command = ngx.var.arg_sandbox, ngx.unescape_uri(ngx.var.arg_command)
  local text
  assert(ngx.timer.at(0, function()
    local result = assert(assert(client:connect(id)):run(command))
    text = ngx.get_phase() .. " " .. result.stdout
  end))
  while not text do ngx.sleep(0.005) end
  ngx.say(text)
end

--- The error of each phase that cannot wait.
function shared.refusals()
  local found = {}
  for _, phase in ipairs(seen:get_keys(0)) do found[phase] = seen:get(phase) end
  ngx.say(json.encode(found))
end

function shared.workflow()
  local workflow = require "spec.hosts.workflow"
  ngx.say(json.encode(workflow(opensandbox, nil, nil)))
end

function shared.run()
  local began = opensandbox.now()
  local result = run()
  local seconds = opensandbox.now() - began
  ngx.say(json.encode { stdout = result.stdout, exit_code = result.exit_code, seconds = seconds, pid = ngx.worker.pid() })
end

--- `count` commands one after the other: milliseconds of each.
function shared.latencies()
  local box, command = sandbox(), ngx.unescape_uri(ngx.var.arg_command)
  local times = {}
  for index = 1, tonumber(ngx.var.arg_count) do
    local began = opensandbox.now()
    assert(box:run(command))
    times[index] = (opensandbox.now() - began) * 1000
  end
  ngx.say(json.encode(times))
end

local pool -- the worker's, from its first use on

--- What is left to do for the pool is not the request's business: a new sandbox takes a second to warm up.
function shared.pool()
  pool = pool or client:pool { image = "any", min_idle = 1, max_size = 3, warm_up = function() assert(opensandbox.sleep(1)) end }
  local result = assert(pool:with(function(box) return box:run("echo pooled") end))
  ngx.say(result.stdout)
end

function shared.pool_stats()
  ngx.say(json.encode(pool:stats()))
end

function shared.close_pool()
  pool:close()
  pool = nil
  ngx.say("closed")
end

local beating

--- Beats every 5 ms until a request stops it. Answers with the milliseconds by which the latest beat was late because of this
--- process: no more than the processor time it had used meanwhile, for the rest was the machine's doing.
function shared.beat()
  local latest = 0
  beating = true
  while beating do
    local began, used = opensandbox.now(), os.clock()
    ngx.sleep(0.005)
    latest = math.max(latest, math.min(opensandbox.now() - began - 0.005, os.clock() - used))
  end
  ngx.say(latest * 1000)
end

function shared.still()
  beating = false
end

--- The output of a command, sent on as it comes.
function shared.stream()
  assert(sandbox():run(ngx.unescape_uri(ngx.var.arg_command), { on_stdout = function(text)
    ngx.print(text)
    ngx.flush(true)
  end }))
end

--- Tasks, map and sleep beside each other.
function shared.tasks()
  local box = sandbox()
  local order = {}
  local task = opensandbox.spawn(function()
    order[#order + 1] = "task"
    opensandbox.sleep(0.05)
    order[#order + 1] = "slept"
    return assert(box:run("echo task")).stdout
  end)
  order[#order + 1] = "spawned"
  local squares = opensandbox.map({ 1, 2, 3 }, function(n)
    return assert(box:run("echo $((" .. n .. " * " .. n .. "))")).stdout
  end)
  local sleeper = opensandbox.spawn(function()
    local _, err = opensandbox.sleep(30)
    return err.kind
  end)
  local _, late = sleeper:wait { timeout = 0.01 }
  sleeper:cancel()
  ngx.say(json.encode { task = task:wait(), order = order, squares = squares, late = late.kind, slept = sleeper:wait() })
end

--- A light thread that runs the command is killed.
function shared.kill()
  local box, command = sandbox(), ngx.unescape_uri(ngx.var.arg_command)
  local thread = ngx.thread.spawn(function() box:run(command) end)
  while not box.files:exists(ngx.unescape_uri(ngx.var.arg_wait)) do opensandbox.sleep(0.01) end
  assert(ngx.thread.kill(thread))
  ngx.say("killed")
end

--- One light thread ends the request while another runs the command.
function shared.exit()
  local box, command = sandbox(), ngx.unescape_uri(ngx.var.arg_command)
  ngx.thread.spawn(function() box:run(command) end)
  while not box.files:exists(ngx.unescape_uri(ngx.var.arg_wait)) do opensandbox.sleep(0.01) end
  ngx.say("exits")
  ngx.exit(200)
end

--- A WebSocket to the server of the query.
function shared.websocket()
  local websocket = require "spec.hosts.websocket"
  ngx.say(json.encode(websocket.run(opensandbox, client, ngx.unescape_uri(ngx.var.arg_url))))
end

--- What is under way in this worker.
function shared.state()
  local inflight = client.http.transport.multi:inflight()
  ngx.say(json.encode { inflight = inflight, waiting = scheduler.has_waiters(), pid = ngx.worker.pid() })
end

function handlers.content()
  local name = ngx.var.uri:match("([^/]+)$")
  local ok, problem = pcall(shared[name])
  if ok then return end
  ngx.status = 500
  ngx.say(tostring(problem))
end

return handlers
