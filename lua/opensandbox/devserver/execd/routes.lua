--- The execd API of a sandbox: the check of the token, `/ping`, the command routes, and the way to the other routes.

local uv = require "luv"
local each = require "opensandbox.base.each"
local json = require "opensandbox.base.json"
local code = require "opensandbox.devserver.execd.code"
local directories = require "opensandbox.devserver.execd.directories"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local files = require "opensandbox.devserver.execd.files"
local identity = require "opensandbox.devserver.execd.identity"
local go_json = require "opensandbox.devserver.execd.go_json"
local isolated_routes = require "opensandbox.devserver.execd.isolated_routes"
local metrics = require "opensandbox.devserver.execd.metrics"
local ports = require "opensandbox.lifecycle.ports"
local proxy = require "opensandbox.devserver.http.proxy"
local router = require "opensandbox.devserver.http.router"
local run_request = require "opensandbox.devserver.execd.run_request"
local sessions = require "opensandbox.devserver.execd.sessions"
local terminal_routes = require "opensandbox.devserver.execd.terminal_routes"
local timer = require "opensandbox.devserver.base.timer"
local download = require "opensandbox.devserver.execd.download"
local upload = require "opensandbox.devserver.execd.upload"
local query = require "opensandbox.devserver.http.query"
local utf8 = require "opensandbox.base.utf8"

local MAX_BODY_SIZE = 64 * 1024 * 1024
local MAX_SIZED = 2048 -- bytes that Go's server collects before it begins a chunked response
local INTERRUPT_TIMEOUT = 3000 -- milliseconds between SIGTERM and SIGKILL

local execd = {}
local forward

local function invalid(response, message)
  response:fail(400, "INVALID_REQUEST_BODY", message)
end

local REQUEST = "RunCommandRequest"
local FORMAT, RULE = "error parsing request, MAYBE invalid body format. ", "invalid request, validation error "
local FIELDS = {
  { "command", "string" }, { "argv", "list" }, { "cwd", "string" }, { "background", "boolean" }, { "timeout", "int64" },
  { "uid", "uint32" }, { "gid", "uint32" }, { "envs", "map" },
}

-- Returns the problem of the body of POST /command. `argv` is a feature of the execd of September 2026.
local function problem_of(body)
  local wrong = go_json.type_problem(body, REQUEST, FIELDS)
  if wrong then return FORMAT .. wrong end
  local has_command = (body.command or "") ~= ""
  local rule = not has_command and not body.argv and go_json.rule_problem(REQUEST, "Command", "required")
    or has_command and body.argv and "exactly one of command and argv is allowed"
    or body.argv and (body.argv[1] or "") == "" and "argv requires a non-empty executable"
    or body.argv and table.concat(body.argv):find("\0", 1, true) and "argv must not contain NUL"
    or (body.timeout or 0) < 0 and go_json.rule_problem(REQUEST, "TimeoutMs", "gte")
    or body.gid and not body.uid and "uid is required when gid is provided"
  if rule then return RULE .. rule end
end

local routes = {}

routes["GET /ping"] = function(call)
  call.response:empty(200)
end

routes["POST /command"] = function(call)
  call:json_body("object", function(body)
    local problem = problem_of(body)
    if problem then return invalid(call.response, problem) end
    local cwd
    cwd, problem = run_request.directory(call.sandbox, body.cwd)
    if not cwd then return invalid(call.response, RULE .. problem) end
    run_request.command(call, {
      command = body.command, argv = body.argv, background = body.background, timeout = body.timeout, uid = body.uid,
      gid = body.gid or (body.uid and uv.getuid() == 0 and filesystem.primary_group(body.uid)) or nil,
      envs = body.envs, cwd = cwd,
    })
  end)
end

routes["GET /command/status/{id}"] = function(call)
  local command = call.sandbox.commands:get(call.parameters.id)
  if not command then
    return call.response:fail(404, "INVALID_REQUEST_BODY", "command not found: " .. call.parameters.id)
  end
  call.response:json(200, command:status())
end

routes["GET /command/{id}/logs"] = function(call)
  local id = call.parameters.id
  local command = call.sandbox.commands:get(id)
  if not command then return invalid(call.response, "command not found: " .. id) end
  if not command.background then
    return invalid(call.response, ("command %s is not running in background"):format(id))
  end
  local cursor = tonumber((call:parameter("cursor") or ""):match("^[+-]?%d+$")) or 0
  if cursor < 0 then return invalid(call.response, ("invalid cursor: %d"):format(cursor)) end
  run_request.tail(call, command.files[1], cursor, "Execd-Commands-Tail-Cursor")
end

-- Interrupts a command, or the code of a context. For a session, it is the same as DELETE of the session.
routes["DELETE /command"] = function(call)
  local response, id = call.response, call:required("id")
  if not id then return end
  if call.sandbox.contexts:interrupt(id) or call.sandbox.sessions:close(id) then return response:empty(200) end
  local command = call.sandbox.commands:get(id)
  if not command or not command.running then
    local why = command and ("command session %s is not running"):format(id) or "no such session"
    return response:fail(500, "RUNTIME_ERROR", "error interruptting code context. " .. why)
  end
  command:signal("sigterm")
  local deadline = timer.after(INTERRUPT_TIMEOUT, function() command:signal("sigkill") end)
  command:when_ended(function()
    deadline:close()
    response:empty(200)
  end)
end

routes["DELETE /code"] = routes["DELETE /command"]

local rooms = {
  files, directories, download, upload.routes, metrics, sessions.routes, code.routes, isolated_routes, terminal_routes,
}
for _, more in ipairs(rooms) do
  for route, handler in each(more) do routes[route] = handler end
end
local all = router.new(routes)

local Call = {}
Call.__index = Call

--- Returns the first value of a query parameter.
function Call:parameter(name)
  return self.query[name] and self.query[name][1]
end

--- Returns the same for a required parameter. A request without it is answered here.
function Call:required(name)
  local value = self:parameter(name)
  if value and value ~= "" then return value end
  self.response:fail(400, "MISSING_QUERY", ("missing query parameter '%s'"):format(name))
end

--- Answers with an error of the file routes. A named pipe has no answer.
---@param problem table
---@param words? string before the message
function Call:fail(problem, words)
  if filesystem.is_pipe(problem) then return end
  if problem.code == "ENOENT" and not words then
    self.response:fail(404, "FILE_NOT_FOUND", "file not found. " .. problem.message)
  else
    self.response:fail(500, "RUNTIME_ERROR", (words or "error accessing file:") .. " " .. problem.message)
  end
end

--- Reads the body as JSON of one kind. Any other body is answered here.
---@param kind "object"|"array"
---@param callback fun(value: table)
---@param options? table `default` stands for an empty body; `prefix` comes before messages; `go_type` is the name of the array's type
function Call:json_body(kind, callback, options)
  options = options or {}
  self.request:body(MAX_BODY_SIZE, function(text)
    local value, problem = json.decode(utf8.replace_invalid(text)) -- Go's decoder replaces invalid bytes, too
    local opening = text:match("^%s*(.?)")
    if opening == "" then
      if options.default then return callback(options.default) end
      problem = "EOF"
    elseif value == nil then
      -- Go distinguishes a body that ends early from an invalid one.
      problem = (problem:find("T_END", 1, true) or problem:find("end", 1, true)) and "unexpected EOF" or problem
    elseif opening ~= (kind == "object" and "{" or "[") then
      problem = ("json: cannot unmarshal %s into Go value of type %s"):format(
        opening == "{" and "object" or opening == "[" and "array" or type(value), options.go_type or "map[string]interface {}")
    end
    if problem then return invalid(self.response, (options.prefix or FORMAT) .. problem) end
    callback(value)
  end)
end

--- Reads a body of permissions by path, and applies each one.
---@param apply fun(path: string, permission: table): any, table?, string? returns nil and the arguments of `fail` on failure
---@param fail? fun(call: table, problem: table) default `Call.fail`
function Call:permissions(apply, fail)
  fail = fail or self.fail
  self:json_body("object", function(items)
    for _, permission in each(items) do
      local problem = type(permission) ~= "table" and go_json.value_problem(permission, "model.Permission")
        or go_json.type_problem(permission, "Permission", filesystem.PERMISSION_FIELDS)
      if problem then return invalid(self.response, FORMAT .. problem) end
    end
    for path, permission in each(items) do
      local ok, problem, words = apply(path, permission)
      if not ok then return fail(self, problem, words) end
    end
    self.response:empty(200)
  end)
end

-- execd's own proxy, `/proxy/{port}/...`. It forwards any method; the query stays as it is.
--
-- Unlike execd's, it asks for no token: execd and the sidecar ask for theirs, and any other port is one of this machine, which
-- every program of this machine can reach anyway.
function forward(sandbox, port, rest, request, response)
  local function fail(status, message)
    local headers = { { "Content-Type", "text/plain; charset=utf-8" }, { "X-Content-Type-Options", "nosniff" } }
    response:send(status, headers, message .. "\n")
  end
  if port == "" then return fail(400, "port is required") end
  local path, number = proxy.reencode(rest), tonumber(port:match("^%d+$")) or 0
  if number == ports.EXECD then return execd.handle(sandbox, path, request, response) end
  request.path = path
  proxy.add_forwarded_headers(request)
  if number == ports.EGRESS and sandbox.egress then return sandbox.egress:handle(request, response) end
  proxy.forward(request, response, number == ports.EGRESS and 0 or number, function() fail(502, "Bad Gateway") end)
end

--- Answers a request to a sandbox's execd.
---@param sandbox table
---@param path string of the route
---@param request table
---@param response table
function execd.handle(sandbox, path, request, response)
  response.json_type, response.max_sized = "application/json; charset=utf-8", MAX_SIZED
  local port, rest = path:match("^/proxy/([^/]*)(.*)$")
  if port then return forward(sandbox, port, rest, request, response) end
  if request.headers["x-execd-access-token"] ~= sandbox.token then
    return response:json(401, { error = "Unauthorized: invalid or missing header X-EXECD-ACCESS-TOKEN" })
  end
  local refusal
  path, refusal = identity.strip(sandbox, path)
  if refusal then return response:fail(refusal.status, refusal.code, refusal.message) end
  local handler, parameters = all:find(request.method, path)
  if not handler then return response:send(404, { { "Content-Type", "text/plain" } }, "404 page not found") end
  handler(setmetatable({
    sandbox = sandbox, request = request, response = response, parameters = parameters,
    query = query.values(request.query),
  }, Call))
end

return execd
