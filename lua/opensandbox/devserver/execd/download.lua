--- `GET /files/download`.

local uv = require "luv"
local errno = require "opensandbox.devserver.base.errno"
local file_response = require "opensandbox.devserver.execd.file_response"
local filesystem = require "opensandbox.devserver.execd.filesystem"

local routes = {}

routes["GET /files/download"] = function(call)
  local path = call:required("path")
  if not path then return end
  local place, problem = filesystem.locate(call.sandbox, path, false, "open")
  if not place then return call:fail(problem) end
  local offset, limit = file_response.line_range(call)
  if not offset and limit then return call.response:fail(400, "INVALID_REQUEST_BODY", limit) end
  local function fail(code) call:fail(errno.new(code, "open", place.named)) end
  local stat, _, code = uv.fs_stat(place.path)
  if not stat then return fail(code) end
  file_response.send(call, {
    path = place.path, name = place.named:match("[^/]*$"), stat = stat, is_proc = place.inside:find("^/proc/") ~= nil,
  }, offset, limit, fail)
end

return routes
