--- A set of entries with times, ordered as a binary heap: the entry that is due first is at index 1. An entry is a table; its fields `at`
--- and `position` belong to the set.
--
-- Memory can run out in every call of a function, because its frame may need some. A set that is half changed would lose entries, so `place`
-- calls nothing, and is called before anything else is changed.

local Timers = {}
Timers.__index = Timers

-- Puts an entry at a free position, or moves on from there: up, or else down. `count` is the number of entries that it can meet.
local function place(self, entry, position, count)
  local at = entry.at
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
  self[position], entry.position = entry, position
end

--- Adds an entry.
---@param entry table
---@param at number the time when it is due
function Timers:add(entry, at)
  local count = self.count
  entry.at, entry.position = at, false -- what needs memory comes first
  self[count + 1] = false
  place(self, entry, count + 1, count)
  self.count = count + 1
end

--- Removes an entry. Ignores an entry that is not in the set.
function Timers:remove(entry)
  local position = entry.position
  if not position then return end
  local count = self.count
  local last = self[count]
  if last ~= entry then place(self, last, position, count - 1) end
  self[count] = nil
  self.count, entry.position = count - 1, false
end

return function()
  return setmetatable({ count = 0 }, Timers)
end
