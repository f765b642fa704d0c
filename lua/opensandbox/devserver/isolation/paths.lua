--- From a path inside a sandbox to the path on this machine.
--
-- A sandbox sees its own directory as `/`, and below it some trees of this machine, which it cannot change. Symbolic
-- links are resolved here, one by one, because the system would follow them out of the sandbox: an absolute target
-- begins at the sandbox's root and `..` stops there.

local uv = require "luv"
local errno = require "opensandbox.devserver.base.errno"

local LINK_LIMIT = 40

local Paths = {}
Paths.__index = Paths

--- @param root the sandbox's directory on this machine
-- @param host_trees set of names below `/` that are this machine's own
-- @param variables the environment for `$NAME` and `~`
local function new(root, host_trees, variables)
  return setmetatable({ root = root, host_trees = host_trees, variables = variables }, Paths)
end

-- Whether `components` lies in a tree of this machine, and where it is on this machine.
function Paths:_host(components)
  local path = "/" .. table.concat(components, "/")
  if self.host_trees[components[1]] then return path, true end
  return components[1] and self.root .. path or self.root, false
end

--- Expands `$NAME`, `${NAME}` and a leading `~`, as execd does, including that `$` before a digit or sign disappears.
-- @param variables further ones, which are looked at first
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] table the error
function Paths:expand(path, variables)
  local missing
  local function value(name)
    local found = variables and variables[name] or self.variables[name]
    if not found then missing = missing or name end
    return found or ""
  end
  path = path:gsub("%${([%a_][%w_]*)}", value):gsub("%$([%a_][%w_]*)", value):gsub("%$[%d%*#%$@!%?%-]", "")
  if missing then return nil, errno.new(nil, "undefined environment variable: " .. missing) end
  if path == "~" or path:find("^~[/\\]") then path = self.variables.HOME .. path:sub(2) end
  return path
end

--- The absolute path without `.`, `..` and double slashes; links are not looked at. Relative paths begin at `/`.
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

--- Where a path inside the sandbox is on this machine, with every link resolved. The last name is not followed when
-- `keep_last` is set. What does not exist yet is appended as it is.
-- @treturn[1] table `path` (on this machine), `inside` (the same place as the sandbox names it), `read_only`
-- @treturn[2] nil
-- @treturn[2] string the error's code
function Paths:resolve(path, keep_last)
  if path:find("\0", 1, true) then return nil, "EINVAL" end
  local waiting, done, links = {}, {}, 0
  local function push(text)
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
      done[#done + 1] = name
      local here = self:_host(done)
      local target = (#waiting > 0 or not keep_last) and uv.fs_readlink(here)
      if target then
        links = links + 1
        if links > LINK_LIMIT then return nil, "ELOOP" end
        if target:sub(1, 1) == "/" then done = {} else done[#done] = nil end
        push(target)
      elseif #waiting > 0 then
        local stat, _, code = uv.fs_lstat(here)
        if not stat and code ~= "ENOENT" then return nil, code end
        if stat and stat.type ~= "directory" then return nil, "ENOTDIR" end
      end
    end
  end
  local host, read_only = self:_host(done)
  return { path = host, inside = "/" .. table.concat(done, "/"), read_only = read_only }
end

return { new = new }
