--- The directory routes: list, make, remove.

local uv = require "luv"
local json = require "opensandbox.base.json"
local errno = require "opensandbox.devserver.base.errno"
local filesystem = require "opensandbox.devserver.execd.filesystem"

local routes = {}

-- Adds the entries of a directory, each directory followed by its own entries, down to `depth` levels.
local function list(sandbox, place, depth, found)
  if depth == 0 then return true end
  local entries, problem = filesystem.entries(sandbox, place)
  if not entries then return nil, problem end
  for _, entry in ipairs(entries) do
    found[#found + 1] = filesystem.describe(sandbox, entry.place.named, entry.stat)
    if entry.stat.type == "directory" then
      local ok
      ok, problem = list(sandbox, entry.place, depth - 1, found)
      if not ok then return nil, problem end
    end
  end
  return true
end

routes["GET /directories/list"] = function(call)
  local path = call:required("path")
  if not path then return end
  local function invalid(message) call.response:fail(400, "INVALID_REQUEST_BODY", message) end
  local text = call:parameter("depth") or ""
  local depth = text == "" and 1 or tonumber(text:match("^%+?%d+$"))
  if not depth then return invalid("invalid query parameter 'depth': " .. text) end
  local place, problem = filesystem.locate(call.sandbox, path, true, "lstat")
  local stat
  if place then stat, problem = filesystem.call("lstat", uv.fs_lstat, place) end
  if not stat then return call:fail(problem) end
  if stat.type == "link" then
    return invalid("path is a symbolic link, refusing to traverse: " .. place.named)
  elseif stat.type ~= "directory" then
    return invalid("path is not a directory: " .. place.named)
  end
  local found = json.array {}
  local ok
  ok, problem = list(call.sandbox, place, depth, found)
  if not ok then return call:fail(problem, ("error listing directory %s."):format(place.named)) end
  call.response:json(200, found)
end

-- Creates a directory. It receives the permissions only when it was missing; the owner is set on every directory that was created.
local function make(sandbox, path, permission)
  local existed = filesystem.stat(sandbox, path) ~= nil
  local place, problem = filesystem.locate(sandbox, path)
  if not place then return nil, problem end
  local first
  first, problem = filesystem.make_all(sandbox, path, 511)
  if first == nil then return nil, problem end
  if existed then return true end
  local made = place
  while first do
    local ok
    made.named = made.inside
    ok, problem = filesystem.set_ownership(sandbox, made, permission)
    if not ok then return nil, problem end
    if made.inside == first.inside then break end
    made = sandbox.paths:resolve(made.inside:match("^(.*)/"))
  end
  return filesystem.set_permission(sandbox, path, { mode = permission.mode })
end

routes["POST /directories"] = function(call)
  call:permissions(function(path, permission) return make(call.sandbox, path, permission) end)
end

routes["DELETE /directories"] = function(call)
  for _, path in ipairs(call.query.path or {}) do
    local ok, problem = true, nil
    if path ~= "" then
      local place
      place, problem = filesystem.locate(call.sandbox, path, true, "unlinkat")
      if place and place.inside == "/" then
        ok, problem = nil, errno.new("EINVAL", "RemoveAll", place.named)
      elseif place then
        local code
        if place.read_only then ok, code = nil, place.read_only else ok, code = filesystem.remove_all(place.path) end
        if not ok then problem = errno.new(code, "unlinkat", place.named) end
      else
        -- A path through a file is a missing one.
        ok = problem.code == "ENOTDIR" or nil
      end
    end
    if not ok then return call:fail(problem, ("error removing directory %s."):format(path)) end
  end
  call.response:empty(200)
end

return routes
