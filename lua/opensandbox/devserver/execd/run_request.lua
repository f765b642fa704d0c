--- What the routes that run something share: what is wrong with their bodies, the directory they run in, and running a command.

local uv = require "luv"
local errno = require "opensandbox.devserver.base.errno"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local frames = require "opensandbox.devserver.execd.events"
local stream = require "opensandbox.devserver.execd.event_stream"

local run = {}

local kinds = {}

function kinds.string(value) return type(value) == "string" end
function kinds.boolean(value) return type(value) == "boolean" end
function kinds.object(value) return type(value) == "table" end
function kinds.integer(value) return type(value) == "number" and value % 1 == 0 end
function kinds.unsigned(value) return kinds.integer(value) and value >= 0 and value < 2 ^ 32 end

function kinds.strings(value)
  if type(value) ~= "table" then return false end
  for name, item in pairs(value) do
    if type(name) ~= "string" or type(item) ~= "string" then return false end
  end
  return true
end

function kinds.list(value)
  if type(value) ~= "table" then return false end
  for name, item in pairs(value) do
    if type(name) ~= "number" or type(item) ~= "string" then return false end
  end
  return true
end

--- What is wrong with the types of a body's fields; nil when nothing is.
-- @param structure the name that execd has for such a body
-- @param fields pairs of a name and a kind: string, boolean, object, integer, unsigned, strings (a map), list (of strings)
function run.type_problem(body, structure, fields)
  for _, field in ipairs(fields) do
    local name, kind = field[1], field[2]
    if body[name] ~= nil and not kinds[kind](body[name]) then
      return ("json: cannot unmarshal %s into Go struct field %s.%s"):format(type(body[name]), structure, name)
    end
  end
end

--- What execd says of a field that breaks a rule.
function run.rule_problem(structure, field, rule)
  return ("Key: '%s.%s' Error:Field validation for '%s' failed on the '%s' tag"):format(structure, field, field, rule)
end

--- The working directory as a resolved path, or what is wrong with it.
-- @param envs variables of the request, for `$NAME` in the path
function run.directory(sandbox, cwd, envs)
  if (cwd or "") == "" then return sandbox.paths:resolve("/") end
  local expanded, problem = sandbox.paths:expand(cwd, envs)
  if not expanded then return nil, problem.message end
  local place, code = sandbox.paths:resolve(expanded)
  local stat = place and uv.fs_stat(place.path)
  if not stat then
    local text = errno.text(code or "ENOENT")
    return nil, ("working directory does not exist: %s: stat %s: %s"):format(cwd, expanded, text)
  elseif stat.type ~= "directory" then
    return nil, "working directory is not a directory: " .. cwd
  end
  return place
end

--- The same for the directory of something that lasts, which is made when it is not there.
function run.make_directory(sandbox, cwd)
  if (cwd or "") == "" then return sandbox.paths:resolve("/") end
  local made, problem = filesystem.make_all(sandbox, cwd, 511)
  if made == nil then return nil, problem.message end
  return run.directory(sandbox, cwd)
end

--- Answers with what a file holds from a byte on, and where it ends; one that is not there yet is empty.
-- @param header the name of the header that says where
-- @param limit how many bytes at most; all of them when absent
function run.tail(call, path, cursor, header, limit)
  local fd, problem, code = nil, nil, "ENOENT"
  if path then fd, problem, code = uv.fs_open(path, "r", 0) end
  if not fd and code ~= "ENOENT" then return call.response:fail(500, "RUNTIME_ERROR", problem) end
  local length = math.min(math.max(0, (fd and uv.fs_fstat(fd).size or 0) - cursor), limit or math.huge)
  call.response:send_file(200, {
    { "Content-Type", "text/plain; charset=utf-8" }, { header, ("%.0f"):format(cursor + length) },
    { "Content-Length", ("%.0f"):format(length) },
  }, fd, cursor, length)
end

--- Starts a command and answers with its stream.
-- @param request `command` or `argv`, `background`, `timeout`, `uid`, `gid`, `envs`; `cwd` is a resolved path
-- @param grace how long the stream stays open after the end; the sandbox's own when absent
function run.command(call, request, grace)
  local sandbox = call.sandbox
  local command, reason, id = sandbox.commands:start(request)
  local events = stream.new(call.response, sandbox, command and command.id or id)
  events.grace = grace or events.grace
  if not command and request.background then
    events:fail(reason)
  elseif not command then
    events:finish { frames.failure(reason, reason) }
  elseif request.background then
    events:finish { frames.complete() }
  else
    events:follow(command)
  end
end

return run
