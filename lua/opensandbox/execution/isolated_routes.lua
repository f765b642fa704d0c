--- Isolated sessions of execd (from 1.0.20): a shell in namespaces of its own, with a workspace and files of its own. A client method for
--- each route; isolated_run.lua has those for what runs in a session.

local create_rollback = require "opensandbox.http.create_rollback"
local errors = require "opensandbox.base.errors"
local http_client = require "opensandbox.http.http_client"
local json = require "opensandbox.base.json"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local support = require "opensandbox.execution.isolated_errors"
local tables = require "opensandbox.base.tables"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local isolated = {}

local BASE = "/v1/isolated/session"

local function session_path(op, id)
  return BASE .. "/" .. url.escape(options.path_segment(op, "the session id", id))
end

---@class opensandbox.IsolationCapabilities
---@field available boolean
---@field isolator? string "bwrap"
---@field version? string of the isolator
---@field message? string what is missing
---@field setpriv_available? boolean whether uid and gid can be given
---@field userns_available? boolean whether uid_mode can be "userns"
---@field raw table the server's answer

--- What isolation this sandbox can have: GET /v1/isolated/capabilities.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@return opensandbox.IsolationCapabilities? capabilities
---@return opensandbox.Error? err
function isolated.get_isolation_capabilities(self, execd)
  return support.call(self, execd, "isolated", { op = self.op or "get_isolation_capabilities", method = "GET",
    path = "/v1/isolated/capabilities", decode = function(answer)
      if type(answer.available) ~= "boolean" then return nil, "capabilities" end
      return { available = answer.available, isolator = answer.isolator, version = answer.version, message = answer.message,
        setpriv_available = answer.setpriv_available, userns_available = answer.userns_available, raw = answer }
    end })
end

---@class opensandbox.IsolatedSessionOpts
---@field workspace string|table a path, or { path, mode }; made if it is missing
---@field mode? string of the workspace: "overlay" (the server's default: what is written goes with the session), "rw" or "ro"
---@field profile? string "strict" (default: a private /tmp) or "balanced"
---@field extra_writable? string[] paths
---@field binds? table[] { source, dest, readonly }: sources must exist, and destinations, too (execd 1.0.21)
---@field share_net? boolean false: a network of its own (default true)
---@field env_passthrough? table { mode = "allow" or "deny", keys }: which of the sandbox's variables it sees (default: all but secrets)
---@field uid? integer
---@field gid? integer
---@field uid_mode? string "setpriv" (default) or "userns" (execd 1.0.21)
---@field idle_timeout? number seconds without a run after which it ends (default: never)

local create_options = {
  workspace = "any", mode = "nonempty string", profile = "nonempty string", extra_writable = "string list", binds = "table",
  share_net = "boolean",
  env_passthrough = "table", uid = "natural", gid = "natural", uid_mode = "nonempty string", idle_timeout = "seconds",
}
local workspace_options = { path = "nonempty string", mode = "nonempty string" }
local bind_options = { source = "nonempty string", dest = "nonempty string", readonly = "boolean" }
local passthrough_options = { mode = "nonempty string", keys = "string list" }

local function choice(op, what, value, ...)
  if value == nil then return nil end
  for _, known in ipairs { ... } do
    if value == known then return value end
  end
  options.raise(op, ("%s must be \"%s\", not %q"):format(what, table.concat({ ... }, "\", \""), value))
end

local function workspace_in(op, opts)
  local given = opts.workspace
  if type(given) ~= "table" then given = { path = given } end
  given = options.check(op, given, workspace_options)
  if given.mode and opts.mode and given.mode ~= opts.mode then
    options.raise(op, "option 'mode' and the mode of option 'workspace' differ")
  end
  return { path = paths.check(op, given.path, "option 'workspace'"),
    mode = choice(op, "the mode of the workspace", opts.mode or given.mode, "rw", "overlay", "ro") }
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
  return { mode = mode, keys = given.keys and json.array(tables.merge(given.keys)) }
end

--- Checks the options of a new session and gives its body.
---@return table
local function body_of(op, opts)
  options.argument(op, "the options", opts, "table")
  opts = options.check(op, opts, create_options)
  return {
    workspace = workspace_in(op, opts), profile = choice(op, "option 'profile'", opts.profile, "strict", "balanced"),
    extra_writable = opts.extra_writable and #opts.extra_writable > 0 and json.array(tables.merge(opts.extra_writable)) or nil,
    binds = opts.binds and binds_in(op, opts.binds), share_net = opts.share_net,
    env_passthrough = passthrough_in(op, opts.env_passthrough), uid = opts.uid, gid = opts.gid,
    uid_mode = choice(op, "option 'uid_mode'", opts.uid_mode, "setpriv", "userns"),
    idle_timeout_seconds = opts.idle_timeout and math.ceil(opts.idle_timeout) or nil,
  }
end

---@class opensandbox.IsolatedSessionInfo
---@field id string
---@field status? string "active" or "dead"
---@field created_at? number Unix seconds
---@field last_run_at? number Unix seconds
---@field idle_remaining? number seconds
---@field workspace? table { path, mode }, and the other options of its creation, as execd 1.0.22 and newer know them
---@field raw? table the server's answer

---@return opensandbox.IsolatedSessionInfo? info
---@return string? missing
local function session_info(answer, id)
  id = id or answer.session_id
  if type(id) ~= "string" or type(answer.status) ~= "string" then return nil, "isolated session" end
  return {
    id = id, status = answer.status, created_at = time.parse(answer.created_at), last_run_at = time.parse(answer.last_run_at),
    idle_remaining = answer.idle_remaining_seconds, workspace = answer.workspace, profile = answer.profile,
    extra_writable = answer.extra_writable, binds = answer.binds, share_net = answer.share_net,
    env_passthrough = answer.env_passthrough, uid = answer.uid, gid = answer.gid, uid_mode = answer.uid_mode,
    idle_timeout = answer.idle_timeout_seconds, raw = answer,
  }
end

--- The isolated sessions there are: GET /v1/isolated/sessions (execd 1.0.21).
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@return opensandbox.IsolatedSessionInfo[]? list
---@return opensandbox.Error? err
function isolated.list_isolated_sessions(self, execd)
  return support.call(self, execd, "isolated list", { op = self.op or "list_isolated_sessions", method = "GET",
    path = "/v1/isolated/sessions", decode = function(answer)
      if type(answer.sessions) ~= "table" then return nil, "list of isolated sessions" end
      local list = {}
      for i, item in ipairs(answer.sessions) do
        list[i] = type(item) == "table" and session_info(item) or nil
        if not list[i] then return nil, "isolated sessions" end
      end
      return list
    end })
end

--- Makes a session: POST /v1/isolated/session. The sandbox must have been created with
--- `extensions = { ["bootstrap.execd.isolation"] = "enable" }`.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param opts opensandbox.IsolatedSessionOpts|table
---@return opensandbox.IsolatedSessionInfo? info its id, and created_at
---@return opensandbox.Error? err
function isolated.create_isolated_session(self, execd, opts)
  local op = self.op or "create_isolated_session"
  local body = body_of(op, opts)
  if body.binds or body.uid_mode then
    -- execd 1.0.20 would pass over them without a word. It has no list either.
    local list, err = self:list_isolated_sessions(execd)
    if not list then
      err.op = op
      return nil, err
    end
  end
  local request = { op = op, method = "POST", path = BASE, json = body, decode = function(answer)
    if type(answer.session_id) ~= "string" then return nil, "session id" end
    return { id = answer.session_id, created_at = time.parse(answer.created_at) }
  end }
  create_rollback(self, request, function(made) return self:delete_isolated_session_request(execd, made.id) end,
    { best_effort = true })
  return support.call(self, execd, "isolated", request)
end

--- How a session is doing: GET /v1/isolated/session/{id}.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string
---@return opensandbox.IsolatedSessionInfo? info
---@return opensandbox.Error? err
function isolated.get_isolated_session(self, execd, id)
  local op = self.op or "get_isolated_session"
  return support.call(self, execd, "isolated", { op = op, method = "GET", path = session_path(op, id),
    decode = function(answer) return session_info(answer, id) end })
end

--- Internal: the prepared request that deletes an isolated session, for deletes in the background.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string
---@return table request
function isolated.delete_isolated_session_request(self, execd, id)
  local op = "delete_isolated_session"
  return self.http:endpoint_request(execd, { op = op, method = "DELETE", path = session_path(op, id), may_repeat = true })
end

--- Ends a session and what runs in it: DELETE /v1/isolated/session/{id}. One that is gone already is a success.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string
---@return true? ok
---@return opensandbox.Error? err
function isolated.delete_isolated_session(self, execd, id)
  local op = self.op or "delete_isolated_session"
  local _, err = support.call(self, execd, "isolated", { op = op, method = "DELETE", path = session_path(op, id),
    shielded = true })
  if err and not errors.is_absence(err) then return nil, err end
  return true
end

--- The endpoint of a session's own files: every file method of the client works with it. Nothing is sent. What a session with an overlay
--- writes is only to be seen through it; owners are not told, and those given are passed over.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string
---@return opensandbox.Endpoint
function isolated.isolated_endpoint(self, execd, id)
  local op = self.op or "isolated_endpoint"
  local path = session_path(op, id)
  execd = http_client.check_endpoint(op, execd)
  return tables.merge(execd, { url = execd.url .. path })
end

return isolated
