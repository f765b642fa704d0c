--- Running code in the kernels of a sandbox's code interpreter: a client method for each route. A context is one kernel, with the
--- variables of what ran in it.
--
-- Unlike those of a command, the events of code prove little one by one: execution_complete comes as soon as the kernel is idle for the
-- first time, before output and before the error. Only the end of the stream shows what came of it.

local base64 = require "opensandbox.base.base64"
local core = require "opensandbox.core"
local create_rollback = require "opensandbox.http.create_rollback"
local errors = require "opensandbox.base.errors"
local json = require "opensandbox.base.json"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local polling = require "opensandbox.loop.polling"
local run = require "opensandbox.execution.execution"
local tables = require "opensandbox.base.tables"
local url = require "opensandbox.base.url"

local code = {}

local CREATE_TIMEOUT = 30 -- seconds
local LANGUAGE = "python"
local END_PATIENCE = 5    -- seconds that code which we have interrupted gets to end before its context counts as busy

local interrupted = setmetatable({}, { __mode = "k" }) -- by HTTP client: the times at which code was interrupted, by context id

local function interrupted_contexts(client)
  interrupted[client.http] = interrupted[client.http] or {}
  return interrupted[client.http]
end

-- What execd would run as a shell command, and tell as one.
local not_code = { ["command"] = true, ["background-command"] = true }

---@class opensandbox.CodeContext
---@field id string
---@field language string
---@field cwd? string

---@return opensandbox.CodeContext? context
---@return string? missing
local function context_of(answer)
  if type(answer.id) ~= "string" or type(answer.language) ~= "string" then return nil, "code context" end
  return { id = answer.id, language = answer.language, cwd = answer.cwd }
end

local function context_path(op, id)
  return "/code/contexts/" .. url.escape(options.path_segment(op, "the context id", id))
end

local function check_language(op, language)
  options.argument(op, "the language", language, "nonempty string")
  if not_code[language] then options.raise(op, ("the language %q has no kernel: use run_command"):format(language)) end
  return language
end

local create_options = { cwd = "nonempty string", timeout = "seconds" }

--- Starts a kernel: POST /code/context.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param language? string "python" (default), "bash", "java", "javascript", "typescript" or "go", as far as the image has them
---@param opts? table cwd (made if it is missing), timeout (seconds, default 30)
---@return opensandbox.CodeContext? context
---@return opensandbox.Error? err
function code.create_code_context(self, execd, language, opts)
  local op = self.op or "create_code_context"
  language = check_language(op, language or LANGUAGE)
  opts = options.check(op, opts, create_options)
  paths.check_directory(op, opts.cwd)
  local request = { op = op, method = "POST", path = "/code/context", json = { language = language, cwd = opts.cwd },
    timeout = opts.timeout or CREATE_TIMEOUT, decode = context_of }
  create_rollback(self, request, function(made) return self:delete_code_context_request(execd, made.id) end, { best_effort = true })
  local context, err = self.http:call_endpoint(execd, request)
  if err and err.timer == "timeout" then
    err.hint = ("execd tries for ever where it finds no kernel for %q: check that the sandbox's image has a code interpreter with "
      .. "that language and that it runs, or raise the option timeout"):format(language)
  end
  return context, err
end

--- One context: GET /code/contexts/{id}.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string
---@return opensandbox.CodeContext? context
---@return opensandbox.Error? err
function code.get_code_context(self, execd, id)
  local op = self.op or "get_code_context"
  return self.http:call_endpoint(execd, { op = op, method = "GET", path = context_path(op, id), decode = context_of })
end

--- The contexts, the default ones of languages among them: GET /code/contexts.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param language? string only those of this one
---@return opensandbox.CodeContext[]? contexts
---@return opensandbox.Error? err
function code.list_code_contexts(self, execd, language)
  local op = self.op or "list_code_contexts"
  if language ~= nil then check_language(op, language) end
  local path = "/code/contexts" .. url.query { { "language", language } }
  return self.http:call_endpoint(execd, { op = op, method = "GET", path = path, decode = function(answer)
    local contexts = {}
    for i, item in ipairs(answer) do
      contexts[i] = type(item) == "table" and context_of(item) or nil
      if not contexts[i] then return nil, "code contexts" end
    end
    return contexts
  end })
end

--- Internal: the prepared request that deletes a code context, for deletes in the background.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string
---@return table request
function code.delete_code_context_request(self, execd, id)
  local op = "delete_code_context"
  return self.http:endpoint_request(execd, { op = op, method = "DELETE", path = context_path(op, id), may_repeat = true })
end

--- Ends a kernel: DELETE /code/contexts/{id}. One that is gone already is a success.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string
---@return true? ok
---@return opensandbox.Error? err
function code.delete_code_context(self, execd, id)
  local op = self.op or "delete_code_context"
  local _, err = self.http:call_endpoint(execd, { op = op, method = "DELETE", path = context_path(op, id), shielded = true })
  if err and not errors.is_absence(err) then return nil, err end
  return true
end

--- Ends all kernels of a language: DELETE /code/contexts.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param language string
---@return true? ok
---@return opensandbox.Error? err
function code.delete_code_contexts(self, execd, language)
  local op = self.op or "delete_code_contexts"
  local path = "/code/contexts" .. url.query { { "language", check_language(op, language) } }
  local _, err = self.http:call_endpoint(execd, { op = op, method = "DELETE", path = path, shielded = true })
  if err then return nil, err end
  return true
end

-- The request of DELETE /code.
local function interruption(op, id)
  return { op = op, method = "DELETE", path = "/code" .. url.query { { "id", id } }, may_repeat = false }
end

--- Interrupts what runs in a context, as Ctrl-C would: DELETE /code. The context stays.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string of the context
---@return true? ok
---@return opensandbox.Error? err
function code.interrupt_code(self, execd, id)
  local op = self.op or "interrupt_code"
  local request = interruption(op, options.path_segment(op, "the context id", id))
  request.shielded = true
  local _, err = self.http:call_endpoint(execd, request)
  if err then return nil, err end
  return true
end

---@class opensandbox.CodeResult
---@field text? string the text of the last result
---@field results table<string, any>[] each by MIME type: "text/plain", "text/html" ...; "image/png" and what else is binary as bytes, JSON as tables
---@field execution_count? integer the kernel's number for this run
---@field stdout string
---@field stderr string
---@field stdout_dropped integer bytes left out in the middle because of max_output
---@field stderr_dropped integer
---@field error? table { name, value, traceback } when the code failed
---@field duration number seconds

-- Whether a value of a MIME type is base64 on the wire.
local function is_binary(mime)
  return mime == "application/pdf" or mime == "application/octet-stream" or mime:find("^audio/") ~= nil
    or mime:find("^video/") ~= nil or (mime:find("^image/") ~= nil and mime ~= "image/svg+xml")
end

-- A result by MIME type. Jupyter's text/plain goes by another name on the wire.
local function by_type(values)
  local result = {}
  for mime, value in pairs(json.normalise(values)) do
    if is_binary(mime) and type(value) == "string" then value = base64.decode(value) or value end
    if mime == "text" then mime = "text/plain" end
    result[mime] = value
  end
  return result
end

local Run = run.kind({ what = "code" }, {
  -- Not the end: see above.
  execution_complete = function(self) self.completed = true end,

  ["error"] = function(self, event)
    local report = type(event.error) == "table" and event.error or {}
    local traceback = type(report.traceback) == "table" and report.traceback or {}
    self.report = { name = report.ename, value = report.evalue, traceback = traceback }
  end,

  execution_count = function(self, event) self.execution_count = json.normalise(event.execution_count) end,

  result = function(self, event)
    if type(event.results) ~= "table" then return end
    local result = by_type(event.results)
    self.results[#self.results + 1] = result
    if self.opts.on_result then self.exchange:call_user(self.opts.on_result, result) end
  end,
})

-- Pieces come as the kernel wrote them.
function Run.text_of(text) return text end

function Run:result()
  local all = run.base.result(self)
  local last = self.results[#self.results]
  return {
    text = last and last["text/plain"], results = self.results, execution_count = self.execution_count, error = self.report,
    stdout = all.stdout, stderr = all.stderr, stdout_dropped = all.stdout_dropped, stderr_dropped = all.stderr_dropped,
    duration = all.duration,
  }
end

-- Some errors of SQL are told twice, and the second time without a type.
function Run:failed()
  if self.report then return self:result() end
  return run.base.failed(self)
end

function Run:at_end()
  self.ended_there = true
  self.done = self.completed or self.report ~= nil
  if self.done and not self.broken then return self:result() end
  return self:cut()
end

Run.abandon = run.stop_once_known

function Run:stop(silent)
  local id = self.id or self.opts.context
  if not id or self.ended_there then return end
  interrupted_contexts(self.client)[id] = core.now()
  self.client.http:send_to_endpoint(self.endpoint, interruption(self.op, id), not silent)
end

function Run:overdue() self:stop() end

-- Nobody can ask what became of it, and it would keep its context busy.
function Run:settle(err)
  self:stop(err.timer == "idle_timeout")
  return nil, err
end

local run_options = {
  context = "any", language = "nonempty string", timeout = "seconds", on_stdout = "function", on_stderr = "function",
  on_result = "function",
  on_event = "function", max_output = "natural", idle_timeout = "seconds",
}

-- The id and the language of what the options name. execd wants the language in any case: without it, it takes the code for a command.
local function context_in(op, opts)
  local given, language = opts.context, opts.language
  if given == nil then return nil, check_language(op, language or LANGUAGE) end
  local id = given
  if type(given) == "table" then
    id = given.id
    if language and given.language and language ~= given.language then
      options.raise(op, ("option 'language' is %q, and the context's is %q"):format(language, tostring(given.language)))
    end
    language = language or given.language
  end
  return options.path_segment(op, "the id of option 'context'", id), check_language(op, language or LANGUAGE)
end

-- Whether a context is busy with code that we interrupted a moment ago.
local function was_interrupted_recently(client, id)
  local contexts = interrupted_contexts(client)
  for context, at in pairs(contexts) do
    if core.now() > at + END_PATIENCE then contexts[context] = nil end
  end
  return id ~= nil and contexts[id] ~= nil
end

--- Runs code and waits for its end: POST /code.
---
--- Code that fails is a result, with `error`. An error is what kept the result from us: it carries what had arrived as `err.result`. One
--- with code `busy` says that the context runs something else, and that this code was not run; what was interrupted by us just before gets
--- a moment to end.
---
--- When the timeout passes, the task is cancelled or the stream breaks, the code is interrupted. `display()` shows nothing: execd passes
--- on the value of the last expression alone.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param text string the code
---@param opts? table context (what create_code_context gives, or its id; default: the language's own), language (default the context's, or "python"), timeout (seconds), on_stdout, on_stderr (called with text as it comes), on_result (called with each result), on_event, max_output (bytes kept of each stream), idle_timeout (seconds)
---@return opensandbox.CodeResult? result
---@return opensandbox.Error? err
function code.run_code(self, execd, text, opts)
  local op = self.op or "run_code"
  options.argument(op, "the code", text, "string")
  if not text:find("%S") then options.raise(op, "the code must not be empty") end
  opts = options.check(op, opts, run_options)
  local id, language = context_in(op, opts)
  opts = tables.merge(opts, { context = id })
  return polling.poll(op, {}, function()
    local result, err = run.start(Run, self, execd, { op = op, path = "/code", timeout = opts.timeout or 0,
      json = { code = text, context = { id = id, language = language } } }, opts, { results = {} })
    if err and err.code == "busy" and was_interrupted_recently(self, id) then return nil end
    return result, err
  end)
end

return code
