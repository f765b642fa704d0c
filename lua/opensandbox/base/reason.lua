--- The reason that a program in a sandbox gave for its failure, for an error's message.

local MAX_LENGTH = 500 -- bytes

--- Returns the beginning of a program's output, without white space at its end. It is cut first, because the pattern's time is the square of
--- the length for white space, of which a hostile sandbox can send megabytes.
---@param output string
---@return string
return function(output)
  return output:sub(1, MAX_LENGTH):match("^(.-)%s*$")
end
