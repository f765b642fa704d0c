--- Code in the kernels of a sandbox's code interpreter: a client method for each route. A context is one kernel, which keeps the
--- variables of earlier runs.
--
-- The events of code prove less than those of a command. execution_complete arrives when the kernel is idle for the first time,
-- which can be before output and before the error. Only the end of the stream shows the outcome.

local base64 = require "opensandbox.base.base64"
local core = require "opensandbox.core"
local create_rollback = require "opensandbox.http.create_rollback"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local execution = require "opensandbox.execution.execution"
local fields = require "opensandbox.base.fields"
local json = require "opensandbox.base.json"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local polling = require "opensandbox.loop.polling"
local run_result = require "opensandbox.execution.run_result"
local tables = require "opensandbox.base.tables"
local url = require "opensandbox.base.url"

---@class (partial) opensandbox.Client
local code_routes = {}

local CREATE_TIMEOUT = 30        -- seconds
local DEFAULT_LANGUAGE = "python"
local INTERRUPT_SETTLE_TIME = 5  -- seconds that interrupted code gets to end before its context counts as busy

local interrupted = setmetatable({}, { __mode = "k" }) -- by HTTP client: the times of interrupts by context id

local function interrupted_contexts(client)
  interrupted[client.http] = interrupted[client.http] or {}
  return interrupted[client.http]
end

-- Names that execd takes for shell commands, whose events differ.
local not_languages = { ["command"] = true, ["background-command"] = true }

--- A code context of execd.
--- ```lua
--- for _, context in ipairs(assert(sandbox:code_contexts())) do print(context.id, context.language, context.cwd) end
--- ```
---@class opensandbox.CodeContext
---@field id string its name, for `sandbox:code(language, { id = })`
---@field language string of its kernel
---@field cwd? string the directory that it was created with

---@return opensandbox.CodeContext? context
---@return string? missing
local function context_of(object)
  if type(object) ~= "table" or not url.is_segment(object.id) or type(object.language) ~= "string" then
    return nil, "code context"
  end
  return { id = object.id, language = object.language, cwd = fields.text(object.cwd) }
end

local function context_path(op, id)
  return "/code/contexts/" .. url.escape(options.path_segment(op, "the context id", id))
end

local function check_language(op, language)
  options.argument(op, "the language", language, "nonempty string")
  if not_languages[language] then options.raise(op, ("the language %q has no kernel: use run_command"):format(language)) end
  return language
end

local create_options = { cwd = "nonempty string", timeout = "seconds" }

--- Starts a kernel: POST /code/context.
--- ```lua
--- local context = assert(client:create_code_context(execd, "python", { cwd = "/work" }))
--- ```
---@param execd opensandbox.Endpoint|string
---@param language? string "python" (default), "bash", "java", "javascript", "typescript" or "go", if the image has a kernel for it
---@param opts? { cwd?: string, timeout?: opensandbox.Duration } cwd: a directory, which is created if it is missing; timeout: seconds, default 30
---@return opensandbox.CodeContext? context
---@return opensandbox.Error? err
function code_routes:create_code_context(execd, language, opts)
  local op = self.op or "create_code_context"
  language = check_language(op, language or DEFAULT_LANGUAGE)
  opts = options.check(op, opts, create_options)
  paths.check_directory(op, opts.cwd)
  local request = { op = op, method = "POST", path = "/code/context", json = { language = language, cwd = opts.cwd },
    timeout = opts.timeout or CREATE_TIMEOUT, decode = context_of }
  create_rollback(self, request, function(context) return self:delete_code_context_request(execd, context.id) end,
    { best_effort = true })
  local context, err = self.http:call_endpoint(execd, request)
  if err and err.timer == "timeout" then
    err.hint = ("execd retries for ever if it finds no kernel for %q: check that the sandbox's image has a code interpreter with "
      .. "that language and that it runs, or raise the option timeout"):format(language)
  end
  return context, err
end

--- Returns one context: GET /code/contexts/{id}.
--- ```lua
--- print(assert(client:get_code_context(execd, id)).language)
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.CodeContext? context
---@return opensandbox.Error? err
function code_routes:get_code_context(execd, id, opts)
  local op = self.op or "get_code_context"
  return self.http:call_endpoint(execd, { op = op, timeout = options.timeout(op, opts),
    method = "GET", path = context_path(op, id), decode = context_of })
end

--- Returns the contexts, including the default ones of the languages: GET /code/contexts.
--- ```lua
--- for _, context in ipairs(assert(client:list_code_contexts(execd, "python"))) do print(context.id) end
--- ```
---@param execd opensandbox.Endpoint|string
---@param language? string only contexts of this language
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.CodeContext[]? contexts
---@return opensandbox.Error? err
function code_routes:list_code_contexts(execd, language, opts)
  local op = self.op or "list_code_contexts"
  if language ~= nil then check_language(op, language) end
  local path = "/code/contexts" .. url.query { { "language", language } }
  return self.http:call_endpoint(execd, { op = op, timeout = options.timeout(op, opts),
    method = "GET", path = path, decode = function(array)
    return fields.decode_list(array, context_of), "list of code contexts"
  end })
end

--- Internal: returns the prepared request that deletes a code context, for deletes in the background.
---@param execd opensandbox.Endpoint|string
---@param id string
---@return table request
function code_routes:delete_code_context_request(execd, id)
  local op = "delete_code_context"
  return self.http:endpoint_request(execd, { op = op, method = "DELETE", path = context_path(op, id), may_repeat = true })
end

--- Stops a kernel: DELETE /code/contexts/{id}. If the context does not exist, that is a success.
--- ```lua
--- assert(client:delete_code_context(execd, id))
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function code_routes:delete_code_context(execd, id, opts)
  local op = self.op or "delete_code_context"
  return errors.ignore_absence(self.http:call_endpoint(execd, { op = op, timeout = options.timeout(op, opts),
    method = "DELETE", path = context_path(op, id), shielded = true }))
end

--- Stops all kernels of a language: DELETE /code/contexts.
--- ```lua
--- assert(client:delete_code_contexts(execd, "python"))
--- ```
---@param execd opensandbox.Endpoint|string
---@param language string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function code_routes:delete_code_contexts(execd, language, opts)
  local op = self.op or "delete_code_contexts"
  local path = "/code/contexts" .. url.query { { "language", check_language(op, language) } }
  local _, err = self.http:call_endpoint(execd, { op = op, timeout = options.timeout(op, opts),
    method = "DELETE", path = path, shielded = true })
  if err then return nil, err end
  return true
end

-- The request of DELETE /code.
local function interrupt_request(op, id)
  return { op = op, method = "DELETE", path = "/code" .. url.query { { "id", id } }, may_repeat = false }
end

--- Interrupts the code that runs in a context, as Ctrl-C does: DELETE /code. The context stays.
--- ```lua
--- assert(client:interrupt_code(execd, id))
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string of the context
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function code_routes:interrupt_code(execd, id, opts)
  local op = self.op or "interrupt_code"
  local request = interrupt_request(op, options.path_segment(op, "the context id", id))
  request.shielded, request.timeout = true, options.timeout(op, opts)
  local _, err = self.http:call_endpoint(execd, request)
  if err then return nil, err end
  return true
end

--- The result of code.
--- ```lua
--- local result = assert(code:run("import math; math.sqrt(2)"))
--- print(result.text, result.execution_count, result.duration, result.stdout, result.stderr)
--- print(result.stdout_dropped, result.stderr_dropped)
--- for _, shown in ipairs(result.results) do print(shown["text/plain"], shown["image/png"]) end
--- if result.error then print(result.error.name, table.concat(result.error.traceback, "\n")) end
--- ```
---@class opensandbox.CodeResult
---@field text? string the text of the last result
---@field results table<string, any>[] each by MIME type: "text/plain", "text/html" ...; images and other binary types as bytes, JSON as tables
---@field execution_count? integer the kernel's number for this run
---@field stdout string the printed text
---@field stderr string the text printed to stderr
---@field stdout_dropped integer bytes left out in the middle because of max_output
---@field stderr_dropped integer the same for `stderr`
---@field error? table { name, value, traceback } when the code failed
---@field duration number seconds

-- Returns whether a value of a MIME type is base64 on the wire.
local function is_binary(mime)
  return mime == "application/pdf" or mime == "application/octet-stream" or mime:find("^audio/") ~= nil
    or mime:find("^video/") ~= nil or (mime:find("^image/") ~= nil and mime ~= "image/svg+xml")
end

-- Returns a result by MIME type. On the wire Jupyter's text/plain is called "text".
local function by_mime_type(values)
  local result = {}
  for key, value in each(json.normalise(values)) do
    local mime = tostring(key)
    if is_binary(mime) and type(value) == "string" then value = base64.decode(value) or value end
    result[mime == "text" and "text/plain" or mime] = value
  end
  return result
end

-- Fields of its own: results (an array); execution_count; completed (execution_complete has arrived); stream_finished.
local CodeExecution = execution.class({ noun = "code" }, {
  -- This is not the end of the run: see above.
  execution_complete = function(self) self.completed = true end,

  ["error"] = function(self, event) self.error_event = execution.error_of(event) end,

  execution_count = function(self, event) self.execution_count = json.normalise(event.execution_count) end,

  result = function(self, event)
    if type(event.results) ~= "table" then return end
    local result = by_mime_type(event.results)
    self.results[#self.results + 1] = result
    if self.opts.on_result then self.exchange:call_user(self.opts.on_result, result) end
  end,
})

-- The text of an event is the text that the kernel wrote.
function CodeExecution.decode_text(text) return text end

function CodeExecution:result()
  local all = execution.base.result(self)
  local last = self.results[#self.results]
  local text = last and last["text/plain"]
  return run_result {
    text = type(text) == "string" and text or nil, results = self.results,
    execution_count = self.execution_count, error = self.error_event,
    stdout = all.stdout, stderr = all.stderr, stdout_dropped = all.stdout_dropped, stderr_dropped = all.stderr_dropped,
    duration = all.duration,
  }
end

-- execd reports some errors of SQL twice, the second time as an error that it appends to the stream.
function CodeExecution:on_server_error()
  if self.error_event then return self:result() end
  return execution.base.on_server_error(self)
end

function CodeExecution:on_stream_end()
  self.stream_finished = true
  self.terminal_seen = self.completed or self.error_event ~= nil
  if self.terminal_seen and not self.corrupt then return self:result() end
  return execution.base.on_stream_end(self)
end

CodeExecution.abandon = execution.stop_when_id_known

function CodeExecution:stop_remote(is_silent)
  local id = self.id or self.opts.context
  if not id or self.stream_finished then return end
  interrupted_contexts(self.client)[id] = core.now()
  self.client.http:send_to_endpoint(self.endpoint, interrupt_request(self.op, id), not is_silent)
end

function CodeExecution:on_timeout() self:stop_remote() end

-- No route reports the outcome of code, so the code is interrupted: it would keep its context busy.
function CodeExecution:recover(err)
  self:stop_remote(err.timer == "idle_timeout")
  return nil, err
end

--- The options of the route: which context runs the code, and those of `code:run`.
--- ```lua
--- local result = assert(client:run_code(execd, "6 * 7", { context = context }))
--- local other = assert(client:run_code(execd, "echo hello", { language = "bash" }))
--- ```
---@class opensandbox.RunCodeOpts: opensandbox.CodeRunOpts
---@field context? string|opensandbox.CodeContext a context or its id; default: the default context of the language
---@field language? string default: the context's, or "python"

local run_options = {
  context = "any", language = "nonempty string", timeout = "seconds", on_stdout = "function", on_stderr = "function",
  on_result = "function",
  on_event = "function", max_output = "natural", idle_timeout = "seconds",
}

-- Returns the id and the language of the context that the options name. The language is always sent, because execd takes code
-- without a language for a command.
local function context_option(op, opts)
  local given, language = opts.context, opts.language
  if given == nil then return nil, check_language(op, language or DEFAULT_LANGUAGE) end
  local id = given
  if type(given) == "table" then
    id = given.id
    if language and given.language and language ~= given.language then
      options.raise(op, ("option 'language' is %q, and the context's is %q"):format(language, tostring(given.language)))
    end
    language = language or given.language
  end
  return options.path_segment(op, "the id of option 'context'", id), check_language(op, language or DEFAULT_LANGUAGE)
end

-- Returns whether a context may still be busy with code that this client interrupted.
local function was_interrupted_recently(client, id)
  local contexts = interrupted_contexts(client)
  for context, at in each(contexts) do
    if core.now() > at + INTERRUPT_SETTLE_TIME then contexts[context] = nil end
  end
  return id ~= nil and contexts[id] ~= nil
end

--- Runs code and waits for its end: POST /code.
---
--- Code that fails is a result, with `error`. If the result could not be obtained, an error is returned; `err.result` holds the
--- partial result. An error with code `busy` means that the context runs other code, and that this code was not run. Code that this
--- client has interrupted gets 5 seconds to end first.
---
--- The code is interrupted when the timeout passes, the task is cancelled or the stream breaks. Values shown by `display()` are
--- missing, because execd reports only the value of the last expression.
--- ```lua
--- print(assert(client:run_code(execd, "6 * 7", { language = "python" })).text)
--- ```
---@param execd opensandbox.Endpoint|string
---@param text string the code
---@param opts? opensandbox.RunCodeOpts
---@return opensandbox.CodeResult? result
---@return opensandbox.Error? err
function code_routes:run_code(execd, text, opts)
  local op = self.op or "run_code"
  options.argument(op, "the code", text, "string")
  if not text:find("%S") then options.raise(op, "the code must not be empty") end
  opts = options.check(op, opts, run_options)
  local id, language = context_option(op, opts)
  opts = tables.merge(opts, { context = id })
  return polling.poll(op, {}, function()
    local result, err = execution.start(CodeExecution, self, execd, { op = op, path = "/code", timeout = opts.timeout or 0,
      json = { code = text, context = { id = id, language = language } } }, opts, { results = {} })
    if err and err.code == "busy" and was_interrupted_recently(self, id) then return nil end
    return result, err
  end)
end

return code_routes
