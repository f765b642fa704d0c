--- What execd tells of a command by its id, and how it ends one. The last argument of each goes into the request.

local core = require "opensandbox.core"
local polling = require "opensandbox.loop.polling"
local tables = require "opensandbox.base.tables"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local LONGEST_LOG = 16 * 1024 * 1024 -- bytes taken at a time

local routes = {}

--- seconds: execd says that a command has started a little before it knows it
routes.START_PATIENCE = 2

---@class opensandbox.CommandStatus
---@field id string
---@field command string
---@field running boolean
---@field exit_code? integer nil while it runs; -1 when a signal ended it
---@field error? string
---@field started_at? number Unix seconds
---@field finished_at? number Unix seconds

--- GET /command/status/{id}
---@return opensandbox.CommandStatus? status
---@return opensandbox.Error? err
function routes.status(client, endpoint, id, more)
  return client.http:call_endpoint(endpoint, tables.merge({
    op = client.op or "get_command_status", method = "GET", path = "/command/status/" .. url.escape(id), decode = function(answer)
      if type(answer.running) ~= "boolean" then return nil, "status" end
      return {
        id = answer.id, command = answer.content, running = answer.running, exit_code = answer.exit_code, error = answer.error,
        started_at = time.parse(answer.started_at), finished_at = time.parse(answer.finished_at),
      }
    end,
  }, more))
end

-- The part of a log that begins at `cursor`. What lies between is told by the cursor that came along: a server or a cache that repeats
-- old bytes must not make them count twice.
local function log_from(cursor, text, header, truncated)
  local following = tonumber(header)
  if truncated or not following then return { text = text, cursor = cursor + #text } end
  local first = following - #text
  if first == cursor or text == "" then return { text = text, cursor = following } end
  if first > cursor or first < 0 then return nil end
  return { text = text:sub(cursor - first + 1), cursor = math.max(following, cursor) }
end

--- The request for a log that begins at `cursor`, whose header `name` tells the next one.
function routes.log_request(op, path, cursor, name)
  return {
    op = op, method = "GET", path = path .. url.query { { "cursor", ("%d"):format(cursor) } }, max_body = LONGEST_LOG,
    parse_body = function(text, headers, truncated)
      local log = log_from(cursor, text, headers[name], truncated)
      return log, not log and "log from the byte that was asked for" or nil
    end,
  }
end

--- GET /command/{id}/logs: the text from a byte offset on, or as much of it as is taken at a time, and where the next begins.
---@return { text: string, cursor: integer }? log
---@return opensandbox.Error? err
function routes.logs(client, endpoint, id, cursor, more)
  local request = routes.log_request(client.op or "get_command_logs", "/command/" .. url.escape(id) .. "/logs", cursor,
    "execd-commands-tail-cursor")
  return client.http:call_endpoint(endpoint, tables.merge(request, more))
end

--- The request of DELETE /command: SIGTERM to the process group, SIGKILL after 3 seconds.
function routes.interrupt(op, id)
  return { op = op, method = "DELETE", path = "/command" .. url.query { { "id", id } }, may_repeat = false }
end

--- execd's words for a command that it does not know: three routes, three ways to say it.
function routes.is_unknown(err)
  local message = tostring(err.message)
  return err.kind == "http" and (message:find("command not found", 1, true) or message:find("no such session", 1, true)) ~= nil
end

--- Calls `ask` until execd knows the command, which it may not yet when it was started just now.
---@param op string
---@param known_by number on the clock of core.now(): from then on it must know it
---@param ask fun(): any, opensandbox.Error?
---@return any value
---@return opensandbox.Error? err
function routes.patiently(op, known_by, ask)
  return polling.poll(op, {}, function()
    local value, err = ask()
    if value ~= nil then return value end
    if routes.is_unknown(err) and core.now() <= known_by then return nil end
    err.op = op
    return nil, err
  end)
end

--- How a command ended, by its last status: exit_code, signal, duration, and error, as its stream would have told it.
---@param status opensandbox.CommandStatus
function routes.outcome(status)
  local code = status.exit_code
  local text = tostring(status.error or "")
  return {
    exit_code = code, duration = status.started_at and status.finished_at and status.finished_at - status.started_at or nil,
    signal = code == -1 and (text:match("signal: (.+)") or "unknown") or nil,
    error = code ~= 0 and { name = "CommandExecError", value = tostring(code), traceback = { status.error } } or nil,
  }
end

return routes
