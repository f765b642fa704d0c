--- A code context of a sandbox: `sandbox:code()`.

local options = require "opensandbox.base.options"
local part = require "opensandbox.child_resource"

---@class opensandbox.Code: opensandbox.Part
---@field id string what sandbox:code(language, { id = }) takes, in another process too
---@field language string
local Code = part.class { _class = "Code", _name = "code", _what = "code context", _delete = "delete_code_context",
  _route = "/code/contexts/" }

local codes = {}

local code_options = { cwd = "text", timeout = "seconds", id = "text" }

--- Makes a code context of a sandbox, or attaches to one.
function codes.open(sandbox, language, opts)
  local op = "sandbox:code"
  if language ~= nil then options.argument(op, "the language", language, "text") end
  opts = options.check(op, opts, code_options)
  if not opts.id then return part.make(Code, sandbox, op, "create_code_context", language, opts) end
  if opts.cwd or opts.timeout then
    options.raise(op, "options 'cwd' and 'timeout' are for a new context, and option 'id' for one that is there")
  end
  return part.attach(Code, sandbox, { id = options.identifier(op, "option 'id'", opts.id), language = language or "python" })
end

--- Runs code in the context and waits for its end. Code that fails is a result, with `error`.
---@param text string
---@param opts? table timeout (seconds; the code is interrupted then), on_stdout, on_stderr (called with text as it comes), on_result (called with each result), on_event, max_output (bytes), idle_timeout (seconds)
---@return opensandbox.CodeResult? result
---@return opensandbox.Error? err
function Code:run(text, opts)
  local op = "code:run"
  if opts ~= nil then options.argument(op, "options", opts, "table") end
  if opts and (opts.context or opts.language) then
    options.raise(op, "options 'context' and 'language' are for run_code: this runs in its own")
  end
  return self:call_execd(op, "run_code", text, options.merge(opts, { context = { id = self.id, language = self.language } }))
end

--- Interrupts what runs in the context, as Ctrl-C would.
---@return true? ok
---@return opensandbox.Error? err
function Code:interrupt()
  return self:call_execd("code:interrupt", "interrupt_code", self.id)
end

return codes
