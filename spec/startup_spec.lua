--- `require "opensandbox"` loads what every script needs. The rest is loaded when it is first used, and it is all there.

local class = require "opensandbox.base.class"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

-- What a script needs to make a client.
local AT_MOST = 40 -- files

-- The modules of ours that a program loads.
local function loaded_by(script)
  local program = process.start { env = process.module_paths(), argv = { process.lua(), "-e", script .. [[
    for name in pairs(package.loaded) do
      if name:find("^opensandbox") then print(name) end
    end
  ]] } }
  local loaded, count = {}, 0
  local line = program:read_line(10)
  while line do
    loaded[line], count = true, count + 1
    line = program:read_line(10)
  end
  assert.equal(0, program:wait(10), program:stderr_text())
  program:stop()
  return loaded, count
end

local LATER = {
  "opensandbox.sandbox_pool", "opensandbox.pool", "opensandbox.pool.rules", "opensandbox.vault",
  "opensandbox.egress", "opensandbox.isolated_session", "opensandbox.code_context",
  "opensandbox.session", "opensandbox.terminal", "opensandbox.wait_for", "opensandbox.egress.presets",
  "opensandbox.egress.vault_routes", "opensandbox.execution.stdin_stream", "opensandbox.execution.terminal_stream",
  "opensandbox.files.tar", "opensandbox.files.directories", "opensandbox.files.checksum", "opensandbox.execution.code_routes",
  "opensandbox.execution.isolated_routes", "opensandbox.lifecycle.diagnostics_routes", "opensandbox.lifecycle.snapshot_routes",
  "opensandbox.files.identity", "opensandbox.execution.variables", "opensandbox.lifecycle.network_policy_routes",
  "opensandbox.lifecycle.server_pool_routes", "opensandbox.lifecycle.template_routes", "opensandbox.http.websocket",
  "opensandbox.http.exchange", "opensandbox.loop.adapters.uv",
}

describe("require 'opensandbox'", function()
  it("loads what every script needs, and no more", function()
    local loaded, count = loaded_by [[require "opensandbox".new("http://127.0.0.1:1"):close()]]
    for _, name in ipairs { "client", "http.http_client", "base.json", "loop" } do
      assert.is_true(loaded["opensandbox." .. name], name)
    end
    for _, name in ipairs(LATER) do assert.is_nil(loaded[name], name) end
    assert.is_true(count <= AT_MOST, ("%d files are loaded"):format(count))
  end)

  it("loads the rest when it is first used", function()
    local loaded = loaded_by [[
      local opensandbox = require "opensandbox"
      local client = opensandbox.new("http://127.0.0.1:1")
      local sandbox = client:connect("a", { wait = false })
      assert(type(sandbox.files.upload_dir) == "function" and sandbox.vault and sandbox.egress and sandbox.wait_for_port)
      assert(client.get_diagnostic_logs and client.create_snapshot and client.run_isolated and client.create_pool)
      assert(client.create_template and client.get_network_policy and sandbox.set_env and sandbox.files.as)
      assert(opensandbox.egress.only and opensandbox.spawn and opensandbox.EXECD_PORT == 44772 and opensandbox.EGRESS_PORT == 18080)
      client:close()
    ]]
    for _, name in ipairs { "files.directories", "vault", "egress", "wait_for", "lifecycle.diagnostics_routes",
      "lifecycle.snapshot_routes", "execution.isolated_run_routes", "lifecycle.server_pool_routes", "egress.presets",
      "lifecycle.template_routes", "lifecycle.network_policy_routes", "files.identity", "execution.variables" } do
      assert.is_true(loaded["opensandbox." .. name], name)
    end
  end)
end)

-- The definitions of the classes that have methods from other files, by the name of the class.
local function definitions()
  local found, define = {}, class.define
  class.define = function(Class, definition)
    found[definition.name] = { class = Class, methods = definition.methods or {} }
    return define(Class, definition)
  end
  for _, name in ipairs { "client", "sandbox", "files" } do
    local module = "opensandbox." .. name
    local before = package.loaded[module]
    package.loaded[module] = nil
    require(module)
    package.loaded[module] = before
  end
  class.define = define
  return found
end

describe("the table of methods", function()
  it("names functions that exist, and none twice", function()
    local count = 0
    for _, definition in pairs(definitions()) do
      local seen = {}
      for module, methods in pairs(definition.methods) do
        for key, name in pairs(methods) do
          count = count + 1
          local method = type(key) == "number" and name or key
          assert.equal("function", type(require(module)[name]), module .. "." .. name)
          assert.is_nil(seen[method], method)
          assert.is_nil(rawget(definition.class, method), method .. " is defined in the class, too")
          seen[method] = true
        end
      end
    end
    assert.is_true(count > 80)
  end)

  it("names every function of a file of routes", function()
    for module, methods in pairs(definitions().client.methods) do
      if module:find("routes$") then
        local listed = {}
        for key, name in pairs(methods) do listed[name] = type(key) == "number" or nil end
        for name, value in pairs(require(module)) do
          assert.is_true(type(value) ~= "function" or listed[name], ("%s.%s is no method of the client"):format(module, name))
        end
      end
    end
  end)
end)

describe("an object that people hold", function()
  local client, sandbox

  before_each(function()
    client = opensandbox.new("http://127.0.0.1:1", "key")
    sandbox = assert(client:connect("a", { wait = false }))
  end)
  after_each(function() client:close() end)

  local function raises(fn, ...)
    local ok, message = pcall(fn)
    assert.is_false(ok, "nothing was raised")
    assert.truthy(tostring(message):find("^[^\n]*startup_spec%.lua:%d+: "), message)
    for _, part in ipairs { ... } do assert.truthy(message:find(part, 1, true), message) end
  end

  it("says that a method wants a colon, at the caller's line", function()
    raises(function() client.list_sandboxes() end, "client.list_sandboxes", "client:list_sandboxes(...)")
    raises(function() client.create { image = "x" } end, "client:create(...)")
    raises(function() client.close() end, "client:close(...)")
    raises(function() sandbox.run "ls" end, "sandbox:run(...)")
    raises(function() sandbox.wait_for_port(80) end, "sandbox:wait_for_port(...)")
    raises(function() sandbox.files.write("/tmp/x", "y") end, "files:write(...)")
    raises(function() sandbox.files.upload_dir("a", "b") end, "files:upload_dir(...)")
    raises(function() sandbox.egress.allow "example.com" end, "egress:allow(...)")
    raises(function() sandbox.vault.get() end, "vault:get(...)")
    raises(function() sandbox:command("c").wait() end, "command:wait(...)")
    raises(function() sandbox:session({ id = "s" }).run "ls" end, "session:run(...)")
    raises(function() sandbox:code("python", { id = "k" }).run "1" end, "code:run(...)")
    raises(function() sandbox:isolated({ id = "i" }).run "ls" end, "isolated:run(...)")
    local task = opensandbox.spawn(function() end)
    raises(function() task.wait() end, "task:wait(...)")
    assert.is_true(select("#", task:wait(5)) == 0)
  end)

  it("says which method a misspelt one is near to, at the caller's line", function()
    raises(function() client:list_sandbox() end, "client: there is no 'list_sandbox'", "did you mean 'list_sandboxes'?")
    raises(function() client:creat { image = "x" } end, "did you mean 'create'?")
    raises(function() sandbox:wait_for_prot(80) end, "did you mean 'wait_for_port'?")
    raises(function() return sandbox.file end, "did you mean 'files'?")
    raises(function() sandbox.files:upload_dri("a", "b") end, "did you mean 'upload_dir'?")
  end)

  it("has nil for what is near to nothing, and for fields of its own that are not set", function()
    assert.is_nil(client.my_own_note)
    assert.is_nil(sandbox.my_own_note)
    assert.is_nil(client.op)
    sandbox.my_own_note = 5
    assert.equal(5, sandbox.my_own_note)
  end)
end)
