--- From a path in a sandbox to the path on this machine.
--
-- A sandbox sees its own directory as `/`, and below it some trees of this machine, which it cannot change. Symbolic links are resolved
-- here one by one, because the system would follow them out of the sandbox: an absolute target begins at the sandbox's root, and `..`
-- stops there.

local uv = require "luv"
local errno = require "opensandbox.devserver.base.errno"

local MAX_LINKS = 40

-- Trees that only the processes of the sandbox see as they are, because the kernel makes them for each sandbox.
local MOUNTS = { proc = true, dev = true }

local Paths = {}
Paths.__index = Paths

--- Creates the mapping of a sandbox.
---@param root string the sandbox's directory on this machine
---@param host_trees table<string, true> names below `/` of trees of this machine
---@param variables table<string, string> the environment for `$NAME` and `~`
---@param mounts fun(): string? returns the directory of this machine below which the sandbox's /proc and /dev can be read
local function new(root, host_trees, variables, mounts)
  return setmetatable({ root = root, host_trees = host_trees, variables = variables, mounts = mounts }, Paths)
end

-- Returns the path on this machine, and the code of the error when something there is to be changed; false when it may be changed.
function Paths:_host(components)
  local path = "/" .. table.concat(components, "/")
  if self.host_trees[components[1]] then return path, "EROFS" end
  local mounts = MOUNTS[components[1]] and self.mounts()
  local is_shared_memory = components[1] == "dev" and components[2] == "shm"
  -- This machine's shared memory is not the sandbox's.
  if mounts and not (is_shared_memory and mounts == "") then return mounts .. path, not is_shared_memory and "EPERM" end
  return components[1] and self.root .. path or self.root, false
end

--- Expands `$NAME`, `${NAME}` and a leading `~`, as execd does: `$` before a digit or a sign is removed.
---@param path string
---@return string? expanded
---@return table? problem names the undefined variables
function Paths:expand(path)
  local missing
  local function value(name)
    local found = self.variables[name]
    if not found then missing = missing and missing .. ", " .. name or name end
    return found or ""
  end
  path = path:gsub("%${([%a_][%w_]*)}", value):gsub("%$([%a_][%w_]*)", value):gsub("%$[%d%*#%$@!%?%-]", "")
  if missing then return nil, errno.new(nil, "path references undefined environment variables: " .. missing) end
  if path == "~" or path:find("^~[/\\]") then path = self.variables.HOME .. path:sub(2) end
  return path
end

--- Returns the absolute path without `.`, `..` and double slashes. Links are not resolved; relative paths begin at `/`.
function Paths.clean(_, path)
  local components = {}
  for name in path:gmatch("[^/]+") do
    if name == ".." then
      components[#components] = nil
    elseif name ~= "." then
      components[#components + 1] = name
    end
  end
  return "/" .. table.concat(components, "/")
end

--- Finds a path of the sandbox on this machine, with every link resolved. Missing names are appended as they are.
---@param path string
---@param keep_last? boolean a link in the last place stays itself
---@return table? place `path` (on this machine), `inside` (in the sandbox), `read_only` (the code of the error for changes, or false)
---@return string? code of an error
function Paths:resolve(path, keep_last)
  if path:find("\0", 1, true) then return nil, "EINVAL" end
  local waiting, done, links = {}, {}, 0
  local function push(text)
    -- Without isolation, commands name the sandbox's files by their paths on this machine.
    if self.mounts() == "" and (text .. "/"):sub(1, #self.root + 1) == self.root .. "/" then text = text:sub(#self.root + 1) end
    local names = {}
    for name in text:gmatch("[^/]+") do names[#names + 1] = name end
    for index = #names, 1, -1 do waiting[#waiting + 1] = names[index] end
  end
  push(path)
  while #waiting > 0 do
    local name = table.remove(waiting)
    if name == ".." then
      done[#done] = nil
    elseif name ~= "." then
      -- The server is no process of the sandbox, so the sandbox's first process stands for it.
      if name == "self" and #done == 1 and done[1] == "proc" and self.mounts() ~= "" then name = "1" end
      done[#done + 1] = name
      local host_path = self:_host(done)
      local target = (#waiting > 0 or not keep_last) and uv.fs_readlink(host_path)
      if target then
        links = links + 1
        if links > MAX_LINKS then return nil, "ELOOP" end
        if target:sub(1, 1) == "/" then done = {} else done[#done] = nil end
        push(target)
      elseif #waiting > 0 then
        local stat, _, code = uv.fs_lstat(host_path)
        if not stat and code ~= "ENOENT" then return nil, code end
        if stat and stat.type ~= "directory" then return nil, "ENOTDIR" end
      end
    end
  end
  local host, read_only = self:_host(done)
  return { path = host, inside = "/" .. table.concat(done, "/"), read_only = read_only }
end

return { new = new }
