--- The tools of the MCP server for sandboxes. Names and parameters are those of the official server, and some more.

local check = require "opensandbox.cli.base.check"
local json = require "opensandbox.base.json"
local tool_parameters = require "opensandbox.cli.mcp.parameters"
local sandbox_table = require "opensandbox.cli.base.sandbox_table"

local plain = sandbox_table.plain

local ID, CONNECT = tool_parameters.SANDBOX_ID, tool_parameters.CONNECT

local CREATE = {
  { "image", "string", "Image, for example python:3.12.", required = true },
  { "timeout_seconds", "number", "Lifetime in seconds.", default = 600 },
  { "ready_timeout_seconds", "number", "How long to wait until commands can run.", default = 30 },
  { "skip_health_check", "boolean", "Return before commands can run." },
  { "env", "string map", "Environment variables." },
  { "metadata", "string map", "Metadata, for filters." },
  { "resource", "string map", "Limits, for example {\"cpu\": \"1\", \"memory\": \"2Gi\"}." },
  { "network_policy", "object", "The hosts that the sandbox can reach.", fields = {
    { "default_action", "string", "allow or deny, for all other hosts.", default = "deny" },
    { "egress", "entries", "Rules.", fields = {
      { "action", "string", "allow or deny", required = true }, { "target", "string", "Host, or *.suffix.", required = true },
    } },
  } },
  { "extensions", "string map", "Passed to the server as they are." },
  { "entrypoint", "string list", "The main process. Default: one that only waits." },
  { "auth_username", "string", "User of the image's registry." },
  { "auth_password", "string", "Password of the image's registry." },
  { "health_check_polling_interval_ms", "integer", "Accepted for compatibility." },
}

local function create_options(args)
  local auth = args.auth_username and { username = args.auth_username, password = args.auth_password or "" } or nil
  local opts = {
    image = args.image, image_auth = auth, timeout = args.timeout_seconds, ready_timeout = args.ready_timeout_seconds,
    env = args.env, metadata = args.metadata, resource_limits = args.resource, network_policy = args.network_policy,
    extensions = args.extensions, entrypoint = args.entrypoint,
  }
  if args.skip_health_check then opts.wait = false end
  return opts
end

local function list_of(infos)
  local list = json.array {}
  for index, info in ipairs(infos) do list[index] = plain(info) end
  return list
end

local function tool(name, description, parameters, run, read_only)
  return { name = name, description = description, parameters = parameters, run = run, read_only = read_only }
end

return {
  tool("sandbox_create", "Creates a sandbox, and waits until commands can run. It is deleted at the end of the session.", CREATE,
    function(sandboxes, args)
      local sandbox = sandboxes:create(create_options(args))
      return { sandbox_id = sandbox.id, info = plain(check(sandbox:info())) }
    end),
  tool("sandbox_connect", "Waits until commands can run in an existing sandbox.", {
    ID, { "connect_timeout_seconds", "number", "How long to wait.", default = 30 },
    { "skip_health_check", "boolean", "Do not wait." },
    { "health_check_polling_interval_ms", "integer", "Accepted for compatibility." },
  }, function(sandboxes, args)
    local id = args.sandbox_id
    local sandbox = args.skip_health_check and sandboxes:get(id) or sandboxes:connect(id, args.connect_timeout_seconds)
    return { sandbox_id = id, info = plain(check(sandbox:info())) }
  end),
  tool("sandbox_kill", "Deletes a sandbox.", { ID }, function(sandboxes, args)
    sandboxes:kill(args.sandbox_id)
    return { status = "killed" }
  end),
  tool("sandbox_get_info", "Returns the state and the expiry of a sandbox.", { ID }, function(sandboxes, args)
    return plain(check(sandboxes.client:get_sandbox(args.sandbox_id)))
  end, true),
  tool("sandbox_list", "Lists sandboxes, newest first.", {
    { "filter", "object", "Which sandboxes; all by default.", fields = {
      { "states", "string list", "In one of these states, for example Running." },
      { "metadata", "string map", "With this metadata." }, { "page", "integer", "From 1; default: all pages." },
      { "page_size", "integer", "At most 200." },
    } },
  }, function(sandboxes, args)
    return { sandbox_infos = list_of(check(sandboxes.client:list_sandboxes(args.filter))) }
  end, true),
  tool("sandbox_renew", "Sets the lifetime of a sandbox.", {
    ID, { "timeout_seconds", "number", "Seconds from now.", required = true },
  }, function(sandboxes, args)
    return { expires_at = check(sandboxes.client:renew_sandbox(args.sandbox_id, args.timeout_seconds)) }
  end),
  tool("sandbox_get_metrics", "Returns load and memory of the machine of a sandbox.", { ID, CONNECT }, function(sandboxes, args)
    return check(sandboxes:get(args.sandbox_id):metrics())
  end, true),
  tool("sandbox_healthcheck", "Returns whether commands can run in a sandbox.", { ID, CONNECT }, function(sandboxes, args)
    local execd = check(sandboxes.client:discover_execd(args.sandbox_id))
    return { sandbox_id = args.sandbox_id, healthy = sandboxes.client:ping(execd) or false }
  end, true),
  tool("sandbox_get_endpoint", "Returns the URL of a port of a sandbox, and the headers that requests need.", {
    ID, { "port", "integer", "1 to 65535.", required = true }, CONNECT,
  }, function(sandboxes, args)
    return check(sandboxes:get(args.sandbox_id):endpoint(args.port))
  end, true),
  tool("sandbox_pause", "Pauses a sandbox: its processes stop.", { ID }, function(sandboxes, args)
    check(sandboxes:get(args.sandbox_id):pause())
    return { status = "paused" }
  end),
  tool("sandbox_resume", "Resumes a paused sandbox.", { ID }, function(sandboxes, args)
    check(sandboxes:get(args.sandbox_id):resume())
    return { status = "resumed" }
  end),
  tool("sandbox_wait_for_port", "Waits until a process in a sandbox listens on a port.", {
    ID, { "port", "integer", "1 to 65535.", required = true }, { "timeout_seconds", "number", "How long to wait.", default = 30 },
  }, function(sandboxes, args)
    check(sandboxes:get(args.sandbox_id):wait_for_port(args.port, { timeout = args.timeout_seconds }))
    return { status = "listening" }
  end, true),
  tool("snapshot_create", "Makes a snapshot of a sandbox, and waits until it is ready.", {
    ID, { "name", "string", "Its name." },
  }, function(sandboxes, args)
    return check(sandboxes:get(args.sandbox_id):snapshot(args.name))
  end),
  tool("egress_get_policy", "Returns the hosts that a sandbox can reach.", { ID }, function(sandboxes, args)
    return check(sandboxes:get(args.sandbox_id).egress:policy())
  end, true),
  tool("egress_allow", "Allows hosts, or presets such as pypi, npm and github.", {
    ID, { "hosts", "string list", "Hosts, *.suffix, or presets.", required = true },
  }, function(sandboxes, args)
    local egress = sandboxes:get(args.sandbox_id).egress
    check(egress:allow(args.hosts))
    return check(egress:policy())
  end),
}
