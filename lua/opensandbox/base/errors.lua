--- Errors as data.
--
-- What goes wrong at run time comes back as `nil, err`, where `err` is a table that a program can look at and that prints as one
-- line a person can act on. The texts may change between versions; the fields do not.

---@class opensandbox.Error
---@field kind string `transport`, `timeout`, `http`, `stream`, `protocol`, `state`, `cancelled` or `closed`
---@field code string the server's code, else one of ours: `connect_failed`, `idle_timeout`, `HTTP_404` ...
---@field message string what happened
---@field op string the operation: `create_sandbox`, `run_command` ...
---@field status? integer the HTTP status
---@field url? string the request's method and URL, without credentials and query
---@field request_id? string the server's name for the request, for its logs
---@field sandbox_id? string
---@field clock? string for kind `timeout`: the option whose time ran out
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

--- True for an error of this library.
function errors.is(value)
  return getmetatable(value) == Error
end

--- Whether a server says that what was asked for is not there; one that does not know the route is not meant.
---@param err opensandbox.Error
function errors.is_absence(err)
  return err.status == 404 and err.code ~= "HTTP_404"
end

--- Whether execd or a sidecar does not know the route, or the method on it: an older one, or something else altogether.
---@param err opensandbox.Error
function errors.is_unknown_route(err)
  return err.status == 405 or (err.status == 404 and tostring(err.message):find("page not found", 1, true) ~= nil)
end

return errors
