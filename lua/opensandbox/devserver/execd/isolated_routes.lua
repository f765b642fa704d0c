--- The routes of isolated sessions.

local uv = require "luv"
local each = require "opensandbox.base.each"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local go_json = require "opensandbox.devserver.execd.go_json"
local go_text = require "opensandbox.devserver.execd.go_text"
local isolated_file_routes = require "opensandbox.devserver.execd.isolated_file_routes"
local json = require "opensandbox.base.json"
local mounts = require "opensandbox.devserver.execd.mounts"
local run_request = require "opensandbox.devserver.execd.run_request"

local MAX_LOG_SIZE = 16 * 1024 * 1024 -- bytes of one answer

-- Directories below which a session may be given more than its workspace: those that execd's configuration names by default.
local ALLOWED = { "/workspace", "/mnt", "/media", "/data" }

-- Variables that a session has even when it is given only some.
local ALWAYS = { PATH = true, HOME = true, LANG = true, TERM = true }

-- The answer when the shell could not be started, for example because a bind has no place in the read-only file system.
local NOT_STARTED = "start bwrap: wait for isolated workload identity: read native workload gate: read unixpacket @->@: EOF"

-- The message of a sandbox whose creation did not ask for isolation.
local NOT_ALLOWED = "%s found (v%s) but no uid mode is available (setpriv: bwrap setpriv smoke test failed: exit status 1 "
  .. "(stderr: bwrap: Creating new namespace failed: Operation not permitted); userns: bwrap userns smoke test failed: exit "
  .. "status 1 (stderr: bwrap: Can't mount proc on /newroot/proc: Operation not permitted))"

-- The message where sandboxes are plain processes of this machine. A session's shell would see the machine's root there, while its
-- files API serves the sandbox's directory.
local NO_BUBBLEWRAP = "bwrap is not in use: the server was started with --isolation none, or bubblewrap does not work on its "
  .. "machine"

local routes = {}
local SESSION = "/v1/isolated/session"

local function invalid(call, message)
  call.response:fail(400, "INVALID_REQUEST_BODY", message)
end

local function refused(call, message)
  call.response:fail(400, "RUNTIME_ERROR", message)
end

local function unsupported(call, message)
  call.response:fail(503, "NOT_SUPPORTED", message)
end

routes["GET /v1/isolated/capabilities"] = function(call)
  local strategy, allowed = call.sandbox.strategy, call.sandbox.allows_isolation
  local message
  if not strategy.open_shell then
    message = NO_BUBBLEWRAP
  elseif not allowed then
    message = NOT_ALLOWED:format(strategy.name, strategy.version)
  end
  local disabled = { state = "disabled", message = "hardening not enabled" }
  call.response:json(200, {
    available = allowed, isolator = strategy.open_shell and strategy.name or nil, version = strategy.version, message = message,
    commit_supported = false, diff_supported = false,
    setpriv_available = allowed and strategy:refuses(1000, 1000) == nil, userns_available = false,
    hardening = {
      init_mode = "none", signal_shield = false, cap_drop = disabled, seccomp = disabled,
      landlock = { state = "disabled", message = "landlock not enabled" },
      ebpf = { state = "disabled", message = "eBPF observation is not enabled ([ebpf] enabled = false)" },
    },
  })
end

local REQUEST = "CreateIsolatedSessionRequest"
local FIELDS = {
  { "profile", "string" }, { "workspace", "object", "model.WorkspaceSpec" }, { "overlays", "any_list" },
  { "extra_writable", "list" },
  { "binds", "any_list" }, { "share_net", "boolean" }, { "env_passthrough", "object", "model.EnvPassthroughSpec" },
  { "uid", "uint32" }, { "gid", "uint32" },
  { "uid_mode", "string" }, { "idle_timeout_seconds", "int" },
}
local WORKSPACE_FIELDS = { { "path", "string" }, { "mode", "string" } }
local PASSTHROUGH_FIELDS = { { "mode", "string" }, { "keys", "list" } }
local BIND_FIELDS = { { "source", "string" }, { "dest", "string" }, { "readonly", "boolean" } }

local function type_problem(body)
  local problem = go_json.type_problem(body, REQUEST, FIELDS)
    or go_json.type_problem(body.workspace or {}, "WorkspaceSpec.workspace", WORKSPACE_FIELDS)
    or go_json.type_problem(body.env_passthrough or {}, "EnvPassthroughSpec.env_passthrough", PASSTHROUGH_FIELDS)
  if problem then return problem end
  for _, bind in ipairs(body.binds or {}) do
    problem = type(bind) ~= "table" and go_json.value_problem(bind, "model.BindSpec")
      or go_json.type_problem(bind, "BindSpec.binds", BIND_FIELDS)
    if problem then return problem end
  end
end

local MODES, UID_MODES = { rw = true, overlay = true, ro = true }, { setpriv = true, userns = true }
local PASSTHROUGH_MODES = { allow = true, deny = true }

-- An empty string stands for an absent one.
local function given(text)
  return text ~= "" and text or nil
end

-- Returns the problem of the body of a creation. It does not check whether this server has the features.
local function problem_of(body)
  local problem = type_problem(body)
  if problem then return problem end
  local specification, passthrough = body.workspace or {}, body.env_passthrough
  local has_other = not body.workspace and body.overlays and body.overlays[1]
  if not has_other and not given(specification.path) then
    return go_json.rule_problem(REQUEST, "Workspace.Path", "required")
  end
  local mode, uid_mode, passthrough_mode = given(specification.mode), given(body.uid_mode), passthrough and given(passthrough.mode)
  if mode and not MODES[mode] then return ('invalid workspace mode "%s": must be rw, overlay, or ro'):format(mode) end
  for index, bind in ipairs(body.binds or {}) do
    if not given(bind.source) then return ("binds[%d].source is required"):format(index - 1) end
    for _, name in ipairs { "source", "dest" } do
      local path = given(bind[name])
      if path and path:sub(1, 1) ~= "/" then
        return ('binds[%d].%s "%s" must be an absolute path'):format(index - 1, name, path)
      end
    end
  end
  if passthrough_mode and not PASSTHROUGH_MODES[passthrough_mode] then
    return ('invalid env_passthrough mode "%s": must be "deny" or "allow"'):format(passthrough_mode)
  end
  if uid_mode and not UID_MODES[uid_mode] then
    return ('invalid uid_mode "%s": must be "setpriv" or "userns"'):format(uid_mode)
  end
end

-- Returns the place of a path that a session is to be given; nil and its problem.
local function allowed_place(sandbox, path)
  local place, code = sandbox.paths:resolve(path)
  if not place or not uv.fs_stat(place.path) then
    local reason = code == "ENOTDIR" and "not a directory" or "no such file or directory"
    return nil, ("must be an existing path: lstat %s: %s"):format(path, reason)
  end
  for _, directory in ipairs(ALLOWED) do
    if (place.inside .. "/"):sub(1, #directory + 1) == directory .. "/" then return place end
  end
  return nil, "not in allowlist"
end

-- Returns the options of the shell that the body asks for; nil and the problem.
local function shell_options(sandbox, body)
  local options = { binds = {}, writable = {}, profile = given(body.profile) or "strict", share_net = body.share_net }
  for _, path in ipairs(body.extra_writable or {}) do
    local place, problem = allowed_place(sandbox, path)
    if not place then return nil, ('extra_writable path "%s": %s'):format(path, problem) end
    table.insert(options.writable, place)
  end
  for _, bind in ipairs(body.binds or {}) do
    local source, problem = allowed_place(sandbox, bind.source)
    if not source then return nil, ('binds source "%s": %s'):format(bind.source, problem) end
    table.insert(options.binds, {
      source = source, dest = sandbox.paths:resolve(given(bind.dest) or bind.source), readonly = bind.readonly,
    })
  end
  if options.profile ~= "strict" and options.profile ~= "balanced" then
    return nil, ('start bwrap: unknown isolation profile "%s"'):format(options.profile)
  end
  return options
end

-- Returns the feature that the body asks for and this server does not have.
local function missing_for(sandbox, body, directories)
  for _, directory in ipairs(directories) do
    if directory.path == "/" and directory.mode ~= "ro" then return "the development server mounts nothing on /" end
  end
  if body.uid_mode == "userns" then return "requested uid mode is unavailable: userns" end
  if sandbox.strategy:refuses(body.uid, body.gid) then return "requested uid mode is unavailable: setpriv" end
end

local function environment(sandbox, passthrough)
  local env, named = {}, {}
  for _, name in ipairs(passthrough and given(passthrough.mode) and passthrough.keys or {}) do named[name] = true end
  local only = passthrough and passthrough.mode == "allow"
  for name, value in each(sandbox:variables()) do
    if only and (named[name] or ALWAYS[name]) or not only and not named[name] then env[name] = value end
  end
  return env
end

routes["POST " .. SESSION] = function(call)
  call:json_body("object", function(body)
    local sandbox = call.sandbox
    if not sandbox.newest_execd then body.overlays = nil end -- older ones ignore unknown members
    local problem = problem_of(body)
    if problem then return invalid(call, problem) end
    local directories
    directories, problem = mounts.read(body)
    if not directories then return invalid(call, problem) end
    problem = missing_for(sandbox, body, directories)
    if problem then return unsupported(call, problem) end
    local options
    options, problem = shell_options(sandbox, body)
    if not options then return refused(call, problem) end
    local prepared
    prepared, problem = mounts.prepare(sandbox, directories)
    if not prepared then return call.response:fail(500, "RUNTIME_ERROR", "create workspace: " .. problem) end
    local parameters = {
      profile = options.profile, workspace = body.workspace and #directories == 1 and directories[1] or nil,
      overlays = sandbox.newest_execd and directories or nil, extra_writable = body.extra_writable, binds = body.binds,
      share_net = body.share_net, env_passthrough = body.env_passthrough or { mode = "deny" }, uid = body.uid, gid = body.gid,
      uid_mode = given(body.uid_mode) or "setpriv", idle_timeout_seconds = body.idle_timeout_seconds or 0,
    }
    sandbox.isolated:open({
      mounts = prepared, uid = body.uid,
      gid = body.gid or (body.uid and filesystem.primary_group(body.uid)) or nil,
      env = environment(sandbox, body.env_passthrough), idle_timeout = parameters.idle_timeout_seconds, shell = options,
      parameters = parameters,
    }, function(session)
      if not session then return call.response:fail(500, "RUNTIME_ERROR", NOT_STARTED) end
      call.response:json(201, { session_id = session.id, created_at = go_text.instant(session.created) })
    end)
  end, { prefix = "" })
end

local function state(session)
  return {
    status = "active", created_at = go_text.instant(session.created), last_run_at = go_text.instant(session.last_run),
    idle_remaining_seconds = session:idle_remaining(),
  }
end

routes["GET /v1/isolated/sessions"] = function(call)
  local found = json.array {}
  for _, session in ipairs(call.sandbox.isolated.list) do
    local item = state(session)
    item.session_id = session.id
    found[#found + 1] = item
  end
  call.response:json(200, { sessions = found })
end

local function not_found(call)
  call.response:fail(404, "SESSION_NOT_FOUND", "session not found")
end

-- Adds a route below a session. Its handler receives the session.
local function route(method, path, handler)
  routes[("%s %s/{session}%s"):format(method, SESSION, path)] = function(call)
    local session = call.sandbox.isolated.by_id[call.parameters.session]
    if not session then return not_found(call) end
    handler(call, session)
  end
end

route("GET", "", function(call, session)
  local item = state(session)
  for name, value in each(session.parameters) do item[name] = value end
  call.response:json(200, item)
end)

route("DELETE", "", function(call, session)
  session:close(nil, function() call.response:empty(200) end)
end)

local RUN_FIELDS = { { "code", "string" }, { "envs", "map" }, { "timeout_seconds", "int" }, { "background", "boolean" } }

local function run_problem_of(body)
  local problem = go_json.type_problem(body, "IsolatedRunRequest", RUN_FIELDS)
  if problem then return problem end
  if not given(body.code) then return go_json.rule_problem("IsolatedRunRequest", "Code", "required") end
  if (body.timeout_seconds or 0) < 0 then return go_json.rule_problem("IsolatedRunRequest", "TimeoutSeconds", "gte") end
end

route("POST", "/run", function(call, session)
  call:json_body("object", function(body)
    local problem = run_problem_of(body)
    if problem then return invalid(call, problem) end
    if not body.background then
      return session:run(call, body.code, body.envs, body.timeout_seconds, function() not_found(call) end)
    end
    if session.workspace.mode == "ro" then -- or an overlay in memory
      return invalid(call, "background runs not supported in read-only workspace mode")
    end
    session:start(body.code, body.envs, function(run)
      if not run then return not_found(call) end
      call.response:json(202, { session_id = session.id, run_id = run.id, started_at = go_text.instant(run.started) })
    end)
  end, { prefix = "" })
end)

-- Adds a route below a run in the background. Its handler receives the run.
local function run_route(path, handler)
  route("GET", "/runs/{run}" .. path, function(call, session)
    local run = session.runs[call.parameters.run]
    if not run then return not_found(call) end
    handler(call, run)
  end)
end

run_route("", function(call, run) call.response:json(200, run:status()) end)

run_route("/logs", function(call, run)
  local text = call:parameter("cursor") or ""
  local cursor = text == "" and 0 or tonumber(text:match("^[+-]?%d+$"))
  if not cursor then return invalid(call, "cursor must be an integer") end
  if cursor < 0 then return invalid(call, "cursor cannot be negative") end
  run_request.tail(call, run:log_path(), cursor, "Execd-Isolated-Tail-Cursor", MAX_LOG_SIZE)
end)

-- execd has these two only as names.
routes[("GET %s/{session}/diff"):format(SESSION)] = function(call) unsupported(call, "diff not implemented yet (phase 2)") end
routes[("POST %s/{session}/commit"):format(SESSION)] = function(call) unsupported(call, "commit not implemented yet (phase 2)") end

for name, handler in each(isolated_file_routes) do
  local method, path = name:match("^(%u+) (.*)$")
  route(method, path, function(call, session) handler(call, session.mounts) end)
end

for name, handler in each(routes) do
  if name ~= "GET /v1/isolated/capabilities" then
    routes[name] = function(call)
      if call.sandbox.allows_isolation then return handler(call) end
      call.response:fail(503, "SERVICE_UNAVAILABLE", "isolation unavailable")
    end
  end
end

return routes
