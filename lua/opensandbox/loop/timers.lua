--- A set of things with times, the earliest at hand: a binary heap. The things are tables; `at` and `position` of each belong to it.

local Timers = {}
Timers.__index = Timers

local function place(self, thing, position)
  self[position] = thing
  thing.position = position
end

local function rise(self, thing, position)
  while position > 1 do
    local above = math.floor(position / 2)
    if self[above].at <= thing.at then break end
    place(self, self[above], position)
    position = above
  end
  place(self, thing, position)
end

local function sink(self, thing, position)
  while true do
    local below = position * 2
    if below > self.count then break end
    if below < self.count and self[below + 1].at < self[below].at then below = below + 1 end
    if self[below].at >= thing.at then break end
    place(self, self[below], position)
    position = below
  end
  place(self, thing, position)
end

--- Adds a thing that is due `at` a time.
function Timers:add(thing, at)
  thing.at = at
  self.count = self.count + 1
  rise(self, thing, self.count)
end

--- Removes a thing; one that is not in the set is passed over.
function Timers:remove(thing)
  local position = thing.position
  if not position then return end
  thing.position = nil
  local last = self[self.count]
  self[self.count] = nil
  self.count = self.count - 1
  if last == thing then return end
  if position > 1 and last.at < self[math.floor(position / 2)].at then
    rise(self, last, position)
  else
    sink(self, last, position)
  end
end

--- The thing that is due first, or nil.
function Timers:first()
  return self[1]
end

return function()
  return setmetatable({ count = 0 }, Timers)
end
