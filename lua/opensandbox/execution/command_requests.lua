--- Requests about a command by its id: its status, its log, and its end. The last argument of each adds fields to the request.

local core = require "opensandbox.core"
local execution = require "opensandbox.execution.execution"
local fields = require "opensandbox.base.fields"
local polling = require "opensandbox.loop.polling"
local tables = require "opensandbox.base.tables"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local MAX_LOG_CHUNK = 16 * 1024 * 1024 -- bytes of a log read by one request

local command_requests = {}

--- Seconds after its start in which execd may not know a command yet, because it reports the start before it registers the command.
command_requests.REGISTRATION_TIMEOUT = 2

--- The status of a command.
--- ```lua
--- local status = assert(command:status())
--- print(status.id, status.command, status.running, status.exit_code, status.error, status.started_at, status.finished_at)
--- ```
---@class opensandbox.CommandStatus
---@field id string execd's name for the command
---@field command string the command line
---@field running boolean it has not ended
---@field exit_code? integer nil while it runs; -1 when a signal ended it
---@field error? string execd's description of how it ended
---@field started_at? number Unix seconds
---@field finished_at? number Unix seconds

--- Returns the status of a command: GET /command/status/{id}.
---@param client opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param id string
---@param extra? table fields of the request
---@return opensandbox.CommandStatus? status
---@return opensandbox.Error? err
function command_requests.status(client, endpoint, id, extra)
  return client.http:call_endpoint(endpoint, tables.merge({
    op = client.op or "get_command_status", method = "GET", path = "/command/status/" .. url.escape(id), decode = function(object)
      if type(object.running) ~= "boolean" then return nil, "status" end
      return {
        id = fields.text(object.id), command = fields.text(object.content), running = object.running,
        error = fields.text(object.error), exit_code = fields.exit_code(object.exit_code),
        started_at = time.parse(object.started_at), finished_at = time.parse(object.finished_at),
      }
    end,
  }, extra))
end

-- Returns the part of a log that begins at `cursor`. The server's own cursor shows where the text begins, because a server or a
-- cache that repeats old bytes must not make them count twice.
local function slice_log(cursor, text, header, truncated)
  local following = tonumber((header or ""):match("^%d+$"))
  if truncated or not following then return { text = text, cursor = cursor + #text } end
  local first = following - #text
  if first == cursor or text == "" then return { text = text, cursor = following } end
  if first > cursor or first < 0 then return nil end
  return { text = text:sub(cursor - first + 1), cursor = math.max(following, cursor) }
end

--- Returns the request for a log that begins at `cursor`.
---@param op string
---@param path string
---@param cursor integer
---@param header string name of the response header that holds the next cursor
---@return table request
function command_requests.log_request(op, path, cursor, header)
  return {
    op = op, method = "GET", path = path .. url.query { { "cursor", ("%d"):format(cursor) } }, max_body = MAX_LOG_CHUNK,
    parse_body = function(text, headers, truncated)
      local log = slice_log(cursor, text, headers[header], truncated)
      return log, not log and "log from the byte that was asked for" or nil
    end,
  }
end

--- Returns the log of a command in the background from a byte offset, and the cursor behind it: GET /command/{id}/logs. Of a very
--- long log it is the first part.
---@param client opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param id string
---@param cursor integer
---@param extra? table fields of the request
---@return { text: string, cursor: integer }? log
---@return opensandbox.Error? err
function command_requests.logs(client, endpoint, id, cursor, extra)
  local request = command_requests.log_request(client.op or "get_command_logs", "/command/" .. url.escape(id) .. "/logs", cursor,
    "execd-commands-tail-cursor")
  return client.http:call_endpoint(endpoint, tables.merge(request, extra))
end

--- Returns the request of DELETE /command, which sends SIGTERM to the process group and, after 3 seconds, SIGKILL.
---@param op string
---@param id string
---@return table request
function command_requests.interrupt(op, id)
  return { op = op, method = "DELETE", path = "/command" .. url.query { { "id", id } }, may_repeat = false }
end

--- Stops a command without waiting for the response.
---@param client opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param op string the method that the user called
---@param id string
---@param wait_on_close? boolean closing the client waits for the response
---@param after? fun() called after the response, when no process of the command runs any more; closing the client waits for it
function command_requests.stop(client, endpoint, op, id, wait_on_close, after)
  local request = command_requests.interrupt(op, id)
  if not after then return client.http:send_to_endpoint(endpoint, request, wait_on_close) end
  client.cleanup:spawn(function()
    client.http:call_endpoint(endpoint, request)
    after()
  end)
end

--- Returns whether execd does not know the command. Three routes report that in three ways.
---@param err opensandbox.Error
---@return boolean
function command_requests.is_unknown_command(err)
  local message = tostring(err.message)
  return err.kind == "http" and (message:find("command not found", 1, true) or message:find("no such session", 1, true)) ~= nil
end

--- Repeats a request until execd knows the command, which was perhaps started just now.
---@param op string
---@param registered_by number on the clock of core.now(): from then on execd must know the command
---@param request fun(): any, opensandbox.Error?
---@return any value
---@return opensandbox.Error? err
function command_requests.retry_until_registered(op, registered_by, request)
  return polling.poll(op, {}, function()
    local value, err = request()
    if value ~= nil then return value end
    if command_requests.is_unknown_command(err) and core.now() <= registered_by then return nil end
    return nil, err
  end)
end

--- Returns how a command ended, by its last status, as its event stream would have reported it.
---@param status opensandbox.CommandStatus
---@return { exit_code?: integer, signal?: string, duration?: number, error?: table }
function command_requests.outcome(status)
  local code = status.exit_code
  return {
    exit_code = code, duration = status.started_at and status.finished_at and status.finished_at - status.started_at or nil,
    signal = execution.signal(code, status.error or ""),
    error = code ~= 0 and { name = "CommandExecError", value = tostring(code), traceback = { status.error } } or nil,
  }
end

return command_requests
