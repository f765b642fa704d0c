--- Names that nobody else has.

local core = require "opensandbox.core"

local random = {}

--- `count` random bytes as hexadecimal digits.
---@param count integer
function random.hex(count)
  return (assert(core.random(count)):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

return random
