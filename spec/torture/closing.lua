--- Everything is closed from everywhere, with the collector at work all the time: closing.lua SHORT|FULL [NAME]
--
-- A combination: an object is closed, in a place, while something is in use. The use must end soon, with the documented kind of error, whose
-- `op` is the method that was called. Nothing may stay behind: no descriptor, no sandbox, no coroutine that waits. Nothing may crash, which
-- says most under a sanitizer. The tables are in closing_matrix.lua. What the core does when its objects are closed by finalizers is in
-- spec/core/finalizer_spec.lua. "full" tries each wait from each place, and closes in each callback also what its call does not depend on;
-- "short" distributes the places over the waits. NAME: part of the name of a combination, to try some only.

-- Every coroutine, before the library is loaded, so that one that waits for ever is found.
local coroutines = {}
local create = coroutine.create
coroutine.create = function(fn) -- luacheck: ignore 122
  local made = create(fn)
  coroutines[made] = true
  return made
end

local core = require "opensandbox.core"
local matrix = require "spec.torture.closing_matrix"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local procfs = require "spec.support.procfs"
local silencing_relay = require "spec.support.silencing_relay"
local temporary = require "spec.support.temporary"

local is_full, only = arg[1] == "full", arg[2]

local CONCURRENCY = 40     -- combinations at the same time
local LOW_CONCURRENCY = 2  -- of those that block all others, in the full form
local HANG_TIME = 90       -- seconds
local CLIENT_TIMEOUT = 30  -- seconds: longer than a use may take, so that a wait that ends by its own limit is found
local MAX_TIME = 12        -- seconds from the closing to the end of the use: each client that closes may hold up the others for two seconds
local MAX_CLOSE_TIME = 15  -- seconds of a closing
local SLOW_URL = "http://slow.example" -- its lookup takes as long as spec/c/slow_lookup.c says
local SETTLE_TIME = 20     -- seconds in which the last deletes, tasks and name lookups end

local server = process.devserver { grace = 0 }
local relay = silencing_relay.start(tonumber(server.url:match ":(%d+)$"))
local failures, combinations, outcomes = 0, 0, {}

local function fail(where, ...)
  failures = failures + 1
  print(where .. ": " .. string.format(...))
  io.stdout:flush()
end

-- An error that no code waits for is a failure.
opensandbox.new(nil, nil, { loop = { name = "closing", report = function(text) fail("reported", "%s", text) end } }):close()

local observer = opensandbox.new(server.url, server.key)
local directory = temporary.directory()
local tree = temporary.directory(directory)
local upload = temporary.file(matrix.CONTENT, tree)

local function context(number, peer)
  local c = setmetatable({}, { __index = function(self, name)
    local make = matrix.objects[name]
    local object = make and make(self)
    rawset(self, name, object)
    return object
  end })
  c.own, c.tree, c.upload = temporary.directory(directory), tree, upload
  c.port = (peer == "falls silent" or peer == "is silent" or peer == "is busy") and relay.open() or nil
  local url = peer == "has a slow name" and SLOW_URL or c.port and "http://127.0.0.1:" .. c.port or server.url
  c.metadata = { combination = tostring(number) }
  c.client = opensandbox.new(url, server.key, {
    use_server_proxy = c.port ~= nil, connect_timeout = CLIENT_TIMEOUT, timeout = CLIENT_TIMEOUT, idle_timeout = CLIENT_TIMEOUT,
    transfer_idle_timeout = CLIENT_TIMEOUT,
    on_request = function() if rawget(c, "on_request") then c.on_request() end end,
    on_response = function() if rawget(c, "on_response") then c.on_response() end end,
  })
  return c
end

-- Checks how a use has ended.
local function check_outcome(combination, c, result)
  local use, closing, where = combination.use, combination.closing, combination.name
  local err = not result.ok and result.value or result.value == nil and result.err or nil
  local outcome = err and tostring(type(err) == "table" and err.kind or "?") or "value"
  outcomes[outcome] = (outcomes[outcome] or 0) + 1
  if err and not opensandbox.is_error(err) then
    return fail(where, "%s: %s", result.ok and "returned" or "raised", tostring(err))
  end
  local op = err and err.kind == "cancelled" and combination.place and combination.place.op or use.op
  local is_right = not err or err.op == op or (type(op) == "table" and op[err.op])
  if not is_right then fail(where, "op %s: %s", tostring(err.op), err) end
  local name = combination.closing_name
  local kinds = use.kinds and use.kinds[name] or closing.kinds
  if err and not kinds[err.kind] then fail(where, "kind %s: %s", err.kind, err) end
  local may_succeed = not combination.place or (use.values and use.values[name])
  if not err and not may_succeed then fail(where, "ended with %s", tostring(result.value)) end
  if not c.closed_at then return fail(where, "was never closed") end
  local took = result.ended - c.closed_at
  if took > MAX_TIME then fail(where, "ended %.1f s after the closing: %s", took, tostring(err)) end
end

local function try(combination)
  local use, closing, where, peer = combination.use, combination.closing, combination.name, combination.peer
  combinations = combinations + 1
  local c = context(combinations, peer)
  for _, name in ipairs(use.needs or {}) do assert(c[name]) end
  for _, name in ipairs(type(use.of) == "table" and use.of or { use.of }) do assert(c[name]) end
  if closing.object then assert(c[closing.object]) end
  if not combination.place then assert(c.sandbox) end
  if peer == "is silent" then relay.change(c.port, "silent") elseif peer == "is busy" then relay.change(c.port, "busy") end
  local is_closing = false
  local function close()
    if is_closing or rawget(c, "is_closed") then return end -- closing sends requests, which call the hooks
    is_closing, c.closed_at = true, core.now()
    if peer == "falls silent" then relay.change(c.port, "silent") end
    local ok, problem = pcall(closing.close, c)
    is_closing, c.is_closed = false, true
    if not ok and not opensandbox.is_error(problem) then fail(where, "closing raised: %s", tostring(problem)) end
  end
  c.is_closed, c.closed_at = false, false
  c.on_request, c.on_response = false, false
  local call = combination.place and function() return combination.place.run(c, use, close) end
    or function() return use.call(c, close) end
  c.task = opensandbox.spawn(function()
    local ok, value, err = opensandbox.pcall(call)
    return { ok = ok, value = value, err = err, ended = core.now() }
  end)
  local result, err = c.task:wait { timeout = HANG_TIME }
  if not result then result = { ok = true, err = err, ended = core.now() } end
  c.on_request, c.on_response = false, false
  check_outcome(combination, c, result)
  while c.closed_at and not c.is_closed and core.now() - c.closed_at < MAX_CLOSE_TIME do opensandbox.sleep(0.01) end
  if c.closed_at and not c.is_closed then fail(where, "closing does not end") end
  local terminal = rawget(c, "terminal")
  if terminal and not c.port then terminal:close() end
  if c.port then relay.change(c.port, "agreeing") end -- closing a client whose deletes are not answered blocks the others
  c.client:close()
  if c.port then assert(observer:kill_all { metadata = c.metadata }) end -- the peer has received no delete
end

local function sorted(map)
  local list = {}
  for name in pairs(map) do list[#list + 1] = name end
  table.sort(list)
  return list
end

-- Returns whether closing this must end the wait.
local function concerns(use, closing)
  if not closing.object then return true end
  for _, name in ipairs(use.of) do
    if name == closing.object then return true end
  end
  return false
end

local chosen, chosen_blocking = {}, {}

local function choose(combination)
  if only and not combination.name:find(only, 1, true) then return end
  local place = combination.place
  local list = is_full and place and place.blocks and combination.peer ~= "answers" and chosen_blocking or chosen
  list[#list + 1] = combination
end

local function choose_wait(use_name, closing_name, peer, place_name)
  choose { use = matrix.waits[use_name], closing = matrix.closings[closing_name], closing_name = closing_name, peer = peer,
    place = matrix.places[place_name],
    name = ("%s closed from %s during %s, whose peer %s"):format(closing_name, place_name, use_name, peer) }
end

local place_names, next_place, next_peer = sorted(matrix.places), 0, 0

-- The short form tries one in so many of the combinations that block all others while the peer is silent.
local SHORT_SHARES = { place = 8, closing = 3 }
local blocking = { place = 0, closing = 0 }

-- Returns whether the short form leaves this combination out.
local function is_left_out(what, entry, peer)
  if is_full or peer == "answers" or not entry.blocks then return false end
  blocking[what] = blocking[what] + 1
  return blocking[what] % SHORT_SHARES[what] ~= 1
end

-- Returns the peers of a wait. Of those that do not answer, the short form tries one, in turn.
local function peers_of(use)
  if is_full then return use.peers end
  local answering, others = {}, {}
  for _, peer in ipairs(use.peers) do
    local list = peer == "answers" and answering or others
    list[#list + 1] = peer
  end
  next_peer = next_peer + 1
  answering[#answering + 1] = others[next_peer % #others + 1]
  return answering
end

-- Returns the number of the place for the short form.
local function short_place(usable, peer)
  next_place = next_place + 1
  local index = next_place % #usable + 1
  return is_left_out("place", matrix.places[usable[index]], peer) and index % #usable + 1 or index
end

for _, use_name in ipairs(sorted(matrix.waits)) do
  local use = matrix.waits[use_name]
  local usable = {}
  for _, place_name in ipairs(place_names) do
    if use.sends or not matrix.places[place_name].needs_request then usable[#usable + 1] = place_name end
  end
  for _, closing_name in ipairs(sorted(matrix.closings)) do
    local closing = matrix.closings[closing_name]
    for _, peer in ipairs(concerns(use, closing) and peers_of(use) or {}) do
      if (peer == "answers" or closing.is_local) and not is_left_out("closing", closing, peer) then
        local short = short_place(usable, peer)
        for i, place_name in ipairs(usable) do
          if is_full or i == short then choose_wait(use_name, closing_name, peer, place_name) end
        end
      end
    end
  end
end
for _, use_name in ipairs(sorted(matrix.callbacks)) do
  local use = matrix.callbacks[use_name]
  for _, closing_name in ipairs(sorted(matrix.closings)) do
    local closing = matrix.closings[closing_name]
    if is_full or not closing.object or closing.object == "sandbox" or closing.object == use.of then
      choose { use = use, closing = closing, closing_name = closing_name, peer = "answers",
        name = ("%s closed in %s"):format(closing_name, use_name) }
    end
  end
end

collectgarbage("setpause", 1)
collectgarbage("setstepmul", 1000)
local running = {} -- the time at which each combination has started
local collecting = opensandbox.spawn(function()
  while true do
    collectgarbage()
    for where, start in pairs(running) do
      if core.now() - start > HANG_TIME then
        fail(where, "does not end")
        running[where] = nil
      end
    end
    opensandbox.sleep(0.005)
  end
end)

local began = core.now()
try(chosen[1] or chosen_blocking[1]) -- loads what is loaded when it is first used
collectgarbage()
local descriptors = procfs.descriptors()

local function try_all(list, concurrency)
  local done, problems = opensandbox.map(list, function(combination)
    running[combination.name] = core.now()
    local ok, problem = opensandbox.pcall(try, combination)
    if not ok then fail(combination.name, "%s", tostring(problem)) end
    running[combination.name] = nil
    return true
  end, { concurrency = concurrency })
  if not done or problems then fail("all", "%s", tostring(select(2, next(problems or {})))) end
end

try_all(chosen, CONCURRENCY)
try_all(chosen_blocking, LOW_CONCURRENCY)
collecting:cancel()

local function waiting_coroutines()
  local list = {}
  for each in pairs(coroutines) do
    if coroutine.status(each) == "suspended" then list[#list + 1] = each end
  end
  return list
end

-- Returns the number of descriptors that were not open at the beginning.
local function added_descriptors()
  return descriptors and math.max(procfs.descriptors() - descriptors, 0) or 0
end

local deadline = core.now() + SETTLE_TIME
local left
repeat
  opensandbox.sleep(0.05)
  collectgarbage()
  left = #assert(observer:list_sandboxes())
until left == 0 and #waiting_coroutines() == 0 and added_descriptors() == 0 or core.now() > deadline
if left > 0 then fail("the server", "%d sandboxes are left", left) end
for _, each in ipairs(waiting_coroutines()) do fail("all", "a coroutine waits for ever: %s", debug.traceback(each)) end
observer:close()
if added_descriptors() > 0 then fail("all", "%d descriptors are left", added_descriptors()) end
server:stop()
relay.stop()
temporary.remove(directory)

local list = {}
for _, outcome in ipairs(sorted(outcomes)) do list[#list + 1] = outcome .. " " .. outcomes[outcome] end
print(("closing: %d combinations, %.0f s: %s"):format(combinations, core.now() - began, table.concat(list, ", ")))
print(failures == 0 and "closing: all is well" or ("closing: %d failures"):format(failures))
os.exit(failures == 0 and 0 or 1)
