--- The code routes: contexts that keep the variables of code, and running code in them.
--
-- The streams are like those of execd with its Jupyter kernels: `execution_complete` is neither the end nor a proof of success. It is
-- sent when a kernel first reports that it is idle, which happens soon, also while the code still runs.

local uv = require "luv"
local each = require "opensandbox.base.each"
local json = require "opensandbox.base.json"
local events = require "opensandbox.devserver.execd.events"
local interpreter = require "opensandbox.devserver.execd.interpreter"
local go_json = require "opensandbox.devserver.execd.go_json"
local random = require "opensandbox.base.random"
local run_request = require "opensandbox.devserver.execd.run_request"
local event_stream = require "opensandbox.devserver.execd.event_stream"
local timer = require "opensandbox.devserver.base.timer"

local IDLE_DELAY = 100 -- milliseconds after which a kernel reports that it is idle
-- Languages of execd. Those without an interpreter here fail like those whose kernel an image does not have.
local KNOWN = { bash = true, python = true, java = true, javascript = true, typescript = true, go = true, sql = true }
local WITHOUT_CONTEXTS = { command = true, ["background-command"] = true, sql = true }

local Execution = {}
Execution.__index = Execution

local function execution(context, stream)
  local self = setmetatable({
    context = context, stream = stream, timer = timer.new(),
    chunks = { stdout = events.chunks("stdout"), stderr = events.chunks("stderr") },
  }, Execution)
  context.interpreter:when_ready(function()
    self.start_time = uv.hrtime()
    if self.ended then return end
    self.timer:start(IDLE_DELAY, function() stream:send(self:_completed {}) end)
  end)
  return self
end

-- Adds the event of completion to a list, unless it has been sent.
function Execution:_completed(list)
  if not self.completed then
    self.completed = true
    list[#list + 1] = events.complete(math.floor((uv.hrtime() - self.start_time) / 1e6))
  end
  return list
end

function Execution:output(kind, data)
  local list, process = {}, self.context.interpreter
  self.chunks[kind]:feed(data, list)
  self.stream:send(list)
  if self.stream:full(function() process:resume_output() end) then process:pause_output() end
end

function Execution:count(value)
  self.stream:send { events.field("execution_count", "execution_count", value) }
end

function Execution:result(value)
  self.stream:send { events.field("result", "results", value) }
end

function Execution:error(value)
  local list = self:_completed {}
  list[#list + 1] = events.text("status", "error")
  list[#list + 1] = events.field("error", "error", value)
  self.stream:send(list)
end

-- Called at the end. Only a shell has a status besides its messages.
function Execution:done(status)
  self.ended = true
  self.timer:close()
  local list = {}
  for _, kind in ipairs { "stdout", "stderr" } do self.chunks[kind]:finish(list) end
  self.stream:send(list)
  if not status then return self.stream:fail("error running codes kernel died") end
  if status ~= 0 then self:error(('{"ename":"","evalue":"%d","traceback":[]}'):format(status)) end
  self.stream:stop(self:_completed {})
end

local Contexts = {}
Contexts.__index = Contexts

local function new(sandbox)
  return setmetatable({ sandbox = sandbox, list = {}, defaults = {} }, Contexts)
end

function Contexts:get(id)
  for index, context in ipairs(self.list) do
    if context.id == id then return context, index end
  end
end

--- Creates a context.
---@param language string
---@param place table its directory
---@return table? context
---@return string? problem
function Contexts:create(language, place)
  if not interpreter.knows(language) then return nil, ("no kernel for '%s' on this machine"):format(language) end
  -- Jupyter's kernel for bash gives its shell a terminal, so standard error is not separate from output.
  local process, problem = interpreter.new(self.sandbox, { language = language, cwd = place, merged = language == "bash" })
  if not process then return nil, problem end
  local context = { id = random.uuid(), language = language, interpreter = process }
  table.insert(self.list, context)
  return context
end

--- Returns the context of a language for code without a context. It is created at its first use.
function Contexts:default(language)
  local problem
  if not self.defaults[language] then
    self.defaults[language], problem = self:create(language, self.sandbox.paths:resolve("/"))
  end
  return self.defaults[language], problem
end

function Contexts:remove(id, callback)
  local context, index = self:get(id)
  table.remove(self.list, index)
  if self.defaults[context.language] == context then self.defaults[context.language] = nil end
  context.interpreter:close(callback)
end

--- Interrupts the code that a context runs. Returns whether there is such a context.
function Contexts:interrupt(id)
  local context = self:get(id)
  if context then context.interpreter:interrupt() end
  return context ~= nil
end

local routes = {}

local function invalid(call, message)
  call.response:fail(400, "INVALID_REQUEST_BODY", message)
end

local function failed(call, message)
  call.response:fail(500, "RUNTIME_ERROR", message)
end

local INVALID_FORMAT = "error parsing request, MAYBE invalid body format. "
local CONTEXT = { { "id", "string" }, { "language", "string" }, { "cwd", "string" } }

-- execd retries for ever when its image does not have the kernel; this server answers with an error.
routes["POST /code/context"] = function(call)
  call:json_body("object", function(body)
    local problem = go_json.type_problem(body, "CodeContextRequest", CONTEXT)
    if problem then return invalid(call, INVALID_FORMAT .. problem) end
    local place, context
    place, problem = run_request.make_directory(call.sandbox, body.cwd)
    if place then context, problem = call.sandbox.contexts:create(body.language or "", place) end
    if not context then return failed(call, "error creating code context. " .. problem) end
    context.interpreter:when_ready(function()
      if not context.interpreter.alive then return failed(call, "error creating code context. the interpreter ended at once") end
      local cwd = body.cwd ~= "" and body.cwd or nil
      call.response:json(200, { id = context.id, language = context.language, cwd = cwd })
    end)
  end)
end

routes["GET /code/contexts"] = function(call)
  local language = call:parameter("language") or ""
  if WITHOUT_CONTEXTS[language] then return failed(call, "unsupported language context operation: " .. language) end
  local found = json.array {}
  local function add(context)
    if language == "" or context.language == language then
      found[#found + 1] = { id = context.id, language = context.language }
    end
  end
  for _, context in ipairs(call.sandbox.contexts.list) do add(context) end
  for _, context in each(call.sandbox.contexts.defaults) do add(context) end -- a second time, as in execd
  call.response:json(200, found)
end

-- Returns the context of the path. A request for an unknown one is answered here.
local function named(call)
  local context = call.sandbox.contexts:get(call.parameters.id)
  if context then return context end
  call.response:fail(404, "CONTEXT_NOT_FOUND", ("context %s not found"):format(call.parameters.id))
end

routes["GET /code/contexts/{id}"] = function(call)
  local context = named(call)
  if context then call.response:json(200, { id = context.id, language = context.language }) end
end

routes["DELETE /code/contexts/{id}"] = function(call)
  local context = named(call)
  if context then call.sandbox.contexts:remove(context.id, function() call.response:empty(200) end) end
end

routes["DELETE /code/contexts"] = function(call)
  local language = call:required("language")
  if not language then return end
  local ids, left = {}, 1
  local function one_less()
    left = left - 1
    if left == 0 then call.response:empty(200) end
  end
  for _, context in ipairs(call.sandbox.contexts.list) do
    if context.language == language then ids[#ids + 1] = context.id end
  end
  left = left + #ids
  for _, id in ipairs(ids) do call.sandbox.contexts:remove(id, one_less) end
  one_less()
end

-- Runs code in the process of a context, or in a new one when that has ended. A context runs one piece of code at a time.
local function execute(call, context, code)
  local stream = event_stream.new(call.response, call.sandbox, context.id)
  if context.interpreter.run then return stream:fail("error running codes session is busy") end
  local ok, problem = context.interpreter.alive, nil
  if not ok then ok, problem = context.interpreter:start() end
  if not ok then return stream:fail("error running codes " .. problem) end
  context.interpreter:execute(code, execution(context, stream))
end

routes["POST /code"] = function(call)
  call:json_body("object", function(body)
    local contexts = call.sandbox.contexts
    local wanted = body.context or {}
    local problem = go_json.type_problem(body, "RunCodeRequest", { { "code", "string" }, { "context", "object" } })
      or go_json.type_problem(wanted, "CodeContext", CONTEXT)
    if problem then return invalid(call, INVALID_FORMAT .. problem) end
    if (body.code or "") == "" then
      return invalid(call, "invalid request, validation error " .. go_json.rule_problem("RunCodeRequest", "Code", "required"))
    end
    local language, id = wanted.language or "", wanted.id or ""
    if language == "" or language == "command" or language == "background-command" then
      return run_request.command(call, {
        command = body.code, background = language == "background-command", cwd = call.sandbox.paths:resolve("/"),
      }, 0)
    elseif not KNOWN[language] then
      return failed(call, "error running codes unknown language: " .. language)
    end
    local context
    if id ~= "" then
      context, problem = contexts:get(id), "context not found"
    else
      context, problem = contexts:default(language)
    end
    if not context then return failed(call, "error running codes " .. problem) end
    execute(call, context, body.code)
  end)
end

return { new = new, routes = routes }
