--- The file routes as another user, /v1/filesystem/{uid}/{gid}/..., which the execd of server 1.1.1 has, and that of August 2026 has not.
--
-- This server reads and writes files itself, so it can act as one user only: its own, which is root inside of a sandbox.

local uv = require "luv"

local identity = {}

local MAX_ID = 4294967294

-- Returns whether an id of the path is one.
local function is_id(text)
  return text:find("^%d+$") ~= nil and #text <= 10 and tonumber(text) <= MAX_ID
end

--- Removes the user from the path of a route.
---@param sandbox table
---@param path string
---@return string path without the user, or the same for all other routes
---@return table? refusal status, code, message
function identity.strip(sandbox, path)
  local uid, gid, rest = path:match("^/v1/filesystem/([^/]+)/([^/]+)(/.+)$")
  if not (sandbox.newest_execd and uid and (rest:find("^/files") or rest:find("^/directories"))) then return path end
  if not (is_id(uid) and is_id(gid)) then
    return path, { status = 400, code = "INVALID_REQUEST_BODY", message = "uid and gid must be integers between 0 and 4294967294" }
  end
  local own = tonumber(uid) == uv.getuid() and tonumber(gid) == uv.getgid()
  if own or (tonumber(uid) == 0 and tonumber(gid) == 0) then return rest end
  return path, { status = 501, code = "FILESYSTEM_IDENTITY_UNAVAILABLE",
    message = ("the development server does not act as user %s:%s"):format(uid, gid) }
end

return identity
