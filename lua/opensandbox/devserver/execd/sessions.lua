--- Bash sessions: exported variables and a working directory that are kept from one run to the next.
--
-- As in execd, no process waits between runs: each is a bash of its own that begins with what the run before left. Unlike
-- execd, which reads `export -p` back and spoils values with quotes, dollars or line breaks on the way, it keeps them exactly.

local uv = require "luv"
local errno = require "opensandbox.devserver.base.errno"
local frames = require "opensandbox.devserver.execd.events"
local pipe = require "opensandbox.devserver.base.pipe"
local random = require "opensandbox.devserver.base.random"
local run = require "opensandbox.devserver.execd.run_request"
local stream = require "opensandbox.devserver.execd.event_stream"
local timer = require "opensandbox.devserver.base.timer"

local LONGEST_RUN = 24 * 3600 * 1000   -- milliseconds
local LONGEST_VALUE = 8 * 1024         -- of a variable that is kept
local NOT_KEPT = { PS1 = true, PS2 = true, PS3 = true, PS4 = true, PROMPT_COMMAND = true }
local SCRIPT = 4                       -- the descriptor on which bash finds its script
-- The state leaves on a descriptor that no script uses, so that none can be taken for output.
local BEFORE = "exec 4<&- 253>&3 3>&-\n"
local AFTER = [[

__status=$?
{ set +x; } 2>/dev/null
{ compgen -e | while IFS= read -r __name; do builtin printf '%s=%s\0' "$__name" "${!__name-}"; done
  builtin printf '\0'; builtin pwd; } >&253 || :
exit "$__status"
]]

-- A span as Go writes it: 500ms, 1.5s, 1m0s, 1h0m0s.
local function go_duration(milliseconds)
  if milliseconds < 1000 then return ("%.0fms"):format(milliseconds) end
  local minutes = math.floor(milliseconds / 60000)
  local text = ("%.3f"):format(milliseconds % 60000 / 1000):gsub("%.?0+$", "") .. "s"
  if milliseconds % 60000 == 0 then text = "0s" end
  if minutes > 0 then text = ("%dm"):format(minutes % 60) .. text end
  return minutes >= 60 and ("%dh"):format(math.floor(minutes / 60)) .. text or text
end

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- What bash wrote of its state: the variables and the directory; nothing when the script did not come to its end.
local function parse_state(text)
  local last = text:find("\0\0", 1, true)
  if not last then return nil end
  local env, position = {}, 1
  while position <= last do
    local ending = text:find("\0", position, true)
    local name, value = text:sub(position, ending - 1):match("^([%a_][%w_]*)=(.*)$")
    if name and not NOT_KEPT[name] and #value <= LONGEST_VALUE then env[name] = value end
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
  self.events:send(list)
  if not fits then
    self.output:close()
    self.problem = "read stdout: bufio.Scanner: token too long"
    self.send_signal("sigkill", true)
    return self:_output(nil)
  end
  if self.events:full(function() self.output:resume() end) then self.output:pause() end
end

-- Ends the stream when bash has ended and nobody can write any more. What bash left running can: it has the same pipe.
function Run:_settle()
  if not self.status or not self.ended then return end
  self.state:drain()
  self.state:close()
  self.timer:close()
  self.session.runs[self] = nil
  if self.problem then return self.events:fail("error running in session. " .. self.problem) end

  local env, directory = parse_state(table.concat(self.left))
  if env then self.session.env, self.session.directory = env, directory end
  local list = {}
  self.lines:finish(list)
  local code, signal = self.status[1], self.status[2]
  if signal > 0 then
    list[#list + 1] = frames.failure("-1", "signal: " .. (signal == 9 and "killed" or signal == 15 and "terminated" or signal))
  elseif code > 0 then
    list[#list + 1] = frames.failure(("%d"):format(code), ("exit status %d"):format(code))
  else
    list[#list + 1] = frames.complete(math.floor((uv.hrtime() - self.began) / 1e6))
  end
  self.events:stop(list)
end

-- Ends the run with all that it started.
function Run:close()
  if not self.status then self.send_signal("sigkill") end
end

-- Looks at the pipe no more, whoever may still hold it.
function Run:abandon()
  self.output:close()
  self.ended = true
  self:_settle()
end

local Session = {}
Session.__index = Session

-- A file with the script, which has no name any more, as a descriptor.
function Session:_script(directory, command)
  local path = ("%s/%s"):format(self.sandbox.spool, random.hex(8))
  local fd = assert(uv.fs_open(path, "wx", 384))
  assert(uv.fs_write(fd, BEFORE .. "cd -- " .. quoted(directory) .. "\n" .. command .. AFTER, 0))
  uv.fs_close(fd)
  fd = assert(uv.fs_open(path, "r", 0))
  uv.fs_unlink(path)
  return fd
end

--- Runs a command and sends what happens.
-- @param directory where, as its processes name it; nil where the run before ended
-- @param timeout in milliseconds; 0 or nil for the longest there is
function Session:run(command, directory, timeout, events)
  local sandbox, strategy = self.sandbox, self.sandbox.strategy
  directory = directory or self.directory
  local place = strategy:place_of(sandbox.paths, directory)
  local stat = place and uv.fs_stat(place.path)
  local problem = strategy.shell:match("[^/]+$") ~= "bash" and 'exec: "bash": executable file not found in $PATH'
    or (not stat or stat.type ~= "directory") and ("chdir %s: no such file or directory"):format(directory)
  if problem then return events:fail("error running in session. start bash: " .. problem) end

  local one = setmetatable({
    session = self, events = events, lines = frames.records("stdout"), left = {}, began = uv.hrtime(), timer = timer.new(),
  }, Run)
  local output, state
  one.output, output = pipe.reader(function(data) one:_output(data) end)
  one.state, state = pipe.reader(function(data) one.left[#one.left + 1] = data end)
  local script = self:_script(directory, command)
  local code
  one.send_signal, code = strategy:spawn(sandbox.box, {
    argv = { strategy.shell, "--noprofile", "--norc", "/dev/fd/" .. SCRIPT }, env = self.env, cwd = place,
    stdout = output, stderr = output, pipes = { state, script },
    on_exit = function(...)
      one.status = { ... }
      one:_settle()
    end,
  })
  for _, fd in ipairs { output, state, script } do uv.fs_close(fd) end
  if not one.send_signal then
    one.output:close()
    one.state:close()
    one.timer:close()
    return events:fail(("error running in session. start bash: fork/exec %s: %s"):format(strategy.shell, errno.text(code)))
  end
  self.runs[one] = true
  -- Only bash is killed: while a child of it holds the pipe, the stream stays open.
  local function kill() if not one.status then one.send_signal("sigkill", true) end end
  local limit = (timeout or 0) > 0 and math.min(timeout, LONGEST_RUN) or LONGEST_RUN
  one.timer:start(limit, function()
    if one.status then return end
    one.problem = "timeout after " .. go_duration(limit)
    kill()
  end)
  events.on_gone = kill
end

local Sessions = {}
Sessions.__index = Sessions

local function new(sandbox)
  return setmetatable({ sandbox = sandbox, by_id = {} }, Sessions)
end

--- @param place where its first run begins
function Sessions:create(place)
  local session = setmetatable({
    id = random.uuid(), sandbox = self.sandbox, env = self.sandbox:variables(),
    directory = self.sandbox.strategy:name_of(place), runs = {},
  }, Session)
  self.by_id[session.id] = session
  return session
end

--- Ends a session with all that runs in it; whether there was one.
function Sessions:close(id)
  local session = self.by_id[id]
  if not session then return false end
  self.by_id[id] = nil
  for one in pairs(session.runs) do one:close() end
  return true
end

--- Ends all, and what they read: a process that has escaped may hold their pipes for ever.
function Sessions:close_all()
  for id, session in pairs(self.by_id) do
    self:close(id)
    local open = {}
    for one in pairs(session.runs) do open[#open + 1] = one end
    for _, one in ipairs(open) do one:abandon() end
  end
end

local routes = {}

local function invalid(call, message)
  call.response:fail(400, "INVALID_REQUEST_BODY", message)
end

local INVALID_FORMAT = "error parsing request, MAYBE invalid body format. "

routes["POST /session"] = function(call)
  call:json_body("object", function(body)
    local problem = run.type_problem(body, "CreateSessionRequest", { { "cwd", "string" } })
    if problem then return invalid(call, INVALID_FORMAT .. problem) end
    local place
    place, problem = run.make_directory(call.sandbox, body.cwd)
    if not place then return call.response:fail(500, "RUNTIME_ERROR", "error creating session. " .. problem) end
    call.response:json(200, { session_id = call.sandbox.sessions:create(place).id })
  end, {})
end

local REQUEST = "RunInSessionRequest"

routes["POST /session/{id}/run"] = function(call)
  call:json_body("object", function(body)
    local sandbox = call.sandbox
    local wrong = run.type_problem(body, REQUEST, { { "command", "string" }, { "cwd", "string" }, { "timeout", "integer" } })
    if wrong then return invalid(call, INVALID_FORMAT .. wrong) end
    local rule = (body.command or "") == "" and run.rule_problem(REQUEST, "Command", "required")
      or (body.timeout or 0) < 0 and run.rule_problem(REQUEST, "Timeout", "gte")
    if rule then return invalid(call, "invalid request, validation error " .. rule) end
    local place
    if (body.cwd or "") ~= "" then
      place, rule = run.directory(sandbox, body.cwd)
      if not place then return invalid(call, "invalid request, validation error " .. rule) end
    end
    local session = sandbox.sessions.by_id[call.parameters.id]
    if not session then
      return call.response:fail(500, "RUNTIME_ERROR", "error running in session. context not found")
    end
    local directory = place and sandbox.strategy:name_of(place)
    session:run(body.command, directory, body.timeout, stream.new(call.response, sandbox, session.id))
  end)
end

routes["DELETE /session/{id}"] = function(call)
  local id = call.parameters.id
  if not call.sandbox.sessions:close(id) then
    return call.response:fail(404, "CONTEXT_NOT_FOUND", ("session %s not found"):format(id))
  end
  call.response:empty(200)
end

return { new = new, routes = routes }
