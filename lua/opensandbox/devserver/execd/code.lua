--- The code routes: contexts that keep what code has defined, and running code in them.
--
-- The streams are those of execd with its kernels: `execution_complete` is not the end and no proof of success; it comes when a
-- kernel first says that it is idle, which it soon does, whatever the code does.

local uv = require "luv"
local json = require "opensandbox.base.json"
local frames = require "opensandbox.devserver.execd.events"
local kernel = require "opensandbox.devserver.execd.interpreter"
local random = require "opensandbox.devserver.base.random"
local run = require "opensandbox.devserver.execd.run_request"
local stream = require "opensandbox.devserver.execd.event_stream"
local timer = require "opensandbox.devserver.base.timer"

local SOON_IDLE = 100  -- milliseconds
-- Languages that execd knows. Those without a kernel here fail where a sandbox's image without their kernel would.
local KNOWN = { bash = true, python = true, java = true, javascript = true, typescript = true, go = true, sql = true }
local WITHOUT_CONTEXTS = { command = true, ["background-command"] = true, sql = true }

local Execution = {}
Execution.__index = Execution

local function execution(context, events)
  local self = setmetatable({
    context = context, events = events, timer = timer.new(),
    chunks = { stdout = frames.chunks("stdout"), stderr = frames.chunks("stderr") },
  }, Execution)
  context.kernel:when_ready(function()
    self.began = uv.hrtime()
    if self.ended then return end
    self.timer:start(SOON_IDLE, function() events:send(self:_completed {}) end)
  end)
  return self
end

-- Adds the frame that says that the code is complete, unless it has been sent.
function Execution:_completed(list)
  if not self.completed then
    self.completed = true
    list[#list + 1] = frames.complete(math.floor((uv.hrtime() - self.began) / 1e6))
  end
  return list
end

function Execution:output(kind, data)
  local list, process = {}, self.context.kernel
  self.chunks[kind]:feed(data, list)
  self.events:send(list)
  if self.events:full(function() process:hold(false) end) then process:hold(true) end
end

function Execution:count(value)
  self.events:send { frames.field("execution_count", "execution_count", value) }
end

function Execution:result(value)
  self.events:send { frames.field("result", "results", value) }
end

function Execution:error(value)
  local list = self:_completed {}
  list[#list + 1] = frames.text("status", "error")
  list[#list + 1] = frames.field("error", "error", value)
  self.events:send(list)
end

-- The end. Only a shell has a status that says more than messages have said.
function Execution:done(status)
  self.ended = true
  self.timer:close()
  local list = {}
  for _, kind in ipairs { "stdout", "stderr" } do self.chunks[kind]:finish(list) end
  self.events:send(list)
  if not status then return self.events:fail("error running codes kernel died") end
  if status ~= 0 then self:error(('{"ename":"","evalue":"%d","traceback":[]}'):format(status)) end
  self.events:stop(self:_completed {})
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

--- Makes a context.
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] string why it cannot be had
function Contexts:create(language, place)
  if not kernel.knows(language) then return nil, ("no kernel for '%s' on this machine"):format(language) end
  -- Like the kernel for bash, which gives its shell a terminal, it does not tell standard error from output.
  local process, problem = kernel.new(self.sandbox, { language = language, cwd = place, merged = language == "bash" })
  if not process then return nil, problem end
  local context = { id = random.uuid(), language = language, kernel = process }
  table.insert(self.list, context)
  return context
end

--- The context of a language that code without a context runs in; made when it is first asked for.
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
  context.kernel:close(callback)
end

--- Interrupts what a context runs; whether there is such a context.
function Contexts:interrupt(id)
  local context = self:get(id)
  if context then context.kernel:interrupt() end
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

-- Where execd tries again and again for a kernel that its image does not have, this server answers.
routes["POST /code/context"] = function(call)
  call:json_body("object", function(body)
    local problem = run.type_problem(body, "CodeContextRequest", CONTEXT)
    if problem then return invalid(call, INVALID_FORMAT .. problem) end
    local place, context
    place, problem = run.make_directory(call.sandbox, body.cwd)
    if place then context, problem = call.sandbox.contexts:create(body.language or "", place) end
    if not context then return failed(call, "error creating code context. " .. problem) end
    context.kernel:when_ready(function()
      if not context.kernel.alive then return failed(call, "error creating code context. the kernel ended at once") end
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
  for _, context in pairs(call.sandbox.contexts.defaults) do add(context) end -- for the second time, as execd does
  call.response:json(200, found)
end

-- The context that the path names, or the answer that there is none.
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

-- Runs code in a context, in the process that it has or in a new one when that has ended.
local function execute(call, context, code)
  local events = stream.new(call.response, call.sandbox, context.id)
  if context.kernel.run then return events:fail("error running codes session is busy") end
  local ok, problem = context.kernel.alive, nil
  if not ok then ok, problem = context.kernel:start() end
  if not ok then return events:fail("error running codes " .. problem) end
  context.kernel:execute(code, execution(context, events))
end

routes["POST /code"] = function(call)
  call:json_body("object", function(body)
    local contexts = call.sandbox.contexts
    local wanted = body.context or {}
    local problem = run.type_problem(body, "RunCodeRequest", { { "code", "string" }, { "context", "object" } })
      or run.type_problem(wanted, "CodeContext", CONTEXT)
    if problem then return invalid(call, INVALID_FORMAT .. problem) end
    if (body.code or "") == "" then
      return invalid(call, "invalid request, validation error " .. run.rule_problem("RunCodeRequest", "Code", "required"))
    end
    local language, id = wanted.language or "", wanted.id or ""
    if language == "" or language == "command" or language == "background-command" then
      return run.command(call, {
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
