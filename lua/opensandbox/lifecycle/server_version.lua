--- Checks the server's version for options that older servers silently ignore.
--
-- The version is requested once for each client, and only when such an option is used. GET /version exists since 0.2.3.

local capabilities = require "opensandbox.http.capabilities"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"

-- By option, the first version that knows it. Options older than GET /version are not listed, because their absence cannot be detected.
local first_versions = { lifecycle = "0.2.3" }

local function numbers(version)
  local major, minor, patch = version:match("^(%d+)%.(%d+)%.(%d+)")
  return tonumber(major), tonumber(minor), tonumber(patch)
end

-- Returns whether a version is older than another. A version that is no release ("0.1.0.dev0") counts as new.
local function is_older(version, than)
  local a, b, c = numbers(version)
  if not a or version:find("dev", 1, true) then return false end
  local d, e, f = numbers(than)
  if a ~= d then return a < d end
  if b ~= e then return b < e end
  return c < f
end

-- Returns whether the server knows an option, and remembers it.
local function knows(client, name, first_version, timeout)
  if capabilities.get(client, client.url, name) == nil then
    local version, err = client:get_version { timeout = timeout }
    if not version and err.status ~= 404 then return nil, err end
    capabilities.set(client, client.url, name, version ~= nil and not is_older(version, first_version))
  end
  return capabilities.get(client, client.url, name)
end

--- Checks the options of a call against the server's version: GET /version.
---@param client opensandbox.Client a view that names the user's method
---@param op string
---@param opts table
---@param timeout? number seconds
---@return true? ok
---@return opensandbox.Error? err kind `state`, code `unsupported`; or the reason why the version is not known
return function(client, op, opts, timeout)
  for name, first_version in each(first_versions) do
    if opts[name] ~= nil then
      local known, err = knows(client, name, first_version, timeout)
      if err then return nil, err end
      if not known then
        return nil, errors.new { kind = "state", code = "unsupported", op = op,
          message = ("the server would ignore the option '%s', which exists since version %s"):format(name, first_version),
          hint = "Use a newer server, or leave the option out" }
      end
    end
  end
  return true
end
