--- The standard input of a command in the background, as a stream: `command:write()` and `command:close_stdin()`.
--
-- execd gives its commands an empty standard input. So the command reads a named pipe in the sandbox, and a small script beside it writes to
-- the pipe. The script is a terminal session with pipes. execd has no message for the end of input, and every byte of it is data, so the
-- script decodes frames: a line with the number of bytes, and these bytes. The number 0 is the end.
--
-- The script answers each frame with a line when the pipe has taken it. That limits the frames under way, and it makes the stream exact:
-- after a connection was cut, the client asks the script, which answers in order, and sends the frames again that were not answered before.
-- execd passes a message on as a whole or not at all.

local command_input = require "opensandbox.execution.command_input"
local coxpcall = require "opensandbox.loop.coxpcall"
local deadlines = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local paths = require "opensandbox.base.paths"
local random = require "opensandbox.base.random"
local shell = require "opensandbox.base.shell"
local temporary_files = require "opensandbox.files.temporary_files"
local terminal_stream = require "opensandbox.execution.terminal_stream"

local stdin_stream = {}

local FRAME_SIZE = 256 * 1024 -- bytes of input in a frame
local WINDOW = 4              -- frames without an answer
local STDIN = "\0"            -- channel
local OPEN_TIMEOUT = 5        -- seconds that a command which was started gets to open the pipe
local END = "0\n"             -- the frame at the end
local MAX_ANSWER = 64 * 1024  -- bytes of a line: the longest one contains a path

-- `dd` reads from a pipe no more than it is asked for. It is started once for each frame, and copies about 100 MB/s. A `dd` without
-- `fullblock` copies each byte by itself, which is slow. Opening the pipe waits for the command to do the same; then its name is not needed
-- any more. execd loses output of a script that exits, so the last answer is followed by a wait for the end of the session.
local SCRIPT = [[f=${TMPDIR:-/tmp}/NAME
mkfifo -m MODE "$f" || exit 1
if dd iflag=fullblock count=0 </dev/null 2>/dev/null
then copy() { dd bs="$1" count=1 iflag=fullblock 2>/dev/null; }
else copy() { dd bs=1 count="$1" 2>/dev/null; }
fi
printf 'ready %s\n' "$f"
exec 3>"$f"
rm -f "$f"
echo open
while IFS= read -r n; do
  case $n in
  0) break;;
  \?*) printf '%s\n' "$n";;
  *) copy "$n" >&3 || { echo closed; break; }
    echo ok;;
  esac
done
exec 3>&-
echo end
exec cat >/dev/null]]

---@class opensandbox.StdinStream
---@field frames string[] frames without an answer, in order
---@field position integer of the first frame that was not sent
---@field must_ask boolean a connection was cut: the script must be asked which frames it has
---@field question integer number of the last question
---@field answer? integer number of the last answer
---@field pipe { name: string, path?: string, is_open?: boolean } path: the script is ready; is_open: the command has opened the pipe, whose name is gone
---@field is_closed? boolean the command has closed its input
---@field has_ended? boolean the script has answered the last frame
local Input = {}
Input.__index = Input

local function take_answer(self, line)
  if line == "ok" then
    table.remove(self.frames, 1)
    self.position = math.max(self.position - 1, 1)
  elseif line == "closed" then
    self.is_closed = true
  elseif line == "open" then
    self.pipe.is_open = true
  elseif line == "end" then
    self.has_ended = true
  else
    self.pipe.path = self.pipe.path or line:match("^ready (.+)$")
    self.answer = tonumber(line:match("^%?(%d+)$")) or self.answer
  end
end

-- Reads the script's answers that have arrived. The searches are plain, because a pattern takes minutes for a mebibyte without a newline.
local function take_answers(self)
  local text = self.partial .. (self.stream.output:take() or "")
  local first, newline = 1, text:find("\n", 1, true)
  while newline do
    take_answer(self, text:sub(first, newline - 1))
    first = newline + 1
    newline = text:find("\n", first, true)
  end
  self.partial = text:sub(first)
end

local function script_error(self, op, problem)
  return self.stream:error(op, { kind = "stream", code = "stdin_failed",
    message = "the script that passes the input on " .. problem, hint = "The sandbox needs mkfifo, dd and cat" })
end

-- Waits until `attempt` returns a value. A cut connection ends no wait: it is remembered. `text` is that of the error when the time has
-- passed, default: the command does not read.
local function wait(self, op, limit, attempt, text)
  while true do
    local value, err = self.stream:wait_until(op, { limit = limit }, function()
      take_answers(self)
      if #self.partial > MAX_ANSWER then return nil, script_error(self, op, "does not answer in lines") end
      local found = attempt()
      if found ~= nil or not self.stream.exit_code then return found end
      return nil, script_error(self, op, "has ended")
    end)
    if err and err.code == "input_unsure" then
      self.must_ask = true
    elseif value ~= nil or err then
      return value, err
    else
      return nil, self.stream:error(op, errors.timeout_fields { code = "timeout", option = "timeout", seconds = limit.seconds,
        text = text or "the command does not read its input", timer = "timeout" })
    end
  end
end

-- Sends bytes, unless a connection is cut before that.
local function send(self, op, limit, bytes)
  return wait(self, op, limit, function()
    if self.must_ask or self.is_closed or self.has_ended then return false end
    return self.stream:try_send("binary", STDIN .. bytes, #bytes)
  end)
end

-- Finds out which frames have arrived: those that are answered before this question.
local function ask(self, op, limit)
  self.must_ask = false
  self.question = self.question + 1
  local sent, err = send(self, op, limit, ("?%d\n"):format(self.question))
  if sent == nil then
    self.must_ask = true
    return nil, err
  end
  local answered
  answered, err = wait(self, op, limit, function()
    if self.must_ask then return false end
    return self.answer == self.question or self.is_closed or self.has_ended or nil
  end)
  if answered == nil then
    self.must_ask = true
    return nil, err
  end
  if answered then self.position = 1 end
  return true
end

-- Sends the frames that were not sent, and those that were lost.
local function flush(self, op, limit)
  while not self.is_closed and not self.has_ended do
    local frame = self.frames[self.position]
    if self.must_ask then
      local ok, err = ask(self, op, limit)
      if ok == nil then return nil, err end
    elseif frame then
      local sent, err = send(self, op, limit, frame)
      if sent == nil then return nil, err end
      if sent then self.position = self.position + 1 end
    else
      return true
    end
  end
  return true
end

-- Calls a function while no other task sends.
local function exclusively(self, op, limit, fn)
  local ok, err = wait(self, op, limit, function() return not self.is_busy or nil end)
  if not ok then return nil, err end
  self.is_busy = true
  local returned, value, problem = coxpcall.pcall(fn)
  self.is_busy = false
  self.stream.news:wake()
  if not returned then error(value, 0) end
  return value, problem
end

local function closed_error(self, op)
  return self.stream:error(op, { kind = "state", code = "stdin_closed",
    message = "the command has closed its standard input, or has ended, or its input has ended" })
end

--- Sends input.
---@param op string the method that the user called
---@param bytes string
---@param timeout? number seconds
---@return true? ok
---@return opensandbox.Error? err
function Input:write(op, bytes, timeout)
  local limit = deadlines.new(timeout)
  return exclusively(self, op, limit, function()
    for first = 1, #bytes, FRAME_SIZE do
      if self.is_ending then return nil, closed_error(self, op) end
      local piece = bytes:sub(first, first + FRAME_SIZE - 1)
      local ok, err = flush(self, op, limit)
      if ok then
        ok, err = wait(self, op, limit, function()
          return (#self.frames < WINDOW or self.must_ask or self.is_closed) or nil
        end)
      end
      if not ok then return nil, err end
      if self.is_closed then return nil, closed_error(self, op) end
      self.frames[#self.frames + 1] = ("%d\n"):format(#piece) .. piece
      ok, err = flush(self, op, limit)
      if not ok then return nil, err end
    end
    return true
  end)
end

--- Ends the input, and waits until the command has been given all of it.
---@param op string the method that the user called
---@param timeout? number seconds
---@return true? ok
---@return opensandbox.Error? err
function Input:close(op, timeout)
  if self.has_ended then return true end
  local limit = deadlines.new(timeout)
  return exclusively(self, op, limit, function()
    if not self.is_ending then
      self.is_ending = true
      self.frames[#self.frames + 1] = END
    end
    while not self.has_ended and not self.is_closed do
      local ok, err = flush(self, op, limit)
      if ok then
        ok, err = wait(self, op, limit, function() return (self.has_ended or self.is_closed or self.must_ask) or nil end)
      end
      if not ok then return nil, err end
    end
    self.has_ended = true
    self:abandon()
    return true
  end)
end

--- Waits until the command has opened the pipe. If the script were deleted before that, the pipe would keep its name, and the command would
--- wait for its input for ever. A command that could not open the pipe has ended, or is too slow: that is no error here.
---@param op string the method that the user called
---@return opensandbox.Error? interruption of kind `cancelled`: the command may still wait for its input
function Input:wait_until_open(op)
  local _, err = wait(self, op, deadlines.new(OPEN_TIMEOUT), function() return self.pipe.is_open or self.is_closed end)
  return err and err.kind == "cancelled" and err or nil
end

--- Deletes the script, which ends the input. Does not wait.
function Input:abandon()
  self.stream:close()
  self.resource:delete()
end

-- Removes the pipe of a script that was deleted before the command opened the pipe. execd kills a script, which cannot remove anything then.
-- The script may have made the pipe without having reported its path: execd expands TMPDIR as the script does.
local function remove_pipe(client, execd, pipe)
  if pipe.is_open then return end
  local path = pipe.path or ""
  local is_safe = path:sub(-#pipe.name - 1) == "/" .. pipe.name and not paths.expansion(path)
  temporary_files.remove(client, execd, { "/tmp/" .. pipe.name, is_safe and path or "$TMPDIR/" .. pipe.name })
end

--- Makes the input of a command, and changes the command so that it reads this input.
---@param sandbox opensandbox.Sandbox
---@param op string the method that the user called
---@param body table of the request that starts the command
---@return opensandbox.StdinStream? input
---@return opensandbox.Error? err
function stdin_stream.open(sandbox, op, body)
  local client = sandbox.client
  local name = ".opensandbox-" .. random.hex(12) .. ".fifo"
  local mode = body.uid and "644" or "600" -- another user reads it, too
  local script = SCRIPT:gsub("NAME", name):gsub("MODE", mode)
  local id, err = sandbox:call_execd(op, "create_pty_session", { command = script })
  if not id then return nil, err end
  local execd = sandbox:known_execd()
  local pipe = { name = name }
  local self = setmetatable({ frames = {}, position = 1, must_ask = false, question = 0, partial = "", pipe = pipe }, Input)
  local resource = client.resources:add(function()
    if sandbox:is_killed() then return nil end
    return client:delete_pty_session_request(sandbox:known_execd() or execd, id)
  end)
  resource.best_effort = true
  function resource.on_release() -- must not refer to the input, whose finalizer deletes the resource
    if not sandbox:is_killed() then remove_pipe(client, sandbox:known_execd() or execd, pipe) end
  end
  function resource.parent_is_owned() return sandbox:owned_resource() ~= nil end
  self.resource = resource
  local stream = terminal_stream.new { client = client, sandbox_id = sandbox.id, id = id, pipes = true, fresh = true,
    endpoint = function(called) return sandbox:execd_endpoint(called) end }
  self.stream = stream
  self.finalizer = finalizer(function()
    stream:close_in_background()
    resource:delete()
  end)
  local limit = deadlines.new(client.http.timeouts.timeout)
  local path
  path, err = wait(self, op, limit, function() return pipe.path end, "the script that passes the input on was not started in time")
  if not path then
    if err.kind == "timeout" then err.hint, err.cause = "stdin = true needs execd 1.0.19 or newer", stream.last_problem end
    self:abandon()
    return nil, err
  end
  body.command = command_input.redirect("exec <" .. shell.quote(path), body.command)
  return self
end

return stdin_stream
