--- Files whose paths execd would expand or change are files like others.

local core = require "opensandbox.core"
local fixtures = require "spec.support.fixture"
local opensandbox = require "opensandbox"
local read_file = require "spec.support.read_file"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local wait_until = require "spec.support.wait_until"

local NAMES = {
  "$id.tsx", "$types.d.ts", "Outer$1.class", "$HOME", "a${HOME}b", "$$", "$?", "$_x", "price$5", "it's $HOME", "$a\n$b", "-$x",
  "$new\n", "caf\233$x", "~$x",
}

local fixture, sandbox, files, scratch, tops

-- A directory of its own.
local function fresh()
  tops = tops + 1
  local path = ("/work/top%d"):format(tops)
  assert(files:mkdir(path))
  return path
end

local function names_of(list, directory)
  local names = {}
  for i, info in ipairs(list) do names[i] = info.path:sub(#directory + 2) end
  table.sort(names)
  return names
end

-- A path as JSON can carry it.
local function shown(path) return (path:gsub("\233", "\239\191\189")) end

local function nothing_is_left()
  wait_until(function() return #assert(files:search("/tmp", ".opensandbox-*")) == 0 end, "something is left in /tmp")
end

setup(function()
  fixture = fixtures.new()
  sandbox, tops = fixture.sandbox, 0
  files = sandbox.files
  scratch = temporary.directory()
end)
teardown(function()
  fixture:close()
  temporary.remove(scratch)
end)

describe("a file whose path execd would change", function()
  it("is written, read, described, found, moved and removed", function()
    opensandbox.map(NAMES, function(name, number)
      local top = fresh()
      for _, directory in ipairs { top, number <= 3 and top .. "/$dir/b$1" or nil } do
        local path = directory .. "/" .. name
        assert.is_false(files:exists(path), name)
        assert(files:write(path, "old and old", { mode = "0640", verify = true }))
        assert.equal("old and old", assert(files:read(path)), name)
        assert.equal("and", assert(files:read(path, { offset = 4, length = 3 })))
        local info = assert(files:stat(path))
        assert.same({ shown(path), "file", 11, "0640" }, { info.path, info.type, info.size, info.mode })
        assert.is_true(files:exists(path))
        assert.equal(2, assert(files:replace(path, "old", "new")))
        assert(files:chmod(path, "0600"))
        local reader = assert(files:open(path))
        assert.equal("new", reader:read(3))
        reader:close()
        assert.equal("0600", assert(files:stat(path)).mode)
        assert.same({ shown(name) }, names_of(assert(files:list(directory)), directory), name)
        assert.same({ shown(name) }, names_of(assert(files:search(directory, "*")), directory), name)
        assert(files:move(path, directory .. "/plain"))
        assert(files:move(directory .. "/plain", directory .. "/$below/" .. name))
        assert.equal("new and new", assert(files:read(directory .. "/$below/" .. name)))
        assert(files:move(directory .. "/$below/" .. name, path))
        assert(files:remove { path, directory .. "/nothing" })
        assert.is_false(files:exists(path))
        assert(files:remove(path))
      end
    end)
    nothing_is_left()
  end)

  it("that has just been listed or found is read by that path", function()
    local top = fresh()
    assert.equal(0, assert(sandbox:run(([[printf route > '.%s/$id.tsx'; mkdir '.%s/$dir'; printf deep > '.%s/$dir/b$1']]):format(
      top, top, top), { cwd = "/" })).exit_code)
    local seen = {}
    for _, info in ipairs(assert(files:list(top, { depth = 2 }))) do
      if info.type == "file" then seen[#seen + 1] = assert(files:read(info.path)) end
    end
    for _, info in ipairs(assert(files:search(top))) do seen[#seen + 1] = assert(files:read(info.path)) end
    table.sort(seen)
    assert.same({ "deep", "deep", "route", "route" }, seen)
    assert.same({ "b$1" }, names_of(assert(files:list(top .. "/$dir")), top .. "/$dir"))
  end)

  it("goes up and down, by itself and in a directory", function()
    local top = fresh()
    local from, to = scratch .. "/up", scratch .. "/down"
    local file = assert(io.open(from, "wb"))
    file:write(("bytes\0\255"):rep(20000))
    file:close()
    local path = top .. "/$dir/$id.tsx"
    assert(files:upload(from, path, { verify = true, mode = "0600" }))
    assert(files:download(path, to, { verify = true }))
    assert.is_true(assert(read_file(from)) == assert(read_file(to)))
    local directory = scratch .. "/directory"
    assert(files:download_dir(top .. "/$dir", directory))
    assert.is_true(assert(read_file(from)) == assert(read_file(directory .. "/$id.tsx")))
    assert(files:upload_dir(directory, top .. "/$again/b$1"))
    assert.is_true(assert(read_file(from)) == assert(files:read(top .. "/$again/b$1/$id.tsx")))
    nothing_is_left()
  end)

  it("is the same file through the server's proxy", function()
    local proxied = assert(fixture:another_client({ use_server_proxy = true }):connect(sandbox.id))
    local path = fresh() .. "/$id caf\233"
    assert(files:write(path, "content"))
    assert.equal("content", assert(proxied.files:read(path)))
    assert(proxied.files:write(path, "changed"))
    assert.equal("changed", assert(files:read(path)))
    assert(proxied.files:remove(path))
    assert.is_false(files:exists(path))
  end)

  it("may be in a directory that is reached by a symlink", function()
    local top = fresh()
    assert(files:write(top .. "/real/$id", "content"))
    assert.equal(0, assert(sandbox:run("ln -s real ." .. top .. "/link", { cwd = "/" })).exit_code)
    local path = top .. "/link/$id"
    assert.equal("content", assert(files:read(path)))
    local info = assert(files:stat(path))
    assert.same({ path, 7 }, { info.path, info.size })
    assert.is_false(files:exists(path .. "2"))
  end)
end)

describe("a directory whose path execd would change", function()
  it("is created, listed, searched and removed", function()
    local top = fresh()
    local path = top .. "/$dir/a${b}"
    assert(files:mkdir(path, { mode = "0700" }))
    assert(files:mkdir(path, { mode = "0755" }))
    local info = assert(files:stat(path))
    assert.same({ "directory", "0700" }, { info.type, info.mode })
    assert.same({}, assert(files:list(path)))
    assert(files:write(path .. "/deep/er/c.txt", "x"))
    assert(files:write(path .. "/b.lua", "x"))
    assert.same({ "b.lua", "deep" }, names_of(assert(files:list(path)), path))
    assert.same({ "b.lua", "deep", "deep/er" }, names_of(assert(files:list(path, { depth = 2 })), path))
    assert.same({ "deep/er/c.txt" }, names_of(assert(files:search(path, "*.txt")), path))
    assert.equal("directory_not_empty", select(2, files:rmdir(path)).code)
    assert.is_nil((files:remove(path)))
    assert(files:remove(path, { recursive = true }))
    assert.is_false(files:exists(path))
    assert(files:mkdir(path))
    assert(files:rmdir(path))
    assert.is_false(files:exists(path))
    assert.same({ "$dir" }, names_of(assert(files:list(top)), top))
  end)
end)

describe("an error about such a path", function()
  -- Asserts the code, the method and the path in the message.
  local function fails(code, op, path, ok, err)
    assert.is_nil(ok)
    assert.same({ code, op, sandbox.id }, { err.code, err.op, err.sandbox_id }, tostring(err))
    assert.truthy(err.message:find(path, 1, true), err.message)
    assert.is_nil(tostring(err):find(".opensandbox-", 1, true), tostring(err))
  end

  it("is that of other paths, and names the path", function()
    local top = fresh()
    local missing, directory, file = top .. "/$missing", top .. "/$dir", top .. "/$file"
    assert(files:mkdir(directory))
    assert(files:write(file, "x"))
    fails("FILE_NOT_FOUND", "files:read", missing, files:read(missing))
    fails("FILE_NOT_FOUND", "files:open", missing, files:open(missing))
    fails("FILE_NOT_FOUND", "files:stat", missing, files:stat(missing))
    fails("FILE_NOT_FOUND", "files:list", missing, files:list(missing))
    fails("FILE_NOT_FOUND", "files:search", missing, files:search(missing))
    fails("FILE_NOT_FOUND", "files:chmod", missing, files:chmod(missing, "0600"))
    fails("FILE_NOT_FOUND", "files:replace", missing, files:replace(missing, "a", "b"))
    fails("FILE_NOT_FOUND", "files:move", missing, files:move(missing, top .. "/x"))
    fails("FILE_NOT_FOUND", "files:download", missing, files:download(missing, scratch .. "/never"))
    fails("file_exists", "files:move", directory, files:move(file, directory))
    fails("not_a_directory", "files:list", file, files:list(file))
    assert.is_nil((files:write(file .. "/below", "x")))
    assert.is_nil((files:read(directory)))
    assert.is_nil(uv.fs_lstat(scratch .. "/never"))
    nothing_is_left()
  end)

  it("of its arguments raises where the method was called, before anything is sent", function()
    local missing = fresh() .. "/$missing"
    local wrong = {
      function() return (files:write(missing, {})) end,
      function() return (files:write(missing, nil)) end,
      function() return (files:write(missing, "x", { mode = "0999" })) end,
      function() return (files:write(missing, "x", { owner = "" })) end,
      function() return (files:read(missing, { offset = -1 })) end,
      function() return (files:read(missing, { length = 0 })) end,
      function() return (files:open(missing, { lines = { first = 0 } })) end,
      function() return (files:list(missing, { depth = -1 })) end,
      function() return (files:search(missing, 5)) end,
      function() return (files:chmod(missing, "rwx")) end,
      function() return (files:replace(missing, "", "b")) end,
      function() return (files:replace(missing, "a", nil)) end,
    }
    for i, call in ipairs(wrong) do
      local ok, message = pcall(call)
      assert.is_false(ok, "call " .. i)
      local line = debug.getinfo(call, "S").linedefined
      assert.truthy(message:find(("literal_paths_spec.lua:%d: files:"):format(line), 1, true), message)
    end
    assert.is_false(files:exists(missing))
    nothing_is_left()
  end)

  it("leaves nothing behind when a callback raises, or a reader is dropped", function()
    local path = fresh() .. "/$big"
    assert(files:write(path, ("x"):rep(3000000)))
    local reason = {}
    local ok, raised = pcall(files.write, files, path, function() error(reason) end)
    assert.same({ false, true }, { ok, raised == reason })
    local function drop() assert.equal("x", assert(files:open(path)):read(1)) end
    drop()
    collectgarbage()
    collectgarbage()
    nothing_is_left()
    local before = core.now()
    ok = opensandbox.map({ 1, 2, 3 }, function() return files:read(path, { length = 10 }) end)
    assert.same({ ("x"):rep(10), ("x"):rep(10), ("x"):rep(10) }, ok)
    assert.is_true(core.now() - before < 30)
    nothing_is_left()
  end)
end)
