--- Odd names and values arrive as they are: every operation that carries them is tried with each, directly and through the server's
-- proxy. What cannot arrive is refused before anything is sent.

local opensandbox = require "opensandbox"
local random = require "opensandbox.base.random"
local Fixture = require "spec.support.fixture"
local temporary = require "spec.support.temporary"

-- Names of files and directories.
local NAMES = {
  "a b", " leading", "trailing ", "  ", "100%", "%41", "%2F", "%252F%", "%0A", "a+b", "+", "#", "a#b", "?", "a?b=c", "&",
  "a&b=c&d", "=", "a=b", ";", "a;b", "a,b", "a:b", "'", "'single'", '"', '"double"', "`id`", "\\", "back\\slash", "\\n",
  "\\'", "\\/x", "new\nline", "\n", "\nfirst", "last\n", "\r", "\r\n", "tab\t", "\1\27\31\127", "é", "naïve/ü",
  "日本語", "😀", "e\204\129", "\194\133", "\226\128\168", "\239\187\191bom", "-rf", "--help", "-", "~", "~root", "~/~",
  ".hidden", "...", "..x", "*", "?*[a-c]{a,b}", "!(x)", "[", "]", "{", "}", "(", ")", "<", ">", "|", "^", "@", "!", "cost$",
  "a$.b", "$ x", "$", ("long"):rep(63), ("é"):rep(127), "a%20b+c?d=e&f#g;h", "http:/x/y?z", "C:\\x", "null", "0",
}
-- Names that are not UTF-8.
local BYTES = { "\255", "a\254b", "caf\233", "\195", "\237\160\128" }
-- What execd would expand, or drop.
local EXPANDED = { "price$5", "$HOME", "a${HOME}b", "$$", "$?", "$_x" }

local TEXTS = {
  "", " ", "a b", "'", '"', "\\", "\\\\n", "$HOME", "${HOME}", "$(id)", "`id`", "a\nb\n", "\n", "\r\n", "\t", "=", "a=b", "é日😀",
  "%41", "a+b&c#d?", "-n", "--", "*", "~", "!x", "\1\27\127", "\226\128\168", "\194\133", "</script>", "null", ("x"):rep(50000),
}

local ALL_BYTES = {}
for byte = 0, 255 do ALL_BYTES[byte + 1] = string.char(byte) end
ALL_BYTES = table.concat(ALL_BYTES)

local WAYS = { "directly", "through the server's proxy" }
local ISOLATED = "in an isolated session"

local fixture
local requests = 0
local ways = {} -- how the sandbox is reached: client, sandbox, execd, egress

setup(function()
  fixture = Fixture.new {
    network_policy = { default_action = "deny", egress = { { action = "allow", target = "*.example.com" } } },
    credential_proxy = true, extensions = { ["bootstrap.execd.isolation"] = "enable" },
  }
  for _, name in ipairs(WAYS) do
    local client = fixture:another_client {
      use_server_proxy = name ~= WAYS[1], on_request = function() requests = requests + 1 end,
    }
    local sandbox = assert(client:connect(fixture.sandbox.id))
    ways[name] = {
      client = client, sandbox = sandbox, files = sandbox.files, execd = assert(client:discover_execd(sandbox.id)),
      egress = assert(client:discover_egress(sandbox.id)),
    }
  end
  local proxied = ways[WAYS[2]]
  local session = assert(proxied.sandbox:isolated { workspace = "/work", mode = "rw" })
  ways[ISOLATED] = { -- and through the server's proxy
    client = proxied.client, sandbox = session, files = session.files,
    execd = proxied.client:isolated_endpoint(proxied.execd, session.id),
  }
end)
teardown(function() fixture:close() end)

-- A pattern that matches a name and no other.
local function literal(name)
  return (name:gsub("[%*%?%[%]{}!()\\^,]", "\\%0"))
end

local function base(path) return path:match("[^/]*$") end

local function paths_of(list)
  local paths = {}
  for i, info in ipairs(list) do paths[i] = info.path end
  table.sort(paths)
  return paths
end

-- Each is called with a way, a path that ends with an odd name, the directory of its own that this is in, and a local path.
local on_paths = {
  ["write, read, stat, exists and remove"] = function(way, path)
    assert(way.files:write(path, "content"))
    assert.equal("content", assert(way.files:read(path)))
    local info = assert(way.files:stat(path))
    assert.same({ path, 7, "file" }, { info.path, info.size, info.type })
    assert.is_true(way.files:exists(path))
    assert(way.files:remove(path))
    assert.is_false(way.files:exists(path))
  end,

  ["upload_files, file_info, download_file and delete_files, several at once"] = function(way, path, place)
    local one, two = path, place .. "/second/" .. base(path)
    assert(way.client:upload_files(way.execd, { { path = one, content = "1" }, { path = two, content = "22" } }))
    local infos = assert(way.client:file_info(way.execd, { one, two }))
    assert.same({ one, 1, two, 2 }, { infos[one].path, infos[one].size, infos[two].path, infos[two].size })
    assert.equal("22", assert(way.client:download_file(way.execd, two)):read("a"))
    assert(way.client:delete_files(way.execd, { one, two }))
    assert.is_false(way.files:exists(one))
    assert.is_false(way.files:exists(two))
  end,

  ["reading a range, and lines"] = function(way, path)
    assert(way.files:write(path, "one\ntwo\nthree\n"))
    assert.equal("wo\nth", assert(way.files:read(path, { offset = 5, length = 5 })))
    assert.equal("two\nthree", assert(way.files:read(path, { lines = { first = 2 } })))
  end,

  ["upload and download of local files, and save_file"] = function(way, path, _, scratch)
    local up, down, saved = scratch .. ".up", scratch .. ".down", scratch .. ".saved"
    local file = assert(io.open(up, "wb"))
    file:write(ALL_BYTES)
    file:close()
    local function content(name)
      local read = assert(io.open(name, "rb"))
      local bytes = read:read("*a")
      read:close()
      os.remove(name)
      return bytes
    end
    assert(way.files:upload(up, path))
    assert(way.files:download(path, down))
    assert(way.client:save_file(way.execd, path, saved))
    assert.is_true(ALL_BYTES == content(up) and ALL_BYTES == content(down) and ALL_BYTES == content(saved))
  end,

  ["search by a pattern that is this name"] = function(way, path, place)
    assert(way.files:write(path, "x"))
    assert(way.files:write(place .. "/other", "x"))
    assert.same({ path }, paths_of(assert(way.files:search(place, literal(base(path))))))
    assert.same({ path }, paths_of(assert(way.files:search(path))))
  end,

  ["list, of the directory that has it and of itself"] = function(way, path, place)
    assert(way.files:write(path .. "/file", "x"))
    assert.same({ path, path .. "/file" }, paths_of(assert(way.files:list(path:match("^(.*)/"), { depth = 2 }))))
    assert.same({ path .. "/file" }, paths_of(assert(way.files:list(path))))
    assert.is_true(#assert(way.files:list(place)) >= 1)
  end,

  ["mkdir and rmdir"] = function(way, path)
    assert(way.files:mkdir(path .. "/below", { mode = "0700" }))
    local info = assert(way.files:stat(path .. "/below"))
    assert.same({ "directory", "0700" }, { info.type, info.mode })
    assert.equal("directory_not_empty", select(2, way.files:rmdir(path)).code)
    assert(way.files:rmdir(path .. "/below"))
    assert(way.files:rmdir(path))
    assert.is_false(way.files:exists(path))
  end,

  ["move, from it and to it"] = function(way, path, place)
    assert(way.files:write(path, "moves"))
    assert(way.files:move(path, place .. "/plain"))
    assert.is_false(way.files:exists(path))
    assert(way.files:move(place .. "/plain", path))
    assert.equal("moves", assert(way.files:read(path)))
  end,

  ["chmod"] = function(way, path)
    assert(way.files:write(path, "x", { mode = "0644" }))
    assert(way.files:chmod(path, "0600"))
    assert.equal("0600", assert(way.files:stat(path)).mode)
  end,

  ["replace"] = function(way, path)
    assert(way.files:write(path, "old and old"))
    assert.equal(2, assert(way.files:replace(path, "old", "new")))
    assert.equal("new and new", assert(way.files:read(path)))
  end,
}

-- The same, of those that need a whole sandbox.
local on_directories = {
  ["run and start, in that directory"] = function(way, path)
    assert(way.files:mkdir(path))
    assert.equal(0, assert(way.sandbox:run("echo x > ran", { cwd = path })).exit_code)
    assert.equal("x\n", assert(way.files:read(path .. "/ran")))
    assert.equal(0, assert(assert(way.sandbox:start("echo y > started", { cwd = path })):wait { timeout = 20 }).exit_code)
    assert.equal("y\n", assert(way.files:read(path .. "/started")))
  end,

  ["run, as an argument of a list"] = function(way, path)
    assert(way.files:write(path, "catted\n"))
    assert.equal("catted\n", assert(way.sandbox:run({ "cat", "--", "." .. path }, { cwd = "/" })).stdout)
  end,

  ["wait_for_file"] = function(way, path)
    assert(way.files:write(path, "x"))
    assert(way.sandbox:wait_for_file(fixture.root .. path, { timeout = 10 }))
  end,

  ["session, made there, and run there"] = function(way, path)
    local session = assert(way.sandbox:session { cwd = path })
    assert.equal(0, assert(session:run("echo x > ran")).exit_code)
    assert.equal("x\n", assert(way.files:read(path .. "/ran")))
    assert(way.files:mkdir(path .. "/" .. base(path)))
    assert.equal(0, assert(session:run("echo y > again", { cwd = path .. "/" .. base(path) })).exit_code)
    assert.equal("y\n", assert(way.files:read(path .. "/" .. base(path) .. "/again")))
    assert(session:close())
  end,

  ["code, made there"] = function(way, path)
    local code = assert(way.sandbox:code("bash", { cwd = path }))
    assert.is_nil(assert(code:run("echo x > ran")).error)
    assert.equal("x\n", assert(way.files:read(path .. "/ran")))
    assert(code:close())
  end,

  ["an isolated session, with this workspace"] = function(way, path)
    local session = assert(way.sandbox:isolated { workspace = path, mode = "rw" })
    assert.equal(0, assert(session:run("echo x > ran")).exit_code)
    assert.equal("x\n", assert(session.files:read(path .. "/ran")))
    assert.equal(path, assert(session:info()).workspace.path)
    assert(session:close())
  end,
}

for _, name in ipairs { WAYS[1], WAYS[2], ISOLATED } do
  describe("odd names of files, " .. name .. ":", function()
    local operations = {}
    for _, list in ipairs { on_paths, name ~= ISOLATED and on_directories or {} } do
      for operation, try in pairs(list) do operations[operation] = try end
    end

    for operation, try in pairs(operations) do
      it(operation, function()
        local way, scratch = ways[name], temporary.file()
        local top = "/work/" .. random.hex(4)
        opensandbox.map(NAMES, function(odd, number)
          local place = ("%s/%d"):format(top, number)
          local ok, problem = opensandbox.pcall(try, way, place .. "/" .. odd, place, scratch .. number)
          assert(ok, ("%s with %q: %s"):format(operation, odd, tostring(problem)))
        end)
        os.remove(scratch)
        assert(way.files:remove(top, { recursive = true }))
      end)
    end

    it("a directory whose names are all of them goes up and comes down", function()
      if name == ISOLATED and fixture.root ~= "" then return pending("its commands see this machine's root here") end
      local way = ways[name]
      local top = "/work/" .. random.hex(4)
      local expected = 0
      for _, odd in ipairs(NAMES) do
        if not odd:find("/", 1, true) then
          assert(way.files:write(top .. "/" .. odd, odd))
          expected = expected + 1
        end
      end
      local scratch = temporary.path()
      assert(way.files:download_dir(top, scratch))
      assert(way.files:upload_dir(scratch, top .. "-again"))
      for _, odd in ipairs(NAMES) do
        if not odd:find("/", 1, true) then assert.equal(odd, assert(way.files:read(top .. "-again/" .. odd))) end
      end
      assert.equal(expected, #assert(way.files:list(top .. "-again")))
      temporary.remove(scratch)
      assert(way.files:remove(top, { recursive = true }))
      assert(way.files:remove(top .. "-again", { recursive = true }))
    end)
  end)
end

-- Calls `fn` and expects it to raise, here, an error in which `part` stands, and to send nothing.
local function refused(part, fn, ...)
  local before = requests
  local ok, problem = pcall(fn, ...)
  assert.is_false(ok)
  assert.equal("string", type(problem))
  assert.truthy(problem:find(part, 1, true), problem)
  assert.truthy(problem:find("roundtrip_spec.lua:", 1, true), problem)
  assert.equal(before, requests)
end

-- Every method that takes a path: those that send it in JSON, and those that send it in a query.
local in_json = {
  write = function(way, path) way.files:write(path, "x") end,
  upload = function(way, path) way.files:upload("Makefile", path) end,
  upload_files = function(way, path)
    way.client:upload_files(way.execd, { { path = "/work/a", content = "x" }, { path = path, content = "x" } })
  end,
  mkdir = function(way, path) way.files:mkdir(path) end,
  make_directories = function(way, path) way.client:make_directories(way.execd, { "/work/a", path }) end,
  move_from = function(way, path) way.files:move(path, "/work/a") end,
  move_to = function(way, path) way.files:move("/work/a", path) end,
  chmod = function(way, path) way.files:chmod(path, "0600") end,
  replace = function(way, path) way.files:replace(path, "a", "b") end,
  run = function(way, path) way.sandbox:run("true", { cwd = path }) end,
  start = function(way, path) way.sandbox:start("true", { cwd = path }) end,
  session = function(way, path) way.sandbox:session { cwd = path } end,
  isolated = function(way, path) way.sandbox:isolated { workspace = path } end,
  run_in_session = function(way, path) way.client:run_in_session(way.execd, "id", "true", { cwd = path }) end,
  create_code_context = function(way, path) way.client:create_code_context(way.execd, "python", { cwd = path }) end,
}
local in_query = {
  read = function(way, path) return way.files:read(path) end,
  open = function(way, path) return way.files:open(path) end,
  download = function(way, path) return way.files:download(path, "/dev/null/x") end,
  save_file = function(way, path) return way.client:save_file(way.execd, path, "/dev/null/x") end,
  stat = function(way, path) return way.files:stat(path) end,
  exists = function(way, path) return way.files:exists(path) end,
  search = function(way, path) return way.files:search(path) end,
  list = function(way, path) return way.files:list(path) end,
  remove = function(way, path) return way.files:remove(path) end,
}

-- The methods of a client and of a sandbox. Those of its files reach such a path in another way, see files/literal_paths_spec.lua.
local EXPANDING = {
  "upload_files", "make_directories", "run", "start", "session", "isolated", "run_in_session", "create_code_context", "save_file",
}

for _, name in ipairs(WAYS) do
  describe("a path that cannot arrive, " .. name .. ",", function()
    for _, method in ipairs(EXPANDING) do
      it("because execd would expand it, is refused by " .. method, function()
        for _, odd in ipairs(EXPANDED) do
          refused("expand or drop", in_json[method] or in_query[method], ways[name], "/work/" .. odd)
        end
      end)
    end

    for method, call in pairs(in_json) do
      it("because JSON is UTF-8, is refused by " .. method, function()
        for _, odd in ipairs(BYTES) do refused("UTF-8", call, ways[name], "/work/" .. odd) end
      end)
    end
  end)
end

describe("a path that is not UTF-8, in a query,", function()
  it("reaches the file directly", function()
    local way = ways[WAYS[1]]
    for number, odd in ipairs(BYTES) do
      local escaped = odd:gsub("[\128-\255]", function(byte) return ("\\%03o"):format(byte:byte()) end)
      local place = "/work/bytes" .. number
      local path = place .. "/" .. odd
      assert(way.files:mkdir(place))
      local line = [[printf content > "$(printf 'work/bytes%d/%s')"]]
      assert.equal(0, assert(way.sandbox:run(line:format(number, escaped))).exit_code)
      assert.equal("content", assert(way.files:read(path)))
      assert.equal(7, assert(way.files:stat(path)).size)
      assert.is_true(way.files:exists(path))
      assert.equal(1, #assert(way.files:list(place)))
      assert.equal(1, #assert(way.files:search(path)))
      assert(way.files:remove(path))
      assert.is_false(way.files:exists(path))
    end
  end)

  it("is a word of the command that removes an empty directory, also through the server's proxy", function()
    for number, odd in ipairs(BYTES) do
      local path = ("/work/empty%d/%s"):format(number, odd)
      local direct = ways[WAYS[1]]
      assert(direct.files:mkdir("/work/empty" .. number))
      local escaped = odd:gsub("[\128-\255]", function(byte) return ("\\%03o"):format(byte:byte()) end)
      for _, way in ipairs { direct, ways[WAYS[2]] } do
        local line = [[mkdir "$(printf 'work/empty%d/%s')"]]
        assert.equal(0, assert(way.sandbox:run(line:format(number, escaped))).exit_code)
        assert(way.files:rmdir(path))
        assert.same({}, assert(way.files:list("/work/empty" .. number)))
      end
    end
  end)

  for method, call in pairs(in_query) do
    it("does not pass through the server's proxy, and is refused by " .. method, function()
      for _, odd in ipairs(BYTES) do refused("use_server_proxy = false", call, ways[WAYS[2]], "/work/" .. odd) end
    end)
  end
end)

for _, name in ipairs(WAYS) do
  describe("values, " .. name .. ":", function()
    it("files of every byte, in every form of content", function()
      local way = ways[name]
      local content = ALL_BYTES:rep(300) .. "\r\n--boundary--\r\n"
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
      for _, text in ipairs(TEXTS) do
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
      for number, text in ipairs(TEXTS) do
        env["V" .. number] = text
        script[number] = ('printf "%%s\\0" "$V%d"'):format(number)
      end
      local expected = table.concat(TEXTS, "\0") .. "\0"
      local line = table.concat(script, ";")
      assert.equal(0, assert(way.sandbox:run("(" .. line .. ") > work/run-env", { env = env })).exit_code)
      assert.is_true(expected == assert(way.files:read("/work/run-env")))
      local command = assert(way.sandbox:start("(" .. line .. ") > work/started-env", { env = env }))
      assert.equal(0, assert(command:wait { timeout = 20 }).exit_code)
      assert.is_true(expected == assert(way.files:read("/work/started-env")))
    end)

    it("environment variables in an isolated session", function()
      local way = ways[name]
      local session = assert(way.sandbox:isolated { workspace = "/work", mode = "rw" })
      local env, script = {}, {}
      for number, text in ipairs(TEXTS) do
        env["V" .. number] = text
        script[number] = ('printf "%%s\\0" "$V%d"'):format(number)
      end
      local line = "{ " .. table.concat(script, ";") .. "; } > isolated-env"
      assert.equal(0, assert(session:run(line, { env = env })).exit_code)
      local expected = table.concat(TEXTS, "\0") .. "\0"
      assert.is_true(expected == assert(session.files:read("/work/isolated-env")))
      assert(session.files:remove("/work/isolated-env"))
      assert.equal(0, assert(assert(session:start(line, { env = env })):wait { timeout = 20 }).exit_code)
      assert.is_true(expected == assert(session.files:read("/work/isolated-env")))
      assert(session:close())
    end)

    it("arguments of a list, and of one without a shell", function()
      local way = ways[name]
      local list = { "printf", "%s\\0" }
      for _, text in ipairs(TEXTS) do list[#list + 1] = text end
      for _, shell in ipairs { true, false } do
        local given = { "sh", "-c", '"$@" > work/arguments', "sh" }
        for _, argument in ipairs(list) do given[#given + 1] = argument end
        assert.equal(0, assert(way.sandbox:run(given, { shell = shell })).exit_code)
        assert.is_true(table.concat(TEXTS, "\0") .. "\0" == assert(way.files:read("/work/arguments")))
      end
    end)

    it("code, and what it prints", function()
      local way = ways[name]
      local code = assert(way.sandbox:code("bash"))
      for _, text in ipairs(TEXTS) do
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
        refused("target", way.client.delete_egress_rules, way.client, way.egress, target)
        refused("target", way.client.patch_egress_policy, way.client, way.egress, { { action = "allow", target = target } })
      end
    end)

    it("names in the vault: those that a URL's path carries are got, the others are refused with what to do", function()
      local way = ways[name]
      local names, credentials, bindings = { "plain", "a b", "a+b", "a&b=c", "é日😀", "a:b", "a;b", "~", "'", '"', "..." }, {}, {}
      local not_in_paths = { "a/b", "a/../b", "a?b", "a#b", "100%", "%41", "back\\slash", "new\nline" }
      for _, list in ipairs { names, not_in_paths } do
        for _, odd in ipairs(list) do
          local number = #credentials + 1
          credentials[number] = { name = odd, value = "secret" }
          bindings[number] = { name = odd, hosts = { ("h%d.example.com"):format(number) },
            auth = { type = "bearer", credential = odd } }
        end
      end
      assert(way.client:create_credential_vault(way.egress, { credentials = credentials, bindings = bindings }))
      local listed = {}
      for _, item in ipairs(assert(way.client:list_vault_credentials(way.egress))) do listed[item.name] = true end
      for _, item in ipairs(credentials) do assert.is_true(listed[item.name], item.name) end
      assert.equal(#bindings, #assert(way.client:list_vault_bindings(way.egress)))
      for _, odd in ipairs(names) do
        assert.equal(odd, assert(way.client:get_vault_credential(way.egress, odd)).name)
        assert.equal(odd, assert(way.client:get_vault_binding(way.egress, odd)).name)
      end
      for _, odd in ipairs(not_in_paths) do
        refused("list_vault_credentials", way.client.get_vault_credential, way.client, way.egress, odd)
        refused("list_vault_bindings", way.client.get_vault_binding, way.client, way.egress, odd)
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
    for _, name in ipairs(WAYS) do
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
    local way = ways[WAYS[1]]
    for _, text in ipairs(TEXTS) do
      if #text < 100 then
        assert.same({}, assert(way.client:list_sandboxes { metadata = { ["none-" .. text] = text, a = "b&c=d" } }))
      end
    end
    assert.same({}, assert(way.client:list_sandboxes { metadata = { a = "\255" } }))
    refused("UTF-8", way.client.patch_metadata, way.client, way.sandbox.id, { a = "\255" })
    refused("UTF-8", way.client.list_snapshots, way.client, { name = "\255" })
  end)
end)

describe("a sandbox's environment", function()
  it("is of any text", function()
    local env, script = {}, {}
    for number, text in ipairs(TEXTS) do
      env["V" .. number] = text
      script[number] = ('printf "%%s\\0" "$V%d"'):format(number)
    end
    local sandbox = fixture:create { env = env }
    assert.equal(0, assert(sandbox:run("(" .. table.concat(script, ";") .. ") > work/env")).exit_code)
    assert.is_true(table.concat(TEXTS, "\0") .. "\0" == assert(sandbox.files:read("/work/env")))
    assert(sandbox:kill())
  end)

  it("and that of a command are refused where the system would understand something else", function()
    local way = ways[WAYS[1]]
    for _, env in ipairs { { ["A=B"] = "c" }, { [""] = "c" }, { ["A\0"] = "c" }, { A = "c\0" } } do
      refused("variables", way.sandbox.run, way.sandbox, "true", { env = env })
      refused("variables", way.sandbox.start, way.sandbox, "true", { env = env })
      refused("variables", way.client.create, way.client, Fixture.create_options { env = env })
    end
    refused("UTF-8", way.sandbox.run, way.sandbox, "true", { env = { A = "\255" } })
    refused("UTF-8", way.sandbox.run, way.sandbox, "echo '\255'")
    refused("UTF-8", way.sandbox.run, way.sandbox, { "echo", "\255" })
  end)
end)

describe("names of snapshots", function()
  it("are of any text, in a create, in a filter and in what comes back", function()
    local sandbox = fixture:create() -- with few files to copy
    for _, text in ipairs(TEXTS) do
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
    refused("UTF-8", fixture.client.create_snapshot, fixture.client, sandbox.id, { name = "\255" })
    assert(sandbox:kill())
  end)
end)
