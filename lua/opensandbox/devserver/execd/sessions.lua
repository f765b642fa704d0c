--- Bash sessions: exported variables and a working directory that stay from one run to the next.
--
-- As in execd, no process waits between runs: each run is a bash of its own that begins with the state that the run before left. Unlike
-- execd, which reads `export -p` back and so garbles values with quotes, dollars or line breaks, this keeps them exactly.

local uv = require "luv"
local each = require "opensandbox.base.each"
local shell = require "opensandbox.base.shell"
local errno = require "opensandbox.devserver.base.errno"
local go_text = require "opensandbox.devserver.execd.go_text"
local events = require "opensandbox.devserver.execd.events"
local pipe = require "opensandbox.devserver.base.pipe"
local random = require "opensandbox.base.random"
local run_request = require "opensandbox.devserver.execd.run_request"
local event_stream = require "opensandbox.devserver.execd.event_stream"
local go_json = require "opensandbox.devserver.execd.go_json"
local tables = require "opensandbox.base.tables"
local timer = require "opensandbox.devserver.base.timer"

local MAX_RUN_TIME = 24 * 3600 * 1000 -- milliseconds
local MAX_VALUE_SIZE = 8 * 1024        -- of a variable that is kept
local NOT_KEPT = { PS1 = true, PS2 = true, PS3 = true, PS4 = true, PROMPT_COMMAND = true }
local SCRIPT = 4                       -- the descriptor of the script
-- The state leaves on a descriptor that no script uses, so that no output can be mistaken for it.
local BEFORE = "exec 4<&- 253>&3 3>&-\n"
local AFTER = [[

__status=$?
{ set +x; } 2>/dev/null
{ compgen -e | while IFS= read -r __name; do builtin printf '%s=%s\0' "$__name" "${!__name-}"; done
  builtin printf '\0'; builtin pwd; } >&253 || :
exit "$__status"
]]

-- Returns the variables and the directory that bash wrote; nil when the script did not reach its end.
local function parse_state(text)
  local last = text:find("\0\0", 1, true)
  if not last then return nil end
  local env, position = {}, 1
  while position <= last do
    local ending = text:find("\0", position, true)
    local name, value = text:sub(position, ending - 1):match("^([%a_][%w_]*)=(.*)$")
    if name and not NOT_KEPT[name] and #value <= MAX_VALUE_SIZE then env[name] = value end
    position = ending + 1
  end
  return env, (text:sub(last + 2):gsub("\n$", ""))
end

local Run = {}
Run.__index = Run

function Run:_output(data)
  if not data then
    self.ended = true
    return self:_settle()
  end
  local list = {}
  local fits = self.lines:feed(data, list)
  self.stream:send(list)
  if not fits then
    self.output:close()
    self.problem = "read stdout: bufio.Scanner: token too long"
    self.send_signal("sigkill", true)
    return self:_output(nil)
  end
  if self.stream:full(function() self.output:resume() end) then self.output:pause() end
end

-- Closes the stream when bash has ended and the pipe is closed. Processes that bash left running have the same pipe.
function Run:_settle()
  if not self.status or not self.ended then return end
  self.state:drain()
  self.state:close()
  self.timer:close()
  self.session.runs[self] = nil
  if self.problem then return self.stream:fail("error running in session. " .. self.problem) end

  local env, directory = parse_state(table.concat(self.left))
  if env then self.session.env, self.session.directory = env, directory end
  local list = {}
  self.lines:finish(list)
  local code, signal = self.status[1], self.status[2]
  if signal > 0 then
    list[#list + 1] = events.failure("-1", "signal: " .. (signal == 9 and "killed" or signal == 15 and "terminated" or signal))
  elseif code > 0 then
    list[#list + 1] = events.failure(("%d"):format(code), ("exit status %d"):format(code))
  else
    list[#list + 1] = events.complete(math.floor((uv.hrtime() - self.start_time) / 1e6))
  end
  self.stream:stop(list)
end

-- Kills the run with all that it started.
function Run:close()
  if not self.status then self.send_signal("sigkill") end
end

-- Stops reading the pipe, although a process may still have it open.
function Run:abandon()
  self.output:close()
  self.ended = true
  self:_settle()
end

local Session = {}
Session.__index = Session

-- Writes the script to a file without a name. Returns its descriptor.
function Session:_script(directory, command)
  local path = ("%s/%s"):format(self.sandbox.spool, random.hex(8))
  local fd = assert(uv.fs_open(path, "wx", 384))
  assert(uv.fs_write(fd, BEFORE .. "cd -- " .. shell.quote(directory) .. "\n" .. command .. AFTER, 0))
  uv.fs_close(fd)
  fd = assert(uv.fs_open(path, "r", 0))
  uv.fs_unlink(path)
  return fd
end

--- Runs a command and sends its events.
---@param command string
---@param directory? string as its processes name it; default the one that the run before left
---@param timeout? integer milliseconds; 0 and nil mean the longest time
---@param stream table
function Session:run(command, directory, timeout, stream)
  local sandbox, strategy = self.sandbox, self.sandbox.strategy
  directory = directory or self.directory
  local place = strategy:place_of(sandbox.paths, directory)
  local stat = place and uv.fs_stat(place.path)
  local problem = strategy.shell:match("[^/]+$") ~= "bash" and 'exec: "bash": executable file not found in $PATH'
    or (not stat or stat.type ~= "directory") and ("chdir %s: no such file or directory"):format(directory)
  if problem then return stream:fail("error running in session. start bash: " .. problem) end

  local run = setmetatable({
    session = self, stream = stream, lines = events.records("stdout"), left = {}, start_time = uv.hrtime(), timer = timer.new(),
  }, Run)
  local output, state
  run.output, output = pipe.reader(function(data) run:_output(data) end)
  run.state, state = pipe.reader(function(data) run.left[#run.left + 1] = data end)
  local script = self:_script(directory, command)
  local code
  run.send_signal, code = strategy:spawn(sandbox.container, {
    argv = { strategy.shell, "--noprofile", "--norc", "/dev/fd/" .. SCRIPT }, env = self.env, cwd = place,
    stdout = output, stderr = output, pipes = { state, script },
    on_exit = function(...)
      run.status = { ... }
      run:_settle()
    end,
  })
  for _, fd in ipairs { output, state, script } do uv.fs_close(fd) end
  if not run.send_signal then
    run.output:close()
    run.state:close()
    run.timer:close()
    return stream:fail(("error running in session. start bash: fork/exec %s: %s"):format(strategy.shell, errno.text(code)))
  end
  self.runs[run] = true
  -- Only bash is killed. While a child of it has the pipe open, the stream stays open.
  local function kill() if not run.status then run.send_signal("sigkill", true) end end
  local limit = (timeout or 0) > 0 and math.min(timeout, MAX_RUN_TIME) or MAX_RUN_TIME
  run.timer:start(limit, function()
    if run.status then return end
    run.problem = "timeout after " .. go_text.duration(limit)
    kill()
  end)
  stream.on_gone = kill
end

local Sessions = {}
Sessions.__index = Sessions

local function new(sandbox)
  return setmetatable({ sandbox = sandbox, by_id = {} }, Sessions)
end

--- Creates a session. As in execd, it does not receive the sandbox's file of variables.
---@param place table of its first run
function Sessions:create(place)
  local session = setmetatable({
    id = random.uuid(), sandbox = self.sandbox, env = self.sandbox.environment,
    directory = self.sandbox.strategy:name_of(place), runs = {},
  }, Session)
  self.by_id[session.id] = session
  return session
end

--- Closes a session with all that runs in it. Returns whether there was one.
function Sessions:close(id)
  local session = self.by_id[id]
  if not session then return false end
  self.by_id[id] = nil
  for run in each(session.runs) do run:close() end
  return true
end

--- Closes all sessions and their pipes, which a process that has left its group may keep open for ever.
function Sessions:close_all()
  for id, session in each(self.by_id) do
    self:close(id)
    for _, run in ipairs(tables.keys(session.runs)) do run:abandon() end
  end
end

local routes = {}

local function invalid(call, message)
  call.response:fail(400, "INVALID_REQUEST_BODY", message)
end

local FORMAT, RULE = "error parsing request. ", "invalid request. "

routes["POST /session"] = function(call)
  call:json_body("object", function(body)
    local problem = go_json.type_problem(body, "CreateSessionRequest", { { "cwd", "string" } })
    if problem then return invalid(call, FORMAT .. problem) end
    local place
    place, problem = run_request.make_directory(call.sandbox, body.cwd)
    if not place then return call.response:fail(500, "RUNTIME_ERROR", "error creating session. " .. problem) end
    call.response:json(200, { session_id = call.sandbox.sessions:create(place).id })
  end, { default = {}, prefix = FORMAT })
end

local REQUEST = "RunInSessionRequest"

routes["POST /session/{id}/run"] = function(call)
  call:json_body("object", function(body)
    local sandbox = call.sandbox
    local problem = go_json.type_problem(body, REQUEST, { { "command", "string" }, { "cwd", "string" }, { "timeout", "int64" } })
    if problem then return invalid(call, FORMAT .. problem) end
    problem = (body.command or "") == "" and go_json.rule_problem(REQUEST, "Command", "required")
      or (body.timeout or 0) < 0 and go_json.rule_problem(REQUEST, "TimeoutMs", "gte")
    if problem then return invalid(call, RULE .. problem) end
    local place
    if (body.cwd or "") ~= "" then
      place, problem = run_request.directory(sandbox, body.cwd)
      if not place then return invalid(call, RULE .. problem) end
    end
    local session = sandbox.sessions.by_id[call.parameters.id]
    if not session then
      return call.response:fail(500, "RUNTIME_ERROR", "error running in session. context not found")
    end
    local directory = place and sandbox.strategy:name_of(place)
    session:run(body.command, directory, body.timeout, event_stream.new(call.response, sandbox, session.id))
  end, { prefix = FORMAT })
end

routes["DELETE /session/{id}"] = function(call)
  local id = call.parameters.id
  if not call.sandbox.sessions:close(id) then
    return call.response:fail(404, "CONTEXT_NOT_FOUND", ("session %s not found"):format(id))
  end
  call.response:empty(200)
end

return { new = new, routes = routes }
