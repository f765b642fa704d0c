--- Identifiers and secrets from the system's random source.

local core = require "opensandbox.core"

local random = {}

--- Returns random bytes as hexadecimal digits.
---@param count integer number of bytes, at most 256
---@return string
function random.hex(count)
  return (assert(core.random(count)):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

--- Returns a version 4 UUID.
---@return string
function random.uuid()
  local a, b, c, d, e, f = random.hex(16):match("^(%x%x%x%x%x%x%x%x)(%x%x%x%x).(%x%x%x)(.)(%x%x%x)(%x+)$")
  return ("%s-%s-4%s-%x%s-%s"):format(a, b, c, 8 + tonumber(d, 16) % 4, e, f)
end

return random
