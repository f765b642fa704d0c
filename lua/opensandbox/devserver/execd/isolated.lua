--- Isolated sessions: a bash each that keeps its state, with its streams, runs in the background, and files.
--
-- On one machine they are as isolated as the sandbox itself, no more: their workspace is a directory of the sandbox, written to
-- directly (mode "rw"), /tmp and the network are the sandbox's. What would need more is answered with NOT_SUPPORTED. Code does
-- not come through the shell's standard input, as it does in execd: a command that reads it finds its end there, and does not
-- swallow what tells the end of the run.

local uv = require "luv"
local json = require "opensandbox.base.json"
local directories = require "opensandbox.devserver.execd.directories"
local files = require "opensandbox.devserver.execd.files"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local frames = require "opensandbox.devserver.execd.events"
local kernel = require "opensandbox.devserver.execd.interpreter"
local random = require "opensandbox.devserver.base.random"
local run = require "opensandbox.devserver.execd.run_request"
local stream = require "opensandbox.devserver.execd.event_stream"
local time = require "opensandbox.devserver.base.time"
local timer = require "opensandbox.devserver.base.timer"
local transfer = require "opensandbox.devserver.execd.download"
local upload = require "opensandbox.devserver.execd.upload"

local LOG_LIMIT = 16 * 1024 * 1024      -- bytes of one answer
local RUNS = ".execd/background-runs"   -- below the workspace, as execd keeps them
-- Variables that a session has even when it may have only some.
local ALWAYS = { PATH = true, HOME = true, LANG = true, TERM = true }

local function instant(at)
  return at and time.format(at[1], at[2] * 1000, 9, true)
end

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Lines of the shell that set the variables of a request.
local function exports(envs)
  local lines = {}
  for name, value in pairs(envs or {}) do lines[#lines + 1] = ("export %s=%s\n"):format(quoted(name), quoted(value)) end
  return table.concat(lines)
end

local Session = {}
Session.__index = Session

--- Runs `begin` when nothing else runs in the session: its runs come one after the other.
function Session:enqueue(begin)
  table.insert(self.queue, begin)
  self:_next()
end

function Session:_next()
  if self.kernel.run then return end
  local begin = table.remove(self.queue, 1)
  if not begin then return self:_wait_idly() end
  begin()
  self:_next()
end

-- Begins to count the time after which a session that nobody uses ends.
function Session:_wait_idly()
  if self.idle_timeout == 0 or self.closed then return end
  self.timer:start(self.idle_timeout * 1000, function()
    if self.kernel.run then return end
    for _, one in pairs(self.runs) do
      if one.running then return self:_wait_idly() end
    end
    self.owner:remove(self.id)
  end)
end

-- Begins the count again.
function Session:used()
  self.last_run = { time.now() }
  self:_wait_idly()
end

function Session:state()
  local remaining
  if self.idle_timeout > 0 then
    remaining = math.max(0, self.idle_timeout - math.floor(time.now() - self.last_run[1]))
  end
  return {
    status = self.kernel.alive and "active" or "dead", created_at = instant(self.created), last_run_at = instant(self.last_run),
    idle_remaining_seconds = remaining,
  }
end

local Foreground = {}
Foreground.__index = Foreground

function Foreground:output(_, data)
  local list, process = {}, self.session.kernel
  if not self.lines:feed(data, list) then
    self.problem = self.problem or "read stdout: bufio.Scanner: token too long"
    process:interrupt()
  end
  self.events:send(list)
  if self.events:full(function() process:hold(false) end) then process:hold(true) end
end

function Foreground:fail(message)
  self.events:stop { frames.error("RuntimeError", message, "null", message) }
end

function Foreground:done(status)
  if self.timer then self.timer:close() end
  self.session:used()
  local list = {}
  self.lines:finish(list)
  self.events:send(list)
  if self.problem then
    self:fail(self.problem)
  elseif not status then
    self:fail("session process exited without end marker (process may have died or called exit)")
  elseif status ~= 0 then
    self.events:stop { frames.error("ExitError", ("%d"):format(status), "null", ("command exited with code %d"):format(status)) }
  else
    self.events:stop { frames.complete() }
  end
  self.session:_next()
end

--- Runs code and sends what happens. Time that is up, or a client that goes, interrupts it; the session lives on.
-- @param timeout in seconds; 0 or nil for none
function Session:run(code, envs, timeout, events)
  local one = setmetatable({ session = self, events = events, lines = frames.records("stdout") }, Foreground)
  events.on_gone = function()
    one.gone = true
    if self.kernel.run == one then self.kernel:interrupt() end
  end
  self:enqueue(function()
    if one.gone then return end
    if not self.kernel.alive then return one:fail("session process has exited") end
    self:used()
    if (timeout or 0) > 0 then
      one.timer = timer.after(timeout * 1000, function()
        one.problem = "context deadline exceeded"
        self.kernel:interrupt()
      end)
    end
    -- With variables of its own it is a shell of its own.
    if next(envs or {}) then code = "(\n" .. exports(envs) .. code .. "\n)" end
    self.kernel:execute(code, one)
  end)
end

local Background = {}
Background.__index = Background

function Background.output() end

-- The shell has begun it; it says later how it ended.
function Background:done(status)
  self.session:used()
  self.answer(status and self)
  self.session:_next()
end

function Background:ended(code, problem)
  if not self.running then return end
  self.running, self.exit_code, self.problem, self.finished = false, code, problem, { time.now() }
  self.session:used()
end

function Background:status()
  return {
    session_id = self.session.id, run_id = self.id, running = self.running, exit_code = self.exit_code, error = self.problem,
    started_at = instant(self.started), finished_at = instant(self.finished),
  }
end

--- Starts code in the background.
-- @param answer called with the run, or with nil when the session has ended
function Session:start(code, envs, answer)
  local id, strategy = random.uuid(), self.sandbox.strategy
  local directory = strategy:name_of(self.place):gsub("/$", "") .. "/" .. RUNS
  local one = setmetatable({
    session = self, id = id, running = true, started = { time.now() }, answer = answer, log = ("%s/%s.log"):format(directory, id),
  }, Background)
  self:enqueue(function()
    if not self.kernel.alive then return answer(nil) end
    self.runs[id] = one
    self.kernel:execute(table.concat {
      "{ trap '' INT\n", exports(envs), "mkdir -p ", quoted(directory), "; ",
      quoted(strategy.shell), " -c ", quoted(code), " </dev/null >", quoted(one.log), " 2>&1\n",
      "builtin printf 'exit %s %s\\n' ", id, ' "$?" >&252; } 251<&- >/dev/null 2>&1 &',
    }, one)
  end)
end

local Isolated = {}
Isolated.__index = Isolated

local function new(sandbox)
  return setmetatable({ sandbox = sandbox, by_id = {}, list = {} }, Isolated)
end

local function environment(sandbox, passthrough)
  local env, named = {}, {}
  for _, name in ipairs(passthrough and passthrough.mode and passthrough.keys or {}) do named[name] = true end
  local only = passthrough and passthrough.mode == "allow"
  for name, value in pairs(sandbox:variables()) do
    if only and (named[name] or ALWAYS[name]) or not only and not named[name] then env[name] = value end
  end
  return env
end

--- Makes a session.
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] string why it cannot be made
function Isolated:create(body, place)
  local session = setmetatable({
    id = random.uuid(), owner = self, sandbox = self.sandbox, place = place, created = { time.now() }, last_run = { time.now() },
    queue = {}, runs = {}, idle_timeout = body.idle_timeout_seconds or 0, timer = timer.new(),
  }, Session)
  local problem
  session.kernel, problem = kernel.new(self.sandbox, {
    language = "bash", merged = true, cwd = place, env = environment(self.sandbox, body.env_passthrough),
    uid = body.uid, gid = body.gid or (body.uid and filesystem.primary_group(body.uid)) or nil,
    on_message = function(word, value)
      local id, code = value:match("^(%S+) (%d+)$")
      if word == "exit" and session.runs[id] then session.runs[id]:ended(tonumber(code)) end
    end,
    on_exit = function()
      for _, one in pairs(session.runs) do one:ended(nil, "session terminated") end
    end,
  })
  if not session.kernel then
    session.timer:close()
    return nil, problem
  end
  -- Relative paths of its file routes begin at the workspace; the rest is the sandbox's.
  local paths = setmetatable({}, { __index = self.sandbox.paths })
  function paths.expand(_, path, variables)
    if not path:find("^[/~$]") then path = place.inside .. "/" .. path end
    return self.sandbox.paths:expand(path, variables)
  end
  session.view = setmetatable({ is_view = true, paths = paths }, { __index = self.sandbox })
  self.by_id[session.id] = session
  table.insert(self.list, session)
  session:_wait_idly()
  return session
end

function Isolated:remove(id, callback)
  local session = self.by_id[id]
  self.by_id[id] = nil
  for index, one in ipairs(self.list) do
    if one == session then table.remove(self.list, index) end
  end
  session.closed = true
  session.timer:close()
  session.kernel:close(callback)
end

function Isolated:close_all()
  while self.list[1] do self:remove(self.list[1].id) end
end

local routes = {}
local BASE = "/v1/isolated/session"

local function invalid(call, message)
  call.response:fail(400, "INVALID_REQUEST_BODY", message)
end

local function unsupported(call, message)
  call.response:fail(503, "NOT_SUPPORTED", message)
end

routes["GET /v1/isolated/capabilities"] = function(call)
  local isolator = call.sandbox.strategy.name
  local wrapped = isolator == "bwrap"
  call.response:json(200, {
    available = true, isolator = isolator, commit_supported = false, diff_supported = false,
    setpriv_available = wrapped and uv.getuid() == 0, userns_available = false,
    message = not wrapped and "sessions run as plain processes of this machine" or nil,
  })
end

local REQUEST = "CreateIsolatedSessionRequest"
local CHOICES = {
  { "profile", { strict = true, balanced = true } }, { "uid_mode", { setpriv = true, userns = true } },
}
local MODES, PASSING = { rw = true, overlay = true, ro = true }, { allow = true, deny = true }

-- What is wrong with the body of a creation, whatever this server can do.
local function problem_of(body)
  local workspace, passing = body.workspace, body.env_passthrough
  local wrong = run.type_problem(body, REQUEST, {
    { "profile", "string" }, { "workspace", "object" }, { "extra_writable", "list" }, { "binds", "object" },
    { "share_net", "boolean" }, { "env_passthrough", "object" }, { "uid", "unsigned" }, { "gid", "unsigned" },
    { "uid_mode", "string" }, { "idle_timeout_seconds", "integer" },
  }) or workspace and run.type_problem(workspace, "WorkspaceSpec", { { "path", "string" }, { "mode", "string" } })
    or passing and run.type_problem(passing, "EnvPassthroughSpec", { { "mode", "string" }, { "keys", "list" } })
  if wrong then return wrong end
  if not workspace or (workspace.path or "") == "" then return run.rule_problem(REQUEST, "Workspace.Path", "required") end
  if (workspace.mode or "") ~= "" and not MODES[workspace.mode] then
    return ('invalid workspace mode "%s": must be rw, overlay, or ro'):format(workspace.mode)
  end
  for _, choice in ipairs(CHOICES) do
    local value = body[choice[1]]
    if (value or "") ~= "" and not choice[2][value] then return ('invalid %s "%s"'):format(choice[1], value) end
  end
  if passing and (passing.mode or "") ~= "" and not PASSING[passing.mode] then
    return ('invalid env_passthrough mode "%s": must be "deny" or "allow"'):format(passing.mode)
  end
  if (body.idle_timeout_seconds or 0) < 0 then return run.rule_problem(REQUEST, "IdleTimeoutSeconds", "gte") end
end

-- What a body wants that cannot be had here.
local function missing_for(body)
  local mode = body.workspace.mode or ""
  if mode ~= "rw" then
    return ("the development server has workspace mode rw only: say mode = \"rw\" instead of %s"):format(
      mode == "" and "leaving it out, which means overlay" or mode)
  end
  if next(body.binds or {}) or next(body.extra_writable or {}) then return "the development server has no binds" end
  if body.share_net == false then return "the development server has no private networks" end
  if body.uid_mode == "userns" then return "the development server has no uid mode userns" end
end

routes["POST " .. BASE] = function(call)
  call:json_body("object", function(body)
    local problem = problem_of(body)
    if problem then return invalid(call, problem) end
    problem = missing_for(body) or call.sandbox.strategy:refuses(body.uid, body.gid)
    if problem then return unsupported(call, problem) end
    local made, wrong = filesystem.make_all(call.sandbox, body.workspace.path, 493)
    local place
    if made ~= nil then place, problem = run.directory(call.sandbox, body.workspace.path) else problem = wrong.message end
    if not place then return call.response:fail(400, "RUNTIME_ERROR", "create workspace: " .. problem) end
    local session
    session, problem = call.sandbox.isolated:create(body, place)
    if not session then return call.response:fail(500, "RUNTIME_ERROR", "start bwrap: " .. problem) end
    session.parameters = {
      workspace = { path = body.workspace.path, mode = "rw" }, profile = body.profile or "strict", share_net = true,
      env_passthrough = body.env_passthrough or { mode = "deny" }, uid_mode = "setpriv", uid = body.uid, gid = body.gid,
      idle_timeout_seconds = session.idle_timeout,
    }
    call.response:json(201, { session_id = session.id, created_at = instant(session.created) })
  end)
end

routes["GET /v1/isolated/sessions"] = function(call)
  local found = json.array {}
  for _, session in ipairs(call.sandbox.isolated.list) do
    local state = session:state()
    state.session_id = session.id
    found[#found + 1] = state
  end
  call.response:json(200, { sessions = found })
end

-- A handler that gets the session that the path names.
local function of_session(handler)
  return function(call)
    local session = call.sandbox.isolated.by_id[call.parameters.session]
    if not session then return call.response:fail(404, "SESSION_NOT_FOUND", "session not found") end
    handler(call, session)
  end
end

local function route(method, path, handler)
  routes[("%s %s/{session}%s"):format(method, BASE, path)] = of_session(handler)
end

route("GET", "", function(call, session)
  local state = session:state()
  for name, value in pairs(session.parameters) do state[name] = value end
  call.response:json(200, state)
end)

route("DELETE", "", function(call, session)
  call.sandbox.isolated:remove(session.id, function() call.response:empty(200) end)
end)

route("POST", "/run", function(call, session)
  call:json_body("object", function(body)
    local problem = run.type_problem(body, "IsolatedRunRequest", {
      { "code", "string" }, { "envs", "strings" }, { "timeout_seconds", "integer" }, { "background", "boolean" },
    }) or (body.code or "") == "" and run.rule_problem("IsolatedRunRequest", "Code", "required")
      or (body.timeout_seconds or 0) < 0 and run.rule_problem("IsolatedRunRequest", "TimeoutSeconds", "gte")
    if problem then return invalid(call, problem) end
    if not body.background then
      return session:run(body.code, body.envs, body.timeout_seconds, stream.new(call.response, call.sandbox))
    end
    session:start(body.code, body.envs, function(one)
      if not one then return invalid(call, "session is not active") end
      call.response:json(202, { session_id = session.id, run_id = one.id, started_at = instant(one.started) })
    end)
  end)
end)

-- The run in the background that the path names, or the answer that there is none.
local function named(call, session)
  local one = session.runs[call.parameters.run]
  if not one then call.response:fail(404, "SESSION_NOT_FOUND", "session not found") end
  return one
end

route("GET", "/runs/{run}", function(call, session)
  local one = named(call, session)
  if one then call.response:json(200, one:status()) end
end)

route("GET", "/runs/{run}/logs", function(call, session)
  local one = named(call, session)
  if not one then return end
  local text = call:parameter("cursor") or ""
  local cursor = text == "" and 0 or tonumber(text:match("^%+?%d+$"))
  if not cursor then return invalid(call, "invalid cursor: " .. text) end
  local place = session.sandbox.strategy:place_of(session.sandbox.paths, one.log)
  run.tail(call, place and place.path, cursor, "Execd-Isolated-Tail-Cursor", LOG_LIMIT)
end)

route("GET", "/diff", function(call) unsupported(call, "diff not implemented yet (phase 2)") end)
route("POST", "/commit", function(call) unsupported(call, "commit not implemented yet (phase 2)") end)

for _, more in ipairs { files, directories, transfer, upload } do
  for name, handler in pairs(more) do
    local method, path = name:match("^(%u+) (.*)$")
    route(method, path, function(call, session)
      if not session.kernel.alive then return call.response:fail(500, "RUNTIME_ERROR", "session process has exited") end
      call.sandbox = session.view
      handler(call)
    end)
  end
end

return { new = new, routes = routes }
