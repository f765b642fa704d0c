--- What exists at the local target of a download stays what it is, and the right thing receives the bytes.

local fixtures = require "spec.support.fixture"
local local_target = require "opensandbox.files.local_target"
local loop = require "opensandbox.loop"
local process = require "spec.support.process"
local read_file = require "spec.support.read_file"
local temporary = require "spec.support.temporary"
local uv = require "luv"

local CONTENT = ("some bytes\0\255\n"):rep(20000)

local fixture, sandbox, files, scratch

local function save(path, bytes, mode)
  local file = assert(io.open(path, "wb"))
  assert(file:write(bytes))
  file:close()
  if mode then assert(uv.fs_chmod(path, tonumber(mode, 8))) end
  return path
end

local function run(command)
  local status = os.execute(command) -- true, or 0 in Lua 5.1
  return status == true or status == 0
end

-- A path of its own for each test.
local function path_of(name) return temporary.directory(scratch) .. "/" .. name end

local function kind_of(path)
  local stat = uv.fs_lstat(path)
  return stat and stat.type
end

-- The names beside a path that the library could have left.
local function leftovers(path)
  local list = {}
  for _, directory in ipairs { path:match("^(.*)/"), os.getenv("TMPDIR") or "/tmp" } do
    for _, name in ipairs(temporary.names(directory)) do
      if name:find("^%.opensandbox%-.*%.part$") then list[#list + 1] = directory .. "/" .. name end
    end
  end
  return list
end

-- Asserts that a call failed because of the target, and names it and the method. Returns the error.
local function failed(path, op, ok, err)
  assert.is_nil(ok)
  assert.same({ "state", "local_file", op }, { err.kind, err.code, err.op }, tostring(err))
  assert.truthy(err.message:find(path, 1, true), err.message)
  assert.same({}, leftovers(path))
  return err
end

local function download_refused(path) return failed(path, "files:download", files:download("/work/file", path)) end

local function save_file_refused(path)
  return failed(path, "save_file", fixture.client:save_file(fixture:execd(), "/work/file", path))
end

setup(function()
  fixture = fixtures.new()
  sandbox = fixture.sandbox
  files = sandbox.files
  scratch = temporary.directory()
  assert(files:write("/work/file", CONTENT))
  assert(files:write("/work/dir/name", CONTENT))
  assert(files:write("/work/dir/other", "other"))
end)
teardown(function()
  fixture:close()
  temporary.remove(scratch)
end)

-- Makes something at a path. Each returns nothing, or why this machine cannot make it.
local make = {}

function make.fifo(path) assert(run("mkfifo '" .. path .. "'")) end

function make.socket(path)
  local socket = uv.new_pipe(false)
  assert(socket:bind(path))
  return nil, function() socket:close() end
end

-- A device of our own, which behaves as /dev/null does.
function make.device(path)
  if uv.getuid() ~= 0 or not run("mknod '" .. path .. "' c 1 3 2>/dev/null") then
    return "this user can make no device"
  end
end

describe("the target of a download that is", function()
  for _, kind in ipairs { "fifo", "socket" } do
    it("a " .. kind .. " is refused, and stays one", function()
      local path = path_of(kind)
      local _, close = make[kind](path)
      local seen = kind_of(path)
      assert.truthy(download_refused(path).hint:find("files:open", 1, true))
      assert.equal(seen, kind_of(path))
      save_file_refused(path)
      assert.equal(seen, kind_of(path))
      if close then close() end
    end)
  end

  it("a device stays one, and receives the bytes", function()
    local path = path_of("null")
    local reason = make.device(path)
    if reason then return pending(reason) end
    assert.is_true(files:download("/work/file", path))
    assert.equal("char", kind_of(path))
    assert.same({}, leftovers(path))
    save_file_refused(path)
    assert.equal("char", kind_of(path))
  end)

  it("a symlink stays one, and the file it means receives the bytes", function()
    local path = path_of("link")
    local real = save(path_of("real"), "old", "640")
    assert(uv.fs_symlink(real, path))
    assert.is_true(files:download("/work/file", path))
    assert.equal(real, uv.fs_readlink(path))
    assert.is_true(CONTENT == read_file(real))
    assert.equal(tonumber("640", 8), uv.fs_stat(real).mode % 512)
    assert.same({}, leftovers(path))
    save_file_refused(path)
    assert.is_true(CONTENT == read_file(real))
  end)

  it("a symlink to a missing file stays one, and the file is made", function()
    local path = path_of("dangling")
    assert(uv.fs_symlink("made", path))
    save_file_refused(path)
    assert.is_nil(kind_of(path:match("^(.*)/") .. "/made"))
    assert.is_true(files:download("/work/file", path))
    assert.equal("made", uv.fs_readlink(path))
    assert.is_true(CONTENT == read_file(path:match("^(.*)/") .. "/made"))
    assert.same({}, leftovers(path))
  end)

  it("a hard link stays one: the other name has the bytes, too", function()
    local path = save(path_of("one"), "old", "604")
    assert(uv.fs_link(path, path .. "-other"))
    assert.is_true(files:download("/work/file", path, { verify = true }))
    assert.equal(2, uv.fs_stat(path).nlink)
    assert.is_true(CONTENT == read_file(path .. "-other"))
    assert.equal(tonumber("604", 8), uv.fs_stat(path).mode % 512)
    assert.same({}, leftovers(path))
  end)

  it("a file of another user stays that user's", function()
    if uv.getuid() ~= 0 then return pending("only root can give files away") end
    local path = save(path_of("theirs"), "old")
    assert(uv.fs_chown(path, 12345, 12345))
    assert.is_true(files:download("/work/file", path))
    assert.same({ 12345, 12345 }, { uv.fs_stat(path).uid, uv.fs_stat(path).gid })
    assert.is_true(CONTENT == read_file(path))
    assert.same({}, leftovers(path))
  end)

  it("a name of 255 bytes is a file like others", function()
    local path = path_of(("n"):rep(255))
    assert.is_true(files:download("/work/file", path))
    assert.is_true(files:download("/work/file", path))
    assert.is_true(CONTENT == read_file(path))
    assert.same({}, leftovers(path))
    assert(os.remove(path))
    assert.is_true(fixture.client:save_file(fixture:execd(), "/work/file", path))
    assert.is_true(CONTENT == read_file(path))
  end)

  it("an existing file is refused by save_file, and stays as it is", function()
    local path = save(path_of("kept"), "kept", "600")
    save_file_refused(path)
    assert.equal("kept", read_file(path))
    assert.equal(tonumber("600", 8), uv.fs_stat(path).mode % 512)
  end)
end)

-- Runs a script as a process of its own in a user namespace, in which `prepare` (shell) may mount. Returns its output.
local function in_namespace(prepare, script, variables)
  local env = process.module_paths()
  env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY, env.OPEN_SANDBOX_PROTOCOL = fixture.server.url, fixture.server.key, false
  env.ID = sandbox.id
  for name, value in pairs(variables) do env[name] = value end
  local code, output, complaint = process.run({ env = env, argv = {
    "unshare", "-rm", "sh", "-c", prepare .. ' && exec "$@"', "sh", process.lua(), "-e", script,
  } }, 30)
  assert.equal(0, code, complaint)
  return output
end

describe("the target of a download", function()
  it("that is a mounted file stays mounted, and receives the bytes, also in a directory that is read-only", function()
    if not run("unshare -rm true 2>/dev/null") then return pending("this user can mount nothing") end
    local directory = path_of("dir")
    assert(uv.fs_mkdir(directory, 493))
    local real = save(path_of("real"), "old")
    save(directory .. "/name", "under the mount")
    local script = [[
      local opensandbox = require "opensandbox"
      local client = opensandbox.new()
      local sandbox = assert(client:connect(os.getenv("ID")))
      assert(sandbox.files:download("/work/file", os.getenv("TO") .. "/name"))
      if os.getenv("WHOLE") then assert(sandbox.files:download_dir("/work/dir", os.getenv("TO"))) end
      client:close()
    ]]
    local mount = 'mount --bind "$REAL" "$TO/name"'
    in_namespace(mount, script, { TO = directory, REAL = real, WHOLE = "1" })
    assert.is_true(CONTENT == read_file(real))
    assert.equal("under the mount", read_file(directory .. "/name"))
    assert.equal("other", read_file(directory .. "/other"))
    assert.same({}, leftovers(real))
    assert.same({}, leftovers(directory .. "/name"))
    save(real, "old again")
    local read_only = 'mount --bind "$TO" "$TO" && mount -o remount,bind,ro "$TO" && ' .. mount
    in_namespace(read_only, script, { TO = directory, REAL = real })
    assert.is_true(CONTENT == read_file(real))
    assert.same({}, leftovers(real))
  end)

  it("that this user may not write to is refused before anything is sent, and stays as it is", function()
    if uv.getuid() ~= 0 or not run("setpriv --reuid 65534 --clear-groups true 2>/dev/null") then
      return pending("this user cannot become another one")
    end
    local directory = temporary.directory("/tmp") -- all directories above it are open to that user
    finally(function() temporary.remove(directory) end)
    assert(uv.fs_chmod(directory, 511))
    local path = save(directory .. "/read-only", "old", "444")
    assert(uv.fs_chown(path, 65534, 65534))
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY, env.OPEN_SANDBOX_PROTOCOL = fixture.server.url, fixture.server.key, false
    env.ID, env.TO = sandbox.id, path
    local argv = { "setpriv", "--reuid", "65534", "--clear-groups", process.lua(), "-e", [[
      local opensandbox = require "opensandbox"
      local requests = 0
      local client = opensandbox.new(nil, nil, { on_request = function() requests = requests + 1 end })
      local sandbox = assert(client:connect(os.getenv("ID")))
      requests = 0
      local ok, err = sandbox.files:download("/work/file", os.getenv("TO"))
      io.write(tostring(ok), " ", err and err.code or "-", " ", requests, " ", tostring(err))
      client:close()
    ]] }
    local code, output, complaint = process.run({ env = env, argv = argv }, 30)
    assert.equal(0, code, complaint)
    assert.truthy(output:find("^nil local_file 0 .*Permission denied"), output)
    assert.equal("old", read_file(path))
    assert.same({}, leftovers(path))
  end)

  it("that is full is an error, and nothing is left", function()
    local path = path_of("full")
    if uv.getuid() ~= 0 or not run("mknod '" .. path .. "' c 1 7 2>/dev/null") then
      return pending("this user can make no device")
    end
    assert.truthy(download_refused(path).message:find("No space left", 1, true))
    assert.equal("char", kind_of(path))
  end)

  it("is not touched when the download fails", function()
    local path = path_of("link")
    local real = save(path_of("real"), "old")
    assert(uv.fs_symlink(real, path))
    assert.is_nil((files:download("/work/missing", path)))
    local reason = {}
    local ok, raised = pcall(files.download, files, "/work/file", path, { on_progress = function() error(reason) end })
    assert.same({ false, true }, { ok, raised == reason })
    assert.equal("old", read_file(real))
    assert.same({}, leftovers(path))
  end)
end)

describe("the temporary file of a download", function()
  it("is removed when the host ends the coroutine in a pause of the copy", function()
    local path = save(path_of("one"), "old")
    assert(uv.fs_link(path, path .. "-other")) -- so that the bytes are copied
    local sleep = loop.sleep
    finally(function() loop.sleep = sleep end)
    loop.sleep = coroutine.yield
    local copying = coroutine.create(function()
      local target = assert(local_target.open("files:download", path))
      local part = assert(io.open(target.part, "wb"))
      for _ = 1, 65 do assert(part:write(("x"):rep(1024 * 1024))) end
      part:close()
      assert.equal(1, #leftovers(path))
      target:commit()
    end)
    assert(coroutine.resume(copying))
    assert.equal("suspended", coroutine.status(copying))
    copying = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.same({}, leftovers(path))
  end)
end)

describe("what a downloaded directory goes over", function()
  -- Downloads /work/dir, which has "name" and "other", over what `prepare` makes at "name".
  local function over(prepare)
    local target = path_of("target")
    assert(uv.fs_mkdir(target, 493))
    local reason, close = prepare(target .. "/name")
    if reason then return nil, reason end
    local ok, err = files:download_dir("/work/dir", target)
    if close then close() end
    return target .. "/name", nil, ok, err
  end

  for _, kind in ipairs { "fifo", "socket", "device" } do
    it("is not replaced when it is a " .. kind, function()
      local path, reason, ok, err = over(make[kind])
      if reason then return pending(reason) end
      failed(path, "files:download_dir", ok, err)
      assert.is_true(kind_of(path) ~= "file")
    end)
  end

  it("stays a hard link", function()
    local path, _, ok, err = over(function(path)
      save(path, "old")
      assert(uv.fs_link(path, path .. "-other"))
    end)
    assert(ok, tostring(err))
    assert.equal(2, uv.fs_stat(path).nlink)
    assert.is_true(CONTENT == read_file(path .. "-other"))
    assert.same({}, leftovers(path))
  end)

  it("is not replaced by a symlink when it is a device or a FIFO", function()
    assert(sandbox:run("mkdir -p work/links && ln -sfn nowhere work/links/name"))
    local target = path_of("target")
    assert(uv.fs_mkdir(target, 493))
    make.fifo(target .. "/name")
    local ok, err = files:download_dir("/work/links", target)
    failed(target .. "/name", "files:download_dir", ok, err)
    assert.equal("fifo", kind_of(target .. "/name"))
  end)
end)
