--- `GET /files/download`.

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
  local fd
  fd, problem = filesystem.call("open", filesystem.open, place, false, "r", 0)
  if not fd then return call:fail(problem) end
  file_response.send(call, {
    fd = fd, name = place.named:match("[^/]*$"), is_proc = place.inside:find("^/proc/") ~= nil,
  }, offset, limit)
end

return routes
