--- The rules of a pool that several processes share: every change of its places, as one atomic step.
--
-- A place is a sandbox of the pool, or a sandbox that is being created for it. It counts towards `max_size`. A place is "idle", or a
-- process holds it: "creating", or "busy" (in use, or being deleted). A holding has a token that is never used again, and ends at a time,
-- its lease, unless it is renewed. An idle place changes its token when it is taken. So a step that is repeated, because its response was
-- lost, has the same result, and a late step of a former holder finds no place.
--
-- The rules are a text because Redis runs them, too: there they are a part of the script. They use Lua 5.1 without its libraries, and reach
-- the data through the functions of `db`:
--
--     db.now()                 seconds on the clock that all processes share
--     db.meta()                the table of the pool, or nil when the store is empty
--     db.set_meta(meta)
--     db.get(token)            the place, or nil
--     db.set(token, place)     place: { state, ends, owner?, fill?, value?, label?, give_up?, ... }; `ends` and `give_up` are times
--     db.delete(token)
--     db.count(kind)           the number of places; kind: "all", "idle", "creating" or "filling" (creating for the reserve)
--     db.first(kind, after)    the token of the place with the earliest `ends` after that time, or nil

local each = require "opensandbox.base.each"
local json = require "opensandbox.base.json"
local numbers = require "opensandbox.base.numbers"

local rules = {}

--- Lua source: a chunk that returns `function(db, request)`, which performs one step and returns the response.
rules.SOURCE = [==[
local FORMAT = "opensandbox-pool-1"
local FOREVER = 1e9 -- seconds that a sandbox without an expiry stays idle

local steps = {}

local function numbers_of(request)
  return { request.min_idle, request.max_size, request.rate or 0 }
end

local function set_limits(db, meta, limits)
  meta.min_idle, meta.max_size, meta.rate = limits[1], limits[2], limits[3]
  db.set_meta(meta)
end

-- Records the limits that a process has in its program. They replace those of the store, but not if the last process had the same,
-- because a resize since then stays in force.
function steps.open(db, request, now, meta)
  local limits = numbers_of(request)
  local opened = limits[1] .. "/" .. limits[2] .. "/" .. limits[3]
  if meta.opened ~= opened then
    meta.opened = opened
    set_limits(db, meta, limits)
  end
  return {}
end

function steps.resize(db, request, now, meta)
  set_limits(db, meta, numbers_of(request))
  return {}
end

function steps.count()
  return {}
end

-- Adds a place for a sandbox that the caller is about to create, if max_size and the rate of creates allow one.
local function reserve(db, request, now, meta, fill)
  if db.count("all") >= meta.max_size then return { full = true } end
  if meta.rate > 0 then
    local next_create = meta.next_create or now
    if next_create > now then return { wait = next_create - now } end
    meta.next_create = now + 1 / meta.rate
    db.set_meta(meta)
  end
  db.set(request.token, { state = "creating", ends = now + request.lease, owner = request.owner, fill = fill, label = request.token,
    give_up = now + request.create_timeout })
  return { create = true }
end

-- Takes the idle place that expires first, else reserves one if the caller wants to create.
function steps.acquire(db, request, now, meta)
  local place = db.get(request.token)
  if place and place.state == "creating" then return { create = true } end
  if place then return { value = place.value, from = place.from, left = place.left } end
  local from = db.first("idle", now)
  if not from then
    if not request.create then return { full = true } end
    return reserve(db, request, now, meta, nil)
  end
  place = db.get(from)
  db.delete(from)
  place.state, place.owner, place.from, place.left = "busy", request.owner, from, place.ends - now
  place.ends, place.surplus = now + request.lease, nil
  db.set(request.token, place)
  return { value = place.value, from = from, left = place.left }
end

-- Reserves a place for the reserve of idle sandboxes, unless another process fills it: it has a place in creation whose lease runs.
-- `coming`: other creates of the caller that will become idle.
function steps.fill(db, request, now, meta)
  if db.get(request.token) then return { create = true } end
  if db.count("idle") + db.count("filling") + request.coming >= meta.min_idle then return { filled = true } end
  local other = db.first("filling", now)
  if other then
    other = db.get(other)
    if other.owner ~= request.owner then return { wait = other.ends - now } end
  end
  return reserve(db, request, now, meta, true)
end

-- Records which sandbox was created for a place, whose creator keeps it.
function steps.assign(db, request, now)
  local place = db.get(request.token)
  if not place or place.state == "idle" then return { lost = { request.token } } end
  place.state, place.fill, place.value, place.ends = "busy", nil, request.value, now + request.lease
  db.set(request.token, place)
  return {}
end

-- Makes a held place idle, for `lifetime` seconds. `surplus`: it was created for the reserve, which was made smaller meanwhile.
function steps.put(db, request, now, meta)
  local place = db.get(request.token)
  if not place then return { lost = { request.token } } end
  if place.state ~= "idle" then place.surplus = place.fill and db.count("idle") >= meta.min_idle end
  place.state, place.fill, place.owner, place.from, place.left = "idle", nil, nil, nil, nil
  place.value, place.ends = request.value, now + (request.lifetime or FOREVER)
  db.set(request.token, place)
  return { surplus = place.surplus }
end

-- Removes held places, whose sandboxes are deleted.
function steps.remove(db, request)
  for _, token in ipairs(request.tokens) do
    local place = db.get(token)
    if place and place.state ~= "idle" then db.delete(token) end
  end
  return {}
end

-- Extends leases. After the store was emptied, `values` names the sandboxes of the places, which are added again.
function steps.renew(db, request, now)
  local lost
  for _, token in ipairs(request.tokens) do
    local place = db.get(token)
    if not place and request.values then
      local value = request.values[token]
      place = { state = value and "busy" or "creating", owner = request.owner, value = value or nil, label = token,
        give_up = now + request.create_timeout }
    end
    if place and place.state ~= "idle" then
      place.ends = now + request.lease
      db.set(token, place)
    else
      lost = lost or {}
      lost[#lost + 1] = token
    end
  end
  return { lost = lost }
end

-- Takes a place whose time is over, for deletion: its holder has stopped, or its idle sandbox expires. With `trim`, takes an idle
-- one that is more than min_idle or max_size allow, too. `reaped`: the number of those that the caller has taken just now.
function steps.reap(db, request, now, meta)
  local from, place = request.token, db.get(request.token)
  if not place then
    from = db.first("all", 0)
    place = from and db.get(from)
    if place and place.ends > now then place = nil end
    if not place and request.trim and (db.count("idle") > meta.min_idle or db.count("all") - request.reaped > meta.max_size) then
      from = db.first("idle", now)
      place = from and db.get(from)
    end
    if not place then return {} end
    db.delete(from)
    place.state, place.fill = place.value and "busy" or "creating", nil
    place.owner, place.from, place.ends = request.owner, from, now + request.lease
    db.set(request.token, place)
  end
  return { reaped = true, value = place.value, from = place.from, label = place.label, left = (place.give_up or now) - now }
end

return function(db, request)
  local now, meta = db.now(), db.meta()
  if not meta then
    if db.count("all") > 0 then return { foreign = "places without the entry that describes the pool" } end
    if request.step ~= "open" then return { unknown = true } end
    meta = { format = FORMAT, url = request.url, epoch = request.token }
  elseif meta.format ~= FORMAT then
    return { foreign = "an entry that another program, or another version of this one, has written" }
  elseif meta.url ~= request.url then
    return { foreign = "a pool of the server " .. meta.url }
  end
  local response = steps[request.step](db, request, now, meta)
  response.idle, response.creating = db.count("idle"), db.count("creating")
  response.busy = db.count("all") - response.idle - response.creating
  response.min_idle, response.max_size, response.rate, response.epoch = meta.min_idle, meta.max_size, meta.rate, meta.epoch
  return response
end
]==]

local setfenv, loadstring = rawget(_G, "setfenv"), rawget(_G, "loadstring")

-- Compiles the rules, which see nothing but what Redis has, too.
local function compile(source)
  local environment = { ipairs = ipairs }
  if setfenv then return setfenv(assert(loadstring(source, "=pool rules")), environment)() end
  return assert(load(source, "=pool rules", "t", environment))()
end

local perform

-- Returns the kind of a place, as a state records it.
local function kind_of(place)
  return place.state == "creating" and place.fill and "filling" or place.state
end

local function is_of(kind, entry)
  return kind == "all" or kind == entry.kind or (kind == "creating" and entry.kind == "filling")
end

local FOREIGN = {} -- raised for a text that is no pool

-- Reads the text of a place when it is first needed.
local function place_of(entry)
  if not entry.place then
    local place = json.decode(entry.text)
    if type(place) ~= "table" or type(place.state) ~= "string" or type(place.ends) ~= "number" then error(FOREIGN, 0) end
    entry.place = place
  end
  return entry.place
end

--- Performs one step on a state that is a Lua table, and changes it.
---@param state { meta?: table, entries?: table<string, table> } {} for an empty store; entries by token: { kind, ends, place }
---@param request table of the pool
---@param now number seconds on a clock that all users of the state share
---@return table response for the pool
---@return boolean changed
function rules.apply(state, request, now)
  perform = perform or compile(rules.SOURCE)
  local entries, changed = state.entries or {}, false
  state.entries = entries
  local db = {
    now = function() return now end,
    meta = function() return state.meta end,
    set_meta = function(meta) state.meta, changed = meta, true end,
    get = function(token) return entries[token] and place_of(entries[token]) end,
    set = function(token, place)
      entries[token], changed = { kind = kind_of(place), ends = place.ends, place = place }, true
    end,
    delete = function(token) entries[token], changed = nil, true end,
  }
  function db.count(kind)
    local count = 0
    for _, entry in each(entries) do
      if is_of(kind, entry) then count = count + 1 end
    end
    return count
  end
  function db.first(kind, after)
    local first
    for token, entry in each(entries) do
      if is_of(kind, entry) and entry.ends > after and (not first or entry.ends < entries[first].ends) then first = token end
    end
    return first
  end
  return perform(db, request), changed
end

-- Reads a state: the first line describes the pool, and each other one has a place as "token kind ends JSON". The JSON is read when it is
-- needed, so that a step on a large pool is cheap.
local function read_state(text)
  local first, rest = text:match("^([^\n]*)\n(.*)$")
  local meta = first and json.decode(first)
  if type(meta) ~= "table" then error(FOREIGN, 0) end
  local state = { meta = meta, entries = {} }
  for line in rest:gmatch("([^\n]*)\n") do
    local token, kind, ends, body = line:match("^(%S+) (%l+) (%S+) ({.*)$")
    ends = ends and numbers.parse(ends)
    if not ends then error(FOREIGN, 0) end
    state.entries[token] = { kind = kind, ends = ends, text = body, line = line }
  end
  return state
end

local function write_state(state)
  local lines = { assert(json.encode(state.meta)) }
  for token, entry in each(state.entries) do
    lines[#lines + 1] = entry.line
      or ("%s %s %s %s"):format(token, entry.kind, numbers.format(entry.ends, "%.17g"), assert(json.encode(entry.place)))
  end
  lines[#lines + 1] = ""
  return table.concat(lines, "\n")
end

--- Performs one step on a state that is a text, for stores that read, change and write one atomically.
---@param text? string nil for an empty store
---@param request table of the pool
---@param now number seconds on a clock that all users of the store share
---@return string? text to write; nil when nothing has changed
---@return table response for the pool
function rules.apply_text(text, request, now)
  local ok, response, changed, state = pcall(function()
    if text ~= nil and type(text) ~= "string" then error(FOREIGN, 0) end
    local state = text and read_state(text) or {}
    local response, changed = rules.apply(state, request, now)
    return response, changed, state
  end)
  if not ok and response ~= FOREIGN then error(response, 0) end
  if not ok then return nil, { foreign = "a value that is no pool" } end
  return changed and write_state(state) or nil, response
end

return rules
