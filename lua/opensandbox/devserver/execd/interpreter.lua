--- A process of a sandbox that runs one piece of code after the other and keeps its state: the interpreter of a code context.
--
-- The process reads code on descriptor 3, and writes messages on descriptor 4: a word and its value on a line. Its standard output and
-- error are those of the code.

local uv = require "luv"
local json = require "opensandbox.base.json"
local safe_callback = require "opensandbox.devserver.base.safe_callback"
local pipe = require "opensandbox.devserver.base.pipe"
local path_lookup = require "opensandbox.devserver.base.path_lookup"

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

local Interpreter = {}
Interpreter.__index = Interpreter

-- Output belongs to the current run. Output between runs is dropped.
function Interpreter:_output(kind, data)
  if data and self.run then self.run:output(kind, data) end
end

function Interpreter:_messages(data)
  local position = 1
  while data do
    local at = data:find("\n", position, true)
    self.partial[#self.partial + 1] = data:sub(position, at and at - 1)
    if not at then return end
    local line = table.concat(self.partial)
    self.partial, position = {}, at + 1
    -- Output that was written before the message is handled before it.
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
    end
  end
end

-- Calls the callbacks of `when_ready`.
function Interpreter:_settled()
  self.ready = true
  local callbacks = self.starting
  self.starting = {}
  for _, callback in ipairs(callbacks) do safe_callback.call(nil, callback) end
end

--- Calls back when the process can run code, or has ended.
function Interpreter:when_ready(callback)
  if self.ready then return callback() end
  table.insert(self.starting, callback)
end

function Interpreter:_on_exit()
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
  for _, callback in ipairs(self.waiting) do safe_callback.call(nil, callback) end
  self.waiting = {}
end

--- Starts the process, or starts it again after it has ended.
---@return true? ok
---@return string? problem
function Interpreter:start()
  local sandbox, language = self.sandbox, LANGUAGES[self.language]
  local program = path_lookup.find(sandbox, language.program, self.env.PATH)
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
  self.send_signal, code = sandbox.strategy:spawn(sandbox.container, {
    argv = argv, env = self.env, cwd = self.cwd, stdout = stdout, stderr = stderr, pipes = { reading, writing },
    on_exit = function() self:_on_exit() end,
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

--- Runs code. The caller checks the field `run`, because a process runs one piece of code at a time.
---@param code string
---@param run table has the methods `output(kind, data)`, `done(status)` (nil when the process has ended), and one for each message, named
-- by its word
function Interpreter:execute(code, run)
  self.run = run
  self.requests:write(LANGUAGES[self.language].encode(code))
end

--- Stops reading the output, so that the process waits when its pipes are full.
function Interpreter:pause_output()
  for _, reader in ipairs(self.outputs) do reader:pause() end
end

function Interpreter:resume_output()
  for _, reader in ipairs(self.outputs) do reader:resume() end
end

--- Interrupts the code.
function Interpreter:interrupt()
  if self.alive then self.send_signal("sigint") end
end

--- Kills the process.
---@param callback? fun() called when it has ended
function Interpreter:close(callback)
  if not self.alive then return callback and callback() end
  if callback then table.insert(self.waiting, callback) end
  self.send_signal("sigkill")
end

local interpreter = {}

--- Returns whether there is an interpreter for a language.
function interpreter.knows(language)
  return LANGUAGES[language] ~= nil
end

--- Starts an interpreter.
---@param sandbox table
---@param options table `language` ("python" or "bash"), `cwd` (a resolved path), `merged` (standard error goes to standard output)
---@return table? interpreter
---@return string? problem
function interpreter.new(sandbox, options)
  local self = setmetatable({
    sandbox = sandbox, language = options.language, cwd = options.cwd, merged = options.merged, env = sandbox:variables(),
    waiting = {},
  }, Interpreter)
  local ok, problem = self:start()
  if not ok then return nil, problem end
  return self
end

return interpreter
