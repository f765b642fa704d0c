--- The execd API of one sandbox: the token check, `/ping`, the command routes, and the way to the file routes.

local uv = require "luv"
local json = require "opensandbox.base.json"
local code = require "opensandbox.devserver.execd.code"
local directories = require "opensandbox.devserver.execd.directories"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local files = require "opensandbox.devserver.execd.files"
local isolated = require "opensandbox.devserver.execd.isolated"
local metrics = require "opensandbox.devserver.execd.metrics"
local proxy = require "opensandbox.devserver.http.proxy"
local router = require "opensandbox.devserver.http.router"
local run = require "opensandbox.devserver.execd.run_request"
local sessions = require "opensandbox.devserver.execd.sessions"
local timer = require "opensandbox.devserver.base.timer"
local transfer = require "opensandbox.devserver.execd.download"
local upload = require "opensandbox.devserver.execd.upload"
local url = require "opensandbox.devserver.base.url"
local utf8 = require "opensandbox.base.utf8"

local INTERRUPT_PATIENCE = 3000   -- milliseconds between asking a command to end and killing it

local execd = {}

local function invalid(response, message)
  response:fail(400, "INVALID_REQUEST_BODY", message)
end

local REQUEST, NAME = "RunCommandRequest", "invalid request, validation error "

-- What is wrong with the body of POST /command; nil when nothing is.
local function problem_of(body)
  local wrong = run.type_problem(body, REQUEST, {
    { "command", "string" }, { "argv", "list" }, { "cwd", "string" }, { "background", "boolean" }, { "timeout", "integer" },
    { "uid", "unsigned" }, { "gid", "unsigned" }, { "envs", "strings" },
  })
  if wrong then return "error parsing request, MAYBE invalid body format. " .. wrong end
  local has_command = (body.command or "") ~= ""
  local rule = not has_command and not body.argv and run.rule_problem(REQUEST, "Command", "required")
    or has_command and body.argv and "exactly one of command and argv is allowed"
    or body.argv and (body.argv[1] or "") == "" and "argv requires a non-empty executable"
    or body.argv and table.concat(body.argv):find("\0", 1, true) and "argv must not contain NUL"
    or (body.timeout or 0) < 0 and run.rule_problem(REQUEST, "Timeout", "gte")
    or body.gid and not body.uid and "uid is required when gid is provided"
  if rule then return NAME .. rule end
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
    cwd, problem = run.directory(call.sandbox, body.cwd, body.envs)
    if not cwd then return invalid(call.response, NAME .. problem) end
    run.command(call, {
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
  run.tail(call, command.files[1], cursor, "Execd-Commands-Tail-Cursor")
end

-- Interrupts a command, or what a context runs; closes a session, as DELETE of the session does.
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
  local deadline = timer.after(INTERRUPT_PATIENCE, function() command:signal("sigkill") end)
  command:when_ended(function()
    deadline:close()
    response:empty(200)
  end)
end

routes["DELETE /code"] = routes["DELETE /command"]

for _, more in ipairs { files, directories, transfer, upload, metrics, sessions.routes, code.routes, isolated.routes } do
  for route, handler in pairs(more) do routes[route] = handler end
end
local all = router.new(routes)

local Call = {}
Call.__index = Call

--- The first value of a query parameter.
function Call:parameter(name)
  return self.query[name] and self.query[name][1]
end

--- The same, with the answer to a call without it.
function Call:required(name)
  local value = self:parameter(name)
  if value and value ~= "" then return value end
  self.response:fail(400, "MISSING_QUERY", ("missing query parameter '%s'"):format(name))
end

--- Answers with an error of the file routes.
function Call:fail(problem, words)
  if problem.code == "ENOENT" and not words then
    self.response:fail(404, "FILE_NOT_FOUND", "file not found. " .. problem.message)
  else
    self.response:fail(500, "RUNTIME_ERROR", (words or "error accessing file:") .. " " .. problem.message)
  end
end

--- Reads the request's body as JSON of one kind, "object" or "array"; anything else is answered here.
-- @param or_nothing taken for a body that is empty
function Call:json_body(kind, callback, or_nothing)
  self.request:body(64 * 1024 * 1024, function(text)
    local value, problem = json.decode(utf8.replace_invalid(text))   -- as Go reads JSON
    local opening = text:match("^%s*(.?)")
    if opening == "" then
      if or_nothing then return callback(or_nothing) end
      problem = "EOF"
    elseif value == nil then
      -- Go tells a body that stops early from one that is wrong.
      problem = (problem:find("T_END", 1, true) or problem:find("end")) and "unexpected EOF" or problem
    elseif opening ~= (kind == "object" and "{" or "[") then
      problem = "json: cannot unmarshal the value into a Go " .. (kind == "object" and "struct or map" or "slice")
    end
    if problem then
      return invalid(self.response, "error parsing request, MAYBE invalid body format. " .. problem)
    end
    callback(value)
  end)
end

--- Reads a body of permissions by path and applies each; `apply` returns what `fail` takes when it fails.
function Call:permissions(apply)
  self:json_body("object", function(items)
    for _, permission in pairs(items) do
      if not filesystem.is_permission(permission) then
        return invalid(self.response,
          "error parsing request, MAYBE invalid body format. json: cannot unmarshal a member of another type")
      end
    end
    for path, permission in pairs(items) do
      local ok, problem, words = apply(path, permission)
      if not ok then return self:fail(problem, words) end
    end
    self.response:empty(200)
  end)
end

--- Answers a request to a sandbox's execd.
-- @param path the request's path without what leads to this sandbox
function execd.handle(sandbox, path, request, response)
  response.json_type = "application/json; charset=utf-8"
  if request.headers["x-execd-access-token"] ~= sandbox.token then
    return response:json(401, { error = "Unauthorized: invalid or missing header X-EXECD-ACCESS-TOKEN" })
  end
  local port, rest = path:match("^/proxy/([^/]*)(.*)$")
  if port then return proxy.serve(port, rest, request, response) end
  local handler, parameters = all:find(request.method, path)
  if not handler then return response:send(404, { { "Content-Type", "text/plain" } }, "404 page not found") end
  handler(setmetatable({
    sandbox = sandbox, request = request, response = response, parameters = parameters,
    query = url.query(request.query),
  }, Call))
end

return execd
