--- A set of entries with times, ordered as a binary heap: the entry that is due first is at index 1. An entry is a table; its fields `at`
--- and `position` belong to the set.
--
-- Memory can run out in every call of a function, because its frame may need some. A set that is half changed would lose entries, so these
-- functions call nothing once they have begun to change it.

local Timers = {}
Timers.__index = Timers

--- Adds an entry.
---@param entry table
---@param at number the time when it is due
function Timers:add(entry, at)
  local position = self.count + 1
  entry.at, entry.position = at, false -- the steps that need memory come first
  self[position] = entry
  self.count = position
  while position > 1 do
    local above = (position - position % 2) / 2
    local other = self[above]
    if other.at <= at then break end
    self[position], other.position = other, position
    position = above
  end
  self[position], entry.position = entry, position
end

--- Removes an entry. Ignores an entry that is not in the set.
function Timers:remove(entry)
  local position = entry.position
  if not position then return end
  local count = self.count
  local last = self[count]
  self[count] = nil
  count = count - 1
  self.count, entry.position = count, false
  if last == entry then return end
  local at = last.at -- the last entry takes the free position, or moves on from there: up, or else down
  while position > 1 do
    local above = (position - position % 2) / 2
    local other = self[above]
    if other.at <= at then break end
    self[position], other.position = other, position
    position = above
  end
  while true do
    local below = position * 2
    if below > count then break end
    if below < count and self[below + 1].at < self[below].at then below = below + 1 end
    local other = self[below]
    if other.at >= at then break end
    self[position], other.position = other, position
    position = below
  end
  self[position], last.position = last, position
end

return function()
  return setmetatable({ count = 0 }, Timers)
end
