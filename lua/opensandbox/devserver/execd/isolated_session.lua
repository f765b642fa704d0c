--- An isolated session: a shell in namespaces of its own, its runs, and its runs in the background.
--
-- As in execd, the shell reads code from its standard input, and a command behind the code prints a marker. So code that reads standard
-- input reads the marker's line, and the session ends with the shell: with `exit`, a syntax error or a timeout.

local uv = require "luv"
local clock = require "opensandbox.devserver.base.clock"
local each = require "opensandbox.base.each"
local event_stream = require "opensandbox.devserver.execd.event_stream"
local events = require "opensandbox.devserver.execd.events"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local go_text = require "opensandbox.devserver.execd.go_text"
local mounts = require "opensandbox.devserver.execd.mounts"
local pipe = require "opensandbox.devserver.base.pipe"
local random = require "opensandbox.base.random"
local shell_words = require "opensandbox.base.shell"
local tables = require "opensandbox.base.tables"
local timer = require "opensandbox.devserver.base.timer"

local MARKER = "__ISOLATED_RUN_END__"
local MAX_LINE_SIZE = 16 * 1024 * 1024
local KILL_DELAY = 100 -- milliseconds between SIGINT and SIGKILL
local RUNS = ".execd/background-runs" -- below the workspace

local EXITED = "session process exited without end marker (process may have died or called exit)"
local CLOSED = "read stdout: read |0: file already closed"
local TIMED_OUT = "context deadline exceeded"
local TOO_LONG = "read stdout: bufio.Scanner: token too long"

-- Lines of the shell that set the variables of a request.
local function exports(envs)
  local lines = {}
  for name, value in each(envs or {}) do lines[#lines + 1] = "export " .. shell_words.quote(name .. "=" .. value) .. "\n" end
  return table.concat(lines)
end

local Session = {}
Session.__index = Session

--- Opens a session.
---@param sandbox table
---@param options table `mounts` (of mounts.prepare), `env`, `uid`, `gid`, `idle_timeout` (seconds, 0 for none), `shell` (further
-- options of `open_shell`), `parameters` (those of the request, which the session keeps)
---@param callback fun(session?: table, problem?: string)
---@param on_closing fun(session: table) called when the session begins to end, by itself or because it is closed
---@param on_close fun(session: table) called when the session has ended; neither is called after a problem
local function open(sandbox, options, callback, on_closing, on_close)
  local id, now = random.uuid(), clock.now()
  local uid, gid = options.uid, options.gid
  local directories = mounts.new(sandbox, options.mounts, { id = id, uid = uid, gid = gid })
  local self = setmetatable({
    id = id, sandbox = sandbox, parameters = options.parameters, idle_timeout = options.idle_timeout,
    on_closing = on_closing, on_close = on_close,
    mounts = directories, workspace = directories.first,
    created = now, last_run = now, queue = {}, runs = {}, parts = {}, size = 0, waiting = {},
  }, Session)
  local output_fd, input_fd
  self.output, output_fd = pipe.reader(function(data)
    if data then self:_receive(data) end
  end)
  self.output:pause()
  self.input, input_fd = pipe.writer()
  local shell_options = tables.merge({
    argv = { sandbox.strategy.shell:match("[^/]+$") }, env = options.env, uid = uid, gid = gid,
    stdin = input_fd, output = output_fd, mounts = options.mounts,
  }, options.shell)
  function shell_options.on_ready(problem)
    if not problem then return callback(self) end
    self:_release()
    callback(nil, problem)
  end
  function shell_options.on_exit() self:_on_exit() end
  self.shell = sandbox.strategy:open_shell(sandbox.container, shell_options)
  uv.fs_close(output_fd)
  uv.fs_close(input_fd)
end

function Session:_release()
  self.closed, self.exited = true, true
  self.output:close()
  if not self.input:is_closing() then self.input:close() end
  self.mounts:close()
end

-- Adds bytes of output. Calls the current run for each complete line; bytes after its end stay for the next run.
function Session:_receive(data)
  local position = 1
  while self.current do
    local at = data:find("\n", position, true)
    if not at then break end
    self.parts[#self.parts + 1] = data:sub(position, at - 1)
    local line = table.concat(self.parts)
    self.parts, self.size, position = {}, 0, at + 1
    self.current:line(line)
  end
  if self.current then self.current:flush() end
  if position > #data then return end
  self.parts[#self.parts + 1] = data:sub(position)
  self.size = self.size + #data - position + 1
  if self.size > MAX_LINE_SIZE and self.current then
    self.parts, self.size = {}, 0
    self.output:pause()
    self:close(TOO_LONG)
    self.current:fail(TOO_LONG)
  end
end

-- Feeds the lines that came after the end of the run before.
function Session:_receive_rest()
  local rest = table.concat(self.parts)
  self.parts, self.size = {}, 0
  if rest ~= "" then self:_receive(rest) end
end

-- Called when the shell has ended: by itself, or because the session was closed.
function Session:_on_exit()
  self:_begin_closing()
  self.output:resume()
  self.output:drain()
  if self.current and self.parts[1] then self:_receive("\n") end
  if self.current then self.current:fail(self.problem or EXITED) end
  self:_remove_background_files()
  self:_release()
  for _, waiting in ipairs(self.queue) do waiting(false) end
  self.on_close(self)
  for _, callback in ipairs(self.waiting) do callback() end
end

function Session:_begin_closing()
  if self.closed then return end
  self.closed = true
  self.on_closing(self)
end

--- Closes the session. Its processes are interrupted, and killed soon after.
---@param problem? string the error of the current run
---@param callback? fun() called when the session has ended
function Session:close(problem, callback)
  if self.exited then return callback and callback() end
  if callback then table.insert(self.waiting, callback) end
  if self.closed then return end
  self.problem = problem or CLOSED
  self:_begin_closing()
  self.shell:signal("sigint")
  -- A shell that handles the interrupt has a moment for its output, as long as a client waits for it.
  if not (self.current and self.problem == TIMED_OUT) then return self.shell:kill() end
  timer.after(KILL_DELAY, function() self.shell:kill() end)
end

--- Lets `begin` run when nothing else runs in the session. It receives false when the session has ended before.
function Session:_enqueue(begin)
  table.insert(self.queue, begin)
  self:_next()
end

function Session:_next()
  if self.current or self.closed then return end
  local begin = table.remove(self.queue, 1)
  if begin then begin(true) end
end

-- Writes code to the shell, and the command that prints the marker.
function Session:_execute(code, run)
  run.marker = MARKER .. random.hex(16)
  self.current, self.last_run = run, clock.now()
  self.input:write(code:gsub("%z", "") .. "\necho " .. run.marker .. " $?\n")
  self:_receive_rest()
  if self.current then self.output:resume() end
end

-- Called by a run that has ended.
function Session:_done()
  self.current, self.last_run = nil, clock.now()
  self.output:pause()
  self:_next()
end

-- Returns the text of a line before the marker of a run, and the status behind the marker; nil when the line has no marker.
local function split_marker(line, marker)
  local at = line:find(marker, 1, true)
  if not at then return nil end
  return line:sub(1, at - 1), tonumber(line:match("^ (%-?%d+)%s*$", at + #marker)) or 0
end

local Foreground = {}
Foreground.__index = Foreground

function Foreground:add(text)
  if text:sub(-1) == "\r" then text = text:sub(1, -2) end
  if text ~= "" then table.insert(self.list, events.text("stdout", text)) end
end

--- Sends the events of the lines. The output is paused when the client does not keep up.
function Foreground:flush()
  local list, session = self.list, self.session
  self.list = {}
  self.stream:send(list)
  local is_full = self.stream:full(function()
    if session.current == self then session.output:resume() end
  end)
  if is_full then session.output:pause() end
end

function Foreground:line(line)
  local text, status = split_marker(line, self.marker)
  self:add(text or line)
  if not text then return end
  self:flush()
  if self.session.problem then return self:fail(self.session.problem) end
  self:_release()
  if status == 0 then
    self.stream:stop { events.complete() }
  else
    self.stream:stop { events.error("ExitError", ("%d"):format(status), "null", ("command exited with code %d"):format(status)) }
  end
  self.session:_done()
end

function Foreground:_release()
  self.stream.on_gone = nil
  if self.timer then self.timer:close() end
end

--- Ends the run with an error, which is also the end of its session.
function Foreground:fail(message)
  self:flush()
  self:_release()
  self.stream:stop { events.error("RuntimeError", message, "null", message) }
  self.session.current = nil
end

--- Runs code and answers with its events, after the runs before it. When its time is over, or its client goes away, the session is
--- closed.
---@param call table
---@param code string
---@param envs? table<string, string> the code runs in a subshell with these
---@param timeout? integer seconds; 0 and nil mean no limit
---@param not_found fun() answers when the session has ended before
function Session:run(call, code, envs, timeout, not_found)
  local has_gone = false
  local function on_gone() has_gone = true end
  call.response.on_gone, call.response.on_abort = on_gone, on_gone
  self:_enqueue(function(is_alive)
    if has_gone then return self:_next() end
    if not is_alive then return not_found() end
    local run = setmetatable({ session = self, stream = event_stream.new(call.response, self.sandbox), list = {} }, Foreground)
    run.stream.on_gone = function() self:close(CLOSED) end
    if (timeout or 0) > 0 then run.timer = timer.after(timeout * 1000, function() self:close(TIMED_OUT) end) end
    if next(envs or {}) then code = "(\n" .. exports(envs) .. code .. "\n)" end
    self:_execute(code, run)
  end)
end

local Background = {}
Background.__index = Background

-- The shell has started it.
function Background:line(line)
  if not split_marker(line, self.marker) then return end
  self.session:_done()
  self.callback(self)
end

function Background.flush() end

function Background:fail()
  self.session.current = nil
  self.callback(nil)
end

-- Returns the text of one of its files, and when it was written; nil for a missing one.
function Background:_read(extension)
  local path = self.session.workspace:host_path(("%s/%s.%s"):format(RUNS, self.id, extension))
  local fd = path and uv.fs_open(path, filesystem.READ_ONLY, 0)
  if not fd then return nil end
  local stat = uv.fs_fstat(fd)
  local text = uv.fs_read(fd, 16, 0)
  uv.fs_close(fd)
  return text, stat.mtime.sec + stat.mtime.nsec / 1e9
end

--- Returns the path of its log on this machine.
function Background:log_path()
  return self.session.workspace:host_path(("%s/%s.log"):format(RUNS, self.id))
end

function Background:status()
  local text, finished = self:_read("code")
  local code = tonumber((text or ""):match("^(%d+)\n"))
  -- The clock of file systems can be some milliseconds behind.
  if code then finished = math.max(finished, self.started) end
  return {
    session_id = self.session.id, run_id = self.id, running = code == nil, exit_code = code,
    started_at = go_text.instant(self.started), finished_at = code and go_text.instant(finished) or nil,
  }
end

--- Starts code in the background.
---@param code string
---@param envs? table<string, string>
---@param callback fun(run?: table) receives nil when the session has ended
function Session:start(code, envs, callback)
  local run = setmetatable({ session = self, id = random.uuid(), started = clock.now(), callback = callback }, Background)
  local directory = self.workspace.place.inside:gsub("/$", "") .. "/" .. RUNS
  local quote = shell_words.quote
  local path = directory .. "/" .. run.id
  self:_enqueue(function(is_alive)
    if not is_alive then return callback(nil) end
    self.runs[run.id] = run
    self:_execute(table.concat {
      "mkdir -p ", quote(directory), "; {\n", exports(envs), quote(self.sandbox.strategy.shell), " -c ", quote(code),
      " >", quote(path .. ".log"), " 2>&1\necho $? >", quote(path .. ".code"), "; } </dev/null >/dev/null 2>&1 &",
    }, run)
  end)
end

function Session:_remove_background_files()
  local directory = self.workspace:host_path(RUNS)
  if not directory or not next(self.runs) then return end
  for id in each(self.runs) do
    for _, extension in ipairs { ".log", ".code" } do uv.fs_unlink(directory .. "/" .. id .. extension) end
  end
  uv.fs_rmdir(directory) -- fails as long as another session has files there
end

--- Returns how many whole seconds are left until the session may be collected; nil when it never is.
function Session:idle_remaining()
  if self.idle_timeout <= 0 then return nil end
  return math.max(0, math.ceil(self.last_run + self.idle_timeout - clock.now()))
end

--- Returns whether nothing runs in the session.
function Session:is_idle()
  if self.current or self.queue[1] then return false end
  for _, run in each(self.runs) do
    if run:status().running then return false end
  end
  return true
end

return { open = open }
