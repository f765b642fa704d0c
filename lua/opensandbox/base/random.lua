--- Random names, which are unique.

local core = require "opensandbox.core"

local random = {}

--- Returns random bytes as hexadecimal digits.
---@param count integer number of bytes, at most 256
---@return string
function random.hex(count)
  return (assert(core.random(count)):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

return random
