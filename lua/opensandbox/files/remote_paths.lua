--- Paths in the sandbox as commands need them: absolute.

local endpoint_call = require "opensandbox.http.endpoint_call"
local errors = require "opensandbox.base.errors"

local remote_paths = {}

--- Returns the absolute path for any path. Only execd knows its directory and its home.
---@param target opensandbox.FileTarget
---@param op string the method that the user called
---@param path string
---@return string? path
---@return opensandbox.Error? err
function remote_paths.absolute(target, op, path)
  if target.absolute then return target.absolute(op, path) end
  if path:find("^/") then return path end
  local home, rest = path:match("^~(/*)(.*)$")
  if home == "" and rest ~= "" then home = nil end -- "~name" is the name of a file
  local infos, err = endpoint_call.call(target.client, op, target.endpoint, "file_info", home and "~" or ".")
  if not infos then return nil, err end
  local _, info = next(infos)
  if not info or info.path:find("%z") then
    return nil, errors.new { kind = "protocol", code = "unexpected_response", op = op, sandbox_id = target.id,
      message = info and "the path in the response holds a NUL byte" or "the response holds no file" }
  end
  return info.path .. "/" .. (home and rest or path)
end

return remote_paths
