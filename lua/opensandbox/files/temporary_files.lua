--- Temporary files of the library in the sandbox.

local random = require "opensandbox.base.random"
local url = require "opensandbox.base.url"

local temporary_files = {}

local DEFAULT_DIRECTORY = "/tmp"

--- Returns the path of a file that does not exist.
---@param target opensandbox.FileTarget
---@param suffix string
---@return string path absolute
function temporary_files.path(target, suffix)
  return ("%s/.opensandbox-%s%s"):format(target.temporary_directory or DEFAULT_DIRECTORY, random.hex(12), suffix)
end

--- Removes a file without waiting, also when the task was cancelled: DELETE /files. Closing the client waits for the request.
---@param target opensandbox.FileTarget
---@param endpoint opensandbox.Endpoint of the target
---@param path string
function temporary_files.remove(target, endpoint, path)
  target.client.http:send_to_endpoint(endpoint, {
    op = "delete_files", method = "DELETE", path = "/files" .. url.query { { "path", path } }, may_repeat = false,
  }, true)
end

return temporary_files
