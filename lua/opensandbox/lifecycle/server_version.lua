--- Options that an older lifecycle server passes over without a word: whether this one is new enough.
--
-- Only GET /version can tell, which came with 0.2.3. The server is asked once for each client, and only when such an option is used.

local errors = require "opensandbox.base.errors"
local capabilities = require "opensandbox.http.capabilities"

-- By option, the first version that knows it. What came before GET /version does not stand here: that it is lacking cannot be told.
local versions = { lifecycle = "0.2.3" }

local function numbers(version)
  local major, minor, patch = version:match("^(%d+)%.(%d+)%.(%d+)")
  return tonumber(major), tonumber(minor), tonumber(patch)
end

-- Whether a version is older; one that is not a release's ("0.1.0.dev0") tells nothing.
local function is_older(version, than)
  local a, b, c = numbers(version)
  if not a or version:find("dev", 1, true) then return false end
  local d, e, f = numbers(than)
  if a ~= d then return a < d end
  if b ~= e then return b < e end
  return c < f
end

-- Whether the server has an option; what is found out is remembered.
local function has_it(client, name, since)
  if capabilities.get(client, client.url, name) == nil then
    local version, err = client:get_version()
    if not version and err.status ~= 404 then return nil, err end
    capabilities.set(client, client.url, name, version ~= nil and not is_older(version, since))
  end
  return capabilities.get(client, client.url, name)
end

--- Checks the options of a call against the server's version.
---@param client opensandbox.Client
---@param op string
---@param opts table
---@return true? ok
---@return opensandbox.Error? err kind `state`, code `unsupported`; or what kept the version from us
return function(client, op, opts)
  for name, since in pairs(versions) do
    if opts[name] ~= nil then
      local has, err = has_it(client, name, since)
      if err then
        err.op = op
        return nil, err
      elseif not has then
        return nil, errors.new { kind = "state", code = "unsupported", op = op, url = client.url,
          message = ("the server would pass over the option '%s', which it has from %s on"):format(name, since),
          hint = "Use a newer server, or leave the option out" }
      end
    end
  end
  return true
end
