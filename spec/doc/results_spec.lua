--- The documented fields of results are those that calls return: each call's result is compared with its document.

local Fixture = require "spec.support.fixture"
local opensandbox = require "opensandbox"
local reference = require "spec.support.reference"
local temporary = require "spec.support.temporary"

local model = reference.make().model

local fixture, client, sandbox, scratch

setup(function()
  fixture = Fixture.new { metadata = { job = "7" }, timeout = 600, network_policy = opensandbox.egress.only("pypi"),
    credential_proxy = true }
  client, sandbox = fixture.client, fixture.sandbox
  scratch = temporary.directory()
end)
teardown(function()
  fixture:close()
  temporary.remove(scratch)
end)

-- Returns the documented fields of a class and of its parents, by name.
local function fields_of(class)
  local fields = {}
  for _, parent in ipairs(class.parents) do
    for name, field in pairs(fields_of(model.classes[parent])) do fields[name] = field end
  end
  for _, field in ipairs(class.fields) do fields[field.name] = field end
  return fields
end

-- Compares a value with the type that its document gives it. Fields that begin with "_" are the object's own.
local function compare(value, kind, where)
  local name = kind:match("^(opensandbox%.[%w_]+)")
  if not name or type(value) ~= "table" then return end
  if kind:find("^" .. name .. "%[%]") then
    for i, item in ipairs(value) do compare(item, name, ("%s[%d]"):format(where, i)) end
    return
  end
  local class = model.classes[name]
  if not class or #class.methods > 0 then return end
  local fields = fields_of(class)
  for key, item in pairs(value) do
    if type(key) == "string" and key:sub(1, 1) ~= "_" then
      assert.truthy(fields[key], ("%s.%s is no documented field of %s"):format(where, key, name))
      compare(item, fields[key].type, where .. "." .. key)
    end
  end
  for key, field in pairs(fields) do
    assert.is_true(field.optional or value[key] ~= nil, ("%s: %s of %s is not optional, but nil"):format(where, key, name))
  end
end

-- Returns the document of a method of a class or of one of its parents.
local function document_of(class, method)
  for _, one in ipairs(class.methods) do
    if one.name == method then return one.fn.doc end
  end
  for _, parent in ipairs(class.parents) do
    local doc = document_of(model.classes[parent], method)
    if doc then return doc end
  end
end

-- Calls a method and compares its first result with its document.
local function check(class, object, method, ...)
  local doc = document_of(model.classes["opensandbox." .. class], method)
  local value, err = object[method](object, ...)
  assert.truthy(value, tostring(err))
  compare(value, doc.returns[1].type, class .. ":" .. method)
  return value
end

describe("the documented fields are those of the results of", function()
  it("sandboxes and their endpoints", function()
    local id = sandbox.id
    check("Sandbox", sandbox, "info")
    check("Client", client, "list_sandboxes", { metadata = { job = "7" } })
    check("Client", client, "wait_ready", id)
    check("Sandbox", sandbox, "endpoint", 8080)
    check("Client", client, "discover_execd", id)
    check("Sandbox", sandbox, "handle")
    check("Sandbox", sandbox, "patch_metadata", { stage = "two" })
    check("Sandbox", sandbox, "metrics")
    check("Sandbox", sandbox, "logs")
    check("Sandbox", sandbox, "events")
  end)

  it("snapshots", function()
    local info = check("Sandbox", sandbox, "snapshot", "one")
    check("Client", client, "get_snapshot", info.id)
    check("Client", client, "list_snapshots", { sandbox_id = sandbox.id })
    assert(client:delete_snapshot(info.id))
  end)

  it("commands, also those that a signal or their timeout ends", function()
    check("Sandbox", sandbox, "run", "echo out; echo err >&2; exit 3")
    local killed = check("Sandbox", sandbox, "run", "kill -9 $$")
    assert.same({ -1, "killed" }, { killed.exit_code, killed.signal })
    local late = check("Sandbox", sandbox, "run", "sleep 60", { timeout = 0.2 })
    assert.is_true(late.timed_out)
    check("Sandbox", sandbox, "run", "echo exact", { capture = "exact" })
    check("Sandbox", sandbox, "run", "echo durable", { durable = true })
    local command = assert(sandbox:start("echo one; exit 3"))
    check("Command", command, "wait", { timeout = 30 })
    check("Command", command, "status")
    for event in command:events() do compare(event, "opensandbox.CommandEvent", "event") end
    for event in sandbox:stream("echo one; exit 3") do compare(event, "opensandbox.StreamEvent", "event") end
  end)

  it("files and directories", function()
    local files = sandbox.files
    assert(files:write("/work/a.txt", "some bytes"))
    check("Files", files, "stat", "/work/a.txt")
    check("Files", files, "list", "/work")
    check("Files", files, "search", "/work", "*.txt")
    check("Files", files, "download_dir", "/work", scratch .. "/down")
    check("Files", files, "upload_dir", scratch .. "/down", "/work/up")
  end)

  it("sessions and kernels", function()
    local session = assert(sandbox:session())
    check("Session", session, "run", "echo one")
    session:close()
    local code = assert(sandbox:code "bash")
    check("Code", code, "run", "echo one")
    check("Sandbox", sandbox, "code_contexts")
    code:close()
  end)

  it("network policies and vaults", function()
    check("Egress", sandbox.egress, "policy")
    check("Egress", sandbox.egress, "allow", "github")
    check("Vault", sandbox.vault, "create", {
      credentials = { { name = "token", value = "secret" } },
      bindings = { { name = "api", hosts = { "pypi.org" }, auth = { type = "bearer", credential = "token" } } },
    })
    check("Vault", sandbox.vault, "get")
    check("Vault", sandbox.vault, "credentials")
    check("Vault", sandbox.vault, "binding", "api")
  end)

  it("pools and errors", function()
    local pool = client:pool { image = "any", min_idle = 0 }
    compare(pool:stats(), "opensandbox.PoolStats", "stats")
    assert(pool:close())
    local _, missing = client:get_sandbox("missing")
    compare(missing, "opensandbox.Error", "err")
    local _, refused = opensandbox.new("http://127.0.0.1:1", "key", { retry = false }):get_sandbox("x")
    compare(refused, "opensandbox.Error", "err")
    local _, failed = sandbox:run("true", { cwd = "/missing" })
    compare(failed, "opensandbox.Error", "err")
  end)

  it("nothing that the documents do not name", function()
    local ok, problem = pcall(compare, { id = "x", state = "Running", metadata = {}, raw = {}, colour = "red" },
      "opensandbox.SandboxInfo?", "info")
    assert.is_false(ok)
    assert.truthy(tostring(problem):find("info.colour is no documented field", 1, true))
    ok, problem = pcall(compare, { { path = 1 }, {} }, "opensandbox.FileInfo[]?", "list")
    assert.is_false(ok)
    assert.truthy(tostring(problem):find("list[2]: path of opensandbox.FileInfo is not optional", 1, true))
  end)
end)
