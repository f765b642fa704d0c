--- Errors as data.
--
-- A failure at run time is returned as `nil, err`, where `err` is a table with fields for programs that prints as one line for people.
-- The texts may change between versions; the fields do not. Texts can come from a hostile server, so they are made printable and short.

local lazy = require "opensandbox.base.lazy"
local numbers = require "opensandbox.base.numbers"

-- Files that are loaded with the first error.
local parts = lazy.modules { printable = "opensandbox.base.printable" }

---@class opensandbox.Error
---@field kind string `transport`, `timeout`, `http`, `stream`, `protocol`, `state`, `cancelled` or `closed`
---@field code string the server's code, else one of the library: `connect_failed`, `idle_timeout`, `HTTP_404` ...
---@field message string what happened
---@field op string the method that the caller called: `create_sandbox`, `sandbox:run`, `files:read` ...
---@field status? integer the HTTP status
---@field url? string the request's method and URL, without credentials and query: "GET http://..."
---@field request_id? string the server's name for the request, for its logs
---@field sandbox_id? string
---@field timeout_option? string for kind `timeout`: the option whose time ran out
---@field timer? string internal, for kind `timeout`: the core's time limit: `connect_timeout`, `timeout` or `idle_timeout`
---@field attempts? integer how often the request was tried
---@field not_sent? boolean no byte of the request has reached the server
---@field command_id? string for a command: execd's id of it
---@field retryable boolean true if the same call may succeed later, without harm
---@field retry_after? number seconds the server asks to wait
---@field hint? string what to do about it
---@field result? opensandbox.CommandResult for a command: the output that had arrived
---@field session_ended? boolean for a run in an isolated session: the session has ended with it
---@field cause? opensandbox.Error the error behind this one

local errors = {}

-- Bytes of each text.
local MAX_LENGTH = { message = 1000, hint = 1000, code = 100, url = 500, request_id = 200, sandbox_id = 200 }
local MAX_LINE = 4000 -- bytes

local Error = {}
Error.__index = Error
Error.__name = "opensandbox.Error"

function Error:__tostring()
  local line = { self.op and (self.op .. ": ") or "", self.message or self.code or "unknown error" }
  local details = {}
  if self.status then details[#details + 1] = "HTTP " .. self.status end
  if self.code and self.code ~= "HTTP_" .. tostring(self.status) then details[#details + 1] = self.code end
  if self.url then details[#details + 1] = self.url end
  if self.request_id then details[#details + 1] = "request " .. self.request_id end
  if #details > 0 then line[#line + 1] = " [" .. table.concat(details, ", ") .. "]" end
  if self.hint then line[#line + 1] = ". " .. self.hint end
  return parts.printable(table.concat(line), MAX_LINE)
end

--- Makes `"failed: " .. err` work.
function Error.__concat(left, right)
  return tostring(left) .. tostring(right)
end

--- Makes an error of the given fields.
---@param fields table
---@return opensandbox.Error
function errors.new(fields)
  if fields.retryable == nil then fields.retryable = false end
  for name, limit in pairs(MAX_LENGTH) do
    if type(fields[name]) == "string" then fields[name] = parts.printable(fields[name], limit) end
  end
  return setmetatable(fields, Error)
end

--- Makes the fields of an error of kind `timeout`: the rule for its text and its hint.
---@param facts table code; text (what did not happen); option (the name of the caller's option); seconds (its value); hint (instead of the general one); any other field of an error
---@return table fields for errors.new
function errors.timeout_fields(facts)
  local fields = {}
  for name, value in pairs(facts) do fields[name] = value end
  fields.text, fields.option, fields.seconds = nil, nil, nil
  fields.kind, fields.timeout_option = "timeout", facts.option
  fields.message = ("%s: %s of %s s ran out"):format(facts.text, facts.option, numbers.format(facts.seconds or 0, "%.6g"))
  fields.hint = facts.hint or ("Raise the option %s if it needs longer"):format(facts.option)
  return fields
end

--- Makes an error of kind `timeout`.
---@param facts table as for timeout_fields, with `op`
---@return opensandbox.Error
function errors.timeout(facts)
  return errors.new(errors.timeout_fields(facts))
end

--- Makes an error about a file of this machine.
---@param op string
---@param path string
---@param problem string the system's message, which can contain the path
---@return opensandbox.Error
function errors.local_file(op, path, problem)
  local text = problem:find(path, 1, true) and problem or path .. ": " .. problem
  return errors.new { kind = "state", code = "local_file", op = op, message = text }
end

--- Returns true for an error of this library.
function errors.is(value)
  return getmetatable(value) == Error
end

--- Returns true for a 404 about the resource, and false for a 404 about an unknown route.
---@param err opensandbox.Error
function errors.is_absence(err)
  return err.status == 404 and err.code ~= "HTTP_404"
end

--- Returns true if execd or a sidecar does not know the route or the method, because it is older or another service.
---@param err opensandbox.Error
function errors.is_unknown_route(err)
  return err.status == 405 or (err.status == 404 and tostring(err.message):find("page not found", 1, true) ~= nil)
end

return errors
