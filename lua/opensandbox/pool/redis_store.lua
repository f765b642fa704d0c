--- A store for the pools of several machines: Redis 3.2 or newer, or a server that speaks its protocol, through the client of the user.
--
-- One EVAL performs one step of rules.lua. The server's time counts. All keys of a pool have one hash tag, so that a cluster keeps them
-- on one server.

local coxpcall = require "opensandbox.loop.coxpcall"
local json = require "opensandbox.base.json"
local options = require "opensandbox.base.options"
local random = require "opensandbox.base.random"
local rules = require "opensandbox.pool.rules"

local RedisStore = {}
RedisStore.__index = RedisStore

local redis_store = {}

local DEFAULT_TIMEOUT = 5 -- seconds

local KEY_NAMES = { "meta", "places", "all", "idle", "filling", "creating" }

-- The functions of `db` over Redis: a hash has the places as JSON, and a sorted set for each kind has their tokens by `ends`. The script
-- returns the text ARGV[1] before the response, so that a response of an earlier request is recognised.
local SCRIPT = [==[
if redis.replicate_commands then redis.replicate_commands() end -- for Redis before 5, because the script reads the clock
local META, PLACES = KEYS[1], KEYS[2]
local KINDS = { all = KEYS[3], idle = KEYS[4], filling = KEYS[5], creating = KEYS[6] }
local perform = (function() ]==] .. rules.SOURCE .. [==[ end)()

local function decoded(text)
  local ok, value = pcall(cjson.decode, text)
  if ok and type(value) == "table" then return value end
  error("FOREIGN a value that is no pool", 0)
end

local db = {}

function db.now()
  local time = redis.call("TIME")
  return tonumber(time[1]) + tonumber(time[2]) / 1e6
end

function db.meta()
  local text = redis.call("GET", META)
  return text and decoded(text) or nil
end

function db.set_meta(meta)
  redis.call("SET", META, cjson.encode(meta))
end

function db.get(token)
  local text = redis.call("HGET", PLACES, token)
  return text and decoded(text) or nil
end

function db.set(token, place)
  local is_of = { all = true, idle = place.state == "idle", creating = place.state == "creating" }
  is_of.filling = is_of.creating and place.fill
  redis.call("HSET", PLACES, token, cjson.encode(place))
  for kind, key in pairs(KINDS) do
    if is_of[kind] then redis.call("ZADD", key, string.format("%.17g", place.ends), token) else redis.call("ZREM", key, token) end
  end
end

function db.delete(token)
  redis.call("HDEL", PLACES, token)
  for _, key in pairs(KINDS) do redis.call("ZREM", key, token) end
end

function db.count(kind)
  return redis.call("ZCARD", KINDS[kind])
end

function db.first(kind, after)
  return redis.call("ZRANGEBYSCORE", KINDS[kind], string.format("(%.17g", after), "+inf", "LIMIT", 0, 1)[1]
end

return ARGV[1] .. cjson.encode(perform(db, cjson.decode(ARGV[2])))
]==]

-- Limits the time of a client that is known. Others need a time limit of their own.
local function set_time_limit(client, seconds)
  local socket = type(client.network) == "table" and client.network.socket -- lua-redis
  if type(client.set_timeout) == "function" then -- lua-resty-redis
    client:set_timeout(seconds * 1000)
  elseif socket and socket.settimeout then
    socket:settimeout(seconds)
  end
end

local function close(client)
  local socket = type(client.network) == "table" and client.network.socket
  pcall(function()
    if type(client.close) == "function" then client:close() elseif socket then socket:close() end
  end)
end

-- Converts a client's error. An error reply of Redis begins with a word in capitals, in every client.
local function error_of(self, problem)
  local text = tostring(problem)
  local word = text:match("%f[%w]%u%u%u+%f[^%u]")
  if text:find("timeout", 1, true) or text:find("timed out", 1, true) then
    return { code = "store_timeout", message = text, seconds = self.timeout }
  elseif text:find("WRONGTYPE", 1, true) or text:find("FOREIGN ", 1, true) then
    return { code = "store_foreign", message = text }
  elseif word then
    return { code = "store_failed", message = text }
  end
  return { code = "store_unreachable", message = text }
end

-- Returns a client that no other task uses, and whether it was used before.
local function take_client(self)
  local client = table.remove(self.free)
  if client then return client, true end
  local ok, new, problem = coxpcall.pcall(self.connect)
  if not ok then return nil, error_of(self, new) end
  if not new then return nil, error_of(self, problem or "connect returned no client") end
  if not pcall(function() return new.eval end) or not new.eval then
    return nil, { code = "store_failed", message = "connect returned a value without the method eval" }
  end
  set_time_limit(new, self.timeout)
  return new, false
end

-- Keeps a client for the next step. nginx keeps the connection of a lua-resty-redis, which belongs to one request.
local function give_back(self, client)
  if type(client.set_keepalive) == "function" then client:set_keepalive() else table.insert(self.free, client) end
end

-- Sends a step once. Returns the response, or nil, an error, and whether a repetition on a new connection makes sense.
local function attempt(self, text)
  local client, was_used = take_client(self)
  if not client then return nil, was_used, false end
  local mark = random.hex(8)
  local arguments = { self.script, #self.keys }
  for _, key in ipairs(self.keys) do arguments[#arguments + 1] = key end
  arguments[#arguments + 1], arguments[#arguments + 2] = mark, text
  local ok, answer, problem = coxpcall.pcall(client.eval, client, (table.unpack or unpack)(arguments)) -- luacheck: std max
  if ok and type(answer) == "string" and answer:sub(1, #mark) == mark then
    give_back(self, client)
    local response = json.decode(answer:sub(#mark + 1))
    if type(response) == "table" then return response end
    return nil, { code = "store_failed", message = "the response is no JSON object" }
  end
  close(client) -- because a late response would be taken for that of the next step
  if ok and type(answer) == "string" then
    return nil, { code = "store_failed", message = "the client returned the response of another request" }
  end
  local err = error_of(self, not ok and answer or problem or "eval returned no text")
  return nil, err, was_used and err.code == "store_unreachable"
end

--- Performs one step.
---@param request table
---@return table? response
---@return table? err
function RedisStore:transact(request)
  local text = assert(json.encode(request))
  local response, err, may_repeat = attempt(self, text)
  while may_repeat do -- each repetition uses up a connection that was kept, and Redis may have closed all of them
    response, err, may_repeat = attempt(self, text)
  end
  return response, err
end

local option_types = { name = "nonempty string", connect = "function", timeout = "seconds" }

--- Makes a store: `opensandbox.pool_stores.redis`.
---
---     local redis = require "redis" -- lua-redis; with lua-resty-redis, make a client and call its method `connect`
---     client:pool { image = "any", store = opensandbox.pool_stores.redis {
---       name = "builds", connect = function() return redis.connect("127.0.0.1", 6379) end,
---     } }
---
--- The client must have a method `eval(script, number_of_keys, key, ..., argument, ...)` that returns the text which the script returns. It
--- raises its errors, or returns them after nil or false. lua-redis blocks the process for the time of a request, a few tenths of a
--- millisecond.
---@param opts { name: string, connect: fun(): table?, timeout?: opensandbox.Duration } name of the pool: pools of other options need other names; connect: returns a connected client, or nil and an error; timeout: seconds for a request, default 5, set on clients of lua-redis and lua-resty-redis; any other client needs a time limit of its own
---@return opensandbox.PoolStore
function redis_store.new(opts)
  local op = "pool_stores.redis"
  options.argument(op, "the options", opts, "table")
  opts = options.check(op, opts, option_types)
  local name = options.argument(op, "option 'name'", opts.name, "nonempty string")
  if name:find("[{}%c]") then options.raise(op, "option 'name' must have no braces and no control characters") end
  options.argument(op, "option 'connect'", opts.connect, "function")
  local keys = {}
  for index, key in ipairs(KEY_NAMES) do keys[index] = ("opensandbox:{%s}:%s"):format(name, key) end
  return setmetatable({
    name = ("Redis, pool %q"):format(name), connect = opts.connect, timeout = opts.timeout or DEFAULT_TIMEOUT,
    keys = keys, script = SCRIPT,
    free = {}, -- clients that no step uses
  }, RedisStore)
end

return redis_store
