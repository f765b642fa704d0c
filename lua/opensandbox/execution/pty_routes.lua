--- The routes of terminal sessions of execd: a client method for each. A session runs one command at a pseudo-terminal, or with pipes.
--
-- The command starts with the first WebSocket, and survives connections that are cut. execd keeps the last mebibyte of its output. A
-- WebSocket that is opened after its end starts the command a second time, so get_pty_session must be asked before. A session stays until it is
-- deleted. `sandbox:terminal()` respects all of that.

local create_rollback = require "opensandbox.http.create_rollback"
local errors = require "opensandbox.base.errors"
local json = require "opensandbox.base.json"
local numbers = require "opensandbox.base.numbers"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local url = require "opensandbox.base.url"

---@class (partial) opensandbox.Client
local pty_routes = {}

-- Adds the meaning for terminals to an error of execd.
local function explain(err)
  if errors.is_unknown_route(err) then
    err.kind, err.code = "state", "unsupported"
    err.message = "this execd has no terminals: that needs execd 1.0.10 or newer"
    err.hint = "Check the execd image that the server gives its sandboxes, and that the URL is that of an execd"
  elseif err.code == "CONTEXT_NOT_FOUND" then
    err.kind, err.hint = "state", "The terminal was deleted, or execd was restarted. Create another one"
  elseif err.code == "ALREADY_CONNECTED" then
    err.kind = "state"
    err.hint = "Another client has the terminal, or its connection was cut less than a minute ago. Use takeover = true"
  end
  return err
end

-- Reads an answer of two values: execd reports that it cannot make the directory, and returns a session all the same. Returns the session's id.
local function split_double_answer(err)
  local problem, id = tostring(err.message):match('^(%b{})%s*{"session_id":"([^"]+)"}%s*$')
  local decoded = err.status == 500 and problem and json.decode(problem)
  if type(decoded) ~= "table" or type(decoded.message) ~= "string" then return nil end
  err.message, err.code = decoded.message, type(decoded.code) == "string" and decoded.code or err.code
  return url.is_segment(id) and id or nil
end

local function session_path(op, id)
  return "/pty/" .. url.escape(options.path_segment(op, "the terminal session's id", id))
end

local create_options = { cwd = "nonempty string", command = "nonempty string", timeout = "seconds" }

--- The options of `client:create_pty_session`.
--- ```lua
--- local session_id = assert(client:create_pty_session(execd, { cwd = "/work", command = "top", timeout = 10 }))
--- ```
---@class opensandbox.PtySessionOpts
---@field cwd? string a directory, which is created if it is missing
---@field command? string for the shell; default: an interactive shell. execd before 1.0.19 ignores it, and starts the shell
---@field timeout? opensandbox.Duration for the call

--- Creates a terminal session: POST /pty. Nothing runs in it yet.
--- ```lua
--- local session_id = assert(client:create_pty_session(execd, { cwd = "/work", command = "top" }))
--- ```
---@param execd opensandbox.Endpoint|string
---@param opts? opensandbox.PtySessionOpts
---@return string? id
---@return opensandbox.Error? err
function pty_routes:create_pty_session(execd, opts)
  local op = self.op or "create_pty_session"
  opts = options.check(op, opts, create_options)
  paths.check_directory(op, opts.cwd)
  local request = { op = op, method = "POST", path = "/pty", json = { cwd = opts.cwd, command = opts.command },
    timeout = opts.timeout,
    decode = function(object)
      if not url.is_segment(object.session_id) then return nil, "session id" end
      return object.session_id
    end }
  create_rollback(self, request, function(id) return self:delete_pty_session_request(execd, id) end, { best_effort = true })
  local id, err = self.http:call_endpoint(execd, request)
  if id then return id end
  local useless = split_double_answer(err)
  if useless then self.http:send_detached(self:delete_pty_session_request(execd, useless), true) end
  return nil, explain(err)
end

--- A terminal session of execd.
--- ```lua
--- local session = assert(client:get_pty_session(execd, id))
--- print(session.id, session.running, session.output_offset)
--- ```
---@class opensandbox.PtySession
---@field id string execd's name for it
---@field running boolean false: before the first WebSocket, and after the command has ended
---@field output_offset integer bytes of output so far

--- Returns the state of a terminal session: GET /pty/{id}.
--- ```lua
--- print(assert(client:get_pty_session(execd, id)).running)
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout of the call, in seconds
---@return opensandbox.PtySession? session
---@return opensandbox.Error? err
function pty_routes:get_pty_session(execd, id, opts)
  local op = self.op or "get_pty_session"
  opts = options.check(op, opts, { timeout = "seconds" })
  local session, err = self.http:call_endpoint(execd, {
    op = op, method = "GET", path = session_path(op, id), timeout = opts.timeout,
    decode = function(object)
      if type(object.running) ~= "boolean" or not numbers.is_natural(object.output_offset) then return nil, "terminal session" end
      return { id = object.session_id, running = object.running, output_offset = object.output_offset }
    end,
  })
  return session, err and explain(err)
end

--- Internal: returns the prepared request that deletes a session, for deletes in the background.
---@param execd opensandbox.Endpoint|string
---@param id string
---@return table request
function pty_routes:delete_pty_session_request(execd, id)
  local op = "delete_pty_session"
  return self.http:endpoint_request(execd, { op = op, method = "DELETE", path = session_path(op, id), may_repeat = true })
end

--- Deletes a terminal session and kills its processes: DELETE /pty/{id}. If the session does not exist, that is a success.
--- ```lua
--- assert(client:delete_pty_session(execd, id))
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function pty_routes:delete_pty_session(execd, id, opts)
  local op = self.op or "delete_pty_session"
  return errors.ignore_absence(self.http:call_endpoint(execd, { op = op, timeout = options.timeout(op, opts),
    method = "DELETE", path = session_path(op, id), shielded = true }))
end

--- The options of `client:connect_pty_session`.
--- ```lua
--- local connection = assert(client:connect_pty_session(execd, id, {
---   since = 0, takeover = true, pipes = false, viewer = false, timeout = 10, idle_timeout = 120,
--- }))
--- ```
---@class opensandbox.ConnectPtyOpts
---@field since? integer offset of the output from which it is sent again, default 0
---@field takeover? boolean disconnect another client, which receives close code 4001 (execd 1.0.19)
---@field pipes? boolean start the command with pipes instead of a terminal: stdout and stderr are apart then
---@field viewer? boolean read only (execd 1.0.22)
---@field timeout? opensandbox.Duration until it is open, default: the client's
---@field idle_timeout? opensandbox.Duration without a byte of execd after which it ends, default 60

local OUTPUT_CHANNELS = "\1\2" -- stdout and stderr

local connect_options = {
  since = "natural", takeover = "boolean", pipes = "boolean", viewer = "boolean", timeout = "seconds", idle_timeout = "seconds",
}

--- Opens a WebSocket to a terminal session: GET /pty/{id}/ws. This starts the command unless it runs.
---
--- Binary messages begin with their channel: 0 input, 1 stdout, 2 stderr, 3 output from before (after 8 bytes with its offset). Output of one
--- channel that arrived in several messages is received as one. Text messages
--- are JSON, and the first one is `{"type":"connected"}`. Through the server's proxy, a refusal is a connection that is closed at once with
--- 1008 or 1011.
--- ```lua
--- local connection = assert(client:connect_pty_session(execd, id))
--- assert(connection:send("binary", "\0ls\r"))
--- print(connection:receive(5))
--- connection:close()
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string
---@param opts? opensandbox.ConnectPtyOpts
---@param news? table internal: as of websocket.open
---@return opensandbox.WebSocket? connection
---@return opensandbox.Error? err
function pty_routes:connect_pty_session(execd, id, opts, news)
  local op = self.op or "connect_pty_session"
  opts = options.check(op, opts, connect_options)
  local query = url.query {
    { "since", opts.since and opts.since > 0 and ("%d"):format(opts.since) or nil }, { "takeover", opts.takeover and "1" or nil },
    { "pty", opts.pipes and "0" or nil }, { "mode", opts.viewer and "viewer" or nil },
  }
  local connection, err = self.http:open_websocket(execd, { op = op, path = session_path(op, id) .. "/ws" .. query,
    timeout = opts.timeout, idle_timeout = opts.idle_timeout, channels = OUTPUT_CHANNELS, news = news })
  if connection then return connection end
  if err.status == 401 then
    err.hint = err.hint .. ". Ingress gateways from before 15 June 2026 do not pass X-EXECD-ACCESS-TOKEN on with WebSockets: "
      .. "update the gateway, or use use_server_proxy = true"
  end
  return nil, explain(err)
end

return pty_routes
