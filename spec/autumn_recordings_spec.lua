--- Every recorded answer of the services of autumn, decoded by the client: the method of its route receives the answer and returns the
--- right value, or the right error.
--
-- The answer itself says what is right: a field of a value is that of the JSON with its name in snake case, an instant is read by
-- another parser, the output of a stream is joined from its lines. Requests are not checked here, but in recordings_spec.lua.

local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local fault_server = require "spec.support.fault_server"
local recordings = require "spec.support.recordings"

local unpack = table.unpack or unpack -- luacheck: std max

local AREAS = { "lifecycle-1.1.1", "egress", "execd-aug", "isolated" }

local server
setup(function()
  server = fault_server.start [[
    return function(request, connection)
      local found = assert(recording(request.path:match("^/([%w.-]+/[%w-]+)/")))
      local response, headers = found.response, {}
      for _, pair in ipairs(response.headers) do
        local name = pair[1]:lower()
        if name ~= "content-length" and name ~= "transfer-encoding" then headers[#headers + 1] = pair end
      end
      connection:respond(response.status, headers, response.body)
    end
  ]]
end)
teardown(function() server:stop() end)

-- What is right ---------------------------------------------------------------------------------------------------------------

local function header(response, wanted)
  for _, pair in ipairs(response.headers) do
    if pair[1]:lower() == wanted then return pair[2] end
  end
end

local function snake_case(name)
  return (name:gsub("(%l)(%u)", "%1_%2"):lower())
end

local function is_leap(year) return year % 4 == 0 and year % 100 ~= 0 or year % 400 == 0 end

-- Unix seconds of an instant in UTC, counted year by year and month by month. Nil for any other text.
local function instant(text)
  local year, month, day, hour, minute, second = text:match("^(%d%d%d%d)-(%d%d)-(%d%d)T(%d%d):(%d%d):(%d%d%.?%d*)Z$")
  if not year then return nil end
  local days = 0
  for one = math.min(1970, tonumber(year)), math.max(1969, year - 1) do
    local length = is_leap(one) and 366 or 365
    days = days + (one < 1970 and -length or length)
  end
  local lengths = { 31, is_leap(tonumber(year)) and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
  for one = 1, month - 1 do days = days + lengths[one] end
  return (days + day - 1) * 86400 + hour * 3600 + minute * 60 + tonumber(second)
end

-- Names that the client has for fields of the services.
local RENAMED = { session_id = "id" }

-- Returns whether a value is the one that a JSON text stands for.
local function is_equal(value, expected)
  local at = type(value) == "number" and type(expected) == "string" and instant(expected)
  if at then return math.abs(value - at) < 1e-4 end
  return value == expected
end

-- Adds to a list which fields of the JSON a value does not have. Those in `left` have another form in the client, or none.
local function compare(value, wire, where, problems, left)
  for name, expected in pairs(wire) do
    local own = type(name) == "string" and (RENAMED[name] or snake_case(name)) or name
    local actual = type(value) == "table" and value[own]
    if not (left and left[own]) then
      if type(expected) == "table" then
        compare(actual, expected, where .. "." .. own, problems, left)
      elseif not is_equal(actual, expected) then
        problems[#problems + 1] = ("%s.%s: %s is not %s"):format(where, own, tostring(actual), tostring(expected))
      end
    end
  end
end

-- A check of a value that has the fields of the JSON, apart from some.
local function like_json(left, part)
  return function(value, response)
    local wire, problems = json.decode(response.body), {}
    compare(value, part and wire[part] or wire, "", problems, left)
    assert.same({}, problems)
  end
end

local function is_true(value) assert.is_true(value) end

-- The events of a stream.
local function events(response)
  local list = {}
  for line in response.body:gmatch("[^\n]+") do list[#list + 1] = json.decode(line) end
  return list
end

-- A check of a run: its output, and how it ended.
local function like_stream(value, response)
  local output, code, first = { stdout = {}, stderr = {} }, 0, nil
  for _, event in ipairs(events(response)) do
    if output[event.type] then table.insert(output[event.type], (event.text:gsub("\n$", ""))) end -- an empty line is a "\n"
    if event.type == "error" then code = tonumber(event.error.evalue) end
    if event.type == "init" then first = event.text end
  end
  for name, lines in pairs(output) do
    lines[#lines + 1] = lines[1] and "" or nil
    assert.equal(table.concat(lines, "\n"), value[name])
  end
  assert.equal(code, value.exit_code)
  return first
end

local function like_command(value, response)
  assert.equal(like_stream(value, response), value.id)
end

-- The code and a part of the message that an error has to have.
local function expected_error(response)
  if response.status == 416 then return "range_not_satisfiable", "" end
  local body, code = json.decode(response.body), "HTTP_" .. response.status
  if type(body) ~= "table" then return code, response.body:match("^[^\n]*") end
  if type(body.detail) == "table" then return "VALIDATION", body.detail[1].msg end
  return body.code or code, body.message or body.error or body.detail
end

-- The routes ------------------------------------------------------------------------------------------------------------------

local ID, RUN = "00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000001"

-- A call of a method of the client.
local function method(name, ...)
  local arguments = { ... }
  return function(client) return client[name](client, unpack(arguments)) end
end

-- A call of a method whose first argument is an endpoint.
local function endpoint_method(name, ...)
  local arguments = { ... }
  return function(client, endpoint) return client[name](client, endpoint, unpack(arguments)) end
end

-- A method of sandbox.files:as(1000, 1000).
local function as_user(name, ...)
  local arguments = { ... }
  return function(client, endpoint)
    local handle = { id = ID, url = client.url, endpoints = { ["44772"] = { url = endpoint } } }
    local files = assert(client:connect(handle, { wait = false })).files:as(1000, 1000)
    return files[name](files, unpack(arguments))
  end
end

local function download(client, endpoint, request)
  local first, last = (request.headers.Range or ""):match("^bytes=(%d+)%-(%d+)$")
  local range = first and { offset = tonumber(first), length = last - first + 1 } or nil
  local reader, err = client:download_file(endpoint, "/x", range)
  if not reader then return nil, err end
  return reader:read "a"
end

local function background_logs(client, endpoint, request)
  local cursor = tonumber(request.path:match("cursor=(%d+)"))
  local text, next_cursor = client:get_isolated_run_logs(endpoint, ID, RUN, cursor)
  if not text then return nil, next_cursor end
  return { text = text, cursor = next_cursor }
end

local function same_bytes(value, response) assert.equal(response.body, value) end

local function same_log(value, response)
  assert.same({ text = response.body, cursor = tonumber(header(response, "execd-isolated-tail-cursor")) }, value)
end

local function sandbox(value, response)
  local wire, problems = json.decode(response.body), {}
  compare(value, wire, "", problems, { status = true, image = true })
  compare(value, wire.status, "", problems)
  assert.same({}, problems)
  assert.equal(wire.image and wire.image.uri, value.image)
end

local function sandboxes(value, response)
  local items, problems = json.decode(response.body).items, {}
  assert.equal(#items, #value)
  for index, item in ipairs(items) do
    compare(value[index], item, tostring(index), problems, { status = true, image = true })
    compare(value[index], item.status, tostring(index), problems)
  end
  assert.same({}, problems)
end

-- Files: the mode is a text of octal digits.
local function file(value, item)
  local problems = {}
  compare(value, item, "", problems, { mode = true })
  assert.same({}, problems)
  assert.equal(("%04d"):format(item.mode), value.mode)
end

local function files(value, response)
  local items = json.decode(response.body)
  for key, item in pairs(items) do file(value[key], item) end
  assert.equal(#items, #value)
end

local function counts(value, response)
  local expected = {}
  for path, item in pairs(json.decode(response.body) or {}) do expected[path] = item.replacedCount end
  assert.same(expected, value)
end

local function endpoint(value, response)
  local wire = json.decode(response.body)
  assert.equal("http://" .. wire.endpoint, value.url)
  assert.same(wire.headers or {}, value.headers)
end

local function policy(value, response)
  local wire, problems = json.decode(response.body), {}
  compare(value, wire, "", problems)
  assert.same({}, problems)
end

local function is_empty() end
local IMAGE = { image = "python:3.11", timeout = false }
local RULES = { { action = "allow", target = "pypi.org" } }
local VAULT = {
  credentials = { { name = "tok", value = "secret" } },
  bindings = { { name = "b", hosts = { "pypi.org" }, auth = { type = "bearer", credential = "tok" } } },
}

-- The first route that fits a recording decodes its answer.
local routes = {
  -- The lifecycle server
  { "POST", "^/v1/sandboxes$", method("create_sandbox", IMAGE), sandbox },
  { "GET", "^/v1/sandboxes$", method("list_sandboxes", { page = 1 }), sandboxes },
  { "GET", "^/v1/sandboxes/[^/]+$", method("get_sandbox", ID), sandbox },
  { "DELETE", "^/v1/sandboxes/[^/]+$", method("delete_sandbox", ID), is_true, absent = true },
  { "GET", "/diagnostics/logs$", method("get_diagnostic_logs", ID, "all"),
    like_json { sandbox_id = true, delivery = true }, query = "scope=" },
  { "GET", "/diagnostics/events$", method("get_diagnostic_events", ID, "all"),
    like_json { sandbox_id = true, delivery = true }, query = "scope=" },
  { "GET", "/endpoints/%d+$", method("get_endpoint", ID, 44772), endpoint },
  { "PATCH", "/metadata$", method("patch_metadata", ID, { a = "b" }), sandbox },
  { "POST", "/pause$", method("pause_sandbox", ID), is_true },
  { "POST", "/resume$", method("resume_sandbox", ID), is_true },
  { "POST", "/renew%-expiration$", method("renew_sandbox", ID, 900), function(value, response)
    assert.is_true(math.abs(instant(json.decode(response.body).expiresAt) - value) < 1e-3)
  end },
  { "POST", "/sandboxes/[^/]+/snapshots$", method("create_snapshot", ID), sandbox },
  { "GET", "^/v1/snapshots$", method("list_snapshots", { page = 1 }), sandboxes },
  { "GET", "^/v1/snapshots/", method("get_snapshot", ID), sandbox },
  { "DELETE", "^/v1/snapshots/", method("delete_snapshot", ID), is_true, absent = true },
  { "POST", "^/v1/pools$", method("create_pool", { name = "p", template = {}, capacity = {
    buffer_min = 1, buffer_max = 1, pool_min = 1, pool_max = 1,
  } }) },
  { "GET", "^/v1/pools$", method "list_pools" },
  { "GET", "^/v1/pools/", method("get_pool", "p") },
  { "PUT", "^/v1/pools/", method("update_pool", "p", { buffer_min = 1, buffer_max = 1, pool_min = 1, pool_max = 1 }) },
  { "DELETE", "^/v1/pools/", method("delete_pool", "p") },
  { "GET", "/networkpolicy$", method("get_network_policy", ID), policy },
  { "PATCH", "/networkpolicy$", method("patch_network_policy", ID, RULES), policy },
  { "DELETE", "/networkpolicy$", method("delete_network_rules", ID, { "pypi.org" }), policy },
  { "PUT", "/networkpolicy$", method("replace_network_policy", ID, { egress = RULES }), policy },
  { "POST", "^/v1/templates$", method("create_template", { image = "x", publish = "s3://b/p" }) },
  { "GET", "^/v1/templates$", method "list_templates" },
  { "GET", "^/v1/templates/", method("get_template", "t") },
  { "DELETE", "^/v1/templates/", method("delete_template", "t") },
  { "POST", "^/v1/metrics/events$", method("record_create_event", { success = true, duration = 1 }), is_true },
  { "GET", "^/health$", method "health", is_true },
  { "GET", "^/version$", method "get_version", function(value, response)
    assert.equal(json.decode(response.body).version, value)
  end, area = "lifecycle-1.1.1" },

  -- The egress sidecar
  { "GET", "/policy$", endpoint_method "get_egress_policy", policy },
  { "PATCH", "/policy$", endpoint_method("patch_egress_policy", RULES), policy },
  { "DELETE", "/policy$", endpoint_method("delete_egress_rules", { "pypi.org" }), policy },
  { "PUT", "/policy$", endpoint_method("replace_egress_policy", { egress = RULES }), policy },
  { "GET", "/credential%-vault$", endpoint_method "get_credential_vault", like_json { bindings = true, credentials = true } },
  { "POST", "/credential%-vault$", endpoint_method("create_credential_vault", VAULT),
    like_json { bindings = true, credentials = true } },
  { "PATCH", "/credential%-vault$", endpoint_method("patch_credential_vault", { credentials = { delete = { "tok" } } }),
    like_json { bindings = true, credentials = true } },
  { "DELETE", "/credential%-vault$", endpoint_method "delete_credential_vault", is_true, absent = true },
  { "GET", "/credential%-vault/credentials$", endpoint_method "list_vault_credentials", is_empty },
  { "GET", "/credential%-vault/credentials/", endpoint_method("get_vault_credential", "tok"), like_json() },
  { "GET", "/credential%-vault/bindings$", endpoint_method "list_vault_bindings", is_empty },
  { "GET", "/credential%-vault/bindings/", endpoint_method("get_vault_binding", "b"), like_json { match = true, auth = true } },

  -- execd
  { "GET", "^/v1/filesystem/1000/1000/files/info$", as_user("stat", "/x") },
  { "GET", "^/v1/filesystem/1000/1000/directories/list$", as_user("list", "/x") },
  { "POST", "^/v1/filesystem/1000/1000/files/mv$", as_user("move", "/x", "/y") },
  { "POST", "/command$", endpoint_method("run_command", "true"), like_command },
  { "POST", "^/session$", endpoint_method "create_session", function(value, response)
    assert.equal(json.decode(response.body).session_id, value)
  end },
  { "POST", "^/session/[^/]+/run$", endpoint_method("run_in_session", ID, "true"), like_stream },
  { "GET", "^/code/contexts$", endpoint_method("list_code_contexts", "python"), like_json() },
  { "GET", "/files/download$", download, same_bytes },
  { "GET", "/files/info$", endpoint_method("file_info", "/x"), files },
  { "GET", "/files/search$", endpoint_method("search_files", "/x"), files },
  { "GET", "/directories/list$", endpoint_method("list_directory", "/x"), files },
  { "DELETE", "/files$", endpoint_method("delete_files", "/x"), is_true },
  { "DELETE", "/directories$", endpoint_method("delete_directories", "/x"), is_true },
  { "POST", "/directories$", endpoint_method("make_directories", "/x"), is_true },
  { "POST", "/files/mv$", endpoint_method("move_files", { { from = "/x", to = "/y" } }), is_true },
  { "POST", "/files/permissions$", endpoint_method("set_permissions", { ["/x"] = { mode = 420 } }), is_true },
  { "POST", "/files/replace$", endpoint_method("replace_in_files", { ["/x"] = { old = "a", new = "b" } }), counts },
  { "POST", "/files/upload$", endpoint_method("upload_files", { { path = "/x", content = "x" } }), is_true },

  -- Isolated sessions
  { "GET", "^/v1/isolated/capabilities$", endpoint_method "get_isolation_capabilities",
    like_json { hardening = true, commit_supported = true, diff_supported = true } },
  { "POST", "^/v1/isolated/session$", endpoint_method("create_isolated_session", { workspace = "/x" }), like_json() },
  { "GET", "^/v1/isolated/sessions$", endpoint_method "list_isolated_sessions",
    like_json({ idle_remaining_seconds = true }, "sessions") },
  { "GET", "^/v1/isolated/session/[^/]+$", endpoint_method("get_isolated_session", ID),
    like_json { idle_remaining_seconds = true, idle_timeout_seconds = true }, is_session = true },
  { "DELETE", "^/v1/isolated/session/[^/]+$", endpoint_method("delete_isolated_session", ID), is_true, absent = true },
  { "GET", "/runs/[^/]+$", endpoint_method("get_isolated_run", ID, RUN), like_json { id = true, session_id = true, run_id = true },
    is_session = true },
  { "GET", "/runs/[^/]+/logs$", background_logs, same_log, is_session = true },
}

-- The recordings ----------------------------------------------------------------------------------------------------------------

-- Errors that do not follow from the status: the kind, the code and a part of the message.
local TOO_LONG = { "state", "start_failed", "argument list too long" }
local NO_USERS = { "state", "unsupported", "this execd has no files as another user" }
local TOO_OLD = { "state", "unsupported", "this execd has no isolated sessions" }
local ERRORS = {
  ["command-128k"] = TOO_LONG, ["env-big"] = TOO_LONG, ["env-nul-value"] = { "state", "start_failed", "contains NUL" },
  ["command-128k-background"] = { "state", "RUNTIME_ERROR", "argument list too long" },
  ["june-isolated-capabilities"] = TOO_OLD, ["june-isolated-create"] = TOO_OLD, ["june-isolated-info"] = TOO_OLD,
  ["filesystem-uid-gid-info"] = NO_USERS, ["filesystem-uid-gid-list"] = NO_USERS, ["filesystem-uid-gid-mv"] = NO_USERS,
  ["june-isolated-list"] = { "state", "unsupported", "this execd has no list of isolated sessions" },
}

-- Why an exchange is decoded by no route: by method and path, or by the name of the recording.
local EXCUSED_PATHS = {
  ["^%u+ .*/proxy/"] = "the client has no method for other ports",
  ["^GET /v1/nope"] = "not a route", ["^GET /v1/isolated/nope"] = "not a route", ["^GET /nope"] = "not a route",
  ["^GET /credential%-vault/_active"] = "not a route for clients", ["^GET /credential%-vault/nope"] = "not a route",
  ["^POST .*/networkpolicy$"] = "not a route", ["^PUT /v1/sandboxes$"] = "not a route",
  ["^PUT /credential%-vault$"] = "not a route",
  ["^POST /policy$"] = "the client replaces a policy with PUT", ["^GET /healthz$"] = "the client waits for /policy",
  ["^POST /pty$"] = "the terminals have recordings of their own", ["^GET .*/diff$"] = "a route that has only its name",
  ["^POST .*/commit$"] = "a route that has only its name", ["^HEAD "] = "the client sends no HEAD",
  ["^OPTIONS "] = "the client sends no OPTIONS", ["^GET /ready"] = "not a route", ["^GET /version"] = "not a route of execd",
  ["^GET /v1/version"] = "not a route", ["^GET /v1/health"] = "not a route", ["^GET /sandboxes"] = "the client has paths below /v1",
  ["^POST /metrics/events$"] = "the client has paths below /v1",
  ["^GET .*/credential%-vault$"] = "not a route of the lifecycle server",
  ["^GET /v1/sandboxes/[^/]+/$"] = "the client has no path that ends in a slash",
  ["^GET .*/diagnostics/"] = "the client asks for a scope, and for no text", ["^POST /code$"] = "in recordings_spec.lua, of June",
  ["^GET .*/endpoints/x$"] = "the client refuses such a port", ["^DELETE .*/runs/"] = "not a route",
  ["^POST .*/isolated/session/[^/]+/run$"] = "the client wraps the code: specs of isolated sessions have streams of such code",
}
local EXCUSED = {
  ["download-fifo"] = "it has no answer", ["networkpolicy-paused"] = "it has no answer",
  ["download-if-modified"] = "the client asks without a condition",
  ["download-multi-range"] = "the client asks for one range", ["download-suffix-range"] = "the client asks for one range",
}

local function path_of(area, request)
  local path = request.path:match("^[^?]*")
  return area == "egress" and path:gsub("^/proxy/18080", "") or path
end

local function route_of(area, request)
  local path = path_of(area, request)
  for _, route in ipairs(routes) do
    if route[1] == request.method and path:find(route[2]) and (not route.area or route.area == area)
      and (not route.query or request.path:find(route.query, 1, true)) then
      return route
    end
  end
end

local function is_excused(area, recording)
  local place = recording.request.method .. " " .. path_of(area, recording.request)
  for pattern in pairs(EXCUSED_PATHS) do
    if place:find(pattern) then return true end
  end
  return false
end

-- Compares what a route makes of an answer with what is right.
local function check(name, route, response, value, err)
  local is_absent = response.status == 404 and route.absent
  if not ERRORS[name] and (response.status < 400 or is_absent) then
    assert.is_nil(err)
    return route[4](value, response)
  end
  assert.is_nil(value)
  local kind, code, message = unpack(ERRORS[name] or { "http", expected_error(response) })
  if route.is_session and code == "SESSION_NOT_FOUND" then kind = "state" end
  assert.equal(kind, err.kind)
  assert.equal(code, err.code)
  assert.matches(message:sub(1, 200), err.message, 1, true) -- the client cuts long messages
  if response.status >= 400 then assert.equal(response.status, err.status) end
  if kind == "http" then assert.equal(header(response, "x-request-id"), err.request_id) end
end

for _, area in ipairs(AREAS) do
  describe("the answers of " .. area, function()
    local missing = {}
    for _, name in ipairs(recordings.names(area)) do
      local recording = recordings.load(area .. "/" .. name)
      local route = not EXCUSED[name] and route_of(area, recording.request)
      if route then
        it(("%s: %s"):format(name, recording.about or ""), function()
          local base = ("%s/%s/%s"):format(server.url, area, name)
          local client = opensandbox.new(base .. "/v1", "k1", { retry = false })
          local value, err = route[3](client, base, recording.request)
          client:close()
          check(name, route, recording.response, value, err)
        end)
      elseif not EXCUSED[name] and not is_excused(area, recording) then
        missing[#missing + 1] = name
      end
    end

    it("are all decoded, or excused", function() assert.same({}, missing) end)
  end)
end
