--- The routes about a sandbox that does not work: the log of its entrypoint, and its events.

local uv = require "luv"
local each = require "opensandbox.base.each"
local go_text = require "opensandbox.devserver.execd.go_text"
local json = require "opensandbox.base.json"
local validation = require "opensandbox.devserver.http.validation"

local MAX_LOG_SIZE = 1024 * 1024
local TEXT = "text/plain; charset=utf-8"
local RULE = ("="):rep(72)
local THIN_RULE = ("-"):rep(40)

-- Returns the end of the entrypoint's log, and whether something before it is left out.
local function log_of(sandbox)
  local fd = uv.fs_open(sandbox.directory .. "/entrypoint.log", "r", 0)
  if not fd then return "", false end
  local size = uv.fs_fstat(fd).size
  local offset = math.max(0, size - MAX_LOG_SIZE)
  local text = uv.fs_read(fd, MAX_LOG_SIZE, offset) or ""
  uv.fs_close(fd)
  return text, offset > 0
end

local function container_state(sandbox)
  return sandbox.exit and "exited" or sandbox.paused and "paused" or "running"
end

local function short_id(sandbox)
  return (sandbox.id:gsub("%-", ""):sub(1, 12))
end

-- Lines of a name, a colon and a value, which begin in the same column.
local function columns(width, pairs_list)
  local lines = {}
  for index, pair in ipairs(pairs_list) do
    lines[index] = (pair[1] .. ":" .. (" "):rep(width)):sub(1, width) .. tostring(pair[2])
  end
  return table.concat(lines, "\n")
end

local function events_of(sandbox)
  local list = {
    { "Container", ("%s (sandbox-%s)"):format(short_id(sandbox), sandbox.id) }, { "Status", container_state(sandbox) },
    { "Created", go_text.instant(sandbox.created) }, { "Started", go_text.instant(sandbox.started) }, { "Health", "" },
  }
  if sandbox.exit then
    table.insert(list, 5, { "Finished", go_text.instant(sandbox.exit.at) })
    table.insert(list, 6, { "Exit Code", sandbox.exit.code })
  end
  return columns(12, list), false
end

local function inspection_of(sandbox)
  local exit, request = sandbox.exit, sandbox.request
  return columns(16, {
    { "Container ID", short_id(sandbox) }, { "Name", "sandbox-" .. sandbox.id },
    { "Image", request.image and request.image.uri or "snapshot " .. request.snapshotId }, { "Status", container_state(sandbox) },
    { "Running", exit and "False" or "True" }, { "Paused", sandbox.paused and "True" or "False" }, { "OOMKilled", "False" },
    { "Exit Code", exit and exit.code or 0 }, { "Started At", go_text.instant(sandbox.started) },
    { "Finished At", exit and go_text.instant(exit.at) or go_text.ZERO_TIME },
  }) .. "\n\nNetwork:\n  the one of this machine\n\nFiles:\n  " .. sandbox.root .. "\n"
end

-- The last `count` lines of a text.
local function last_lines(text, count)
  local lines = {}
  for line in text:gmatch("[^\n]*\n?") do
    if line ~= "" then lines[#lines + 1] = line end
  end
  return table.concat(lines, "", math.max(1, #lines - count + 1))
end

local function send_text(response, text, headers)
  local list = { { "Content-Type", TEXT } }
  for _, pair in ipairs(headers or {}) do list[#list + 1] = pair end
  response:send(200, list, text)
end

local KINDS = {
  logs = {
    read = log_of, scopes = { "container", "all" }, sources = "sandbox container logs", limit = "tail", default = 100, most = 10000,
  },
  events = {
    read = events_of, scopes = { "runtime", "all" }, sources = "runtime events", limit = "limit", default = 50, most = 500,
  },
}

local routes = {}

for name, kind in each(KINDS) do
  routes["GET /sandboxes/{id}/diagnostics/" .. name] = function(call)
    local response, scope, entries = call.response, call:parameter("scope"), {}
    local limit = validation.integer(entries, { "query", kind.limit }, call:parameter(kind.limit) or kind.default, 1, kind.most)
    if entries[1] then return call:answer(validation.unprocessable(entries)) end
    if scope and scope ~= kind.scopes[1] and scope ~= "all" then
      local message = "Unsupported %s diagnostics scope '%s'. Supported scopes: %s."
      return response:fail(400, "DIAGNOSTICS_SCOPE_UNSUPPORTED", message:format(name, scope, table.concat(kind.scopes, ", ")))
    end
    local sandbox = call:sandbox()
    if not sandbox then return end
    local text, truncated = kind.read(sandbox)
    if not scope then return send_text(response, last_lines(text, limit), { { "Deprecation", "true" } }) end
    response:json(200, {
      sandboxId = sandbox.id, kind = name, scope = scope, delivery = "inline", contentType = TEXT, content = text,
      contentLength = #text, truncated = truncated,
      warnings = scope == "all"
        and json.array { ("The current backend only contributes %s to the all scope."):format(kind.sources) } or nil,
    })
  end
end

routes["GET /sandboxes/{id}/diagnostics/inspect"] = function(call)
  local sandbox = call:sandbox()
  if sandbox then send_text(call.response, inspection_of(sandbox)) end
end

routes["GET /sandboxes/{id}/diagnostics/summary"] = function(call)
  local sandbox = call:sandbox()
  if not sandbox then return end
  local parts = { RULE, "SANDBOX DIAGNOSTICS SUMMARY", "Sandbox ID: " .. sandbox.id, RULE, "" }
  local events, log = events_of(sandbox), log_of(sandbox)
  for _, part in ipairs { { "INSPECT", inspection_of(sandbox) }, { "EVENTS", events }, { "LOGS", log } } do
    for _, line in ipairs { THIN_RULE, part[1], THIN_RULE, part[2], "" } do parts[#parts + 1] = line end
  end
  send_text(call.response, table.concat(parts, "\n"))
end

return routes
