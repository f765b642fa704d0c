--- The directories of an isolated session: its workspace, and the overlays that the execd of server 1.1.1 knows, too.
--
-- The files API resolves a path in the deepest directory that contains it, and all others below the first directory.

local filesystem = require "opensandbox.devserver.execd.filesystem"
local go_json = require "opensandbox.devserver.execd.go_json"
local json = require "opensandbox.base.json"
local workspace = require "opensandbox.devserver.execd.workspace"

local mounts = {}

local MODE_0755 = 493
local MAX_MOUNTS = 16
local MODES = { rw = true, overlay = true, ro = true }
local FIELDS = { { "path", "string" }, { "mode", "string" }, { "persist", "boolean" } }

-- Returns the problem of one overlay of a request.
local function overlay_problem(overlay, index, seen)
  local where = ("overlays[%d]"):format(index - 1)
  if type(overlay) ~= "table" then return go_json.value_problem(overlay, "model.OverlaySpec") end
  local problem = go_json.type_problem(overlay, "OverlaySpec.overlays", FIELDS)
  if problem then return problem end
  local path, mode = overlay.path or "", overlay.mode or ""
  local is_clean = path == "/" or (path:find("^/") and not (path .. "/"):find("//") and not (path .. "/"):find("/%.%.?/"))
  if not is_clean then return ('%s.path "%s" must be an absolute, clean path'):format(where, path) end
  if mode ~= "" and not MODES[mode] then return ('%s: invalid mode "%s": must be rw, overlay, or ro'):format(where, mode) end
  if overlay.persist ~= nil and mode ~= "" and mode ~= "overlay" then
    return ('%s.persist applies to mode "overlay" only'):format(where)
  end
  if seen[path] then return ('%s.path "%s" is a duplicate'):format(where, path) end
  seen[path] = true
end

--- Reads the directories of a request, whose workspace has been checked.
---@param body table
---@return table[]? list `path`, `mode`, `persist`
---@return string? problem
function mounts.read(body)
  local list, seen = json.array {}, {}
  if body.workspace then
    list[1] = { path = body.workspace.path, mode = body.workspace.mode ~= "" and body.workspace.mode or "overlay" }
    seen[list[1].path] = true
  end
  for index, overlay in ipairs(body.overlays or {}) do
    local problem = overlay_problem(overlay, index, seen)
    if problem then return nil, problem end
    local mode = (overlay.mode or "") ~= "" and overlay.mode or "overlay"
    list[#list + 1] = { path = overlay.path, mode = mode, persist = overlay.persist }
  end
  if #list > MAX_MOUNTS then return nil, ("at most %d mounts per session"):format(MAX_MOUNTS) end
  return list
end

--- Creates the directories that are missing in a sandbox.
---@param sandbox table
---@param list table[] of `read`
---@return table[]? list with the `place` of each
---@return string? problem
function mounts.prepare(sandbox, list)
  local prepared = {}
  for index, mount in ipairs(list) do
    local path = sandbox.paths:clean(mount.path)
    local made, problem = filesystem.make_all(sandbox, path, MODE_0755)
    if made == nil then return nil, problem.message end
    prepared[index] = { place = sandbox.paths:resolve(path), mode = mount.mode, persist = mount.persist }
  end
  return prepared
end

local Mounts = {}
Mounts.__index = Mounts

-- Returns the directory for a path of a request.
function Mounts:_containing(path)
  local found = self.list[1]
  local best = -1
  if path:sub(1, 1) ~= "/" then return found end
  for _, directory in ipairs(self.list) do
    local root = directory.root:gsub("/$", "")
    if #root > best and (path .. "/"):sub(1, #root + 1) == root .. "/" then found, best = directory, #root end
  end
  return found
end

--- Returns a path relative to the directory that contains it, the problem, and that directory.
---@param path string
---@return string? relative
---@return table? problem
---@return table workspace
function Mounts:relative(path)
  return self:_containing(path):relative(path)
end

function Mounts:close()
  for _, directory in ipairs(self.list) do directory:close() end
end

--- Makes the directories of a session. The first one is `first`.
---@param sandbox table
---@param list table[] of `prepare`; each receives its `overlay`, a directory of this machine for changes that last
---@param options table `id` (of the session), `uid`, `gid`
---@return table
function mounts.new(sandbox, list, options)
  local self = setmetatable({ list = {} }, Mounts)
  for index, mount in ipairs(list) do
    -- Changes in memory are not seen by the files API, which does not add any either.
    local mode = mount.persist == false and "ro" or mount.mode
    self.list[index] = workspace.new(sandbox, {
      place = mount.place, mode = mode, id = options.id, number = index, uid = options.uid, gid = options.gid,
    })
    mount.overlay = self.list[index].directory
  end
  self.first = self.list[1]
  return self
end

return mounts
