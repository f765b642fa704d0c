--- The file routes: info, search, move, permissions, replace, delete.

local uv = require "luv"
local each = require "opensandbox.base.each"
local json = require "opensandbox.base.json"
local errno = require "opensandbox.devserver.base.errno"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local glob = require "opensandbox.devserver.execd.glob"

local routes = {}

routes["GET /files/info"] = function(call)
  local found = {}
  for _, path in ipairs(call.query.path or {}) do
    local place, problem = filesystem.locate(call.sandbox, path, true, "lstat")
    local stat
    if place then stat, problem = filesystem.call("lstat", uv.fs_lstat, place) end
    if not stat then
      local words = problem.code == "ENOENT" and "file not found: " or "error accessing file "
      return call:fail(errno.wrap(words .. path, problem))
    end
    found[path] = filesystem.describe(call.sandbox, place.named, stat)
  end
  call.response:json(200, found)
end

-- Adds the files below an entry that match, in byte order.
local function search(sandbox, entry, matches, found)
  if entry.stat.type ~= "directory" then
    if matches(entry.name) then found[#found + 1] = filesystem.describe(sandbox, entry.place.named, entry.stat) end
    return true
  end
  local entries, problem = filesystem.entries(sandbox, entry.place)
  if not entries then return nil, errno.wrap("error accessing path " .. entry.place.named, problem) end
  for _, child in ipairs(entries) do
    local ok
    ok, problem = search(sandbox, child, matches, found)
    if not ok then return nil, problem end
  end
  return true
end

routes["GET /files/search"] = function(call)
  local path = call:required("path")
  if not path then return end
  local stat, problem = filesystem.stat(call.sandbox, path)
  if not stat then return call:fail(problem) end
  local pattern = call:parameter("pattern") or ""
  if pattern == "" then pattern = "**" end
  local matches, wrong = glob.compile(pattern, true)
  if not matches then
    return call:fail(errno.new(nil, ("invalid pattern %s: %s"):format(pattern, wrong)), "error searching files.")
  end
  -- A link given as the root is itself the only thing found.
  local place = filesystem.locate(call.sandbox, path, true)
  local found = json.array {}
  local ok
  ok, problem = search(call.sandbox, {
    name = place.named:match("[^/]*$"), place = place, stat = uv.fs_lstat(place.path),
  }, matches, found)
  if not ok then return call:fail(problem, "error searching files.") end
  call.response:json(200, found)
end

local function move(sandbox, item)
  local stat, problem = filesystem.stat(sandbox, item.src)
  if not stat and problem.code == "ENOENT" then
    return nil, errno.wrap("source path not found: " .. item.src, problem)
  end
  local source, target
  source, problem = filesystem.locate(sandbox, item.src, true, "rename")
  if not source then return nil, problem end
  target, problem = filesystem.locate(sandbox, item.dest, true, "rename")
  if not target then return nil, problem end
  local made
  made, problem = filesystem.make_all(sandbox, target.inside:match("^(.*)/") .. "/", 493)
  if made == nil then return nil, errno.wrap("failed to create destination directory", problem) end
  if filesystem.stat(sandbox, item.dest) then
    return nil, errno.new(nil, "destination path already exists: " .. item.dest)
  end
  local read_only = source.read_only or target.read_only
  local ok, _, code
  if not read_only then ok, _, code = uv.fs_rename(source.path, target.path) end
  if ok then return true end
  local message = ("rename %s %s: %s"):format(source.named, target.named, errno.text(read_only or code))
  return nil, errno.wrap("failed to rename file", errno.new(nil, message))
end

routes["POST /files/mv"] = function(call)
  call:json_body("array", function(items)
    for _, item in ipairs(items) do
      local ok, problem = move(call.sandbox, { src = item.src or "", dest = item.dest or "" })
      if not ok then return call:fail(problem) end
    end
    call.response:empty(200)
  end, { go_type = "[]model.RenameFileItem" })
end

routes["POST /files/permissions"] = function(call)
  call:permissions(function(path, permission)
    local ok, problem = filesystem.set_permission(call.sandbox, path, permission)
    return ok, problem, ("error changing permissions for %s."):format(path)
  end)
end

local function read_all(fd)
  local pieces, offset = {}, 0
  while true do
    local data, _, code = uv.fs_read(fd, 1024 * 1024, offset)
    if not data then return nil, code end
    if data == "" then return table.concat(pieces) end
    pieces[#pieces + 1], offset = data, offset + #data
  end
end

-- Replaces every occurrence, byte by byte. The file is written even when there is none.
local function replace(sandbox, path, item)
  local stat, place = filesystem.stat(sandbox, path)
  if not stat then return nil, place end
  local fd, problem = filesystem.call("open", filesystem.open, place, false, "r", 0)
  if not fd then return nil, problem end
  local content, code = read_all(fd)
  uv.fs_close(fd)
  if not content then return nil, errno.new(code, "read", place.named) end

  local pieces, count, position = {}, 0, 1
  while true do
    local first, last = content:find(item.old, position, true)
    if not first then break end
    pieces[#pieces + 1] = content:sub(position, first - 1)
    pieces[#pieces + 1] = item.new
    count, position = count + 1, last + 1
  end
  pieces[#pieces + 1] = content:sub(position)
  fd, problem = filesystem.call("open", filesystem.open, place, true, "w", 511)
  if not fd then return nil, problem end
  local _
  _, _, code = uv.fs_write(fd, table.concat(pieces), 0)
  uv.fs_close(fd)
  if code then return nil, errno.new(code, "write", place.named) end
  return count
end

routes["POST /files/replace"] = function(call)
  call:json_body("object", function(items)
    local counts = {}
    for path, item in each(items) do
      item = { old = item.old or "", new = item.new or "" }
      local stat, problem = filesystem.stat(call.sandbox, path)
      if not stat then return call:fail(problem) end
      if item.old == "" and stat.type == "file" then
        return call.response:fail(400, "INVALID_REQUEST_BODY", "old content must not be empty")
      end
      local count
      count, problem = replace(call.sandbox, path, item)
      if not count then return call:fail(problem) end
      counts[path] = { replacedCount = count }
    end
    if call:parameter("verbose") == "true" then
      call.response:json(200, counts)
    else
      call.response:empty(200)
    end
  end)
end

local function delete(sandbox, path)
  local stat, problem = filesystem.stat(sandbox, path)
  if not stat then
    if problem.code == "ENOENT" then return true end -- as in execd also for a dangling link, which stays
    return nil, problem
  end
  if stat.type == "directory" then return nil, errno.new(nil, "path is a directory: " .. path) end
  local place = filesystem.locate(sandbox, path, true)
  local ok
  ok, problem = filesystem.call("remove", uv.fs_unlink, place, true)
  if not ok then return nil, errno.wrap("failed to remove file", problem) end
  return true
end

routes["DELETE /files"] = function(call)
  for _, path in ipairs(call.query.path or {}) do
    local ok, problem = delete(call.sandbox, path)
    if not ok then return call:fail(problem, ("error removing file %s."):format(path)) end
  end
  call.response:empty(200)
end

return routes
