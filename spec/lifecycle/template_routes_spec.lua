--- Templates, and the sandboxes that are made from them.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

local BUILD = { image = "python:3.12", publish = "s3://bucket/path" }

describe("a template", function()
  local server, client

  setup(function()
    server = process.devserver { grace = 0.1, args = { "--templates" } }
    client = opensandbox.new(server.url, server.key)
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  local function built(opts)
    opts = opts or {}
    opts.image, opts.publish = opts.image or BUILD.image, BUILD.publish
    return assert(client:wait_template(assert(client:create_template(opts)).id, { timeout = 20 }))
  end

  it("is built in the background, and reports what it was made of", function()
    local made = assert(client:create_template {
      image = "python:3.12", publish = "s3://bucket/path", resource_limits = { cpu = "2", disk = "4Gi" },
      entrypoint = { "sleep", "60" }, env = { A = "b" }, metadata = { stage = "one" }, format = "native",
      readiness = { probe = "tcp://127.0.0.1:44772", warmup = 1.5 },
    })
    assert.equal("Pending", made.state)
    assert.is_nil(made.manifest_ref)
    local done = assert(client:wait_template(made.id, { timeout = 20 }))
    assert.same({ "Succeeded", made.id, "python:3.12", "s3://bucket/path", "native" },
      { done.state, done.id, done.image, done.publish, done.format })
    assert.same({ { cpu = "2", disk = "4Gi" }, { "sleep", "60" }, { A = "b" }, { stage = "one" } },
      { done.resource_limits, done.entrypoint, done.env, done.metadata })
    assert.same({ probe = "tcp://127.0.0.1:44772", warmup = 2 }, done.readiness) -- whole seconds
    assert.matches("^s3://bucket/path/", done.manifest_ref)
    assert.is_true(math.abs(done.created_at - os.time()) < 60 and done.updated_at >= done.created_at)
    assert.same(done.raw, assert(client:get_template(made.id)).raw)
  end)

  it("that has failed is an error at once, with the server's reason", function()
    local made = assert(client:create_template { image = "nope", publish = "s3://bucket/path" })
    local _, err = client:wait_template(made.id, { timeout = 20 })
    assert.same({ "state", "template_failed", "wait_template" }, { err.kind, err.code, err.op })
    assert.matches("the template is Failed: Failed to pull image nope", err.message, 1, true)
  end)

  it("that is not built in time is a timeout that names the state and the option", function()
    local made = assert(client:create_template(BUILD))
    local _, err = client:wait_template(made.id, { timeout = 0.01 })
    assert.same({ "timeout", "not_ready", "timeout" }, { err.kind, err.code, err.timeout_option })
    assert.matches("the template is not Succeeded in time, its state is Pending", err.message, 1, true)
  end)

  it("is found by its metadata, on all pages", function()
    local ids = {}
    for i = 1, 3 do
      ids[i] = assert(client:create_template { image = "x", publish = "s3://b/p", metadata = { list = "one" } }).id
    end
    local list = assert(client:list_templates { metadata = { list = "one" } })
    assert.same({ ids[3], ids[2], ids[1] }, { list[1].id, list[2].id, list[3].id })
    assert.equal(3, #assert(client:list_templates { metadata = { list = "one" }, page_size = 2 }))
    assert.equal(1, #assert(client:list_templates { metadata = { list = "one" }, page = 2, page_size = 2 }))
    assert.same({}, assert(client:list_templates { metadata = { list = "two" } }))
  end)

  it("is deleted once and for all, which a second delete does not mind", function()
    local template = built()
    local sandbox = assert(client:create { template_id = template.id })
    assert.is_true(assert(client:delete_template(template.id)))
    assert.is_true(assert(client:delete_template(template.id)))
    local _, err = client:get_template(template.id)
    assert.same({ "http", 404, "FSB::TEMPLATE_NOT_FOUND" }, { err.kind, err.status, err.code })
    assert.equal("Running", assert(sandbox:info()).state)
    assert(sandbox:kill())
  end)

  it("starts sandboxes that have what it sets, a lifetime and their own metadata", function()
    local template = built { env = { COLOUR = "blue" }, entrypoint = { "sleep", "600" } }
    local sandbox = assert(client:create { template_id = template.id, metadata = { mine = "yes" }, timeout = 120 })
    assert.equal("template", sandbox.origin)
    assert.equal("blue\n", assert(sandbox:run("echo $COLOUR")).stdout)
    local info = assert(sandbox:info())
    assert.same({ mine = "yes" }, info.metadata)
    assert.same({ "sleep", "600" }, info.entrypoint)
    assert.is_true(math.abs(info.expires_at - info.created_at - 120) < 2)
    assert(sandbox:kill())

    sandbox = assert(client:create { template_id = template.id, wait = false })
    assert.equal("template", sandbox.origin)
    info = assert(sandbox:info())
    assert.is_true(math.abs(info.expires_at - info.created_at - 600) < 2) -- the default of every create
    assert(sandbox:kill())
  end)

  it("is the origin of its sandboxes, also for who connects to them, and of what their snapshots restore", function()
    local sandbox = assert(client:create { template_id = built().id })
    assert.equal("template", assert(client:connect(sandbox.id)).origin)
    local unseen = assert(client:connect(sandbox.id, { wait = false }))
    assert.is_nil(unseen.origin)
    assert(unseen:run("true"))
    assert.equal("template", unseen.origin)
    assert.equal("template", assert(client:connect(assert(sandbox:handle()), { wait = false })).origin)
    assert.equal("template", assert(client:get_endpoint(sandbox.id, 8080)).origin)
    local snapshot = assert(sandbox:snapshot())
    local restored = assert(client:create { snapshot_id = snapshot.id })
    assert.equal("template", restored.origin)
    assert(restored:kill())
    assert(sandbox:kill())
  end)

  it("is not the origin of a sandbox from an image", function()
    local sandbox = assert(client:create { image = "any" })
    assert.is_nil(sandbox.origin)
    assert.is_nil(assert(sandbox:endpoint(8080)).origin)
    assert.is_nil(assert(client:connect(assert(sandbox:handle()))).origin)
    assert(sandbox:kill())
  end)

  it("cannot start a sandbox before it is Succeeded, nor when it does not exist: the error names the remedy", function()
    for _, id in ipairs { assert(client:create_template(BUILD)).id, "tpl-none" } do
      local _, err = client:create { template_id = id }
      assert.same({ "http", "FSB::TEMPLATE_NOT_FOUND", "create" }, { err.kind, err.code, err.op })
      assert.equal("It does not exist, or is not Succeeded yet: see client:wait_template", err.hint)
    end
  end)

  it("is not blamed for what else is wrong with a create", function()
    local _, err = client:create { template_id = "tpl-1", timeout = 10 }
    assert.same({ 422, "VALIDATION" }, { err.status, err.code })
    assert.matches("timeout: Input should be greater than or equal to 60", err.message, 1, true)
    assert.is_nil(err.hint)
  end)

  it("takes no other options beside it", function()
    for option, value in pairs {
      image_auth = { username = "a", password = "b" }, entrypoint = { "true" }, env = { A = "b" }, resource_limits = { cpu = "1" },
      resource_requests = { cpu = "1" }, volumes = {}, platform = { os = "linux", arch = "amd64" }, credential_proxy = true,
      secure_access = false, lifecycle = {},
    } do
      assert.has_error(function() client:create { template_id = "tpl-1", [option] = value } end,
        ("create: option '%s' does not go with option 'template_id', because the template sets it"):format(option))
    end
    for _, source in ipairs { "image", "snapshot_id" } do
      assert.error_matches(function() client:create { template_id = "tpl-1", [source] = "x" } end,
        "one of the options 'image', 'snapshot_id' and 'template_id' is needed", 1, true)
    end
    assert.has_error(function() client:create { template_id = "tpl-1", timeout = false } end,
      "create: option 'timeout' must be a number of seconds, because a sandbox from a template always expires")
  end)

  it("is refused by the server for what only it can know", function()
    local _, err = client:create_template { image = "x", publish = "s3://b/p", resource_limits = { gpu = "1" } }
    assert.equal("SANDBOX::INVALID_PARAMETER", err.code)
    assert.matches("Unsupported resourceLimits keys for templates: gpu", err.message, 1, true)
    _, err = client:create_template { image = "x", publish = "s3://b/p", env = { ["A-B"] = "x" } }
    assert.equal("SANDBOX::INVALID_PARAMETER", err.code)
  end)

  it("needs an image and a place for the result, and known options", function()
    local wrong = {
      { nil, "the options must be a table, not nil" },
      { { publish = "s3://b/p" }, "option 'image' must be a string that is not empty, not nil" },
      { { image = "x" }, "option 'publish' must be a string that is not empty, not nil" },
      { { image = { uri = "x" }, publish = "s3://b/p" }, "option 'image' must be a string that is not empty, not a table" },
      { { image = "x", publish = "s3://b/p", entrypoint = {} }, "option 'entrypoint' must not be empty" },
      { { image = "x", publish = "s3://b/p", name = "y" }, "unknown option 'name'" },
      { { image = "x", publish = "s3://b/p", readiness = { warmup = -1 } },
        "option 'warmup' must be a number of seconds, 0 or greater" },
    }
    for i = 1, #wrong do
      assert.error_matches(function() client:create_template(wrong[i][1]) end, "create_template: " .. wrong[i][2], 1, true)
    end
    for _, name in ipairs { "get_template", "delete_template", "wait_template" } do
      assert.error_matches(function() client[name](client, "..") end, name .. ": the template id must not be \"..\"", 1, true)
    end
  end)
end)

describe("a server without templates", function()
  it("says so, as one on Docker does, and the error of a create names the true culprit", function()
    local server = process.devserver { grace = 0.1 }
    local client = opensandbox.new(server.url, server.key)
    for _, call in ipairs {
      function() return client:create_template(BUILD) end, function() return client:list_templates() end,
      function() return client:get_template("tpl-1") end, function() return client:wait_template("tpl-1") end,
      function() return client:delete_template("tpl-1") end,
    } do
      local _, err = call()
      assert.same({ 501, "FSB::API_NOT_SUPPORTED" }, { err.status, err.code })
      assert.is_false(err.retryable)
    end
    local _, err = client:create { template_id = "tpl-1" }
    assert.same({ 400, "Only servers on Kubernetes have templates, from 1.1.1" }, { err.status, err.hint })
    client:close()
    server:stop()
  end)

  it("that is older misses the image: the error names the true culprit", function()
    local server = fault_server.start [[
      return function(_, connection)
        connection:respond(422, { ["Content-Type"] = "application/json" },
          '{"detail":[{"loc":["body"],"msg":"Value error, Exactly one of image or snapshotId must be provided."}]}')
      end
    ]]
    local client = opensandbox.new(server.url, "k")
    local _, err = client:create { template_id = "tpl-1" }
    assert.same({ 422, "Only servers on Kubernetes have templates, from 1.1.1" }, { err.status, err.hint })
    local sent = require("opensandbox.base.json").decode(server:requests()[1].body)
    assert.same({ "tpl-1", 600 }, { sent.templateId, sent.timeout })
    sent.templateId, sent.timeout, sent.metadata = nil, nil, nil
    assert.same({}, sent)
    client:close()
    server:stop()
  end)
end)

describe("the response about a template", function()
  it("is an error of the protocol when it is none, and odd members in it harm nothing", function()
    local server = fault_server.start [[
      local answers = {
        '{}', '{"templateId":7}', '{"templateId":""}', '{"templateId":"t","status":[],"metadata":1,"readiness":"x"}',
      }
      return function(_, connection)
        connection:respond(200, { ["Content-Type"] = "application/json" }, table.remove(answers, 1))
      end
    ]]
    local client = opensandbox.new(server.url, "k")
    for _ = 1, 3 do
      local _, err = client:get_template("t")
      assert.same({ "protocol", "unexpected_response" }, { err.kind, err.code })
      assert.matches("the response contains no template", err.message, 1, true)
    end
    local info = assert(client:get_template("t"))
    assert.same({ "t", "Unknown", {} }, { info.id, info.state, info.metadata })
    assert.is_nil(info.readiness)
    client:close()
    server:stop()
  end)
end)
