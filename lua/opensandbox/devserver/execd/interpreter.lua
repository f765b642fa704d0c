--- A process of a sandbox that runs one piece of code after the other and keeps its state: what is behind a context of the
-- code routes, and behind an isolated session.
--
-- The process reads code on descriptor 3 and writes messages, a word and what belongs to it on a line, on descriptor 4;
-- its standard output and error are the code's.

local uv = require "luv"
local json = require "opensandbox.base.json"
local guard = require "opensandbox.devserver.base.safe_callback"
local pipe = require "opensandbox.devserver.base.pipe"
local programs = require "opensandbox.devserver.base.path_lookup"

local LANGUAGES = {
  python = {
    program = "python3", arguments = { "-c", require "opensandbox.devserver.execd.interpreter_python" },
    encode = function(code) return json.encode(code) .. "\n" end,
  },
  bash = {
    program = "bash", arguments = { "--noprofile", "--norc", "-c", require "opensandbox.devserver.execd.interpreter_bash", "bash" },
    encode = function(code) return code:gsub("%z", "") .. "\0" end,
  },
}

local Kernel = {}
Kernel.__index = Kernel

-- What a process writes goes to the run that is under way; what it writes between runs goes nowhere.
function Kernel:_output(kind, data)
  if data and self.run then self.run:output(kind, data) end
end

function Kernel:_messages(data)
  local position = 1
  while data do
    local at = data:find("\n", position, true)
    self.partial[#self.partial + 1] = data:sub(position, at and at - 1)
    if not at then return end
    local line = table.concat(self.partial)
    self.partial, position = {}, at + 1
    -- What was written before the message belongs before it.
    for _, reader in ipairs(self.outputs) do reader:drain() end
    local word, value = line:match("^(%S*) ?(.*)$")
    local run = self.run
    if word == "ready" then
      self:_settled()
    elseif word == "done" and run then
      self.run = nil
      run:done(tonumber(value))
    elseif run and run[word] then
      run[word](run, value)
    elseif self.on_message then
      self.on_message(word, value)
    end
  end
end

-- Calls those who wait for the process to be ready, or to have ended before.
function Kernel:_settled()
  self.ready = true
  local callbacks = self.starting
  self.starting = {}
  for _, callback in ipairs(callbacks) do guard.call(nil, callback) end
end

--- Calls back when the process can run code, or has ended.
function Kernel:when_ready(callback)
  if self.ready then return callback() end
  table.insert(self.starting, callback)
end

function Kernel:_exited()
  self.alive = false
  self.messages:drain()
  for _, reader in ipairs(self.outputs) do
    reader:drain()
    reader:close()
  end
  self.messages:close()
  self.requests:close()
  local run = self.run
  self.run = nil
  if run then run:done(nil) end
  self:_settled()
  if self.on_exit then self.on_exit() end
  for _, callback in ipairs(self.waiting) do guard.call(nil, callback) end
  self.waiting = {}
end

--- Starts the process, again when it has ended.
-- @treturn[1] true
-- @treturn[2] nil
-- @treturn[2] string why it cannot be started
function Kernel:start()
  local sandbox, language = self.sandbox, LANGUAGES[self.language]
  local program = programs.find(sandbox, language.program, self.env.PATH)
  if not program then return nil, ("%s is not installed on this machine"):format(language.program) end
  local argv = { program }
  for _, argument in ipairs(language.arguments) do argv[#argv + 1] = argument end

  local inherited = {}
  local function output(kind)
    local reader, fd = pipe.reader(function(data) self:_output(kind, data) end)
    self.outputs[#self.outputs + 1], inherited[#inherited + 1] = reader, fd
    return fd
  end
  self.outputs, self.partial, self.ready, self.starting = {}, {}, false, {}
  local stdout = output("stdout")
  local stderr = self.merged and stdout or output("stderr")
  local reading, writing
  self.requests, reading = pipe.writer()
  self.messages, writing = pipe.reader(function(data) self:_messages(data) end)
  inherited[#inherited + 1], inherited[#inherited + 2] = reading, writing
  local code
  self.send_signal, code = sandbox.strategy:spawn(sandbox.box, {
    argv = argv, env = self.env, cwd = self.cwd, stdout = stdout, stderr = stderr, pipes = { reading, writing },
    uid = self.uid, gid = self.gid, on_exit = function() self:_exited() end,
  })
  for _, fd in ipairs(inherited) do uv.fs_close(fd) end
  if self.send_signal then
    self.alive = true
    return true
  end
  for _, reader in ipairs(self.outputs) do reader:close() end
  self.messages:close()
  self.requests:close()
  return nil, code
end

--- Runs code. One piece at a time: `run` says which.
-- @param run a table with the methods `output(kind, data)` and `done(status)`, which is nil when the process has ended; and one
-- for each message there can be, by its word
function Kernel:execute(code, run)
  self.run = run
  self.requests:write(LANGUAGES[self.language].encode(code))
end

--- Lets the process wait before it writes more, or go on.
function Kernel:hold(held)
  for _, reader in ipairs(self.outputs) do
    if held then reader:pause() else reader:resume() end
  end
end

--- Interrupts what it runs.
function Kernel:interrupt()
  if self.alive then self.send_signal("sigint") end
end

--- Ends it, and calls back when it has ended.
function Kernel:close(callback)
  if not self.alive then return callback and callback() end
  if callback then table.insert(self.waiting, callback) end
  self.send_signal("sigkill")
end

local kernel = {}

--- Whether there are processes for a language.
function kernel.knows(language)
  return LANGUAGES[language] ~= nil
end

--- Starts a process.
-- @param options `language` ("python" or "bash"), `cwd` (a resolved path), `env`; `merged` (standard error goes where standard
-- output goes), `uid`, `gid`, `on_message(word, value)` for what does not belong to a run, `on_exit()`
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] string why it cannot be started
function kernel.new(sandbox, options)
  local self = setmetatable({ sandbox = sandbox, waiting = {} }, Kernel)
  for name, value in pairs(options) do self[name] = value end
  self.env = self.env or sandbox:variables()
  local ok, problem = self:start()
  if not ok then return nil, problem end
  return self
end

return kernel
