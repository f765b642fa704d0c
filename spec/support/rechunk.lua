--- Cuts a recorded body anew.
--
-- The bytes stay; where one chunk ends and the next begins changes. A piece is due when its last byte was recorded,
-- since a real server cannot have sent it earlier.

local new_random = require "spec.support.random"

local rechunk = {}

-- Functions that return the length of the next piece.
local function lengths(how, total)
  if how == "whole" then return function() return total end end
  if how == "bytes" then return function() return 1 end end
  local random = new_random(how)
  local spans = { 3, 30, 300, 3000 }
  return function() return random(spans[random(#spans)]) end
end

--- Cuts a body.
-- @param chunks recorded chunks, {ms, bytes} pairs
-- @param how "recorded", "bytes", "whole" or the seed of random lengths
-- @treturn {table,...} {ms, bytes} pairs
function rechunk.cut(chunks, how)
  if how == "recorded" then return chunks end
  local parts = {}
  for index, chunk in ipairs(chunks) do parts[index] = chunk[2] end
  local body = table.concat(parts)
  local length, pieces, position = lengths(how, #body), {}, 1
  local source, source_end = 1, chunks[1] and #chunks[1][2] or 0
  while position <= #body do
    local last = math.min(position + length() - 1, #body)
    while source_end < last do
      source = source + 1
      source_end = source_end + #chunks[source][2]
    end
    pieces[#pieces + 1] = { chunks[source][1], body:sub(position, last) }
    position = last + 1
  end
  return pieces
end

return rechunk
