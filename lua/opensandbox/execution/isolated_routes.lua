--- Isolated sessions of execd (from 1.0.20): a shell in its own namespaces, with a workspace and files.
--
-- This file has a client method for each route of sessions; isolated_run_routes.lua has those for runs.

local create_rollback = require "opensandbox.http.create_rollback"
local deadline = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local fields = require "opensandbox.base.fields"
local http_client = require "opensandbox.http.http_client"
local isolated_errors = require "opensandbox.execution.isolated_errors"
local json = require "opensandbox.base.json"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local tables = require "opensandbox.base.tables"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

---@class (partial) opensandbox.Client
local isolated_routes = {}

local SESSION_ROUTE = "/v1/isolated/session"
local MAX_DIRECTORIES = 16 -- of a session
local DEFAULT_MODE = "rw" -- the shell and the files API see different files in an overlay, which is the server's default

local function session_path(op, id)
  return SESSION_ROUTE .. "/" .. url.escape(options.path_segment(op, "the session id", id))
end

--- The isolation that a sandbox can have.
--- ```lua
--- local found = assert(client:get_isolation_capabilities(execd))
--- print(found.available, found.isolator, found.version, found.message, found.setpriv_available, found.userns_available, found.raw)
--- ```
---@class opensandbox.IsolationCapabilities
---@field available boolean isolated sessions are possible
---@field isolator? string "bwrap"
---@field version? string of the isolator
---@field message? string names the missing part
---@field setpriv_available? boolean whether uid and gid can be given
---@field userns_available? boolean whether uid_mode can be "userns"
---@field raw table the server's response

--- Returns the isolation that this sandbox can have: GET /v1/isolated/capabilities.
--- ```lua
--- print(assert(client:get_isolation_capabilities(execd)).available)
--- ```
---@param execd opensandbox.Endpoint|string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.IsolationCapabilities? capabilities
---@return opensandbox.Error? err
function isolated_routes:get_isolation_capabilities(execd, opts)
  local op = self.op or "get_isolation_capabilities"
  local request = { op = op, timeout = options.timeout(op, opts), method = "GET", path = "/v1/isolated/capabilities" }
  function request.decode(response)
    if type(response.available) ~= "boolean" then return nil, "capabilities" end
    return { available = response.available, isolator = fields.text(response.isolator), version = fields.text(response.version),
      message = fields.text(response.message), setpriv_available = fields.flag(response.setpriv_available),
      userns_available = fields.flag(response.userns_available), raw = response }
  end
  return isolated_errors.call(self, execd, "isolated", request)
end

--- ```lua
--- local mount = { path = "/data", mode = "overlay", persist = false }
--- ```
---@class opensandbox.IsolatedMount a directory that a session can use
---@field path string absolute; created if it is missing
---@field mode? string "rw": changes are made in the sandbox's directory. "overlay": changes are lost when the session ends. "ro": read-only
---@field persist? boolean for the mode "overlay" in `overlays`: false keeps changes in memory, where the files API does not see them; default true

--- The options of `sandbox:isolated`.
--- ```lua
--- local session = assert(sandbox:isolated {
---   workspace = "/work", mode = "rw", overlays = { { path = "/data", mode = "ro" } }, profile = "strict", extra_writable = { "/var/cache" },
---   binds = { { source = "/srv/models", dest = "/models", readonly = true } }, share_net = false,
---   env_passthrough = { mode = "allow", keys = { "PATH", "HOME" } }, uid = 1000, gid = 1000, uid_mode = "setpriv", max_idle = "1h", timeout = 30,
--- })
--- ```
---@class opensandbox.IsolatedSessionOpts
---@field workspace? string|opensandbox.IsolatedMount a path, or { path, mode }; the shell starts in it. Required unless there are `overlays`
---@field mode? string of the workspace: "rw" (default), "overlay" or "ro"
---@field overlays? opensandbox.IsolatedMount[] further directories, which may include "/"; their default mode is "overlay". A directory in another one takes precedence. At most 16 with the workspace (execd 1.1.1)
---@field profile? string "strict" (default: a private /tmp) or "balanced" (the sandbox's /tmp)
---@field extra_writable? string[] paths
---@field binds? table[] { source, dest, readonly }: sources and destinations must exist (execd 1.0.21)
---@field share_net? boolean false: a network of its own (default true)
---@field env_passthrough? table { mode = "allow" or "deny", keys }: which of the sandbox's variables it sees (default: all but secrets)
---@field uid? integer the user to run as
---@field gid? integer the group to run as
---@field uid_mode? string "setpriv" (default) or "userns" (execd 1.0.21)
---@field max_idle? opensandbox.Duration without a run after which the session ends; default: never. execd checks every 60 s
---@field timeout? opensandbox.Duration for the create

local create_options = {
  workspace = "any", mode = "nonempty string", overlays = "table", profile = "nonempty string", extra_writable = "string list",
  binds = "table", share_net = "boolean", env_passthrough = "table", uid = "natural", gid = "natural",
  uid_mode = "nonempty string", max_idle = "seconds", timeout = "seconds",
}
local workspace_options = { path = "nonempty string", mode = "nonempty string" }
local overlay_options = { path = "nonempty string", mode = "nonempty string", persist = "boolean" }
local bind_options = { source = "nonempty string", dest = "nonempty string", readonly = "boolean" }
local passthrough_options = { mode = "nonempty string", keys = "string list" }

local function choice(op, what, value, ...)
  if value == nil then return nil end
  for _, known in ipairs { ... } do
    if value == known then return value end
  end
  options.raise(op, ("%s must be \"%s\", not %q"):format(what, table.concat({ ... }, "\", \""), value))
end

-- Checks that a path is absolute. A relative path would be taken as one below "/".
local function absolute(op, path, what)
  paths.check(op, path, what)
  if path:sub(1, 1) ~= "/" then options.raise(op, ("%s must be an absolute path, not %q"):format(what, path)) end
  return path
end

local function workspace_in(op, opts)
  local given = opts.workspace
  if given == nil and opts.overlays then
    if opts.mode then options.raise(op, "option 'mode' is the mode of the workspace: give each of the overlays its own") end
    return nil
  end
  if type(given) ~= "table" then given = { path = given } end
  given = options.check(op, given, workspace_options)
  if given.mode and opts.mode and given.mode ~= opts.mode then
    options.raise(op, "option 'mode' and the mode of option 'workspace' differ")
  end
  return { path = absolute(op, given.path, "option 'workspace'"),
    mode = choice(op, "the mode of the workspace", opts.mode or given.mode or DEFAULT_MODE, "rw", "overlay", "ro") }
end

local function overlays_in(op, given, workspace)
  local overlays, seen = json.array {}, { [workspace and workspace.path or false] = true }
  if #given > MAX_DIRECTORIES - (workspace and 1 or 0) then
    options.raise(op, ("a session has %d directories at most"):format(MAX_DIRECTORIES))
  end
  for i, overlay in ipairs(given) do
    options.argument(op, "overlay " .. i, overlay, "table")
    overlay = options.check(op, overlay, overlay_options)
    local mode = choice(op, "the mode of overlay " .. i, overlay.mode, "overlay", "rw", "ro")
    if overlay.persist ~= nil and (mode or "overlay") ~= "overlay" then
      options.raise(op, ("overlay %d has 'persist', which only the mode \"overlay\" has"):format(i))
    end
    -- execd refuses "." and ".." in the path, and a slash at its end.
    local path = paths.clean(absolute(op, overlay.path, "the path of overlay " .. i))
    if seen[path] then options.raise(op, ("overlay %d is for %q, as a directory before it"):format(i, path)) end
    seen[path] = true
    overlays[i] = { path = path, mode = mode, persist = overlay.persist }
  end
  if #overlays == 0 then options.raise(op, "option 'overlays' must be a list of { path, mode, persist }") end
  return overlays
end

local function binds_in(op, given)
  local binds = json.array {}
  for i, bind in ipairs(given) do
    options.argument(op, "bind " .. i, bind, "table")
    bind = options.check(op, bind, bind_options)
    binds[i] = { source = paths.check(op, bind.source, "the source of bind " .. i), dest = bind.dest, readonly = bind.readonly }
  end
  if next(given) ~= nil and #binds == 0 then options.raise(op, "option 'binds' must be a list of { source, dest, readonly }") end
  return #binds > 0 and binds or nil
end

local function passthrough_in(op, given)
  if not given then return nil end
  given = options.check(op, given, passthrough_options)
  local mode = choice(op, "the mode of option 'env_passthrough'", given.mode, "allow", "deny")
  if not mode then options.raise(op, "option 'env_passthrough' needs a mode, \"allow\" or \"deny\"") end
  return { mode = mode, keys = given.keys and json.array(tables.copy_list(given.keys)) }
end

-- Checks the options of a new session and returns the body of the request.
local function create_body(op, opts)
  options.argument(op, "the options", opts, "table")
  opts = options.check(op, opts, create_options)
  local workspace = workspace_in(op, opts)
  if workspace and opts.overlays then workspace.path = paths.clean(workspace.path) end
  return {
    workspace = workspace, overlays = opts.overlays and overlays_in(op, opts.overlays, workspace),
    profile = choice(op, "option 'profile'", opts.profile, "strict", "balanced"),
    extra_writable = opts.extra_writable and #opts.extra_writable > 0 and json.array(tables.copy_list(opts.extra_writable)) or nil,
    binds = opts.binds and binds_in(op, opts.binds), share_net = opts.share_net,
    env_passthrough = passthrough_in(op, opts.env_passthrough), uid = opts.uid, gid = opts.gid,
    uid_mode = choice(op, "option 'uid_mode'", opts.uid_mode, "setpriv", "userns"),
    idle_timeout_seconds = opts.max_idle and math.ceil(opts.max_idle) or nil,
  }, opts.timeout
end

--- An isolated session, as execd knows it.
--- ```lua
--- local info = assert(isolated:info())
--- print(info.id, info.status, info.created_at, info.last_run_at, info.idle_remaining, info.max_idle, info.raw)
--- print(info.workspace and info.workspace.path, info.overlays and #info.overlays)
--- ```
---@class opensandbox.IsolatedSessionInfo
---@field id string its name, for `sandbox:isolated { id = }`
---@field status? string "active" or "dead"
---@field created_at? number Unix seconds
---@field last_run_at? number Unix seconds
---@field idle_remaining? number seconds
---@field max_idle? number seconds
---@field workspace? opensandbox.IsolatedMount for a session with one directory (execd 1.0.22), as the other options of its creation
---@field overlays? opensandbox.IsolatedMount[] all directories, the workspace first (execd 1.1.1)
---@field raw? table the server's response

---@return opensandbox.IsolatedSessionInfo? info
---@return string? missing
local function session_info(object, id)
  if type(object) ~= "table" then return nil, "isolated session" end
  id = id or object.session_id
  if not url.is_segment(id) or type(object.status) ~= "string" then return nil, "isolated session" end
  return {
    id = id, status = object.status, created_at = time.parse(object.created_at), last_run_at = time.parse(object.last_run_at),
    idle_remaining = fields.natural(object.idle_remaining_seconds), max_idle = fields.natural(object.idle_timeout_seconds),
    workspace = fields.object(object.workspace), overlays = fields.list(object.overlays), profile = fields.text(object.profile),
    extra_writable = fields.texts(object.extra_writable), binds = fields.list(object.binds),
    share_net = fields.flag(object.share_net), env_passthrough = fields.object(object.env_passthrough),
    uid = fields.natural(object.uid), gid = fields.natural(object.gid), uid_mode = fields.text(object.uid_mode), raw = object,
  }
end

--- Returns the existing isolated sessions: GET /v1/isolated/sessions (execd 1.0.21).
--- ```lua
--- for _, info in ipairs(assert(client:list_isolated_sessions(execd))) do print(info.id) end
--- ```
---@param execd opensandbox.Endpoint|string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.IsolatedSessionInfo[]? list
---@return opensandbox.Error? err
function isolated_routes:list_isolated_sessions(execd, opts)
  local op = self.op or "list_isolated_sessions"
  local request = { op = op, timeout = options.timeout(op, opts), method = "GET", path = "/v1/isolated/sessions" }
  function request.decode(response)
    return fields.decode_list(response.sessions, session_info), "list of isolated sessions"
  end
  return isolated_errors.call(self, execd, "isolated list", request)
end

-- Checks that a new session has its overlays, because an older execd ignores them. Otherwise the session is deleted, in the background if
-- the time limit of the call is over.
local function check_overlays(self, op, execd, info)
  local created, err = self:for_op(op):get_isolated_session(execd, info.id)
  if created and created.overlays then return info end
  if not self:delete_isolated_session(execd, info.id) then
    local resource = self.resources:add(function() return self:delete_isolated_session_request(execd, info.id) end)
    resource.best_effort = true
    resource:delete()
  end
  return nil, err or isolated_errors.unsupported(op, execd, "isolated overlays")
end

local function create_session(self, op, execd, body)
  local request = { op = op, method = "POST", path = SESSION_ROUTE, json = body }
  function request.decode(response)
    if not url.is_segment(response.session_id) then return nil, "session id" end
    return { id = response.session_id, created_at = time.parse(response.created_at) }
  end
  create_rollback(self, request, function(created) return self:delete_isolated_session_request(execd, created.id) end,
    { best_effort = true })
  local info, err = isolated_errors.call(self, execd, "isolated", request)
  if not body.overlays then return info, err end
  if info then return check_overlays(self, op, execd, info) end
  if err.status == 400 and err.message:find("Workspace", 1, true) then
    err = isolated_errors.unsupported(op, execd, "isolated overlays", err)
  end
  return nil, err
end

--- Creates a session: POST /v1/isolated/session. The sandbox must have been created with
--- `extensions = { ["bootstrap.execd.isolation"] = "enable" }`.
---
--- The shell starts in "/"; `sandbox:isolated` enters the workspace. In the mode "rw" the shell, the files API of the session and
--- the sandbox see the same files. In an overlay they do not. The shell does not see a change of the files API to a name that the
--- shell has looked up before. The files API still returns files that the shell has deleted. All changes are lost when the
--- session ends.
--- ```lua
--- local session = assert(client:create_isolated_session(execd, { workspace = "/work" }))
--- ```
---@param execd opensandbox.Endpoint|string
---@param opts opensandbox.IsolatedSessionOpts
---@return opensandbox.IsolatedSessionInfo? info its id, and created_at
---@return opensandbox.Error? err
function isolated_routes:create_isolated_session(execd, opts)
  local op = self.op or "create_isolated_session"
  local body, timeout = create_body(op, opts)
  if timeout then self = self:within(deadline.new(timeout)) end
  if body.binds or body.uid_mode then
    -- execd 1.0.20 would ignore them. It has no list either.
    local list, err = self:for_op(op):list_isolated_sessions(execd)
    if not list then return nil, err end
  end
  return create_session(self, op, execd, body)
end

--- Returns the status of a session: GET /v1/isolated/session/{id}.
--- ```lua
--- print(assert(client:get_isolated_session(execd, id)).status)
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.IsolatedSessionInfo? info
---@return opensandbox.Error? err
function isolated_routes:get_isolated_session(execd, id, opts)
  local op = self.op or "get_isolated_session"
  return isolated_errors.call(self, execd, "isolated", { op = op, timeout = options.timeout(op, opts),
    method = "GET", path = session_path(op, id),
    decode = function(response) return session_info(response, id) end })
end

--- Internal: returns the prepared request that deletes a session, for deletes in the background.
---@param execd opensandbox.Endpoint|string
---@param id string
---@return table request
function isolated_routes:delete_isolated_session_request(execd, id)
  local op = "delete_isolated_session"
  return self.http:endpoint_request(execd, { op = op, method = "DELETE", path = session_path(op, id), may_repeat = true })
end

--- Deletes a session, and stops its processes: DELETE /v1/isolated/session/{id}. The call succeeds if it does not exist.
--- ```lua
--- assert(client:delete_isolated_session(execd, id))
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function isolated_routes:delete_isolated_session(execd, id, opts)
  local op = self.op or "delete_isolated_session"
  return errors.ignore_absence(isolated_errors.call(self, execd, "isolated", { op = op, timeout = options.timeout(op, opts),
    method = "DELETE", path = session_path(op, id),
    shielded = true }))
end

--- Returns the endpoint of a session's files, with which every file method of the client works. Nothing is sent.
---
--- The methods then behave as execd's routes. Every path is taken as one below the workspace. `search_files` returns paths
--- relative to the workspace. Owners are neither reported nor changed. The files of `sandbox:isolated` do not have these
--- differences.
--- ```lua
--- local bytes = assert(client:download_file(client:isolated_endpoint(execd, id), "/work/a.txt")):read("a")
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string
---@return opensandbox.Endpoint
function isolated_routes:isolated_endpoint(execd, id)
  local op = self.op or "isolated_endpoint"
  local path = session_path(op, id)
  execd = http_client.check_endpoint(op, execd)
  return tables.merge(execd, { url = execd.url .. path, literal_paths = true })
end

return isolated_routes
