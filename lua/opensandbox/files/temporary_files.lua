--- Temporary files of the library in the sandbox.

local finalizer = require "opensandbox.base.finalizer"
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

---@class opensandbox.RemovalGuard
---@field remove fun() removes the file, unless that was done
---@field release fun() the file needs no removal any more
---@field finalizer any removes the file if the host ends the coroutine that holds the guard

--- Makes a guard, which calls a function that removes a temporary file once, whatever happens.
---@param remove fun() must not refer to the guard
---@return opensandbox.RemovalGuard
function temporary_files.guard(remove)
  local is_removed = false
  local function release() is_removed = true end
  local function remove_once()
    if is_removed then return end
    release()
    remove()
  end
  return { remove = remove_once, release = release, finalizer = finalizer(remove_once) }
end

return temporary_files
