--- Foreign text, such as a server's message, as it can be shown: one line, short, without characters that control a terminal.

local utf8 = require "opensandbox.base.utf8"

-- U+0080 to U+009F control terminals, as the bytes below 32 do.
local function printable_character(character)
  if not character or (character >= "\194\128" and character <= "\194\159") then return "?" end
  return character
end

local function printable_run(run)
  return utf8.map(run, printable_character)
end

--- Returns the text on one line, with "?" for each control character and each byte that is not UTF-8.
---@param text string
---@param limit integer bytes; a longer text is cut there and gets "..."
---@return string
return function(text, limit)
  local suffix = ""
  if #text > limit then
    text, suffix = text:sub(1, limit):gsub("[\192-\255][\128-\191]*$", ""), "..." -- the last character may be incomplete
  end
  text = text:gsub("[\t\n\r]+", " "):gsub("[%z\1-\31\127]", "?"):gsub("[\128-\255]+", printable_run)
  return text .. suffix
end
