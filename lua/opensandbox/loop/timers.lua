--- A set of entries with times, ordered as a binary heap: the entry that is due first is at index 1. An entry is a table; its fields `at`
--- and `position` belong to the set.

local Timers = {}
Timers.__index = Timers

local function put(self, entry, position)
  self[position] = entry
  entry.position = position
end

local function sift_up(self, entry, position)
  while position > 1 do
    local above = math.floor(position / 2)
    if self[above].at <= entry.at then break end
    put(self, self[above], position)
    position = above
  end
  put(self, entry, position)
end

local function sift_down(self, entry, position)
  while true do
    local below = position * 2
    if below > self.count then break end
    if below < self.count and self[below + 1].at < self[below].at then below = below + 1 end
    if self[below].at >= entry.at then break end
    put(self, self[below], position)
    position = below
  end
  put(self, entry, position)
end

--- Adds an entry.
---@param entry table
---@param at number the time when it is due
function Timers:add(entry, at)
  local position = self.count + 1
  entry.at, entry.position = at, false -- the step that needs memory comes first
  self[position] = entry
  entry.position, self.count = position, position
  sift_up(self, entry, position)
end

--- Removes an entry. Ignores an entry that is not in the set.
function Timers:remove(entry)
  local position = entry.position
  if not position then return end
  entry.position = nil
  local last = self[self.count]
  self[self.count] = nil
  self.count = self.count - 1
  if last == entry then return end
  if position > 1 and last.at < self[math.floor(position / 2)].at then
    sift_up(self, last, position)
  else
    sift_down(self, last, position)
  end
end

return function()
  return setmetatable({ count = 0 }, Timers)
end
