--- Creates that are interrupted while they are under way: creates.lua [TRIES]
--
-- On a development server whose creates take half a second, a create is interrupted in each way at each moment, and no sandbox may stay
-- behind. Some tries of a way at a moment run at the same time, but not all: closing waits 2 seconds only, and this machine may be busy.

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"

local tries = tonumber(arg[1]) or 20
local MAX_CONCURRENT = 5

local CREATE_DELAY = 0.5
local MOMENTS = { 0.05, 0.2, 0.4 } -- seconds after the start of the create
local QUIET_TIME = 1.5             -- seconds without a sandbox, after which none is expected to appear
local SETTLE_TIME = 15             -- seconds until the last sandbox must be deleted
local IMAGE = "python:3.12"

local server = process.devserver { args = { "--create-delay", tostring(CREATE_DELAY) } }
local observer = opensandbox.new(server.url, server.key)
local failures = 0

local function count()
  return #assert(observer:list_sandboxes())
end

local function client()
  return opensandbox.new(server.url, server.key)
end

local function creating(owner)
  return opensandbox.spawn(function() return owner:create { image = IMAGE } end)
end

local ways = {}

-- Ways of this process: functions of the moment that return a function which closes what is left. `concurrent` tries run at the same time.

local function way(name, start)
  ways[#ways + 1] = { name = name, run = function(moment, concurrent)
    local tasks = {}
    for i = 1, concurrent do tasks[i] = opensandbox.spawn(start, moment) end
    local closers = {}
    for i = 1, concurrent do closers[i] = assert(tasks[i]:wait()) end
    return function()
      for _, close in ipairs(closers) do close() end
    end
  end }
end

way("client:close()", function(moment)
  local owner = client()
  local task = creating(owner)
  opensandbox.sleep(moment)
  owner:close()
  return function() task:wait() end
end)

way("task:cancel()", function(moment)
  local owner = client()
  local task = creating(owner)
  opensandbox.sleep(moment)
  task:cancel()
  task:wait()
  return function() owner:close() end
end)

way("a task of map that raises", function(moment)
  local owner = client()
  pcall(opensandbox.map, { 1, 2, 3, 4, 5 }, function(i)
    if i < 5 then return owner:create { image = IMAGE } end
    opensandbox.sleep(moment)
    error("the fifth fails", 0)
  end, { concurrency = 5 })
  return function() owner:close() end
end)

way("pool:close() while it fills", function(moment)
  local owner = client()
  local pool = owner:pool { image = IMAGE, min_idle = 2, max_size = 4 }
  opensandbox.sleep(moment)
  pool:close()
  return function() owner:close() end
end)

way("client:close() while a pool fills", function(moment)
  local owner = client()
  local pool = owner:pool { image = IMAGE, min_idle = 2, max_size = 4 }
  opensandbox.sleep(moment)
  owner:close()
  return function() pool:close() end
end)

-- Ways of a process that ends: the lines of a script after the create has started.

local function ending(name, lines)
  ways[#ways + 1] = { name = name, run = function(moment, concurrent)
    local script = temporary.file(([[
      local opensandbox = require "opensandbox"
      client = opensandbox.new(%q, %q)
      task = opensandbox.spawn(function() return client:create { image = %q } end)
      opensandbox.sleep(%g)
      %s
    ]]):format(server.url, server.key, IMAGE, moment, lines))
    local children = {}
    for i = 1, concurrent do children[i] = process.start { argv = { process.lua(), script }, env = process.module_paths() } end
    for i = 1, concurrent do
      if not children[i]:wait(20) then
        failures = failures + 1
        print(name .. ": the script does not end")
      end
      children[i]:stop()
    end
    temporary.remove(script)
    return function() end
  end }
end

ending("a script that fails", 'error "it fails"')
ending("a script that ends", "")
ending("a script that ends with os.exit(0, true)", "os.exit(0, true)")

-- Returns the number of sandboxes that are left: 0 when none has been listed for a while, because a create under way is not in the list.
local function left()
  local deadline = core.now() + SETTLE_TIME
  local empty_since = core.now()
  while core.now() < deadline do
    if count() > 0 then empty_since = core.now() end
    if core.now() - empty_since > QUIET_TIME then return 0 end
    opensandbox.sleep(0.05)
  end
  return count()
end

local began = core.now()
local kept = assert(observer:create { image = IMAGE }):detach()
assert(core.now() - began > CREATE_DELAY, "creates are not delayed")
assert(count() == 1, "a sandbox is not listed")
assert(kept:kill())

for _, each in ipairs(ways) do
  for _, moment in ipairs(MOMENTS) do
    local number = 0
    for first = 1, tries, MAX_CONCURRENT do
      local close = each.run(moment, math.min(MAX_CONCURRENT, tries - first + 1))
      local stayed = left()
      close()
      if stayed > 0 then observer:kill_all {} end
      number = number + stayed
    end
    print(("%-42s after %4.2f s: %d tries, %d sandboxes left"):format(each.name, moment, tries, number))
    io.stdout:flush()
    if number > 0 then failures = failures + 1 end
  end
end

observer:close()
server:stop()
print(failures == 0 and "interrupted creates: all is well" or ("interrupted creates: %d failures"):format(failures))
os.exit(failures == 0 and 0 or 1)
