--- Directories whose changes alone are transferred, and whose extra entries are deleted: the trees are the same afterwards, unchanged files
--- are neither sent nor written, and nothing is deleted by mistake.

local list_names = require "opensandbox.devserver.base.list_directory"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local read_file = require "spec.support.read_file"
local temporary = require "spec.support.temporary"
local uv = require "luv"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local USUAL = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
local BOTH = { only_changed = true, delete_extra = true }

local server, client, scratch, requests

local function save(path, bytes)
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
  return path
end

-- The contents of a directory by name: bytes of files, targets of links, true for directories.
local function contents(root, below, found)
  below, found = below or "", found or {}
  for _, name in ipairs(assert(list_names(root .. "/" .. below))) do
    local path = root .. "/" .. below .. name
    local kind = assert(uv.fs_lstat(path)).type
    found[below .. name] = kind == "file" and read_file(path) or kind == "link" and "-> " .. uv.fs_readlink(path) or true
    if kind == "directory" then contents(root, below .. name .. "/", found) end
  end
  return found
end

local function make_tree(root)
  assert(uv.fs_mkdir(root, tonumber("755", 8)))
  for d = 1, 3 do
    assert(uv.fs_mkdir(("%s/d%d"):format(root, d), tonumber("755", 8)))
    for f = 1, 20 do save(("%s/d%d/f%02d"):format(root, d, f), ("file %d of %d\n"):format(f, d)) end
  end
  assert(uv.fs_symlink("d1/f01", root .. "/link"))
  return root
end

local function place(name) return scratch .. "/" .. name end

local function create(env)
  return assert(client:create { image = "any", env = env, entrypoint = { "/usr/bin/tail", "-f", "/dev/null" } })
end

-- A sandbox in which a program is a script of ours.
local function with_script(name, script)
  local sandbox = create { PATH = "/scripts:" .. scratch .. "/scripts:" .. USUAL }
  uv.fs_mkdir(scratch .. "/scripts", tonumber("755", 8))
  save(scratch .. "/scripts/" .. name, "#!/bin/sh\n" .. script)
  assert(uv.fs_chmod(scratch .. "/scripts/" .. name, tonumber("755", 8)))
  assert(sandbox.files:write("/scripts/" .. name, "#!/bin/sh\n" .. script, { mode = "0755" }))
  return sandbox
end

-- A sandbox that has only some programs.
local function with_programs(names)
  local sandbox = create { PATH = "/programs:" .. scratch .. "/programs" }
  uv.fs_mkdir(scratch .. "/programs", tonumber("755", 8))
  local script = { "/usr/bin/mkdir ./programs" }
  for name in names:gmatch("%S+") do
    script[#script + 1] = ("/usr/bin/ln -s /usr/bin/%s ./programs/%s"):format(name, name)
    uv.fs_symlink("/usr/bin/" .. name, scratch .. "/programs/" .. name)
  end
  assert.equal(0, assert(sandbox:run(table.concat(script, " && "), { cwd = "/" })).exit_code)
  return sandbox
end

-- The remote directory, as a whole download shows it.
local function remote_contents(sandbox, path)
  local into = place("seen" .. #requests .. tostring(os.time()))
  assert(sandbox.files:download_dir(path, into))
  return contents(into)
end

local function run(sandbox, script)
  local result = assert(sandbox:run(script, { cwd = "/", env = { PATH = USUAL } }))
  assert.equal(0, result.exit_code, result.stderr)
end

local function uploads()
  local count = 0
  for _, name in ipairs(requests) do count = count + (name:find("^POST .*/files/upload$") and 1 or 0) end
  return count
end

before_each(function()
  scratch, requests = temporary.directory(), {}
end)
after_each(function() temporary.remove(scratch) end)
setup(function()
  server = process.devserver { grace = 0.2 }
  client = opensandbox.new(server.url, server.key, { on_request = function(request)
    requests[#requests + 1] = request.method .. " " .. request.url
  end })
end)
teardown(function()
  client:close()
  server:stop()
end)

for _, way in ipairs { "an archive", "file by file" } do
  describe("changes, as " .. way, function()
    local function sandbox_of()
      if way == "an archive" then return create() end
      return with_programs "mkdir rm rmdir cksum find touch readlink ln sh"
    end

    it("go up: only what differs by size or checksum, and what is new", function()
      local sandbox, root = sandbox_of(), make_tree(place "up")
      assert(sandbox.files:upload_dir(root, "/work/in"))
      save(root .. "/d1/f01", "changed\n")
      save(root .. "/d1/f02", "FILE 2 of 1\n") -- the same size
      uv.fs_utime(root .. "/d1/f03", 1, 1)     -- the same content
      assert(uv.fs_mkdir(root .. "/new", tonumber("755", 8)))
      save(root .. "/new/one", "new\n")
      local total
      local count = assert(sandbox.files:upload_dir(root, "/work/in", { only_changed = true,
        on_progress = function(_, all) total = all end }))
      assert.same({ 3, 1, 58, 0 }, { count.files, count.directories, count.unchanged, count.deleted })
      assert.is_true(total < 16 * 1024, tostring(total))
      assert.same(contents(root), remote_contents(sandbox, "/work/in"))
      -- Nothing has changed: nothing is sent but the link.
      os.remove(root .. "/link")
      local before = uploads()
      count = assert(sandbox.files:upload_dir(root, "/work/in", { only_changed = true }))
      assert.same({ 0, 61, before }, { count.files, count.unchanged, uploads() })
      sandbox:kill()
    end)

    it("go up into a directory that does not exist", function()
      local sandbox, root = sandbox_of(), make_tree(place "up")
      local count = assert(sandbox.files:upload_dir(root, "/work/fresh", BOTH))
      assert.same({ 60, 0, 0 }, { count.files, count.unchanged, count.deleted })
      assert.same(contents(root), remote_contents(sandbox, "/work/fresh"))
      sandbox:kill()
    end)

    it("go down: only what differs, and unchanged files are not written", function()
      local sandbox, root = sandbox_of(), make_tree(place "down")
      assert(sandbox.files:upload_dir(root, "/work/out"))
      local untouched = assert(uv.fs_stat(root .. "/d2/f01"))
      run(sandbox, [[cd ./work/out && echo changed > d1/f01 && echo "FILE 2 of 1" > d1/f02
        mkdir -p new/deep && echo n > new/deep/one]])
      local done
      local count = assert(sandbox.files:download_dir("/work/out", root, { only_changed = true,
        on_progress = function(bytes) done = bytes end }))
      assert.same({ 3, 58, 0 }, { count.files, count.unchanged, count.deleted })
      assert.is_true(done < 24 * 1024, tostring(done))
      assert.same({ "changed\n", "FILE 2 of 1\n", "n\n" },
        { read_file(root .. "/d1/f01"), read_file(root .. "/d1/f02"), read_file(root .. "/new/deep/one") })
      assert.equal(untouched.ino, assert(uv.fs_stat(root .. "/d2/f01")).ino)
      assert.same(remote_contents(sandbox, "/work/out"), contents(root))
      count = assert(sandbox.files:download_dir("/work/out", root, BOTH))
      assert.same({ 0, 61, 0 }, { count.files, count.unchanged, count.deleted })
      run(sandbox, "cd ./work/out && ln d2/f01 hard && ln d1/f01 d3/hard")
      count = assert(sandbox.files:download_dir("/work/out", root, BOTH))
      assert.same({ 2, "file 1 of 2\n", "changed\n" },
        { count.files, read_file(root .. "/hard"), read_file(root .. "/d3/hard") })
      sandbox:kill()
    end)

    it("delete what is extra in the sandbox, and keep what is ignored", function()
      local sandbox, root = sandbox_of(), make_tree(place "up")
      save(root .. "/.gitignore", "build/\n*.log\n")
      assert(sandbox.files:upload_dir(root, "/work/in"))
      run(sandbox, [[cd ./work/in && mkdir -p build extra/deep "d1/with space" && touch build/object d1/x.log
        touch extra/deep/y.log extra/z extra/deep/w 'd2/it'"'"'s' "d1/with space/a"
        ln -s /etc extra/link && mkfifo d3/fifo && touch secret.txt]])
      for i = 1, 20 do os.remove(("%s/d3/f%02d"):format(root, i)) end
      local count = assert(sandbox.files:upload_dir(root, "/work/in", { delete_extra = true, gitignore = true,
        ignore = { "secret.txt" } }))
      local expected = contents(root)
      for _, name in ipairs { "build/object", "d1/x.log", "extra/deep/y.log", "secret.txt" } do expected[name] = "" end
      for _, name in ipairs { "build", "extra", "extra/deep" } do expected[name] = true end
      assert.same(expected, remote_contents(sandbox, "/work/in"))
      assert.equal(20 + 7, count.deleted) -- z, w, it's, a, with space, link, fifo
      sandbox:kill()
    end)

    it("replace a directory by a file and a file by a directory, where extra entries are deleted", function()
      local sandbox, root = sandbox_of(), make_tree(place "up")
      assert(sandbox.files:upload_dir(root, "/work/in"))
      run(sandbox, [[cd ./work/in && rm -r d1 d2/f01 && echo file > d1 && mkdir -p d2/f01/deep && touch d2/f01/deep/x]])
      assert(sandbox.files:upload_dir(root, "/work/in", BOTH))
      assert.same(contents(root), remote_contents(sandbox, "/work/in"))
      sandbox:kill()
    end)

    it("refuse a directory here in the place of a file there, and delete nothing", function()
      local sandbox, root = sandbox_of(), make_tree(place "down")
      assert(sandbox.files:upload_dir(root, "/work/out"))
      run(sandbox, "cd ./work/out && rm -r d1 && echo file > d1")
      local before = contents(root)
      local count, err = sandbox.files:download_dir("/work/out", root, BOTH)
      assert.is_nil(count)
      assert.equal("state", err.kind, tostring(err))
      assert.same(before, contents(root))
      sandbox:kill()
    end)

    it("delete what is extra here, and keep what is ignored", function()
      local sandbox, root = sandbox_of(), make_tree(place "down")
      assert(sandbox.files:upload_dir(root, "/work/out"))
      local outside = save(place "outside", "stays\n")
      assert(uv.fs_mkdir(root .. "/extra", tonumber("755", 8)))
      assert(uv.fs_mkdir(root .. "/kept", tonumber("755", 8)))
      save(root .. "/extra/a", "x")
      save(root .. "/kept/b.log", "x")
      save(root .. "/kept/c", "x")
      assert(uv.fs_symlink(outside, root .. "/extra/link"))
      local count = assert(sandbox.files:download_dir("/work/out", root, { delete_extra = true, ignore = { "*.log" } }))
      assert.equal(4, count.deleted)
      local expected = remote_contents(sandbox, "/work/out")
      expected.kept, expected["kept/b.log"] = true, "x"
      assert.same(expected, contents(root))
      assert.equal("stays\n", read_file(outside))
      sandbox:kill()
    end)
  end)
end

describe("names that a list cannot hold", function()
  local odd = { "new\nline", "cr\r", "\255\254", "back\\slash", " leading", "-rf", "*", "\195\164", "d .", "odd", "1 2 .x" }

  it("are transferred, and never deleted by mistake, in both directions", function()
    local sandbox, root = create(), place "odd"
    assert(uv.fs_mkdir(root, tonumber("755", 8)))
    assert(uv.fs_mkdir(root .. "/a\nb", tonumber("755", 8)))
    save(root .. "/a\nb/inside", "x")
    for i, name in ipairs(odd) do save(root .. "/" .. name, "odd " .. i) end
    for _ = 1, 2 do
      assert(sandbox.files:upload_dir(root, "/work/odd", BOTH))
      assert.same(contents(root), remote_contents(sandbox, "/work/odd"))
    end
    for _ = 1, 2 do
      local before = contents(root)
      assert(sandbox.files:download_dir("/work/odd", root, BOTH))
      assert.same(before, contents(root))
    end
    save(root .. "/\255\254", "changed")
    save(root .. "/back\\slash", "changed")
    assert(sandbox.files:upload_dir(root, "/work/odd", BOTH))
    assert.same(contents(root), remote_contents(sandbox, "/work/odd"))
    sandbox:kill()
  end)
end)

describe("a name with a newline", function()
  it("comes down where echo is no program", function()
    local sandbox = with_programs "mkdir rm rmdir cksum find touch readlink ln sh tar"
    run(sandbox, [[mkdir -p ./work/out && cd ./work/out && echo x > plain && echo y > 'new
line']])
    local root = place "down"
    assert(uv.fs_mkdir(root, tonumber("755", 8)))
    save(root .. "/plain", "x\n")
    local count = assert(sandbox.files:download_dir("/work/out", root, BOTH))
    assert.same({ 1, 1, "y\n" }, { count.files, count.unchanged, read_file(root .. "/new\nline") })
    sandbox:kill()
  end)
end)

describe("a list that fails", function()
  local function assert_nothing_deleted(sandbox, code)
    local root = make_tree(place "local")
    local before = contents(root)
    local count, err = sandbox.files:download_dir("/work/out", root, BOTH)
    assert.is_nil(count)
    assert.same({ code, "files:download_dir" }, { err.code, err.op }, tostring(err))
    assert.same(before, contents(root))
    return err
  end

  it("deletes nothing: the command ends with an error after half of it", function()
    local sandbox = with_script("find", 'echo "12 34 ./d1/f01"; echo broken >&2; exit 1')
    run(sandbox, "mkdir -p ./work/out")
    local err = assert_nothing_deleted(sandbox, "list_failed")
    assert.truthy(err.message:find("broken", 1, true), err.message)
    sandbox:kill()
  end)

  it("deletes nothing: the directory does not exist, or is none", function()
    local sandbox = create()
    assert_nothing_deleted(sandbox, "not_a_directory")
    assert(sandbox.files:write("/work/out", "a file"))
    temporary.remove(place "local")
    assert_nothing_deleted(sandbox, "not_a_directory")
    sandbox:kill()
  end)

  it("deletes nothing: the rest of the download fails", function()
    local sandbox = with_script("tar", "exit 9")
    run(sandbox, "mkdir -p ./work/out; echo x > ./work/out/new")
    assert_nothing_deleted(sandbox, "tar_failed")
    sandbox:kill()
  end)

  it("is an error when the sandbox has no programs for it, and when it is too long", function()
    local sandbox = with_programs "mkdir rm cksum touch readlink ln sh"
    run(sandbox, "mkdir -p ./work/out")
    local err = assert_nothing_deleted(sandbox, "compare_unavailable")
    assert.truthy(err.hint:find("findutils", 1, true), err.hint)
    sandbox:kill()
    temporary.remove(place "local")
    sandbox = with_script("find", "yes './a/name/in/the/list' | head -c 200000")
    run(sandbox, "mkdir -p ./work/out")
    local frugal = opensandbox.new(server.url, server.key, { max_output = 65536 })
    assert_nothing_deleted(assert(frugal:connect(sandbox.id)), "list_too_long")
    frugal:close()
    sandbox:kill()
  end)

  it("of a hostile sandbox leads nowhere outside of the directory", function()
    local outside = save(place "outside", "stays\n")
    local sandbox = with_script("find", [[
      case "$*" in
        *cksum*) printf '1 2 ./../outside\n1 2 .//etc/passwd\n4294967295 9999999999999999999999 ./d1/f01\n1 2 ./\n';;
        *) printf 'd ./../..\nd .\n\nd ././.\nl ./x\n';;
      esac]])
    run(sandbox, "mkdir -p ./work/out; echo x > ./work/out/new")
    local root = make_tree(place "local")
    local count, err = sandbox.files:download_dir("/work/out", root, BOTH)
    assert.truthy(count or err.code, tostring(err))
    assert.equal("stays\n", read_file(outside))
    sandbox:kill()
  end)
end)
