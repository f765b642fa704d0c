--- Odd values arrive as they are: content, texts, variables, arguments, code, network targets, names in the vault, metadata and names of
--- snapshots. What cannot arrive is refused before anything is sent.

local Fixture = require "spec.support.fixture"
local odd = require "spec.roundtrip.odd"
local opensandbox = require "opensandbox"
local temporary = require "spec.support.temporary"

local fixture, ways

setup(function() fixture, ways = odd.start() end)
teardown(function() fixture:close() end)

for _, name in ipairs { odd.DIRECTLY, odd.PROXIED } do
  describe("values, " .. name .. ":", function()
    it("files of every byte, in every form of content", function()
      local way = ways[name]
      local content = odd.ALL_BYTES:rep(300) .. "\r\n--boundary--\r\n"
      local scratch = temporary.file(content)
      local handle = assert(io.open(scratch, "rb"))
      local sent
      for form, given in pairs { string = content, handle = handle, ["function"] = function()
        local piece = not sent and content or nil
        sent = true
        return piece
      end } do
        assert(way.files:write("/work/all-bytes", given))
        assert.is_true(content == assert(way.files:read("/work/all-bytes")), form)
      end
      handle:close()
      os.remove(scratch)
      assert.is_true(content:sub(11, 1010) == assert(way.files:read("/work/all-bytes", { offset = 10, length = 1000 })))
    end)

    it("texts that are replaced and put in their place", function()
      local way = ways[name]
      for _, text in ipairs(odd.TEXTS) do
        assert(way.files:write("/work/replaced", "<" .. text .. "|" .. text .. ">"))
        if text ~= "" then
          assert.equal(2, assert(way.files:replace("/work/replaced", text, "\0")))
          assert.equal(2, assert(way.files:replace("/work/replaced", "\0", text)))
        end
        assert.is_true("<" .. text .. "|" .. text .. ">" == assert(way.files:read("/work/replaced")))
      end
    end)

    it("environment variables of run and start", function()
      local way = ways[name]
      local env, script = {}, {}
      for number, text in ipairs(odd.TEXTS) do
        env["V" .. number] = text
        script[number] = ('printf "%%s\\0" "$V%d"'):format(number)
      end
      local expected = table.concat(odd.TEXTS, "\0") .. "\0"
      local line = table.concat(script, ";")
      assert.equal(0, assert(way.sandbox:run("(" .. line .. ") > work/run-env", { env = env })).exit_code)
      assert.is_true(expected == assert(way.files:read("/work/run-env")))
      local command = assert(way.sandbox:start("(" .. line .. ") > work/started-env", { env = env }))
      assert.equal(0, assert(command:wait { timeout = 20 }).exit_code)
      assert.is_true(expected == assert(way.files:read("/work/started-env")))
    end)

    it("environment variables in an isolated session", function()
      if not ways[odd.ISOLATED] then return pending(fixture.unisolated) end
      local way = ways[name]
      local session = assert(way.sandbox:isolated { workspace = "/work", mode = "rw" })
      local env, script = {}, {}
      for number, text in ipairs(odd.TEXTS) do
        env["V" .. number] = text
        script[number] = ('printf "%%s\\0" "$V%d"'):format(number)
      end
      local line = "{ " .. table.concat(script, ";") .. "; } > isolated-env"
      assert.equal(0, assert(session:run(line, { env = env })).exit_code)
      local expected = table.concat(odd.TEXTS, "\0") .. "\0"
      assert.is_true(expected == assert(session.files:read("/work/isolated-env")))
      assert(session.files:remove("/work/isolated-env"))
      assert.equal(0, assert(assert(session:start(line, { env = env })):wait { timeout = 20 }).exit_code)
      assert.is_true(expected == assert(session.files:read("/work/isolated-env")))
      assert(session:close())
    end)

    it("arguments of a list, and of one without a shell", function()
      local way = ways[name]
      local list = { "printf", "%s\\0" }
      for _, text in ipairs(odd.TEXTS) do list[#list + 1] = text end
      for _, shell in ipairs { true, false } do
        local given = { "sh", "-c", '"$@" > work/arguments', "sh" }
        for _, argument in ipairs(list) do given[#given + 1] = argument end
        assert.equal(0, assert(way.sandbox:run(given, { shell = shell })).exit_code)
        assert.is_true(table.concat(odd.TEXTS, "\0") .. "\0" == assert(way.files:read("/work/arguments")))
      end
    end)

    it("code, and what it prints", function()
      local way = ways[name]
      local code = assert(way.sandbox:code("bash"))
      for _, text in ipairs(odd.TEXTS) do
        local result = assert(code:run("printf '%s.' " .. opensandbox.quote(text)))
        assert.is_nil(result.error)
        assert.equal(text .. ".", result.stdout)
      end
      assert(code:close())
    end)

    it("targets of the network policy", function()
      local way = ways[name]
      local targets = {
        "a.example.com", "*.b.example.com", "xn--bcher-kva.example", "10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1",
      }
      local rules = {}
      for number, target in ipairs(targets) do rules[number] = { action = "allow", target = target } end
      local before = assert(way.client:get_egress_policy(way.egress)).policy
      assert(way.client:patch_egress_policy(way.egress, rules))
      local after = assert(way.client:get_egress_policy(way.egress)).policy.egress
      for number, target in ipairs(targets) do assert.equal(target, after[number].target) end
      assert(way.client:delete_egress_rules(way.egress, targets))
      assert.same(before, assert(way.client:get_egress_policy(way.egress)).policy)
      for _, target in ipairs { "a b", "a\n", "https://a", "" } do
        odd.refused("target", way.client.delete_egress_rules, way.client, way.egress, target)
        odd.refused("target", way.client.patch_egress_policy, way.client, way.egress, { { action = "allow", target = target } })
      end
    end)

    it("names in the vault: those that a URL's path carries are got, the others are refused with what to do", function()
      local way = ways[name]
      local names, credentials, bindings = { "plain", "a b", "a+b", "a&b=c", "é日😀", "a:b", "a;b", "~", "'", '"', "..." }, {}, {}
      local not_in_paths = { "a/b", "a/../b", "a?b", "a#b", "100%", "%41", "back\\slash", "new\nline" }
      for _, list in ipairs { names, not_in_paths } do
        for _, text in ipairs(list) do
          local number = #credentials + 1
          credentials[number] = { name = text, value = "secret" }
          bindings[number] = { name = text, hosts = { ("h%d.example.com"):format(number) },
            auth = { type = "bearer", credential = text } }
        end
      end
      assert(way.client:create_credential_vault(way.egress, { credentials = credentials, bindings = bindings }))
      local listed = {}
      for _, item in ipairs(assert(way.client:list_vault_credentials(way.egress))) do listed[item.name] = true end
      for _, item in ipairs(credentials) do assert.is_true(listed[item.name], item.name) end
      assert.equal(#bindings, #assert(way.client:list_vault_bindings(way.egress)))
      for _, text in ipairs(names) do
        assert.equal(text, assert(way.client:get_vault_credential(way.egress, text)).name)
        assert.equal(text, assert(way.client:get_vault_binding(way.egress, text)).name)
      end
      for _, text in ipairs(not_in_paths) do
        odd.refused("list_vault_credentials", way.client.get_vault_credential, way.client, way.egress, text)
        odd.refused("list_vault_bindings", way.client.get_vault_binding, way.client, way.egress, text)
      end
      local deleted = { credentials = { delete = {} }, bindings = { delete = {} } }
      for number, item in ipairs(credentials) do
        deleted.credentials.delete[number], deleted.bindings.delete[number] = item.name, item.name
      end
      assert.same({}, assert(way.client:patch_credential_vault(way.egress, deleted)).credentials)
      assert(way.client:delete_credential_vault(way.egress))
    end)
  end)
end

describe("metadata", function()
  -- Every character that a label may hold, and keys with a prefix.
  local METADATA = {
    ["example.com/team"] = "a", ["a.b-c.example/Na_me-1.x"] = "AZaz09-_.0", plain = "x", ["k8s.io/app_name"] = "0",
    ["A-b_c.d"] = ("v"):rep(63), empty = "", ["x/" .. ("n"):rep(63)] = "a--b__c..d",
  }

  it("of every label-safe character go into a create, a patch and each filter, and come back", function()
    for _, name in ipairs { odd.DIRECTLY, odd.PROXIED } do
      local way = ways[name]
      local sandbox = assert(way.client:create(Fixture.create_options { metadata = METADATA }))
      local function check()
        assert.same(METADATA, assert(way.client:get_sandbox(sandbox.id)).metadata)
        for key, value in pairs(METADATA) do
          local found = assert(way.client:list_sandboxes { metadata = { [key] = value } })
          assert.same({ sandbox.id }, { found[1] and found[1].id, found[2] }, key)
          assert.same({}, assert(way.client:list_sandboxes { metadata = { [key] = value .. "x" } }))
        end
        assert.equal(sandbox.id, assert(way.client:list_sandboxes { metadata = METADATA })[1].id)
      end
      check()
      local none = {}
      for key in pairs(METADATA) do none[key] = false end
      assert.same({}, assert(sandbox:patch_metadata(none)).metadata)
      assert.same(METADATA, assert(sandbox:patch_metadata(METADATA)).metadata)
      check()
      assert(sandbox:kill())
    end
  end)

  it("that no server takes fit nothing in a filter, whatever they hold", function()
    local way = ways[odd.DIRECTLY]
    for _, text in ipairs(odd.TEXTS) do
      if #text < 100 then
        assert.same({}, assert(way.client:list_sandboxes { metadata = { ["none-" .. text] = text, a = "b&c=d" } }))
      end
    end
    assert.same({}, assert(way.client:list_sandboxes { metadata = { a = "\255" } }))
    odd.refused("UTF-8", way.client.patch_metadata, way.client, way.sandbox.id, { a = "\255" })
    odd.refused("UTF-8", way.client.list_snapshots, way.client, { name = "\255" })
  end)
end)

describe("a sandbox's environment", function()
  it("is of any text", function()
    local env, script = {}, {}
    for number, text in ipairs(odd.TEXTS) do
      env["V" .. number] = text
      script[number] = ('printf "%%s\\0" "$V%d"'):format(number)
    end
    local sandbox = fixture:create { env = env }
    assert.equal(0, assert(sandbox:run("(" .. table.concat(script, ";") .. ") > work/env")).exit_code)
    assert.is_true(table.concat(odd.TEXTS, "\0") .. "\0" == assert(sandbox.files:read("/work/env")))
    assert(sandbox:kill())
  end)

  it("and that of a command are refused where the system would understand something else", function()
    local way = ways[odd.DIRECTLY]
    for _, env in ipairs { { ["A=B"] = "c" }, { [""] = "c" }, { ["A\0"] = "c" }, { A = "c\0" } } do
      odd.refused("variables", way.sandbox.run, way.sandbox, "true", { env = env })
      odd.refused("variables", way.sandbox.start, way.sandbox, "true", { env = env })
      odd.refused("variables", way.client.create, way.client, Fixture.create_options { env = env })
    end
    odd.refused("UTF-8", way.sandbox.run, way.sandbox, "true", { env = { A = "\255" } })
    odd.refused("UTF-8", way.sandbox.run, way.sandbox, "echo '\255'")
    odd.refused("UTF-8", way.sandbox.run, way.sandbox, { "echo", "\255" })
  end)
end)

describe("names of snapshots", function()
  it("are of any text, in a create, in a filter and in what comes back", function()
    local sandbox = fixture:create() -- with few files to copy
    for _, text in ipairs(odd.TEXTS) do
      if text ~= "" then
        local info = assert(fixture.client:create_snapshot(sandbox.id, { name = text }))
        assert.equal("Ready", assert(fixture.client:wait_snapshot(info.id)).state)
        assert.equal(text, assert(fixture.client:get_snapshot(info.id)).name)
        if #text < 1000 then
          local found = assert(fixture.client:list_snapshots { name = text })
          assert.same({ info.id }, { found[1] and found[1].id, found[2] })
        end
        assert(fixture.client:delete_snapshot(info.id))
      end
    end
    odd.refused("UTF-8", fixture.client.create_snapshot, fixture.client, sandbox.id, { name = "\255" })
    assert(sandbox:kill())
  end)
end)
