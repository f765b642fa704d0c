--- The files API of an isolated session. It serves the session's directories only, and differs from the sandbox's in many details.
--
-- A handler receives the session's directories (mounts.lua). Their method `relative` returns the directory that contains a path.

local uv = require "luv"
local each = require "opensandbox.base.each"
local errno = require "opensandbox.devserver.base.errno"
local file_response = require "opensandbox.devserver.execd.file_response"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local glob = require "opensandbox.devserver.execd.glob"
local go_text = require "opensandbox.devserver.execd.go_text"
local json = require "opensandbox.base.json"
local upload = require "opensandbox.devserver.execd.upload"
local workspaces = require "opensandbox.devserver.execd.workspace"

local TYPES = { directory = "directory", link = "symlink" }
local DEFAULT_FILE_MODE, DEFAULT_DIRECTORY_MODE = 420, 493 -- 0644, 0755
local MAX_FILE_SIZE = 256 * 1024 * 1024 -- of a file whose content is replaced

local join = workspaces.join

-- Describes a file under the name that a request has for it: without an owner, a group and a time of creation.
local function describe(path, stat)
  return {
    path = path, type = TYPES[stat.type] or "file", size = stat.size, mode = tonumber(("%o"):format(stat.mode % 512)),
    modified_at = go_text.instant(stat.mtime.sec, stat.mtime.nsec), created_at = go_text.ZERO_TIME, owner = "", group = "",
  }
end

local function fail(call, problem, is_lookup)
  if filesystem.is_pipe(problem) then return end
  if problem.code == "ENOENT" and is_lookup then return call.response:fail(404, "FILE_NOT_FOUND", problem.message) end
  call.response:fail(500, "RUNTIME_ERROR", problem.message)
end

-- The mode of a request; a malformed one is the default.
local function mode_of(digits, default)
  if (digits or 0) == 0 then return default end
  return filesystem.mode(digits) or default
end

local routes = {}

routes["GET /files/info"] = function(call, mounts)
  local found = {}
  for _, path in ipairs(call.query.path or {}) do
    local relative, problem, workspace = mounts:relative(path)
    local stat
    if relative then stat, problem = workspace:lstat(relative) end
    if not stat then return fail(call, problem, true) end
    found[path] = describe(path, stat)
  end
  call.response:json(200, found)
end

-- Calls `visit(path, stat)` for everything below a directory, in byte order and down to a depth.
local function walk(workspace, relative, shown, depth, visit)
  if depth == 0 then return end
  for _, entry in ipairs(workspace:entries(relative) or {}) do
    local path = join(shown, entry.name)
    visit(path, entry.stat)
    if entry.stat.type == "directory" then walk(workspace, join(relative, entry.name), path, depth - 1, visit) end
  end
end

routes["GET /files/search"] = function(call, mounts)
  local path = call:required("path")
  if not path then return end
  local relative, problem, workspace = mounts:relative(path)
  if not relative then return fail(call, problem) end
  local matches, wrong = glob.compile(call:parameter("pattern") or "*", false)
  if not matches then return fail(call, errno.new(nil, wrong)) end
  local found = json.array {}
  local function visit(name, stat)
    local is_hidden = stat.type == "directory" or (workspace.mode == "rw" and stat.type == "link")
    if not is_hidden and matches(name:match("[^/]*$")) then found[#found + 1] = describe(name, stat) end
  end
  local root = workspace:lstat(relative)
  if root then visit(relative, root) end -- a walk begins with its root, which may be a file
  walk(workspace, relative, relative, math.huge, visit)
  call.response:json(200, found)
end

routes["GET /directories/list"] = function(call, mounts)
  local path = call:required("path")
  if not path then return end
  local text = call:parameter("depth") or ""
  local depth = text == "" and 1 or tonumber(text:match("^%+?%d+$"))
  if not depth then return call.response:fail(400, "INVALID_REQUEST_BODY", "invalid query parameter 'depth': " .. text) end
  local relative, problem, workspace = mounts:relative(path)
  local stat
  if relative then stat, problem = workspace:lstat(relative) end
  if not stat and problem.code then
    return call.response:fail(404, "FILE_NOT_FOUND", ("readdir %s: file does not exist"):format(path))
  elseif not stat then
    return fail(call, problem)
  end
  local found, shown = json.array {}, path == "." and "" or path
  walk(workspace, relative, shown, depth, function(name, entry) found[#found + 1] = describe(name, entry) end)
  call.response:json(200, found)
end

routes["GET /files/download"] = function(call, mounts)
  local path = call:parameter("path") or ""
  if path == "" then return call.response:fail(400, "MISSING_QUERY", "path is required") end
  local offset, limit = file_response.line_range(call)
  if not offset and limit then return call.response:fail(400, "INVALID_REQUEST_BODY", limit) end
  local relative, problem, workspace = mounts:relative(path)
  local stat, host
  if relative then stat, host = workspace:find(relative) end
  if not stat then return fail(call, host or problem, true) end
  local fd, _, code = filesystem.open(host, "r", 0)
  if not fd then return fail(call, errno.new(code, "open", workspace:shown(relative)), true) end
  file_response.send(call, { fd = fd, name = path:match("[^/]*$") }, offset, limit)
end

-- Puts an uploaded file into its place.
local function store(mounts)
  return function(_, file, wanted, done)
    local relative, problem, workspace = mounts:relative(wanted.path)
    if workspace.mode == "ro" then problem = select(2, workspace:writable("")) end
    local path
    if not problem then path, problem = workspace:writable(relative) end
    if problem then return done(upload.failed(problem)) end
    local fd, _, code = filesystem.open(path, "w", DEFAULT_FILE_MODE)
    if not fd then return done(upload.failed(errno.new(code, "open", workspace:shown(relative)))) end
    upload.copy(file.path, fd, function(wrong)
      if wrong then return done(upload.failed(errno.new(wrong, "write", workspace:shown(relative)))) end
      workspace:finish(path, mode_of(wanted.mode, DEFAULT_FILE_MODE))
      done()
    end)
  end
end

routes["POST /files/upload"] = function(call, mounts)
  upload.handle(call, store(mounts))
end

routes["POST /files/mv"] = function(call, mounts)
  call:json_body("array", function(items)
    for _, item in ipairs(items) do
      local from, problem, workspace = mounts:relative(item.src or "")
      local to, target
      if from then to, problem, target = mounts:relative(item.dest or "") end
      local ok
      if to and target ~= workspace then
        problem = errno.new("EXDEV", "rename", workspace:shown(from))
      elseif to then
        ok, problem = workspace:rename(from, to)
      end
      if not ok then return fail(call, problem, true) end
    end
    call.response:empty(200)
  end, { go_type = "[]model.RenameFileItem" })
end

routes["POST /files/permissions"] = function(call, mounts)
  call:permissions(function(path, permission)
    local relative, problem, workspace = mounts:relative(path)
    local ok
    if relative then ok, problem = workspace:chmod(relative, mode_of(permission.mode, DEFAULT_FILE_MODE)) end
    return ok, problem
  end, fail)
end

-- Replaces every occurrence in a file. Returns their number.
local function replace(mounts, path, item)
  local relative, problem, workspace = mounts:relative(path)
  if not relative then return nil, problem end
  local stat, host = workspace:find(relative)
  if not stat then return nil, host end
  local fd, _, code = filesystem.open(host, "r", 0)
  if not fd then return nil, errno.new(code, "open", workspace:shown(relative)) end
  local content = uv.fs_read(fd, math.min(stat.size, MAX_FILE_SIZE), 0) or ""
  uv.fs_close(fd)
  local pieces, count, position = {}, 0, 1
  while true do
    local first, last = content:find(item.old, position, true)
    if not first then break end
    pieces[#pieces + 1], pieces[#pieces + 2] = content:sub(position, first - 1), item.new
    count, position = count + 1, last + 1
  end
  pieces[#pieces + 1] = content:sub(position)
  -- As in execd, a file that is copied up gets the mode of the link to it, without the bits of the usual umask.
  local own = workspace:lstat(relative)
  local target
  target, problem = workspace:writable(relative)
  if not target then return nil, problem end
  fd, _, code = filesystem.open(target, "w", DEFAULT_FILE_MODE)
  if not fd then return nil, errno.new(code, "open", workspace:shown(relative)) end
  uv.fs_write(fd, table.concat(pieces), 0)
  uv.fs_close(fd)
  if own.type == "link" then workspace:finish(target, DEFAULT_DIRECTORY_MODE) else workspace:finish(target, own.mode % 512) end
  return count
end

routes["POST /files/replace"] = function(call, mounts)
  call:json_body("object", function(items)
    local counts = {}
    for path, item in each(items) do
      item = { old = item.old or "", new = item.new or "" }
      if item.old == "" then return call.response:fail(400, "INVALID_REQUEST_BODY", "old content must not be empty") end
      local count, problem = replace(mounts, path, item)
      if not count then return fail(call, problem, true) end
      counts[path] = { replacedCount = count }
    end
    if call:parameter("verbose") == "true" then
      call.response:json(200, counts)
    else
      call.response:empty(200)
    end
  end)
end

-- A route that applies an operation of the workspace to each path of the query.
local function for_each_path(operation)
  return function(call, mounts)
    for _, path in ipairs(call.query.path or {}) do
      local relative, problem, workspace = mounts:relative(path)
      local ok
      if relative then ok, problem = workspace[operation](workspace, relative) end
      if not ok then return fail(call, problem) end
    end
    call.response:empty(200)
  end
end

routes["DELETE /files"] = for_each_path "remove"
routes["DELETE /directories"] = for_each_path "remove_all"

routes["POST /directories"] = function(call, mounts)
  call:permissions(function(path, permission)
    local relative, problem, workspace = mounts:relative(path)
    local ok
    if relative then ok, problem = workspace:make_directory(relative, mode_of(permission.mode, DEFAULT_DIRECTORY_MODE)) end
    return ok, problem
  end, fail)
end

return routes
