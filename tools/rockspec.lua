-- Writes the rockspec of the version in lua/opensandbox/version.lua, from the rockspec that installs the newest sources: `make rockspec`.

local version = dofile("lua/opensandbox/version.lua")

local function replace(text, old, new)
  local first, last = text:find(old, 1, true)
  assert(first and not text:find(old, last + 1, true), "the scm rockspec must hold this once: " .. old)
  return text:sub(1, first - 1) .. new .. text:sub(last + 1)
end

local source = assert(io.open("rockspec/opensandbox-scm-1.rockspec", "rb"))
local text = source:read("*a")
source:close()
text = replace(text, 'version = "scm-1"', ('version = "%s-1"'):format(version))
text = replace(text, 'branch = "main"', ('tag = "v%s"'):format(version))
local target = assert(io.open(("rockspec/opensandbox-%s-1.rockspec"):format(version), "wb"))
assert(target:write(text))
assert(target:close())
