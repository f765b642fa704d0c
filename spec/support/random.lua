--- Random numbers that are the same on every Lua and in every run, which math.random does not promise.

--- Makes a generator of Park and Miller's.
---@param seed integer any
---@return fun(limit: integer): integer random a number from 1 to `limit`
return function(seed)
  local state = math.floor(seed) % 2147483646 + 1
  local function random(limit)
    state = (state * 16807) % 2147483647
    return state % limit + 1
  end
  for _ = 1, 10 do random(1) end -- the first numbers of small seeds resemble each other
  return random
end
