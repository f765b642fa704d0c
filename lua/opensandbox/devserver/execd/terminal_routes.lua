--- The routes of terminal sessions.

local go_json = require "opensandbox.devserver.execd.go_json"
local json = require "opensandbox.base.json"
local run_request = require "opensandbox.devserver.execd.run_request"
local terminal = require "opensandbox.devserver.execd.terminal"
local terminal_client = require "opensandbox.devserver.execd.terminal_client"

local FORMAT = "error parsing request: "
local FIELDS = { { "cwd", "string" }, { "command", "string" } }

local routes = {}

routes["POST /pty"] = function(call)
  call:json_body("object", function(body)
    local sandbox, response = call.sandbox, call.response
    local problem = go_json.type_problem(body, "CreatePTYSessionRequest", FIELDS)
    if problem then return response:fail(400, "INVALID_REQUEST_BODY", FORMAT .. problem) end
    local cwd
    cwd, problem = run_request.make_directory(sandbox, body.cwd)
    local session = terminal.new(sandbox, {
      command = body.command ~= "" and body.command or nil, cwd = cwd or sandbox.paths:resolve("/"),
      loses_output = sandbox.loses_output,
    })
    sandbox.terminals[session.id] = session
    if cwd then return response:json(201, { session_id = session.id }) end
    -- execd continues after this error, so that its response has two values.
    local message = "error creating pty session: error creating PTY session work directory: " .. problem
    response:json(500, { code = "RUNTIME_ERROR", message = message }, json.encode { session_id = session.id })
  end, { default = {}, prefix = FORMAT })
end

-- Adds a route of a session. Its handler receives the session.
local function route(method, path, handler)
  routes[method .. " /pty/{id}" .. path] = function(call)
    local id = call.parameters.id
    local session = call.sandbox.terminals[id]
    if session then return handler(call, session) end
    call.response:fail(404, "CONTEXT_NOT_FOUND", ("pty session %s not found"):format(id))
  end
end

route("GET", "", function(call, session)
  call.response:json(200, { session_id = session.id, running = session:is_running(), output_offset = session.buffer.total })
end)

route("DELETE", "", function(call, session)
  call.sandbox.terminals[session.id] = nil
  session:kill(function() call.response:empty(200) end) -- no process of the session may act after the answer
end)

route("GET", "/ws", function(call, session)
  local function conflict(code, message) call.response:fail(409, code, message) end
  local is_viewer = call:parameter("mode") == "viewer"
  if is_viewer and not session:is_running() then
    return conflict("VIEWER_REQUIRES_RUNNING_SESSION",
      ("pty session %s must be running before a viewer can attach"):format(session.id))
  elseif not is_viewer and session.holder and call:parameter("takeover") ~= "1" then
    return conflict("ALREADY_CONNECTED", "another client is already connected to pty session " .. session.id)
  end
  terminal_client.connect(session, call.request, call.response, {
    role = is_viewer and "viewer" or "holder", has_pty = call:parameter("pty") ~= "0",
    since = math.max(0, tonumber((call:parameter("since") or ""):match("^[+-]?%d+$")) or 0),
  })
end)

return routes
