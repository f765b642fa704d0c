--- What the server tells about a sandbox that does not work: what its entrypoint has written, and what became of it.

local uv = require "luv"
local json = require "opensandbox.base.json"
local time = require "opensandbox.devserver.base.time"
local validation = require "opensandbox.devserver.http.validation"

local LOG_LIMIT = 1024 * 1024
local TEXT = "text/plain; charset=utf-8"

-- The end of the entrypoint's log, and whether something is missing before it.
local function log_of(sandbox)
  local fd = uv.fs_open(sandbox.directory .. "/entrypoint.log", "r", 0)
  if not fd then return "", false end
  local size = uv.fs_fstat(fd).size
  local offset = math.max(0, size - LOG_LIMIT)
  local text = uv.fs_read(fd, LOG_LIMIT, offset) or ""
  uv.fs_close(fd)
  return text, offset > 0
end

-- The life of a sandbox, one line for each event.
local function events_of(sandbox)
  local lines = {}
  local function add(at, kind, message)
    lines[#lines + 1] = ("%s %s %s\n"):format(at and time.format(at[1], at[2], 6) or "-", kind, message)
  end
  add(sandbox.created, "created", "entrypoint: " .. table.concat(sandbox.request.entrypoint, " "))
  if sandbox.paused then add(nil, "paused", "all processes are stopped") end
  if sandbox.exit then add(sandbox.exit.at, "exited", ("exit code %d"):format(sandbox.exit.code)) end
  if sandbox.expires then add(sandbox.expires, "expires", "then it is deleted") end
  return table.concat(lines), false
end

-- The last `count` lines of a text.
local function last_lines(text, count)
  local lines = {}
  for line in text:gmatch("[^\n]*\n?") do
    if line ~= "" then lines[#lines + 1] = line end
  end
  return table.concat(lines, "", math.max(1, #lines - count + 1))
end

local KINDS = {
  logs = { read = log_of, scopes = { container = true, all = true }, limit = "tail", default = 100, most = 10000 },
  events = {
    read = events_of, scopes = { runtime = true, lifecycle = true, all = true }, limit = "limit", default = 50, most = 500,
  },
}

local routes = {}

for name, kind in pairs(KINDS) do
  routes["GET /sandboxes/{id}/diagnostics/" .. name] = function(call)
    local response, scope, entries = call.response, call:parameter("scope"), {}
    local limit = validation.integer(entries, { "query", kind.limit }, call:parameter(kind.limit) or kind.default, 1, kind.most)
    if entries[1] then return call:answer(validation.unprocessable(entries)) end
    if scope and not kind.scopes[scope] then
      return response:fail(400, "DIAGNOSTICS_SCOPE_UNSUPPORTED", ("Scope '%s' is not supported for %s."):format(scope, name))
    end
    local sandbox = call:sandbox()
    if not sandbox then return end
    local text, truncated = kind.read(sandbox)
    if not scope then
      return response:send(200, { { "Content-Type", TEXT }, { "Deprecation", "true" } }, last_lines(text, limit))
    end
    response:json(200, {
      sandboxId = sandbox.id, kind = name, scope = scope, delivery = "inline", contentType = TEXT, content = text,
      contentLength = #text, truncated = truncated,
      warnings = scope == "all" and json.array { "The development server has no further sources." } or nil,
    })
  end
end

return routes
