--- Which images exist. The development server has no images, so every reference that could be pulled is accepted.

local images = {}

-- Registries that never exist: RFC 6761 reserves the names, and no registry is expected on this machine.
local function is_unreachable(host)
  local name = host:gsub(":%d+$", "")
  return name == "localhost" or name:find("%.invalid$") ~= nil or name:find("%.test$") ~= nil
end

-- Returns whether a path consists of lower-case names, as those of registries do.
local function is_path(path)
  for name in (path .. "/"):gmatch("([^/]*)/") do
    if not name:find("^[a-z0-9][a-z0-9._-]*$") then return false end
  end
  return true
end

--- Returns why an image cannot be pulled; nil when it can. References that begin with "nope" cannot, for tests.
---@param reference string [host/]path[:tag][@digest]
---@return string? problem
function images.pull_problem(reference)
  local name = reference:gsub("@sha256:%x+$", ""):gsub(":[%w_][%w_.-]*$", "")
  local host, path = name:match("^([^/]+)/(.+)$")
  if not host or not (host:find("[.:]") or host == "localhost") then host, path = nil, name end
  if not is_path(path) then return ("Failed to pull image %s: 400 Client Error: invalid reference format"):format(reference) end
  if host and is_unreachable(host) then
    return ("Failed to pull image %s: 404 Client Error: Not Found (\"No such image\")"):format(reference)
  elseif reference:find("^nope") then
    return ("Failed to pull image %s: pull access denied for %s"):format(reference, reference)
  end
end

return images
