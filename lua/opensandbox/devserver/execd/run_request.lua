--- The common part of the routes that run something: the working directory, and running a command.

local uv = require "luv"
local errno = require "opensandbox.devserver.base.errno"
local event_stream = require "opensandbox.devserver.execd.event_stream"
local events = require "opensandbox.devserver.execd.events"
local filesystem = require "opensandbox.devserver.execd.filesystem"

local run_request = {}

--- Returns the working directory of a request as a resolved path; nil and its problem.
---@param sandbox table
---@param cwd? string default `/`
---@return table? place
---@return string? problem
function run_request.directory(sandbox, cwd)
  if (cwd or "") == "" then return sandbox.paths:resolve("/") end
  local expanded, problem = sandbox.paths:expand(cwd)
  if not expanded then return nil, ("cannot resolve working directory %q: %s"):format(cwd, problem.message) end
  local place, code = sandbox.paths:resolve(expanded)
  local stat = place and uv.fs_stat(place.path)
  if not stat then
    local text = errno.text(code or "ENOENT")
    return nil, ("working directory does not exist: %s: stat %s: %s"):format(cwd, expanded, text)
  elseif stat.type ~= "directory" then
    return nil, "working directory path is not a directory: " .. cwd
  end
  return place
end

--- Does the same for the directory of a session or a context, and creates it when it is missing.
function run_request.make_directory(sandbox, cwd)
  if (cwd or "") == "" then return sandbox.paths:resolve("/") end
  local made, problem = filesystem.make_all(sandbox, cwd, 511)
  if made == nil then return nil, problem.message end
  return run_request.directory(sandbox, cwd)
end

--- Answers with the bytes of a file from a position on, and with its end in a header. A missing file is empty.
---@param call table
---@param path? string on this machine
---@param cursor integer
---@param header string the name of the header
---@param limit? integer bytes at most
function run_request.tail(call, path, cursor, header, limit)
  local fd, problem, code = nil, nil, "ENOENT"
  if path then fd, problem, code = uv.fs_open(path, filesystem.READ_ONLY, 0) end
  if not fd and code ~= "ENOENT" then return call.response:fail(500, "RUNTIME_ERROR", problem) end
  local length = math.min(math.max(0, (fd and uv.fs_fstat(fd).size or 0) - cursor), limit or math.huge)
  call.response:send_file(200, {
    { "Content-Type", "text/plain; charset=utf-8" }, { header, ("%.0f"):format(cursor + length) },
    { "Content-Length", ("%.0f"):format(length) },
  }, fd, cursor, length)
end

--- Starts a command and answers with its stream.
---@param call table
---@param request table `command` or `argv`, `background`, `timeout`, `uid`, `gid`, `envs`; `cwd` is a resolved path
---@param grace? integer milliseconds that the stream stays open after the end; default the sandbox's
function run_request.command(call, request, grace)
  local sandbox = call.sandbox
  local command, problem, id = sandbox.commands:start(request)
  local stream = event_stream.new(call.response, sandbox, command and command.id or id)
  stream.grace = grace or stream.grace
  if not command and request.background then
    stream:fail("error running commands failed to start commands: " .. problem)
  elseif not command then
    stream:finish { events.failure(problem, problem) }
  elseif request.background then
    stream:finish { events.complete() }
  else
    stream:follow(command)
  end
end

return run_request
