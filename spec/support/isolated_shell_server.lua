--- A server with isolated sessions whose runs are fed to a real bash, as execd feeds them.
--
-- execd keeps one `bash --noprofile --norc` for a session, whose stdout and stderr are one pipe. For a run it writes the code to
-- the shell's stdin, a newline where the code has none at its end, and `echo MARKER $?`. It then reads lines up to the first that
-- holds the marker: what stands before the marker is output, and the word behind it the exit code, or 0 when that is no number. A
-- timeout and a client that goes away interrupt the process group, which ends the session. A shell that has exited is a session
-- that is not found.
--
-- `state.fed` holds the codes that came. There are no files but those of this machine, so the workspace is no more than a name.

local fault_server = require "spec.support.fault_server"

local SOURCE = [[
  local STREAM = { ["Content-Type"] = "text/event-stream" }
  local JSON = { ["Content-Type"] = "application/json; charset=utf-8" }
  local sessions, count = {}, 0
  state.fed = {}

  local Session = {}
  Session.__index = Session

  local function start_session(workspace)
    count = count + 1
    local self = setmetatable({ id = "s" .. count, buffer = "", queue = {}, workspace = workspace }, Session)
    local output = uv.new_pipe(false)
    self.stdin = uv.new_pipe(false)
    self.process, self.pid = assert(uv.spawn("sh", { args = { "-c", "exec bash --noprofile --norc 2>&1" },
      stdio = { self.stdin, output }, cwd = "/", detached = true }, function() self.process:close() end))
    output:read_start(function(_, bytes)
      if bytes then return self:read(bytes) end
      output:close()
      self:finish("session process exited without end marker (process may have died or called exit)")
      self:drop()
    end)
    sessions[self.id] = self
    return self
  end

  function Session:drop()
    sessions[self.id] = nil
    if not self.stdin:is_closing() then self.stdin:close() end
    if self.process:is_active() then uv.kill(-self.pid, "sigkill") end
  end

  function Session:send(event)
    local connection = self.run.connection
    event.timestamp = 1
    if not self.run.started then connection:start(200, STREAM) end
    self.run.started = true
    connection:event(event)
  end

  -- Ends the current run: with a problem, an exit code, or success.
  function Session:finish(problem, code)
    local run = self.run
    if not run then return end
    if run.timer then run.timer:close() end
    if problem then
      self:send { type = "error", text = problem, error = { ename = "RuntimeError", evalue = problem } }
    elseif code ~= 0 then
      local text = ("command exited with code %d"):format(code)
      self:send { type = "error", text = text, error = { ename = "ExitError", evalue = ("%d"):format(code) } }
    else
      self:send { type = "execution_complete" }
    end
    run.connection:finish()
    self.run = nil
    self:next_run()
  end

  function Session:line(line)
    line = line:gsub("\r$", "")
    local at = self.run and line:find(self.run.marker, 1, true)
    local output = at and line:sub(1, at - 1) or line
    if output ~= "" and self.run then self:send { type = "stdout", text = output } end
    if at then self:finish(nil, tonumber(line:sub(at):match("^%S+%s+(%-?%d+)") or "") or 0) end
    return self.run
  end

  -- A line is read when a run waits for it: a line that comes between two runs is read by the next run.
  function Session:read(bytes)
    self.buffer = self.buffer .. bytes
    while self.run do
      local line, rest = self.buffer:match("^([^\n]*)\n(.*)$")
      if not line then return end
      self.buffer = rest
      self:line(line)
    end
  end

  function Session:interrupt(problem)
    self:finish(problem)
    self:drop()
  end

  function Session:next_run()
    local run = not self.run and table.remove(self.queue, 1)
    if not run then return end
    self.run = run
    if run.timeout then
      run.timer = uv.new_timer()
      run.timer:start(run.timeout * 1000, 0, function() self:interrupt("context deadline exceeded") end)
    end
    local code = run.code
    if code:sub(-1) ~= "\n" then code = code .. "\n" end
    self.stdin:write(code .. "echo " .. run.marker .. " $?\n")
    self:read("")
  end

  local runs = 0
  return {
    on_request = function(request, connection)
      if request.path == "/v1/isolated/session" then
        return connection:respond(201, JSON, json.encode { session_id = start_session(json.decode(request.body).workspace).id })
      end
      local id, rest = request.path:match("^/v1/isolated/session/(%w+)(.*)$")
      local session = sessions[id]
      if not session then
        return connection:respond(404, JSON, '{"code":"SESSION_NOT_FOUND","message":"session not found"}')
      elseif request.method == "DELETE" then
        session:drop()
        return connection:respond(200, JSON, "")
      end
      if rest == "" then
        return connection:respond(200, JSON, json.encode { status = "active", workspace = session.workspace })
      elseif rest == "/files/upload" then
        return connection:respond(500, JSON, '{"code":"RUNTIME_ERROR","message":"write denied: workspace is read-only"}')
      end
      assert(rest == "/run", "no such route: " .. rest)
      local body = json.decode(request.body)
      runs = runs + 1
      table.insert(state.fed, body.code)
      session.queue[#session.queue + 1] = { connection = connection, code = body.code, timeout = body.timeout_seconds,
        marker = ("__ISOLATED_RUN_END___%08d-0000-4000-8000-000000000000"):format(runs) }
      session:next_run()
    end,
    on_close = function(connection, who)
      for _, session in pairs(sessions) do
        if session.run and session.run.connection == connection and who:find("^client") then session:drop() end
      end
    end,
  }
]]

local isolated_shell_server = {}

--- Starts the server; see fault_server.start.
function isolated_shell_server.start()
  return fault_server.start(SOURCE)
end

return isolated_shell_server
