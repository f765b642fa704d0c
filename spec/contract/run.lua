--- The client against the real lifecycle server: every operation of the lifecycle API, with every option that our methods take.
--
-- A request that the server answers with 422 has the wrong shape, and that is our fault. So is a member of a body that the server does not
-- know, because it ignores most of these. The server has no sandboxes that run, so the APIs inside of sandboxes are not tried. Prints
-- a line for each step, and ends with "N passed, N failed".

local options_used = require "spec.contract.options_used"
local contract_server = require "spec.contract.server"
local describe_server = require "spec.contract.description"
local http_call = require "opensandbox.http.call"
local opensandbox = require "opensandbox"
local operations = require "spec.operations"

local server = contract_server.start()
local description = describe_server(server)
local requests, senders = {}, {} -- every request that was sent, as "METHOD /path"; the methods that sent one
local refused = {}               -- what was answered with 422
local ignored = {}               -- members of bodies that the server does not know
local body                       -- of the request that is being prepared
local current                    -- the name of the step

-- Members that only later servers know. The client says so where it documents them.
local LATER = { [".ports"] = "server 1.2.0" }

local encode = http_call.encode
function http_call.encode(op, value)
  body = value
  return encode(op, value)
end

local client = opensandbox.new(server.url, server.key, {
  on_request = function(request)
    local path = request.url:sub(#server.url + 1):gsub("%?.*$", "")
    requests[#requests + 1], senders[request.op] = request.method .. " " .. path, true
    for _, member in ipairs(body and description:unknown_members(request.method, path, body) or {}) do
      if not LATER[member:match("%.%w+$")] then ignored[#ignored + 1] = ("%s: %s"):format(current, member) end
    end
    body = nil
  end,
  on_response = function(response)
    if response.status == 422 then refused[#refused + 1] = current .. ": " .. response.method .. " " .. response.url end
  end,
})

local passed, failed = 0, 0

local function report(name, problem)
  print(problem and ("FAIL %s: %s"):format(name, problem) or "ok " .. name)
  if problem then failed = failed + 1 else passed = passed + 1 end
end

-- One step. `expected`: the code of the error with which this runtime, Docker, refuses a valid request.
local function step(name, expected, call)
  current = name
  local before, before_ignored = #refused, #ignored
  local ok, value, err = pcall(call)
  local problem
  if not ok then
    problem = tostring(value)
  elseif #refused > before then
    problem = "the server refuses the shape of the request: " .. tostring(err)
  elseif #ignored > before_ignored then
    problem = "the server does not know " .. table.concat(ignored, ", ", before_ignored + 1)
  elseif expected and not (err and err.code == expected) then
    problem = ("%s was expected, not %s"):format(expected, tostring(err or value))
  elseif not expected and (value == nil or err) then
    problem = tostring(err)
  end
  report(name, problem)
  return ok and value or nil
end

-- Creates a sandbox that must be accepted. Each has other options, so that a refused one shows which.
local function created(name, opts)
  opts.image = opts.image or (not opts.snapshot_id and "python:3.12") or nil
  return step("create with " .. name, nil, function() return client:create_sandbox(opts) end)
end

local function refused_create(name, code, opts)
  step("create with " .. name, code, function() return client:create_sandbox(opts) end)
end

local RULES = { { action = "allow", target = "example.com" }, { action = "deny", target = "*.example.org" } }
local CALL = { timeout = 20 }

-- Creates

local plain = assert(created("an image alone", {}), "without a sandbox there is nothing to try")
created("all that has no conditions", {
  image = "python:3.12", image_auth = { username = "user", password = "secret" }, entrypoint = { "sleep", "60" },
  env = { A = "b" }, metadata = { ["example.com/team"] = "red", stage = "one" }, timeout = 90.5,
  resource_limits = { cpu = "500m", memory = "256Mi" }, resource_requests = { cpu = "100m", memory = "64Mi" },
  platform = { os = "linux", arch = "amd64" }, extensions = { ["access.renew.extend.seconds"] = "600" },
})
created("an image as a table", { image = { uri = "python:3.12", auth = { username = "user", password = "secret" } } })
created("no expiry", { timeout = false })
local guarded = created("a network policy", { network_policy = { default_action = "deny", egress = RULES } })
created("no rules in the policy", { network_policy = opensandbox.egress.none() })
created("ports in the policy", { network_policy = { egress = { { action = "allow", target = "10.0.0.0/8", ports = { 443 } } } } })
created("a credential proxy", { credential_proxy = true, network_policy = opensandbox.egress.only("example.com") })
created("isolation", { extensions = { ["bootstrap.execd.isolation"] = "enable" } })
created("a host volume", { volumes = {
  { name = "data", mount_path = "/data", read_only = true, host = { path = server.directory } },
} })
created("a named volume", { volumes = { { name = "data", mount_path = "/data", sub_path = "", pvc = {
  claim_name = "data", create_if_not_exists = true, delete_on_sandbox_termination = true, storage_class = "fast", storage = "1Gi",
  access_modes = { "ReadWriteOnce" },
} } } })
refused_create("secure access", "SANDBOX::INVALID_PARAMETER", { image = "python:3.12", secure_access = true })
refused_create("lifecycle hooks", "SANDBOX::INVALID_PARAMETER", { image = "python:3.12", lifecycle = {
  pre_start = { command = { "true" }, timeout_seconds = 60 },
  periodic = { { name = "tidy", schedule = "@hourly", command = { "true" }, timeout_seconds = 60 } },
} })
-- Docker has no templates. Past the check of the shape it misses the entrypoint, which a template would have.
refused_create("a template", "DOCKER::INVALID_ENTRYPOINT", { template_id = "tpl-1", timeout = 600, metadata = { stage = "one" },
  network_policy = opensandbox.egress.only("example.com"), extensions = { ["example.com/name"] = "value" } })
refused_create("a pool", "SANDBOX::UNSUPPORTED_POOL_REF", { extensions = { poolRef = "ready" } })

-- Sandboxes

step("get_sandbox", nil, function() return client:get_sandbox(plain.id, CALL) end)
step("list_sandboxes", nil, function() return client:list_sandboxes() end)
step("list_sandboxes with a filter", nil, function()
  return client:list_sandboxes { metadata = { ["example.com/team"] = "red", stage = "one" }, states = { "Running", "Paused" },
    page = 1, page_size = 200, timeout = 20 }
end)
step("patch_metadata", nil, function() return client:patch_metadata(plain.id, { stage = "two", gone = false }, CALL) end)
step("pause_sandbox", nil, function() return client:pause_sandbox(plain.id, CALL) end)
step("resume_sandbox", nil, function() return client:resume_sandbox(plain.id, CALL) end)
step("renew_sandbox", nil, function() return client:renew_sandbox(plain.id, 600.25, CALL) end)
step("wait_ready", nil, function()
  return client:wait_ready(plain.id, { timeout = 20, ping = false, on_state = function() end })
end)
step("get_endpoint", nil, function() return client:get_endpoint(plain.id, 8080) end)
step("get_endpoint through the server", nil, function()
  return client:get_endpoint(plain.id, 8080, { use_server_proxy = true, timeout = 20 })
end)
step("get_endpoint with a signature", "SANDBOX::API_NOT_SUPPORTED", function()
  return client:get_endpoint(plain.id, 8080, { expires = os.time() + 600 })
end)
step("discover_execd", nil, function() return client:discover_execd(plain.id) end)
step("discover_egress", nil, function() return client:discover_egress(guarded.id) end)
for _, kind in ipairs { "logs", "events" } do
  step("get_diagnostic_" .. kind, nil, function() return client["get_diagnostic_" .. kind](client, plain.id, "all", CALL) end)
end

-- The network policy through the server, which passes it on to the sidecar

step("get_network_policy", nil, function() return client:get_network_policy(guarded.id, CALL) end)
step("patch_network_policy", nil, function() return client:patch_network_policy(guarded.id, RULES, CALL) end)
step("patch_network_policy with ports", nil, function()
  return client:patch_network_policy(guarded.id, { { action = "allow", target = "10.0.0.0/8", ports = { 443 } } })
end)
step("delete_network_rules", nil, function() return client:delete_network_rules(guarded.id, { "example.com" }, CALL) end)
step("replace_network_policy", nil, function()
  return client:replace_network_policy(guarded.id, { default_action = "allow", egress = RULES }, CALL)
end)
step("replace_network_policy with nothing", nil, function() return client:replace_network_policy(guarded.id, {}) end)

-- Snapshots

local snapshot = step("create_snapshot", nil, function()
  return client:create_snapshot(plain.id, { name = "first", timeout = 20 })
end)
step("create_snapshot without a name", nil, function() return client:create_snapshot(plain.id) end)
step("wait_snapshot", nil, function() return client:wait_snapshot(snapshot.id, CALL) end)
step("get_snapshot", nil, function() return client:get_snapshot(snapshot.id, CALL) end)
step("list_snapshots", nil, function() return client:list_snapshots() end)
step("list_snapshots with a filter", nil, function()
  return client:list_snapshots {
    sandbox_id = plain.id, name = "first", states = { "Ready" }, page = 1, page_size = 200, timeout = 20,
  }
end)
created("a snapshot", { snapshot_id = snapshot.id })
step("delete_snapshot", nil, function() return client:delete_snapshot(snapshot.id, CALL) end)

-- What only Kubernetes has

local NO_POOLS = "KUBERNETES::POOL_NOT_SUPPORTED"
local CAPACITY = { buffer_min = 0, buffer_max = 1, pool_min = 0, pool_max = 2 }
step("create_pool", NO_POOLS, function()
  return client:create_pool { name = "ready", template = { spec = {} }, capacity = CAPACITY, timeout = 20 }
end)
step("list_pools", NO_POOLS, function() return client:list_pools(CALL) end)
step("get_pool", NO_POOLS, function() return client:get_pool("ready", CALL) end)
step("update_pool", NO_POOLS, function() return client:update_pool("ready", CAPACITY, CALL) end)
step("delete_pool", NO_POOLS, function() return client:delete_pool("ready", CALL) end)

local NO_TEMPLATES = "FSB::API_NOT_SUPPORTED"
step("create_template", NO_TEMPLATES, function()
  return client:create_template { image = "python:3.12", publish = "s3://bucket/path", timeout = 20 }
end)
step("create_template with all options", NO_TEMPLATES, function()
  return client:create_template {
    image = "python:3.12", publish = "s3://bucket/path", resource_limits = { cpu = "1", memory = "512Mi", disk = "2Gi" },
    entrypoint = { "sleep", "60" }, env = { A = "b" }, metadata = { stage = "one" }, format = "native",
    readiness = { probe = "tcp://127.0.0.1:44772", warmup = 1.5 },
  }
end)
step("list_templates", NO_TEMPLATES, function() return client:list_templates() end)
step("list_templates with a filter", NO_TEMPLATES, function()
  return client:list_templates { metadata = { stage = "one" }, page = 1, page_size = 200, timeout = 20 }
end)
step("get_template", NO_TEMPLATES, function() return client:get_template("tpl-1", CALL) end)
step("wait_template", NO_TEMPLATES, function() return client:wait_template("tpl-1", CALL) end)
step("delete_template", NO_TEMPLATES, function() return client:delete_template("tpl-1", CALL) end)

-- The server itself

step("health", nil, function() return client:health(CALL) end)
step("get_version", nil, function() return client:get_version(CALL) end)
step("record_create_event", nil, function()
  return client:record_create_event({ success = true, duration = 1.5, sandbox_id = plain.id, image = "python:3.12" }, CALL)
end)

step("delete_sandbox", nil, function() return client:delete_sandbox(plain.id, CALL) end)
step("kill_all", nil, function() return client:kill_all { timeout = 60 } end)

client:close()

-- What was not tried

-- Returns whether a request was sent for a row of the table of operations.
local function was_sent(row)
  local pattern = "^" .. (row.method .. " " .. row.at .. row.path):gsub("[%-%.]", "%%%0"):gsub("{[%w_]+}", "[^/]+") .. "$"
  for _, request in ipairs(requests) do
    if request:find(pattern) then return true end
  end
end

for _, row in ipairs(operations) do
  if row.covered and row.at ~= "endpoint" then
    report(("%s %s was sent"):format(row.method, row.path), not was_sent(row) and "no step sends it" or nil)
  end
end
-- Returns whether the table has a row for a route of the server.
local rows = {}
for _, row in ipairs(operations) do rows[description:route(row.method, row.path)] = true end
for _, route in ipairs(description:routes()) do
  local known = rows[route] or rows[route:gsub("^%u+", "ANY")]
  report(route .. " is in the table of operations", not known and "the server has it, and the table has not" or nil)
end

local unused = table.concat(options_used.unused(senders), ", ")
report("every option was used", unused ~= "" and "no step uses " .. unused or nil)

if failed > 0 then print(server:log()) end
server:stop()
print(("%d requests, %d refused shapes, %d ignored members"):format(#requests, #refused, #ignored))
for _, one in ipairs(refused) do print("  " .. one) end
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
