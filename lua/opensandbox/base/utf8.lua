--- UTF-8, with the rules of execd's JSON encoder.

local utf8 = {}

--- Returns the length of the character at a position.
---@param text string
---@param position integer
---@return integer? length nil if no character begins there
function utf8.character_length(text, position)
  local first, second = text:byte(position, position + 1)
  local length = first >= 0xC2 and first <= 0xDF and 2 or first >= 0xE0 and first <= 0xEF and 3
    or first >= 0xF0 and first <= 0xF4 and 4
  if not length or not second then return nil end
  local low = first == 0xE0 and 0xA0 or first == 0xF0 and 0x90 or 0x80
  local high = first == 0xED and 0x9F or first == 0xF4 and 0x8F or 0xBF
  if second < low or second > high then return nil end
  for index = position + 2, position + length - 1 do
    local byte = text:byte(index)
    if not byte or byte < 0x80 or byte > 0xBF then return nil end
  end
  return length
end

--- Returns the number of bytes at the end of a text that are the beginning of a character: the rest of it may be in the next piece.
---@param text string
---@return integer length 0 to 3
function utf8.incomplete_length(text)
  for length = 1, math.min(3, #text) do
    local byte = text:byte(-length)
    if byte >= 0xC0 then
      local needed = byte >= 0xF0 and 4 or byte >= 0xE0 and 3 or 2
      return byte <= 0xF4 and needed > length and length or 0
    elseif byte < 0x80 then
      return 0
    end
  end
  return 0
end

--- Replaces each character of a text without ASCII characters.
---@param run string
---@param replace fun(character: string?): string returns the replacement; it gets nil for a byte that belongs to no character
---@return string
function utf8.map(run, replace)
  local parts, position = {}, 1
  while position <= #run do
    local length = utf8.character_length(run, position)
    parts[#parts + 1] = replace(length and run:sub(position, position + length - 1) or nil)
    position = position + (length or 1)
  end
  return table.concat(parts)
end

--- Returns whether a text is valid UTF-8.
---@param text string
---@return boolean
function utf8.is_valid(text)
  local position = text:find("[\128-\255]")
  while position do
    local length = utf8.character_length(text, position)
    if not length then return false end
    position = text:find("[\128-\255]", position + length)
  end
  return true
end

local REPLACEMENT = "\239\191\189" -- U+FFFD

local function replace_invalid_in(run)
  return utf8.map(run, function(character) return character or REPLACEMENT end)
end

--- Returns the text with U+FFFD in place of each byte that is not UTF-8.
---@param text string
---@return string
function utf8.replace_invalid(text)
  return (text:gsub("[\128-\255]+", replace_invalid_in))
end

return utf8
