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

-- Sends the request without waiting. Closing the client waits for it.
local function delete(target, endpoint, route, path)
  target.client.http:send_to_endpoint(endpoint, {
    op = "delete_files", method = "DELETE", path = route .. url.query { { "path", path } }, may_repeat = false,
  }, true)
end

--- Removes a file without waiting, also when the task was cancelled: DELETE /files.
---@param target opensandbox.FileTarget
---@param endpoint opensandbox.Endpoint of the target
---@param path string
function temporary_files.remove(target, endpoint, path)
  delete(target, endpoint, "/files", path)
end

--- Removes a symlink without waiting: DELETE /directories, because DELETE /files leaves a symlink to a directory or to a missing
--- file.
---@param target opensandbox.FileTarget
---@param endpoint opensandbox.Endpoint of the target
---@param path string
function temporary_files.remove_link(target, endpoint, path)
  delete(target, endpoint, "/directories", path)
end

return temporary_files
