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
local function delete(client, endpoint, route, paths)
  local query = {}
  for i, path in ipairs(paths) do query[i] = { "path", path } end
  client.http:send_to_endpoint(endpoint, {
    op = client.op or "delete_files", method = "DELETE", path = route .. url.query(query), may_repeat = true,
  }, true)
end

--- Removes files without waiting, also when the task was cancelled: DELETE /files. Missing files are ignored.
---@param client opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param paths string[]
function temporary_files.remove(client, endpoint, paths)
  delete(client, endpoint, "/files", paths)
end

--- Removes a symlink without waiting: DELETE /directories, because DELETE /files leaves a symlink to a directory or to a missing
--- file.
---@param client opensandbox.Client
---@param endpoint opensandbox.Endpoint
---@param path string
function temporary_files.remove_link(client, endpoint, path)
  delete(client, endpoint, "/directories", { path })
end

return temporary_files
