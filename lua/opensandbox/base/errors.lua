--- Errors as data.
--
-- What goes wrong at run time comes back as `nil, err`, where `err` is a table that a program can look at and that prints as one
-- line a person can act on. The texts may change between versions; the fields do not.

---@class opensandbox.Error
---@field kind string `transport`, `timeout`, `http`, `stream`, `protocol`, `state`, `cancelled` or `closed`
---@field code string the server's code, else one of ours: `connect_failed`, `idle_timeout`, `HTTP_404` ...
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
---@field retryable boolean whether the same call may succeed later, without harm
---@field retry_after? number seconds the server asks to wait
---@field hint? string what to do about it
---@field result? opensandbox.CommandResult for a command: what had arrived
---@field cause? opensandbox.Error the error behind this one

local errors = {}

local Error = {}
Error.__index = Error
Error.__name = "opensandbox.Error"

function Error:__tostring()
  local parts = { self.op and (self.op .. ": ") or "", self.message or self.code or "unknown error" }
  local details = {}
  if self.status then details[#details + 1] = "HTTP " .. self.status end
  if self.code and self.code ~= "HTTP_" .. tostring(self.status) then details[#details + 1] = self.code end
  if self.url then details[#details + 1] = self.url end
  if self.request_id then details[#details + 1] = "request " .. self.request_id end
  if #details > 0 then parts[#parts + 1] = " [" .. table.concat(details, ", ") .. "]" end
  if self.hint then parts[#parts + 1] = ". " .. self.hint end
  return (table.concat(parts):gsub("%s*[\r\n]+%s*", " "))
end

--- Makes an error of the given fields.
---@param fields table
---@return opensandbox.Error
function errors.new(fields)
  if fields.retryable == nil then fields.retryable = false end
  return setmetatable(fields, Error)
end

--- The fields of an error of kind `timeout`: the rule for its text and its hint.
---@param facts table code; text (what did not happen); option (the name of the caller's option); seconds (its value); hint (instead of the general one); any other field of an error
---@return table fields for errors.new
function errors.timeout_fields(facts)
  local fields = {}
  for name, value in pairs(facts) do fields[name] = value end
  fields.text, fields.option, fields.seconds = nil, nil, nil
  fields.kind, fields.timeout_option = "timeout", facts.option
  fields.message = ("%s: %s of %g s ran out"):format(facts.text, facts.option, facts.seconds or 0)
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
---@param problem string the system's words, which may hold the path
---@return opensandbox.Error
function errors.local_file(op, path, problem)
  local text = problem:find(path, 1, true) and problem or path .. ": " .. problem
  return errors.new { kind = "state", code = "local_file", op = op, message = text }
end

--- True for an error of this library.
function errors.is(value)
  return getmetatable(value) == Error
end

--- True for a 404 about the resource. False for a 404 about an unknown route.
---@param err opensandbox.Error
function errors.is_absence(err)
  return err.status == 404 and err.code ~= "HTTP_404"
end

--- True when execd or a sidecar does not know the route or the method: it is older, or another service.
---@param err opensandbox.Error
function errors.is_unknown_route(err)
  return err.status == 405 or (err.status == 404 and tostring(err.message):find("page not found", 1, true) ~= nil)
end

return errors
