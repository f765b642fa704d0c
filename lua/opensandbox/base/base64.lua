--- Base64 of RFC 4648. The library encodes passwords and decodes the images of code runs.

local base64 = {}

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local GROUPS_PER_CALL = 1024 -- groups of 3 bytes or 4 characters: unpack() has a limit

local unpack = rawget(table, "unpack") or rawget(_G, "unpack")

-- The two characters of each number of 12 bits, and the six bits of each character.
local pair, bits = {}, {}
for i = 0, 63 do
  bits[ALPHABET:byte(i + 1)] = i
  for j = 0, 63 do pair[i * 64 + j] = ALPHABET:sub(i + 1, i + 1) .. ALPHABET:sub(j + 1, j + 1) end
end

--- Encodes bytes in one line, with padding.
---@param bytes string
---@return string text
function base64.encode(bytes)
  local out, count = {}, 0
  local whole = #bytes - #bytes % 3
  for first = 1, whole, 3 * GROUPS_PER_CALL do
    local taken = { bytes:byte(first, math.min(first + 3 * GROUPS_PER_CALL - 1, whole)) }
    for i = 1, #taken, 3 do
      local low = taken[i + 1] % 16
      out[count + 1] = pair[taken[i] * 16 + (taken[i + 1] - low) / 16]
      out[count + 2] = pair[low * 256 + taken[i + 2]]
      count = count + 2
    end
  end
  local a, b = bytes:byte(whole + 1, #bytes)
  if b then
    local low = b % 16
    out[count + 1] = pair[a * 16 + (b - low) / 16] .. pair[low * 256]:sub(1, 1) .. "="
  elseif a then
    out[count + 1] = pair[a * 16] .. "=="
  end
  return table.concat(out)
end

--- Decodes a text. White space in it is ignored, and padding may be missing.
---@param text string
---@return string? bytes nil when it is not base64
---@return string? problem
function base64.decode(text)
  local data, padding = text:gsub("%s+", ""):match("^([%w+/]*)(=*)$")
  local rest = data and #data % 4
  if not data or rest == 1 or #padding > 2 or (padding ~= "" and (#data + #padding) % 4 ~= 0) then
    return nil, "it is not base64"
  end
  local out = {}
  local whole = #data - rest
  for first = 1, whole, 4 * GROUPS_PER_CALL do
    local taken = { data:byte(first, math.min(first + 4 * GROUPS_PER_CALL - 1, whole)) }
    local count = 0
    for i = 1, #taken, 4 do
      local b, c = bits[taken[i + 1]], bits[taken[i + 2]]
      local b_low, c_low = b % 16, c % 4
      -- This overwrites characters that have been read.
      taken[count + 1] = bits[taken[i]] * 4 + (b - b_low) / 16
      taken[count + 2] = b_low * 16 + (c - c_low) / 4
      taken[count + 3] = c_low * 64 + bits[taken[i + 3]]
      count = count + 3
    end
    out[#out + 1] = string.char(unpack(taken, 1, count))
  end
  if rest > 0 then
    local a, b, c = data:byte(whole + 1, #data)
    local b_low = bits[b] % 16
    out[#out + 1] = string.char(bits[a] * 4 + (bits[b] - b_low) / 16)
    if c then out[#out + 1] = string.char(b_low * 16 + (bits[c] - bits[c] % 4) / 4) end
  end
  return table.concat(out)
end

return base64
