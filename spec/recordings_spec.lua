--- Every recorded exchange, made again by the client: the method that belongs to it sends the recorded request, and makes
-- the right value or the right error of the recorded answer.

local uv = require "luv"
local core = require "opensandbox.core"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local fault_server = require "spec.support.fault_server"
local recordings = require "spec.support.recordings"
local replay_server = require "spec.support.replay_server"
local new_random = require "spec.support.random"

local ID = "a1ffb0ab-fbda-4fb1-8855-d4901021ca78"      -- the sandbox that was paused, renewed and deleted
local ENDLESS = "c78842ac-901e-410e-9dd0-eabdd653a10b" -- the one without an expiry
local SLASH = "f3f8f83a-b544-4729-9deb-3e5c371eeb51"   -- the one whose label has a slash
local POLICY = "8416d0a9-af3f-49c7-b3d8-7c133ce9cc58"  -- the one with a network policy
local KEY = "k1"

local BACKGROUND = "4c73c57064d74fadb0b217dc9918ff5d"
local INTERRUPTED = "fe6fd6d595594b9abb6cc0991dec6ac5"
local FOREGROUND = "0b51ea11091a4319a1ee6890f3ee1b47"
local UNKNOWN = ("f"):rep(32)

local SESSION = "6fe55a0e-d70a-413f-92fd-fac84d87f0da"
local NO_SESSION = "00000000-0000-0000-0000-000000000000"

local CONTEXT = "c16f9dc6-3389-4826-82ba-f5fca9ce17b8"

local A = "/tmp/wire-rec/a.txt"

-- Unix seconds of a time of the day on which everything was recorded.
local function at(clock)
  local hour, minute, second, fraction = clock:match("^(%d+):(%d+):(%d+)(%.?%d*)$")
  return 1795392000 + hour * 3600 + minute * 60 + second + (tonumber("0" .. fraction) or 0)
end

-- What several recordings share ----------------------------------------------------------------------------------------

local TAIL = { "tail", "-f", "/dev/null" }

-- A sandbox as the client gives it.
local function info(fields)
  fields.entrypoint = TAIL
  fields.state = fields.state or "Running"
  fields.reason = fields.reason or "CONTAINER_RUNNING"
  fields.message = fields.message or "Sandbox container is running."
  fields.metadata = fields.metadata or {}
  return fields
end

local function created(fields)
  fields.message = "Sandbox container started successfully."
  return info(fields)
end

local apollo = info { id = ID, image = "python:3.11", metadata = { maintainer = "Bob", project = "Apollo", note = "Demo.Test" },
  created_at = at "21:28:47.714085", last_transition_at = at "21:28:47.714085", expires_at = at "22:28:47.713723" }
local endless = info { id = ENDLESS, image = "python:3.11", metadata = { maintainer = "Bob" },
  created_at = at "21:28:47.717372", last_transition_at = at "21:28:47.717372" }
local slash = info { id = SLASH, image = "python:3.11", metadata = { maintainer = "Bob", ["example.com/team"] = "core" },
  created_at = at "21:28:47.720186", last_transition_at = at "21:28:47.720186" }
local policy = info { id = POLICY, image = "python:3.11", metadata = { maintainer = "Bob" },
  created_at = at "21:28:47.751322", last_transition_at = at "21:28:47.751322" }

-- A call of create_sandbox with the options of most recordings, and those given; `false` takes one away.
local function create(options)
  local all = { image = "python:3.11", resource_limits = { cpu = "1" }, timeout = false }
  for name, value in pairs(options or {}) do
    if value == false and name ~= "timeout" then all[name] = nil else all[name] = value end
  end
  return function(client) return client:create_sandbox(all) end
end

local function get(id) return function(client) return client:get_sandbox(id) end end
local function list(filter) return function(client) return client:list_sandboxes(filter) end end
local function delete(id) return function(client) return client:delete_sandbox(id) end end
local function renew(id, seconds) return function(client) return client:renew_sandbox(id, seconds) end end

local function endpoint(id, port, options)
  return function(client) return client:get_endpoint(id, port, options) end
end

local function ping(client, execd) return client:ping(execd) end

local function run(command, options)
  return function(client, execd) return client:run_command(execd, command, options) end
end

-- The result of a command, without the duration, unless it is given.
local function ran(fields)
  fields.stdout, fields.stderr = fields.stdout or "", fields.stderr or ""
  fields.stdout_dropped, fields.stderr_dropped = 0, 0
  if not fields.background then fields.exit_code = fields.exit_code or 0 end
  fields.background = nil
  local value = fields.exit_code
  if value and value ~= 0 then
    fields.error = fields.error or { name = "CommandExecError", value = tostring(value),
      traceback = { fields.signal and "signal: " .. fields.signal or "exit status " .. value } }
  end
  return fields
end

local function run_in(session, command, options)
  return function(client, execd) return client:run_in_session(execd, session, command, options) end
end

local function delete_session(client, execd) return client:delete_session(execd, SESSION) end

local python = { id = CONTEXT, language = "python" }

local function run_code(text, options)
  return function(client, execd)
    return client:run_code(execd, text, options or { context = python })
  end
end

-- The result of code.
local function evaluated(fields)
  fields.stdout, fields.stderr, fields.stdout_dropped, fields.stderr_dropped = fields.stdout or "", "", 0, 0
  fields.results = fields.results or {}
  return fields
end

local division_by_zero = {
  "\027[0;31m" .. ("-"):rep(75) .. "\027[0m",
  "\027[0;31mZeroDivisionError\027[0m                         Traceback (most recent call last)",
  "Cell \027[0;32mIn [3], line 1\027[0m\n\027[0;32m----> 1\027[0m \027[38;5;241;43m1\027[39;49m\027[38;5;241;43m/\027[39;49m"
    .. "\027[38;5;241;43m0\027[39;49m\n",
  "\027[0;31mZeroDivisionError\027[0m: division by zero",
}

local function get_context(id) return function(client, execd) return client:get_code_context(execd, id) end end

local function seq(count)
  local lines = {}
  for index = 1, count do lines[index] = index .. "\n" end
  return table.concat(lines)
end

local function status(id) return function(client, execd) return client:get_command_status(execd, id) end end

local function logs(id, cursor)
  return function(client, execd)
    local text, next_cursor = client:get_command_logs(execd, id, cursor)
    if not text then return nil, next_cursor end
    return { text = text, cursor = next_cursor }
  end
end

local function interrupt(id) return function(client, execd) return client:interrupt_command(execd, id) end end

local function download(path, options)
  return function(client, execd)
    local reader, err = client:download_file(execd, path, options)
    if not reader then return nil, err end
    local text = assert(reader:read("a"))
    return { size = reader.size, text = text, rest = reader:read() }
  end
end

local function upload(files) return function(client, execd) return client:upload_files(execd, files) end end
local function search(dir, pattern)
  return function(client, execd) return client:search_files(execd, dir, pattern) end
end
local function file_info(paths) return function(client, execd) return client:file_info(execd, paths) end end
local function list_directory(path, options)
  return function(client, execd) return client:list_directory(execd, path, options) end
end

local function file(fields)
  fields.type, fields.mode = fields.type or "file", fields.mode or "0644"
  fields.owner, fields.group = "root", "root"
  fields.created_at = fields.modified_at
  return fields
end

local a_txt = file { path = A, size = 17, modified_at = at "21:28:48.251039634" }
local b_bin = file { path = "/tmp/wire-rec/deep/er/b.bin", size = 256, mode = "0600", modified_at = at "21:28:48.252129049" }
local m_txt = file { path = "/tmp/wire-rec/m.txt", size = 1, mode = "0755", modified_at = at "21:28:48.253610913" }
local deep = file { path = "/tmp/wire-rec/deep", type = "directory", size = 4096, mode = "0755",
  modified_at = at "21:28:48.252129049" }
local er = file { path = "/tmp/wire-rec/deep/er", type = "directory", size = 4096, mode = "0755",
  modified_at = at "21:28:48.252129049" }

local all_bytes = {}
for byte = 0, 255 do all_bytes[byte + 1] = string.char(byte) end
all_bytes = table.concat(all_bytes)

local function patch(changes) return function(client) return client:patch_metadata(ID, changes) end end

local SNAPSHOT = "0c5bcacb-3c2b-4956-8a95-7c8a4ddcaeb0"

local function snapshot(id, name, created_at, changed_at)
  return { id = id, sandbox_id = "1f3666ec-f6b6-4da5-8fc7-ce5c75fcf773", name = name, state = "Ready",
    reason = "snapshot_runtime_ready", message = "Docker snapshot image created successfully.",
    created_at = at(created_at), last_transition_at = at(changed_at) }
end

local first_snapshot = snapshot(SNAPSHOT, "first", "21:28:47.856117", "21:28:47.859436")
first_snapshot.sandbox_id = ID

local function move(from, to)
  return function(client, execd) return client:move_files(execd, { { from = from, to = to } }) end
end

local function permissions(path, wanted)
  return function(client, execd) return client:set_permissions(execd, { [path] = wanted }) end
end

local function replace(old, new)
  return function(client, execd)
    return client:replace_in_files(execd, { ["/tmp/wire-rec/new/a.txt"] = { old = old, new = new } })
  end
end

-- The cases ------------------------------------------------------------------------------------------------------------
--
-- Each: the name of the recording; `call(client, execd)`; and what comes of it: `value` or `err` { kind, code, message }
-- (kind: "http" unless given; message: a part of it). The status and the request id of an error are those recorded.
--
-- sent      the body is not compared by the server but here: the recorded one with these changes (create marks its
--           requests with a label, renew writes a time)
-- served    none of our requests is the recorded one, so the recorded answer is given to this one: "METHOD /path"
-- refuses   calls that would make the recorded request, and the texts with which they are refused before anything is sent
-- key       the API key, where it is not the usual one

local cases = {
  -- Sandboxes
  { "lifecycle/create", sent = {},
    call = create { metadata = { project = "Apollo", note = "Demo.Test" }, timeout = 3600, env = { A = "1" } },
    value = created { id = ID, metadata = { project = "Apollo", note = "Demo.Test" }, created_at = at "21:28:47.713723",
      last_transition_at = at "21:28:47.713723", expires_at = at "22:28:47.713723" } },
  { "lifecycle/create-no-expiry", sent = {}, call = create(),
    value = created { id = ENDLESS, created_at = at "21:28:47.717242", last_transition_at = at "21:28:47.717242" } },
  { "lifecycle/create-metadata-slash-key", sent = {}, call = create { metadata = { ["example.com/team"] = "core" } },
    value = created { id = SLASH, metadata = { ["example.com/team"] = "core" }, created_at = at "21:28:47.719869",
      last_transition_at = at "21:28:47.719869" } },
  { "lifecycle/create-network-policy", sent = {},
    call = create { network_policy = { default_action = "deny", egress = { { action = "allow", target = "pypi.org" } } } },
    value = created { id = POLICY, created_at = at "21:28:47.750921", last_transition_at = at "21:28:47.750921" } },
  { "lifecycle/create-bad-metadata", sent = {}, call = create { metadata = { name = "Data Processing Sandbox" } },
    err = { code = "SANDBOX::INVALID_METADATA_LABEL", message = "must be 63 characters or less" } },
  { "lifecycle/create-reserved-metadata", sent = {}, call = create { metadata = { ["opensandbox.io/x"] = "y" } },
    err = { code = "SANDBOX::INVALID_METADATA_LABEL", message = "uses the reserved prefix 'opensandbox.io/'" } },
  { "lifecycle/create-from-unknown-snapshot", sent = { entrypoint = TAIL },
    call = create { image = false, snapshot_id = "nope", resource_limits = {} },
    err = { code = "SNAPSHOT::NOT_FOUND", message = "Snapshot nope not found" } },
  { "lifecycle/create-host-volume", sent = {},
    call = create { volumes = { { name = "v", host = { path = "/x" }, mount_path = "/m" } } },
    err = { code = "VOLUME::HOST_PATH_NOT_ALLOWED", message = "is not under any allowed prefix" } },
  { "lifecycle/create-image-pull-failed", sent = {}, call = create { image = "nope:1" },
    err = { code = "DOCKER::SANDBOX_IMAGE_PULL_FAILED", message = "pull access denied for nope:1" } },
  { "lifecycle/create-pool-ref", sent = {}, call = create { extensions = { poolRef = "p" } },
    err = { code = "SANDBOX::UNSUPPORTED_POOL_REF", message = "poolRef is not supported" } },
  { "lifecycle/create-secure-access", sent = {}, call = create { secure_access = true },
    err = { code = "SANDBOX::INVALID_PARAMETER", message = "secureAccess is not supported" } },
  { "lifecycle/create-timeout-59", sent = {}, call = create { timeout = 59 },
    err = { code = "VALIDATION", message = "timeout: Input should be greater than or equal to 60" } },
  { "lifecycle/create-timeout-too-large", sent = {}, call = create { timeout = 86401 },
    err = { code = "SANDBOX::INVALID_PARAMETER", message = "exceeds configured maximum of 86400s" } },
  { "lifecycle/create-bad-json", served = "POST /sandboxes", call = create(),
    err = { code = "VALIDATION", message = "1: JSON decode error" } },
  { "lifecycle/create-empty", served = "POST /sandboxes", call = create(),
    refuses = { { function(client) return client:create_sandbox {} end,
      "create_sandbox: one of the options 'image', 'snapshot_id' and 'template_id' is needed" } },
    err = { code = "VALIDATION", message = "Exactly one of image or snapshotId must be provided" } },
  { "lifecycle/create-number-limit", served = "POST /sandboxes", call = create(),
    refuses = { { create { resource_limits = { cpu = true } },
      "create_sandbox: option 'resource_limits': entry \"cpu\" must be a string, not true" } },
    err = { code = "VALIDATION", message = "resourceLimits.cpu: Input should be a valid string" } },
  { "lifecycle/get", call = get(ID), value = apollo },
  { "lifecycle/get-no-expiry", call = get(ENDLESS), value = endless },
  { "lifecycle/get-paused", call = get(ID),
    value = info { id = ID, state = "Paused", reason = "CONTAINER_PAUSED", message = "Sandbox container is paused.",
      image = "python:3.11", metadata = { maintainer = "Bob", project = "Apollo", stage = "two" },
      created_at = at "21:28:47.714085", last_transition_at = at "21:28:47.714085", expires_at = at "22:28:47.713723" } },
  { "lifecycle/get-missing", call = get "zzz",
    err = { code = "DOCKER::SANDBOX_NOT_FOUND", message = "Sandbox zzz not found.", sandbox_id = "zzz" } },
  { "lifecycle/get-deleted", call = get(ID),
    err = { code = "DOCKER::SANDBOX_NOT_FOUND", message = "not found.", sandbox_id = ID } },
  { "lifecycle/list", call = list(), value = { policy, slash, endless, apollo } },
  { "lifecycle/list-empty", call = list(), value = {} },
  { "lifecycle/list-states", call = list { states = { "Paused", "running" } }, value = { policy, slash, endless, apollo } },
  { "lifecycle/list-metadata-slash-key", call = list { metadata = { ["example.com/team"] = "core" } }, value = { slash } },
  -- The recorded order of the two labels is not ours, and means the same.
  { "lifecycle/list-metadata", served = "GET /sandboxes?metadata=note%3DDemo.Test%26project%3DApollo",
    call = list { metadata = { project = "Apollo", note = "Demo.Test" } }, value = { apollo } },
  { "lifecycle/list-metadata-malformed", served = "GET /sandboxes", call = list(),
    refuses = { { list { metadata = "broken" }, "list_sandboxes: option 'metadata' must be a table of strings" },
      { list { metadata = { "broken" } }, "list_sandboxes: option 'metadata' must be a table of strings, by name" } },
    err = { code = "INVALID_METADATA_FORMAT", message = "bad query field: 'broken'" } },
  { "lifecycle/list-page-2", call = list { page = 2, page_size = 2 }, value = { endless, apollo } },
  { "lifecycle/list-past-end", call = list { page = 9, page_size = 2 }, value = {} },
  { "lifecycle/list-page-size-201", call = list { page_size = 201 },
    err = { code = "VALIDATION", message = "query.pageSize: Input should be less than or equal to 200" } },
  { "lifecycle/delete", call = delete(ID), value = true },
  { "lifecycle/delete-again", call = delete(ID), value = true },
  { "lifecycle/renew", sent = "time", call = renew(ID, 900), value = 4070908800 },
  { "lifecycle/renew-past", sent = "time", call = renew(ID, 900),
    refuses = { { renew(ID, -1), "renew_sandbox: the time must be a number of seconds greater than 0, or" },
      { renew(ID, 0), "renew_sandbox: the time must be a number of seconds greater than 0, or" } },
    err = { code = "DOCKER::INVALID_EXPIRATION", message = "New expiration time must be in the future.", sandbox_id = ID } },
  { "lifecycle/renew-no-expiry", sent = "time", call = renew(ENDLESS, 900),
    err = { code = "DOCKER::INVALID_EXPIRATION", message = "does not have automatic expiration enabled" } },
  { "lifecycle/renew-garbage", sent = "time", call = renew(ID, 900),
    refuses = { { renew(ID, "soon"), "renew_sandbox: the time must be a number of seconds greater than 0, or" } },
    err = { code = "VALIDATION", message = "expiresAt: Input should be a valid datetime or date" } },
  { "lifecycle/health", call = function(client) return client:health() end, value = true },
  { "lifecycle/pause", call = function(client) return client:pause_sandbox(ID) end, value = true },
  { "lifecycle/pause-again", call = function(client) return client:pause_sandbox(ID) end,
    err = { code = "DOCKER::SANDBOX_PAUSE_FAILED", message = "Container is already paused", sandbox_id = ID } },
  { "lifecycle/resume", call = function(client) return client:resume_sandbox(ID) end, value = true },
  { "lifecycle/resume-running", call = function(client) return client:resume_sandbox(ID) end,
    err = { code = "DOCKER::SANDBOX_NOT_PAUSED", message = "Sandbox is not in a paused state.", sandbox_id = ID } },
  { "lifecycle/patch-metadata", call = patch { note = false, stage = "two" },
    refuses = { { patch { stage = 2 }, "patch_metadata: the changes must be strings, or false to remove, by name" },
      { patch { "two" }, "patch_metadata: the changes must be strings" } },
    value = info { id = ID, image = "python:3.11", metadata = { maintainer = "Bob", project = "Apollo", stage = "two" },
      created_at = at "21:28:47.714085", last_transition_at = at "21:28:47.714085", expires_at = at "22:28:47.713723" } },
  { "lifecycle/patch-metadata-bad", call = patch { x = "a b" },
    err = { code = "SANDBOX::INVALID_METADATA_LABEL", message = "Metadata value 'a b' is invalid" } },

  -- Snapshots, pools, diagnostics
  { "lifecycle/snapshot-create", call = function(client) return client:create_snapshot(ID, { name = "first" }) end,
    value = { id = SNAPSHOT, sandbox_id = ID, name = "first", state = "Creating", reason = "snapshot_accepted",
      message = "Snapshot creation accepted.", created_at = at "21:28:47.856117", last_transition_at = at "21:28:47.856117" } },
  { "lifecycle/snapshot-paused", call = function(client) return client:create_snapshot(ID) end,
    err = { code = "SNAPSHOT::INVALID_SOURCE_STATE", message = "only be created from a Running sandbox", sandbox_id = ID } },
  { "lifecycle/snapshot-get", call = function(client) return client:get_snapshot(SNAPSHOT) end, value = first_snapshot },
  { "lifecycle/snapshot-get-missing", call = function(client) return client:get_snapshot("zz") end,
    refuses = { { function(client) return client:get_snapshot("..") end, 'get_snapshot: the snapshot id must not be ".."' } },
    err = { code = "SNAPSHOT::NOT_FOUND", message = "Snapshot zz not found" } },
  { "lifecycle/snapshot-list", call = function(client) return client:list_snapshots() end, value = {
    first_snapshot,
    snapshot("b3e8714e-0526-4f39-b96f-29463f6bebe7", nil, "20:40:54.723395", "20:40:54.724933"),
    snapshot("8ad5b507-9ff9-4ac7-8d05-4ee7bfe64464", "cp", "20:40:54.713477", "20:40:54.715311"),
    snapshot("f7cdffef-bc69-430a-84be-46b59f4aa824", nil, "20:40:54.707806", "20:40:54.709537"),
  } },
  { "lifecycle/snapshot-delete", call = function(client) return client:delete_snapshot(SNAPSHOT) end, value = true },
  { "lifecycle/pools", call = function(client) return client:list_pools() end,
    err = { code = "KUBERNETES::POOL_NOT_SUPPORTED", message = "only available when runtime.type is 'kubernetes'" } },
  { "lifecycle/diagnostics-scope", call = function(client) return client:get_diagnostic_logs(ID, "container") end,
    err = { code = "DIAGNOSTICS_NOT_IMPLEMENTED", message = "not implemented by this OpenSandbox server", sandbox_id = ID } },

  -- Endpoints
  { "lifecycle/endpoint-8080", call = endpoint(ID, 8080),
    value = { url = "http://192.0.2.2:44916", host = "192.0.2.2", port = 44916, headers = {}, sandbox_id = ID,
      proxied = false } },
  { "lifecycle/endpoint-egress", call = endpoint(ID, 18080),
    value = { url = "http://192.0.2.2:50837/proxy/18080", host = "192.0.2.2", port = 50837, headers = {}, sandbox_id = ID,
      proxied = false } },
  { "lifecycle/endpoint-execd", call = function(client) return client:discover_execd(ID) end,
    value = { url = "http://192.0.2.2:50837/proxy/44772", host = "192.0.2.2", port = 50837, headers = {}, sandbox_id = ID,
      proxied = false } },
  { "lifecycle/endpoint-server-proxy", call = endpoint(ID, 44772, { use_server_proxy = true }),
    value = { url = "http://testserver/sandboxes/" .. ID .. "/proxy/44772", host = "testserver", port = 80, headers = {},
      sandbox_id = ID, proxied = true } },
  { "lifecycle/endpoint-missing", call = function(client) return client:discover_execd("zz") end,
    err = { code = "DOCKER::SANDBOX_NOT_FOUND", message = "Sandbox zz not found.", sandbox_id = "zz", op = "discover_execd" } },
  { "lifecycle/endpoint-signed", call = endpoint(ID, 44772, { expires = 9999999999 }),
    err = { code = "SANDBOX::API_NOT_SUPPORTED", message = "Signed routes (expires parameter) are not supported" } },
  { "lifecycle/endpoint-port-0", served = "GET /sandboxes/" .. ID .. "/endpoints/1", call = endpoint(ID, 1),
    refuses = { { endpoint(ID, 0), "get_endpoint: the port must be between 1 and 65535, not 0" } },
    err = { code = "DOCKER::INVALID_PORT", message = "Port must be between 1 and 65535." } },
  { "lifecycle/endpoint-port-text", served = "GET /sandboxes/" .. ID .. "/endpoints/1", call = endpoint(ID, 1),
    refuses = { { endpoint(ID, "abc"), "get_endpoint: the port must be a whole number" } },
    err = { code = "VALIDATION", message = "path.port: Input should be a valid integer" } },

  -- Keys, and servers that are not what they should be
  { "lifecycle/auth-missing", key = "", call = list(),
    err = { code = "MISSING_API_KEY", message = "Authentication credentials are missing", hint = "API key" } },
  { "lifecycle/auth-wrong", key = "zz", call = list(),
    err = { code = "INVALID_API_KEY", message = "Authentication credentials are invalid", hint = "API key" } },
  { "lifecycle/unknown-route", served = "GET /sandboxes/x", call = get "x",
    err = { code = "HTTP_404", message = "Not Found", hint = "does not know this route" } },
  { "lifecycle/wrong-method", served = "POST /sandboxes", call = create(),
    err = { code = "HTTP_405", message = "Method Not Allowed" } },
  { "lifecycle/trailing-slash", served = "GET /sandboxes", call = list(),
    refuses = { { get "", "get_sandbox: the sandbox id must be a string that is not empty" } },
    err = { kind = "protocol", code = "redirect", message = "http://testserver/v1/sandboxes" } },

  -- execd
  { "execd/ping", call = ping, value = true },
  { "execd/auth-ok", token = "T0KEN", call = ping, value = true },
  { "execd/auth-missing", call = ping,
    err = { code = "HTTP_401", message = "invalid or missing header X-EXECD-ACCESS-TOKEN", hint = "endpoint's headers" } },
  { "execd/auth-wrong", token = "wrong", call = ping,
    err = { code = "HTTP_401", message = "invalid or missing header X-EXECD-ACCESS-TOKEN", hint = "endpoint's headers" } },
  { "execd/not-found", served = "GET /ping", call = ping, err = { code = "HTTP_404", message = "404 page not found" } },
  { "execd/wrong-method", served = "POST /command", call = run "true",
    err = { code = "HTTP_404", message = "404 page not found" } },

  -- Commands
  { "execd/command-echo", call = run "echo hello",
    value = ran { id = "3c741c73418a4441bc5b31903cacceac", stdout = "hello\n", duration = 0.002 } },
  { "execd/command-true", call = run { "true" }, value = ran { id = "7eaa7c39c1a54565a49daaff61b6334c", duration = 0.002 } },
  { "execd/command-lines", call = run "printf 'a\\n\\nb\\n\\n\\nc'",
    value = ran { id = "ac0e0f34342c445a81bba03b34a78c59", stdout = "a\n\nb\n\n\nc\n", duration = 0.002 } },
  { "execd/command-no-newline", call = run { "printf", "no newline at end" },
    value = ran { id = "f95c3a36ccdb4bd0b83ff0a4acde8b63", stdout = "no newline at end\n", duration = 0.002 } },
  { "execd/command-carriage-returns", call = run "printf '10%%\\r50%%\\r100%%\\ndone\\r\\nx\\r\\ry'",
    value = ran { id = "6568f66275d8488f9e76f7e80d089762", stdout = "10%\n50%\n100%\ndone\nx\n\ny\n", duration = 0.002 } },
  { "execd/command-stderr", call = run "echo out; echo err >&2; echo out2",
    value = ran { id = "645131f1680d4ce0986017a5357ebe47", stdout = "out\nout2\n", stderr = "err\n", duration = 0.002 } },
  { "execd/command-utf8", call = run "printf 'h\\303\\251llo \\342\\202\\254 \\360\\237\\214\\215 \\302\\205 <&>\\n'",
    value = ran { id = "917389bdc7e04a6ca2a8eaba1f6a14b2", duration = 0.002,
      stdout = "h\195\169llo \226\130\172 \240\159\140\141 \194\133 <&>\n" } },
  { "execd/command-invalid-utf8", call = run "printf 'a\\377\\376b\\n'",
    value = ran { id = "95547f8c9ba84995b88733fd0bfb7ea7", stdout = "a\239\191\189\239\191\189b\n", duration = 0.003 } },
  { "execd/command-control-bytes", call = run "printf 'a\\000b\\033[31mred\\033[0m\\n'",
    value = ran { id = "37c1a3f4696e49698acfc5b527b7c8b0", stdout = "a\0b\27[31mred\27[0m\n", duration = 0.002 } },
  { "execd/command-burst", call = run { "seq", "1", "2000" },
    value = ran { id = "88eb8c0dab0f4261a149898d1355e632", stdout = seq(2000) } },
  { "execd/command-long-line", call = run "head -c 200000 /dev/zero | tr '\\0' x; echo",
    value = ran { id = "0970abb95a3f41ac95b64123fa0048cc", stdout = ("x"):rep(200000) .. "\n" } },
  { "execd/command-slow", call = run "for i in 1 2 3 4 5; do echo tick $i; sleep 0.9; done",
    value = ran { id = "1dc0f57d1fd64c16988949235c1fb6e2", duration = 4.513,
      stdout = "tick 1\ntick 2\ntick 3\ntick 4\ntick 5\n" } },
  { "execd/command-env-cwd", call = run("echo $GREETING; pwd", { env = { GREETING = "hi" }, cwd = "/tmp" }),
    value = ran { id = "3d59b4c7076f457aa97cfcded85a01c0", stdout = "hi\n/tmp\n", duration = 0.002 } },
  { "execd/command-exit-3", call = run "echo out; echo err >&2; exit 3",
    value = ran { id = "ae73c55e22c8412fb8e4f46eb077b46d", exit_code = 3, stdout = "out\n", stderr = "err\n" } },
  { "execd/command-not-found", call = run "no-such-cmd-xyz",
    value = ran { id = "65e91663ead147b0937b181fc4fd63fd", exit_code = 127,
      stderr = "bash: line 1: no-such-cmd-xyz: command not found\n" } },
  { "execd/command-killed", call = run "kill -9 $$",
    value = ran { id = "6f67719e84674fa98525fcaa20b60b43", exit_code = -1, signal = "killed" } },
  { "execd/command-child-killed", call = run "sh -c 'kill -9 $$'; exit $?",
    value = ran { id = "ba70eee70c8b494b800e337377dc64db", exit_code = 137,
      stderr = "bash: line 1:  3137 Killed                  sh -c 'kill -9 $$'\n" } },
  -- The events' own times show that it was the timeout, however fast they come here.
  { "execd/command-timeout", call = run("echo a; sleep 30", { timeout = 0.5 }),
    value = ran { id = "1e120791054a4409b4fa59947fbe9ecf", exit_code = -1, signal = "killed", timed_out = true, stdout = "a\n" } },
  { "execd/command-background", call = run("echo one; sleep 1; echo two >&2; sleep 1; exit 5", { background = true }),
    value = ran { id = BACKGROUND, background = true } },
  { "execd/command-background-sleep", call = run("sleep 60", { background = true }),
    value = ran { id = INTERRUPTED, background = true } },
  { "execd/command-foreground-for-status", call = run "echo hi; exit 4",
    value = ran { id = FOREGROUND, exit_code = 4, stdout = "hi\n" } },
  { "execd/command-cwd-missing", call = run("pwd", { cwd = "/no/such" }),
    err = { code = "INVALID_REQUEST_BODY", message = "working directory does not exist: /no/such" } },
  { "execd/command-bad-json", served = "POST /command", call = run "true",
    err = { code = "INVALID_REQUEST_BODY", message = "unexpected EOF" } },
  { "execd/command-empty", served = "POST /command", call = run "true",
    refuses = { { run "", "run_command: the command must be a string that is not empty" },
      { run {}, "run_command: the command must not be an empty list" } },
    err = { code = "INVALID_REQUEST_BODY", message = "Field validation for 'Command' failed" } },
  { "execd/command-gid-without-uid", served = "POST /command", call = run "true",
    refuses = { { run("true", { gid = 1 }), "run_command: option 'gid' needs option 'uid'" } },
    err = { code = "INVALID_REQUEST_BODY", message = "uid is required when gid is provided" } },
  { "execd/command-start-failure", served = "POST /command", call = run "true",
    refuses = { { run "\0", "run_command: the command must be a string" },
      { run { "a", "\0" }, "run_command: the command holds a NUL byte" } },
    err = { kind = "state", code = "start_failed", message = "fork/exec /usr/bin/bash: invalid argument",
      result_id = "85d7618a27be4eb4b4faaa07fbc617b7" } },

  -- What became of commands
  { "execd/background-status-running", call = status(BACKGROUND),
    value = { id = BACKGROUND, command = "echo one; sleep 1; echo two >&2; sleep 1; exit 5", running = true,
      started_at = at "21:28:40.153556117" } },
  { "execd/background-status-finished", call = status(BACKGROUND),
    value = { id = BACKGROUND, command = "echo one; sleep 1; echo two >&2; sleep 1; exit 5", running = false, exit_code = 5,
      error = "exit status 5", started_at = at "21:28:40.153556117", finished_at = at "21:28:42.160504817" } },
  { "execd/background-status-interrupted", call = status(INTERRUPTED),
    value = { id = INTERRUPTED, command = "sleep 60", running = false, exit_code = -1, error = "signal: terminated",
      started_at = at "21:28:43.66535531", finished_at = at "21:28:45.171237541" } },
  { "execd/foreground-status", call = status(FOREGROUND),
    value = { id = FOREGROUND, command = "echo hi; exit 4", running = false, exit_code = 4, error = "exit status 4",
      started_at = at "21:28:45.223316455", finished_at = at "21:28:45.225589346" } },
  { "execd/status-unknown", call = status(UNKNOWN),
    err = { code = "INVALID_REQUEST_BODY", message = "command not found: " .. UNKNOWN } },
  { "execd/background-logs-0", call = logs(BACKGROUND), value = { text = "one\ntwo\n", cursor = 8 } },
  { "execd/background-logs-next", call = logs(BACKGROUND, 8), value = { text = "", cursor = 8 } },
  -- Recorded without a cursor; we always send one.
  { "execd/foreground-logs", served = "GET /command/" .. FOREGROUND .. "/logs?cursor=0", call = logs(FOREGROUND),
    err = { code = "INVALID_REQUEST_BODY", message = "is not running in background" } },
  { "execd/logs-unknown", served = "GET /command/" .. UNKNOWN .. "/logs?cursor=0", call = logs(UNKNOWN),
    err = { code = "INVALID_REQUEST_BODY", message = "command not found: " .. UNKNOWN } },
  { "execd/foreground-exact-output", call = download("/tmp/" .. FOREGROUND .. ".stdout"), value = { size = 3, text = "hi\n" } },
  { "execd/interrupt-running", call = interrupt(INTERRUPTED), value = true },
  { "execd/interrupt-unknown", call = interrupt(UNKNOWN), err = { code = "RUNTIME_ERROR", message = "no such session" } },
  { "execd/background-interrupt-finished", call = interrupt(BACKGROUND),
    err = { code = "RUNTIME_ERROR", message = "is not running" } },
  { "execd/interrupt-no-id", served = "DELETE /command?id=x", call = interrupt "x",
    refuses = { { interrupt "", "interrupt_command: the command id must be a string that is not empty" } },
    err = { code = "MISSING_QUERY", message = "missing query parameter 'id'" } },

  -- Shell sessions
  { "execd/session-create", value = SESSION,
    call = function(client, execd) return client:create_session(execd, { cwd = "/tmp" }) end },
  { "execd/session-run", call = run_in(SESSION, "export A=1; cd /usr; echo out; echo err >&2"),
    value = ran { stdout = "out\nerr\n", duration = 0.004 } },
  { "execd/session-run-state", call = run_in(SESSION, "echo $A; pwd"), value = ran { stdout = "1\n/usr\n", duration = 0.002 } },
  { "execd/session-exit-7", call = run_in(SESSION, "echo before; exit 7"), value = ran { exit_code = 7, stdout = "before\n" } },
  { "execd/session-timeout", call = run_in(SESSION, "sleep 2", { timeout = 0.5 }),
    value = ran { exit_code = -1, signal = "killed", timed_out = true, error = { name = "RUNTIME_ERROR", traceback = {},
      value = "error running in session. timeout after 500ms" } } },
  { "execd/session-run-unknown", call = run_in(NO_SESSION, "true"),
    refuses = { { run_in("", "true"), "run_in_session: the session id must be a string that is not empty" },
      { run_in(SESSION, ""), "run_in_session: the command must be a string that is not empty" } },
    err = { code = "RUNTIME_ERROR", message = "context not found" } },
  { "execd/session-delete", call = delete_session, value = true },
  { "execd/session-delete-unknown", call = delete_session, value = true },

  -- The code interpreter
  { "execd/code-context-create", call = function(client, execd) return client:create_code_context(execd) end, value = python,
    refuses = { { function(client, execd) return client:create_code_context(execd, "command") end,
      'create_code_context: the language "command" has no kernel: use run_command' } } },
  { "execd/code-contexts", value = { python },
    call = function(client, execd) return client:list_code_contexts(execd, "python") end },
  { "execd/code-context-get", call = get_context(CONTEXT), value = python },
  { "execd/code-context-get-unknown", call = get_context "nope",
    err = { code = "CONTEXT_NOT_FOUND", message = "context nope not found" } },
  { "execd/code-context-delete", value = true,
    call = function(client, execd) return client:delete_code_context(execd, CONTEXT) end },
  { "execd/code-print", call = run_code("print('hi'); print('there', end='')", { context = CONTEXT }),
    value = evaluated { stdout = "hi\nthere" } },
  { "execd/code-result", call = run_code "x = 41\nx + 1",
    value = evaluated { text = "42", results = { { ["text/plain"] = "42" } }, execution_count = 2 } },
  { "execd/code-html", call = run_code "class H:\n    def _repr_html_(self): return '<b>hi</b>'\nH()",
    value = evaluated { text = "<__main__.H at 0x7f6d1c487c90>", execution_count = 4,
      results = { { ["text/plain"] = "<__main__.H at 0x7f6d1c487c90>", ["text/html"] = "<b>hi</b>" } } } },
  { "execd/code-slow", call = run_code "import time\nfor i in range(3):\n    print(i, flush=True); time.sleep(0.5)",
    value = evaluated { stdout = "0\n1\n2\n" } },
  { "execd/code-error", call = run_code "1/0",
    value = evaluated { error = { name = "ZeroDivisionError", value = "division by zero", traceback = division_by_zero } } },
  { "execd/code-unknown-context", call = run_code("1", { context = { id = "nope" }, language = "python" }),
    refuses = { { run_code(" "), "run_code: the code must not be empty" },
      { run_code("1", { context = {} }), "run_code: the id of option 'context' must be a string that is not empty, not nil" },
      { run_code("1", { context = python, language = "bash" }),
        "run_code: option 'language' is \"bash\", and the context's is \"python\"" } },
    err = { code = "RUNTIME_ERROR", message = "context not found" } },

  -- Files
  { "execd/download", call = download(A), value = { size = 17, text = "alpha\nbeta\ngamma\n" } },
  { "execd/download-binary", call = download "/tmp/wire-rec/deep/er/b.bin", value = { size = 256, text = all_bytes } },
  { "execd/download-range", call = download(A, { offset = 6, length = 4 }), value = { size = 4, text = "beta" } },
  { "execd/download-lines", call = download(A, { lines = { first = 2, count = 1 } }), value = { size = 4, text = "beta" } },
  { "execd/download-range-past-end", call = download(A, { offset = 999 }),
    err = { code = "range_not_satisfiable", message = "the file ends before the offset" } },
  { "execd/download-missing", call = download "/tmp/wire-rec/none",
    err = { code = "FILE_NOT_FOUND", message = "/tmp/wire-rec/none: no such file or directory" } },
  { "execd/download-no-path", served = "GET /files/download?path=x", call = download "x",
    refuses = { { download "", "download_file: the path must be a string that is not empty" },
      { download(nil), "download_file: the path must be a string that is not empty, not nil" } },
    err = { code = "MISSING_QUERY", message = "missing query parameter 'path'" } },
  { "execd/upload-two-files", value = true,
    call = upload { { path = A, content = "alpha\nbeta\ngamma\n", mode = "0644" },
      { path = "/tmp/wire-rec/deep/er/b.bin", content = all_bytes, mode = "rw-------" } } },
  { "execd/upload-bad-mode", served = "POST /files/upload", call = upload { { path = "x", content = "x" } },
    refuses = { { upload { { path = "/tmp/wire-rec/m.txt", content = "x", mode = 899 } }, "upload_files: mode 899 is not valid" } },
    err = { code = "RUNTIME_ERROR", message = 'strconv.ParseUint: parsing "899": invalid syntax' } },
  { "execd/upload-empty-path", served = "POST /files/upload", call = upload { { path = "x", content = "x" } },
    refuses = { { upload { { path = "", content = "x" } }, "upload_files: the path must be a string that is not empty" } },
    err = { code = "INVALID_FILE_CONTENT", message = "file is missing" } },
  { "execd/upload-not-multipart", served = "POST /files/upload", call = upload { { path = "x", content = "x" } },
    err = { code = "INVALID_FILE", message = "multipart form is empty" } },
  { "execd/search", call = search("/tmp/wire-rec", "*.txt"), value = { a_txt, m_txt } },
  { "execd/search-all", call = search "/tmp/wire-rec", value = { a_txt, b_bin, m_txt } },
  { "execd/search-missing", call = search("/tmp/wire-rec/none", "*"),
    err = { code = "FILE_NOT_FOUND", message = "no such file or directory" } },
  { "execd/info", call = file_info { A, "/tmp/wire-rec/deep" }, value = { [A] = a_txt, ["/tmp/wire-rec/deep"] = deep } },
  { "execd/info-missing", call = file_info { A, "/tmp/wire-rec/none" },
    err = { code = "FILE_NOT_FOUND", message = "lstat /tmp/wire-rec/none" } },
  { "execd/list-depth-2", call = list_directory("/tmp/wire-rec", { depth = 2 }), value = { a_txt, deep, er, m_txt } },
  { "execd/list-file", call = list_directory(A), err = { code = "INVALID_REQUEST_BODY", message = "path is not a directory" } },
  { "execd/delete-files", value = true,
    call = function(client, execd) return client:delete_files(execd, { "/tmp/wire-rec/new/a.txt", "/tmp/wire-rec/none" }) end },
  { "execd/delete-file-is-directory",
    call = function(client, execd) return client:delete_files(execd, "/tmp/wire-rec/deep") end,
    err = { code = "RUNTIME_ERROR", message = "path is a directory" } },
  { "execd/mkdir", value = true,
    call = function(client, execd) return client:make_directories(execd, "/tmp/wire-rec/new/dir") end,
    refuses = { { function(client, execd) return client:make_directories(execd, {}) end,
      "make_directories: the list of paths must not be empty" } } },
  { "execd/mv", value = true, call = move(A, "/tmp/wire-rec/new/a.txt"),
    refuses = { { move("", "/x"), "move_files: option 'from' must be a string that is not empty" } } },
  { "execd/mv-exists", call = move("/tmp/wire-rec/new/a.txt", "/tmp/wire-rec/deep"),
    err = { code = "RUNTIME_ERROR", message = "destination path already exists: /tmp/wire-rec/deep" } },
  { "execd/mv-missing", call = move("/tmp/wire-rec/none", "/tmp/wire-rec/x"),
    err = { code = "FILE_NOT_FOUND", message = "source path not found: /tmp/wire-rec/none" } },
  { "execd/permissions", value = true, call = permissions("/tmp/wire-rec/new/a.txt", { mode = "0600" }),
    refuses = { { permissions("/x", { mode = "abc" }), 'set_permissions: mode "abc" is not valid' } } },
  { "execd/permissions-missing", call = permissions("/tmp/wire-rec/none", { mode = 600 }),
    err = { code = "RUNTIME_ERROR", message = "chmod /tmp/wire-rec/none: no such file or directory" } },
  { "execd/replace-verbose", value = { ["/tmp/wire-rec/new/a.txt"] = 5 }, call = replace("a", "A") },
  { "execd/replace", served = "POST /files/replace?verbose=true", value = {}, call = replace("beta", "BETA") },
  { "execd/replace-empty-old", served = "POST /files/replace?verbose=true", call = replace("beta", "x"),
    refuses = { { replace("", "x"), "replace_in_files: the text to replace ('old') must be a string that is not empty" },
      { replace("x"), "replace_in_files: a replacement ('new') is needed" } },
    err = { code = "INVALID_REQUEST_BODY", message = "old content must not be empty" } },

  -- Metrics
  { "execd/metrics", call = function(client, execd) return client:get_metrics(execd) end,
    value = { cpu_count = 2, cpu_used_percent = 21.319796954279333, memory_total = 25276510208, memory_used = 210034688,
      time = 1795469328.291 } },
  { "execd/metrics-watch", call = function(client, execd)
      local watch = assert(client:watch_metrics(execd))
      local times = {}
      for _ = 1, 3 do times[#times + 1] = assert(watch:next()).time end
      watch:close()
      local value, err = watch:next()
      assert.is_nil(value)
      assert.equal("closed", err.kind)
      return times
    end, value = { 1795469330.293, 1795469332.293, 1795469334.294 } },

  { "execd/rmdir", value = true,
    call = function(client, execd)
      return client:delete_directories(execd, { "/tmp/wire-rec/deep", "/tmp/wire-rec/none" })
    end },
}


-- Running them ---------------------------------------------------------------------------------------------------------

local started, clients = {}, {}

local function close_clients()
  for index, client in ipairs(clients) do
    client:close()
    clients[index] = nil
  end
end

local function stop_all()
  close_clients()
  for name, server in pairs(started) do
    server:stop()
    started[name] = nil
  end
end

-- A replay server of its kind, started when the first test needs it.
local function replaying(chunking, timing)
  local name = ("replay %s %s"):format(chunking, timing)
  started[name] = started[name] or replay_server.start { chunking = chunking, timing = timing }
  return started[name]
end

-- Gives the recorded answer to any request below the path of its name.
local function serving()
  started.serving = started.serving or fault_server.start [[
    return function(request, connection)
      local found = assert(recording(request.path:match("^/(%a+/[%w-]+)/")))
      local headers = {}
      for _, pair in ipairs(found.response.headers) do
        local name = pair[1]:lower()
        if name ~= "content-length" and name ~= "transfer-encoding" then headers[#headers + 1] = pair end
      end
      connection:respond(found.response.status, headers, found.response.body)
    end
  ]]
  return started.serving
end

local function new_client(base, key, loose)
  local client = opensandbox.new(base .. "/v1", key or KEY, { retry = false,
    headers = loose and { ["X-Replay-Loose"] = "1" } or nil })
  clients[#clients + 1] = client
  return client
end

-- The last request that a server got for a recording.
local function last_request(server, name)
  local last
  for _, request in ipairs(server:requests()) do
    if request.path:sub(1, #name + 2) == "/" .. name .. "/" then last = request end
  end
  return assert(last, "no request came")
end

local function header(response, wanted)
  for _, pair in ipairs(response.headers) do
    if pair[1]:lower() == wanted then return pair[2] end
  end
end

-- The values that a validation error repeats from the request: none of them may be shown.
local function inputs(response)
  local answer, found = json.decode(response.body), {}
  for _, item in ipairs(type(answer) == "table" and type(answer.detail) == "table" and answer.detail or {}) do
    if type(item.input) ~= "table" then found[#found + 1] = tostring(item.input) end
  end
  return found
end

local function holds(text, part)
  assert.is_truthy(tostring(text):find(part, 1, true), ("%q is not in %q"):format(part, tostring(text)))
end

local function lacks(text, part)
  assert.is_nil(tostring(text):find(part, 1, true), ("%q shows %q"):format(tostring(text), part))
end

local function check_error(case, recording, value, err)
  local expected = case.err
  assert.is_nil(value)
  assert.is_true(opensandbox.is_error(err), tostring(err))
  assert.same({ kind = expected.kind or "http", code = expected.code, status = recording.response.status },
    { kind = err.kind, code = err.code, status = err.status }, tostring(err))
  holds(err.message, expected.message)
  assert.equal(header(recording.response, "x-request-id"), err.request_id)
  assert.is_false(err.retryable)
  if expected.sandbox_id then assert.equal(expected.sandbox_id, err.sandbox_id) end
  if expected.hint then holds(err.hint, expected.hint) end
  if expected.op then assert.equal(expected.op, err.op) end
  if expected.result_id then
    assert.equal(expected.result_id, err.result.id)
    assert.is_nil(err.result.exit_code)
  end
  local text = tostring(err)
  assert.equal(err.op .. ": ", text:sub(1, #err.op + 2))
  holds(text, err.message)
  if err.request_id then holds(text, err.request_id) end
  for _, secret in ipairs { case.key or KEY, case.token } do
    -- The URL of the test holds the recording's name.
    if secret ~= "" then lacks((text:gsub("http://%S+", "")), secret) end
  end
  for _, input in ipairs(inputs(recording.response)) do lacks(err.message, input) end
end

-- Takes away what has a test of its own, and what depends on the machine.
local function comparable(value, expected)
  if type(value) ~= "table" then return value end
  local copy = {}
  for name, item in pairs(value) do copy[name] = item end
  if type(copy[1]) == "table" then
    for index, item in ipairs(copy) do copy[index] = comparable(item, {}) end
  end
  if copy.stdout then
    assert.is_true(type(copy.duration) == "number" and copy.duration >= 0)
    copy.duration = expected.duration and copy.duration
  end
  if copy.raw then
    assert.equal(copy.id, copy.raw.id)
    copy.raw = nil
  end
  return copy
end

-- The body of a create or a renew is the recorded one, apart from what must differ.
local function check_sent(case, recording, request)
  local body = assert(json.decode(request.body))
  if case.sent == "time" then
    local year, month, day, hour, minute, second = body.expiresAt:match("^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)%.%d%d%d%d%d%dZ$")
    assert.is_truthy(year, body.expiresAt)
    local now = os.date("!*t")
    now.isdst = false
    local wanted = os.time(now) + 900
    local sent = os.time { year = year, month = month, day = day, hour = hour, min = minute, sec = second, isdst = false }
    assert.is_true(math.abs(sent - wanted) <= 30, body.expiresAt)
    body.expiresAt = nil
    assert.same({}, body)
    return
  end
  local expected = json.decode(recording.request.body)
  for name, value in pairs(case.sent) do expected[name] = value end
  local label = body.metadata["opensandbox-lua-create"]
  assert.matches("^%x+$", label)
  body.metadata["opensandbox-lua-create"] = nil
  if not expected.metadata and not next(body.metadata) then body.metadata = nil end
  assert.same(expected, body)
  lacks(request.body, "[]")
end

local function make(case)
  local name = case[1]
  local recording = assert(recordings.load(name))
  local server = case.served and serving() or replaying("recorded", "none")
  local base = server.url .. "/" .. name
  local client = new_client(base, case.key, case.sent ~= nil)
  local execd = { url = base, sandbox_id = "sb", headers = case.token and { ["X-EXECD-ACCESS-TOKEN"] = case.token } or {} }
  local value, err = case.call(client, execd)
  if case.err then
    check_error(case, recording, value, err)
    if name:find("^execd/") then assert.equal("sb", err.sandbox_id) end
  else
    if value == nil then error(err) end
    assert.same(case.value, comparable(value, case.value))
  end
  if case.sent then check_sent(case, recording, last_request(server, name)) end
  if case.served then
    local request = last_request(server, name)
    local route = name:find("^lifecycle/") and "/v1" or ""
    local method, path = case.served:match("^(%S+) (.*)$")
    assert.same({ method, "/" .. name .. route .. path }, { request.method, request.path })
  end
  if case.key == "" then assert.is_nil(last_request(server, name).headers["open-sandbox-api-key"]) end
end

describe("a recorded exchange, made again:", function()
  after_each(close_clients)
  teardown(stop_all)

  for _, case in ipairs(cases) do
    it(case[1], function() make(case) end)
  end
end)

describe("a request that execd or the server would refuse is refused before it is sent:", function()
  -- Nothing listens there: a call that sends something fails in another way.
  local client

  setup(function() client = opensandbox.new("http://127.0.0.1:1", KEY, { retry = false }) end)
  teardown(function() client:close() end)

  for _, case in ipairs(cases) do
    for index, refusal in ipairs(case.refuses or {}) do
      it(("%s, call %d"):format(case[1], index), function()
        local ok, problem = pcall(refusal[1], client, "http://127.0.0.1:1")
        assert.is_false(ok)
        assert.equal("string", type(problem))
        holds(problem, refusal[2])
        holds(problem, "recordings_spec.lua:")
      end)
    end
  end
end)

describe("the recordings", function()
  local function names(area)
    local found = {}
    local handle = assert(uv.fs_scandir("spec/recordings/" .. area))
    while true do
      local name = uv.fs_scandir_next(handle)
      if not name then return found end
      name = name:match("^(.*)%.json$")
      if name then found[#found + 1] = name end
    end
  end

  it("are all covered by a case above", function()
    local covered, total = {}, 0
    for _, case in ipairs(cases) do
      assert.is_nil(covered[case[1]], case[1] .. " stands twice")
      covered[case[1]] = true
    end
    for _, area in ipairs { "lifecycle", "execd" } do
      for _, name in ipairs(names(area)) do
        local full = area .. "/" .. name
        assert.is_true(covered[full], full .. " is covered by nothing")
        covered[full] = nil
        total = total + 1
      end
    end
    assert.same({}, covered)
    assert.is_true(total > 100)
  end)
end)

-- Time -----------------------------------------------------------------------------------------------------------------

describe("with the times of the recording,", function()
  after_each(close_clients)
  teardown(stop_all)

  it("run_command returns at the terminal event, a second before the stream ends", function()
    assert.is_true(recordings.load("execd/command-echo").response.end_ms >= 1000)
    local base = replaying("recorded", "recorded"):base("execd/command-echo")
    local best = math.huge
    for _ = 1, 3 do
      local client = new_client(base)
      local began = core.now()
      local result = assert(client:run_command(base, "echo hello"))
      best = math.min(best, core.now() - began)
      assert.equal("hello\n", result.stdout)
    end
    assert.is_true(best < 0.05, ("it took %.3f s"):format(best))
  end)

  it("output is handed out while the command runs, in order", function()
    local base = replaying("recorded", "recorded"):base("execd/command-slow")
    local client = new_client(base)
    local texts, times = {}, {}
    local began = core.now()
    local result = assert(client:run_command(base, "for i in 1 2 3 4 5; do echo tick $i; sleep 0.9; done", {
      on_stdout = function(text)
        texts[#texts + 1] = text
        times[#times + 1] = core.now() - began
      end,
    }))
    assert.same({ "tick 1\n", "tick 2\n", "tick 3\n", "tick 4\n", "tick 5\n" }, texts)
    assert.equal(table.concat(texts), result.stdout)
    -- Recorded 0.9 s apart; a busy machine may hold one back, but none can come early.
    for index, time in ipairs(times) do
      assert.is_true(time >= 0.9 * (index - 1), ("call %d came after %.3f s"):format(index, time))
    end
    assert.is_true(times[1] < 1 and times[5] - times[1] > 3, table.concat(times, " "))
    local taken = core.now() - began
    assert.is_true(taken < 5.3, ("it took %.3f s, the stream 5.5"):format(taken))
  end)

  it("a command that its timeout ended is told from one that was killed", function()
    local base = replaying("recorded", "recorded"):base("execd/command-timeout")
    local result = assert(new_client(base):run_command(base, "echo a; sleep 30", { timeout = 0.5 }))
    assert.same({ -1, "killed", true, "a\n" }, { result.exit_code, result.signal, result.timed_out, result.stdout })
  end)
end)

-- Chunks ---------------------------------------------------------------------------------------------------------------

local function cut_at_random(body, seed)
  local random, pieces, position = new_random(seed), {}, 1
  while position <= #body do
    local last = position + random(({ 3, 30, 300, 3000 })[random(4)]) - 1
    pieces[#pieces + 1] = body:sub(position, last)
    position = last + 1
  end
  return pieces
end

local function frames_of(pieces)
  local decoder, found = core.event_stream(1024 * 1024), {}
  local function take()
    while true do
      local event, failure = decoder:next()
      if not event then
        assert.is_nil(failure)
        return
      end
      found[#found + 1] = event
    end
  end
  for _, piece in ipairs(pieces) do
    decoder:feed(piece)
    take()
  end
  decoder:finish()
  take()
  return found
end

-- The names of execd's recordings that are event streams.
local streams = {}
do
  local handle = assert(uv.fs_scandir("spec/recordings/execd"))
  local name = uv.fs_scandir_next(handle)
  while name do
    local recording = assert(recordings.load("execd/" .. name:gsub("%.json$", "")))
    if header(recording.response, "content-type") == "text/event-stream" then streams[#streams + 1] = recording.name end
    name = uv.fs_scandir_next(handle)
  end
  table.sort(streams)
end

describe("however it is cut, the decoder makes the same frames of", function()
  it("every event stream there is, of commands, sessions, code and metrics", function()
    local kinds = {}
    for _, name in ipairs(streams) do kinds[name:match("^execd/(%a+)")] = true end
    assert.same({ command = true, session = true, code = true, metrics = true }, kinds)
  end)

  for _, name in ipairs(streams) do
    it(name, function()
      local body = recordings.load(name).response.body
      -- What execd sends is one object a line: here the frames can be found in another way.
      local expected = {}
      for line in (body .. "\n"):gmatch("([^\n]*)\n") do
        if line ~= "" then expected[#expected + 1] = line end
      end
      assert.is_true(#expected > 0)
      local whole = frames_of { body }
      assert.equal(table.concat(expected, "\n"), table.concat(whole, "\n"))
      assert.equal(#expected, #whole)
      local bytes = {}
      for position = 1, #body do bytes[position] = body:sub(position, position) end
      local reference = table.concat(whole, "\n")
      assert.equal(reference, table.concat(frames_of(bytes), "\n"))
      for seed = 1, 5 do
        assert.equal(reference, table.concat(frames_of(cut_at_random(body, seed)), "\n"), "seed " .. seed)
      end
    end)
  end
end)

describe("however it is cut on the wire, the same result comes of", function()
  after_each(close_clients)
  teardown(stop_all)

  local fields = { "id", "exit_code", "stdout", "stderr", "error", "signal", "text", "results", "execution_count" }
  -- Byte by byte these are hundreds of thousands of writes.
  local long = { ["execd/command-burst"] = true, ["execd/command-long-line"] = true }

  for _, case in ipairs(cases) do
    local name = case[1]
    if type(case.value) == "table" and case.value.stdout then
      it(name, function()
        local cuts = { "whole", 1, 2, 3 }
        if not long[name] then cuts[#cuts + 1] = "bytes" end
        for _, chunking in ipairs(cuts) do
          local base = replaying(chunking, "none"):base(name)
          local client = new_client(base)
          local result = assert(case.call(client, base))
          for _, field in ipairs(fields) do
            assert.same(case.value[field], result[field], ("%s, cut %s"):format(field, chunking))
          end
          close_clients()
        end
      end)
    end
  end
end)
