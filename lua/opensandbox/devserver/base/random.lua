--- Identifiers and secrets from the system's random source.

local uv = require "luv"

local random = {}

--- Random lower-case hexadecimal digits, two for each byte.
function random.hex(bytes)
  return (assert(uv.random(bytes)):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

--- A version 4 UUID.
function random.uuid()
  local a, b, c, d, e, f = random.hex(16):match("^(%x%x%x%x%x%x%x%x)(%x%x%x%x).(%x%x%x)(.)(%x%x%x)(%x+)$")
  return ("%s-%s-4%s-%x%s-%s"):format(a, b, c, 8 + tonumber(d, 16) % 4, e, f)
end

return random
