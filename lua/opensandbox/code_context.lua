--- A code context of a sandbox: `sandbox:code()`.

local child_resource = require "opensandbox.child_resource"
local class = require "opensandbox.base.class"
local options = require "opensandbox.base.options"
local tables = require "opensandbox.base.tables"

--- A kernel that keeps its variables from one run to the next.
--- ```lua
--- local code = assert(sandbox:code "python")
--- print(code.id, code.language)
--- ```
---@class opensandbox.Code: opensandbox.ChildResource
---@field id string sandbox:code(language, { id = }) attaches to it, in any process
---@field language string of the code: "python", "bash" ...
local Code = child_resource.class { __name = "opensandbox.Code", _op_prefix = "code", _noun = "code context",
  _delete = "delete_code_context" }

local code_contexts = {}

--- The options of `sandbox:code`.
--- ```lua
--- local code = assert(sandbox:code("python", { cwd = "/work", timeout = 60 }))
--- local same = assert(sandbox:code("python", { id = code.id }))
--- ```
---@class opensandbox.CodeOpts
---@field cwd? string for a new context; created if it is missing
---@field timeout? opensandbox.Duration for the start of a new context, default 30
---@field id? string of an existing context, which is not deleted then; nothing is sent

local code_options = { cwd = "nonempty string", timeout = "seconds", id = "nonempty string" }

--- Creates a code context of a sandbox, or attaches to one: POST /code/context of execd.
---@param sandbox opensandbox.Sandbox
---@param language? string default "python"
---@param opts? opensandbox.CodeOpts
---@return opensandbox.Code? code
---@return opensandbox.Error? err
function code_contexts.open(sandbox, language, opts)
  local op = "sandbox:code"
  if language ~= nil then options.argument(op, "the language", language, "nonempty string") end
  opts = options.check(op, opts, code_options)
  if not opts.id then
    local to_create = { cwd = opts.cwd, timeout = opts.timeout }
    return child_resource.create(Code, sandbox, op, opts, "create_code_context", language, to_create)
  end
  if opts.cwd or opts.timeout then
    options.raise(op, "options 'cwd' and 'timeout' are for a new context, and option 'id' for an existing one")
  end
  options.path_segment(op, "option 'id'", opts.id)
  return child_resource.attach(Code, sandbox, { id = opts.id, language = language or "python" })
end

--- The options of `code:run`.
--- ```lua
--- local result = assert(code:run("print('hello'); 6 * 7", {
---   timeout = 10, on_stdout = io.write, on_stderr = io.write, on_result = function(result) print(result["text/plain"]) end,
---   on_event = function(event) print(event.type) end, max_output = 65536, idle_timeout = 30,
--- }))
--- ```
---@class opensandbox.CodeRunOpts
---@field timeout? opensandbox.Duration the code is interrupted then; default: none
---@field on_stdout? fun(text: string) called with output as it arrives
---@field on_stderr? fun(text: string) called with error output as it arrives
---@field on_result? fun(result: table) called with each result
---@field on_event? fun(event: table) called with every event of execd
---@field max_output? integer bytes of each stream that are kept in memory, default: the client's
---@field idle_timeout? opensandbox.Duration without an event, default: the client's

--- Runs code in the context and waits for its end: POST /code of execd. Code that fails is a result with `error`.
--- ```lua
--- local result = assert(code:run("import math; math.sqrt(2)", { timeout = 10 }))
--- print(result.text)
--- ```
---@param text string
---@param opts? opensandbox.CodeRunOpts
---@return opensandbox.CodeResult? result
---@return opensandbox.Error? err
function Code:run(text, opts)
  local op = "code:run"
  if opts ~= nil then options.argument(op, "options", opts, "table") end
  if opts and (opts.context or opts.language) then
    options.raise(op, "options 'context' and 'language' are for run_code: this method runs code in its own context")
  end
  return self:call_execd(op, "run_code", text, tables.merge(opts, { context = { id = self.id, language = self.language } }))
end

--- Interrupts the code that runs in the context, as Ctrl-C does: DELETE /code of execd.
--- ```lua
--- assert(code:interrupt())
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function Code:interrupt(opts)
  return self:call_execd_within("code:interrupt", opts, "interrupt_code", self.id)
end

class.check_colon(Code, "code")

return code_contexts
