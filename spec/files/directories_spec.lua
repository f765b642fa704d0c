--- Whole directories up and down: they come back as they were, with tar in the sandbox and without; nothing is written outside of the
--- target whatever the sandbox sends; and nothing stays behind, however it ends.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local list_names = require "opensandbox.devserver.base.list_directory"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local read_file = require "spec.support.read_file"
local tarball = require "spec.support.tarball"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local wait_until = require "spec.support.wait_until"

local FILES, SIZE = 520, 4096 -- more than one request takes: 500
local PERIOD = 4096 * 3
local USUAL = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

local server, client, scratch, requests

local function mode_of(text) return tonumber(text, 8) end

local function save(path, bytes, mode, mtime)
  local file = assert(io.open(path, "wb"))
  assert(file:write(bytes))
  assert(file:close())
  assert(uv.fs_chmod(path, mode or mode_of "644"))
  if mtime then assert(uv.fs_utime(path, mtime, mtime)) end
  return path
end

-- All that can be seen of a directory: a line for each name in it.
local function picture(root, below, lines)
  below, lines = below or "", lines or {}
  for _, name in ipairs(assert(list_names(root .. "/" .. below))) do
    local path = root .. "/" .. below .. name
    local stat = assert(uv.fs_lstat(path))
    local what
    if stat.type == "link" then
      what = "-> " .. uv.fs_readlink(path)
    else
      what = ("%o %d"):format(stat.mode % 512, stat.mtime.sec)
    end
    if stat.type == "file" then what = what .. " " .. assert(read_file(path)) end
    lines[below .. name] = stat.type .. " " .. what
    if stat.type == "directory" then picture(root, below .. name .. "/", lines) end
  end
  return lines
end

local function same_trees(expected, actual)
  local left, right = picture(expected), picture(actual)
  local function shown(text) return text and text:sub(1, 120) end
  for name, line in pairs(left) do
    if line ~= right[name] then assert.equal(shown(line), shown(right[name]), ("%q"):format(name)) end
  end
  for name in pairs(right) do assert.truthy(left[name], ("%q should not be there"):format(name)) end
end

-- No two places of it look alike for long.
local pattern = {}
for i = 1, PERIOD / 6 do pattern[i] = ("%05d\n"):format(i) end
pattern = table.concat(pattern)

local ODD_NAMES = {
  "-rf", " leading", "trailing ", "new\nline", "quo'te", 'double"quote', "back\\slash", "tab\tname", "*", "a;b&c|d", "%s", "...",
  "\195\164\195\182\195\188", "#x", "!y", "--help", ("n"):rep(120),
}

local function make_odd(root, names)
  for i, name in ipairs(names) do save(root .. "/" .. name, "odd " .. i, mode_of "640", 1600000000 + i) end
end

-- 520 files of 4 KiB in 20 directories, and what makes a directory hard to carry.
local function make_tree(root)
  assert(uv.fs_mkdir(root, mode_of "755"))
  for d = 0, 19 do
    local directory = ("%s/dir%02d"):format(root, d)
    assert(uv.fs_mkdir(directory, mode_of "755"))
    for f = 1, FILES / 20 do
      local index = d * FILES / 20 + f
      local from = index * 7 % (PERIOD - SIZE) + 1
      save(("%s/file%03d"):format(directory, f), pattern:sub(from, from + SIZE - 1), mode_of(f % 2 == 0 and "644" or "750"),
        1500000000 + index % 10)
    end
  end
  local odd = root .. "/odd names"
  assert(uv.fs_mkdir(odd, mode_of "750"))
  make_odd(odd, ODD_NAMES)
  save(odd .. "/empty", "", mode_of "600", 1000000000)
  assert(uv.fs_mkdir(root .. "/empty directory", mode_of "711"))
  assert(uv.fs_symlink("dir00/file001", root .. "/to a file"))
  assert(uv.fs_symlink("../nowhere", odd .. "/dangling"))
  assert(uv.fs_symlink("/etc", root .. "/absolute"))
  assert(uv.fs_symlink("dir01", root .. "/to a directory"))
  assert(uv.fs_symlink("two\nlines ", root .. "/-odd target\n"))
  assert(uv.fs_mkdir(root .. "/closed", mode_of "755"))
  save(root .. "/closed/inside", "in a directory that nobody may write to", mode_of "400", 1400000000)
  assert(uv.fs_chmod(root .. "/closed", mode_of "555"))
  for index, name in ipairs { "dir00", "odd names", "empty directory", "closed" } do
    assert(uv.fs_utime(root .. "/" .. name, 1300000000 + index, 1300000000 + index))
  end
  return root
end

local EXPECTED = { files = FILES + #ODD_NAMES + 2, directories = 23, symlinks = 5 }

local function count_requests(request)
  local count = 0
  for _, name in ipairs(requests) do
    if name == request then count = count + 1 end
  end
  return count
end

local function check_count(count)
  for name, number in pairs(EXPECTED) do assert.equal(number, count[name], name) end
  assert.equal(0, count.skipped)
  assert.is_true(count.bytes > FILES * SIZE)
end

local function create(env)
  return assert(client:create { image = "any", env = env, entrypoint = { "/usr/bin/tail", "-f", "/dev/null" } })
end

-- A sandbox whose PATH has only a directory with links to some programs. With isolation it is one of the sandbox's own, else of ours.
local function with_programs(names)
  local sandbox = create { PATH = "/programs:" .. scratch .. "/programs" }
  uv.fs_mkdir(scratch .. "/programs", mode_of "755")
  local script = { "/usr/bin/mkdir ./programs" }
  for name in names:gmatch("%S+") do
    script[#script + 1] = ("/usr/bin/ln -s /usr/bin/%s ./programs/%s"):format(name, name)
    uv.fs_symlink("/usr/bin/" .. name, scratch .. "/programs/" .. name)
  end
  local result = assert(sandbox:run(table.concat(script, " && "), { cwd = "/" }))
  assert.equal(0, result.exit_code, result.stderr)
  return sandbox
end

local function without_tar() return with_programs "mkdir rm cksum touch readlink ln" end

-- A sandbox in which a program is a script of ours.
local function with_script(name, script)
  local sandbox = create { PATH = "/scripts:" .. scratch .. "/scripts:" .. USUAL }
  uv.fs_mkdir(scratch .. "/scripts", mode_of "755")
  save(scratch .. "/scripts/" .. name, "#!/bin/sh\n" .. script, mode_of "755")
  assert(sandbox.files:write("/scripts/" .. name, "#!/bin/sh\n" .. script, { mode = "0755" }))
  return sandbox
end

-- What we remove in the sandbox is removed without waiting. Without isolation a command's /tmp is named from "/", too.
local function nothing_left_in(sandbox)
  wait_until(function()
    local result = assert(sandbox:run("ls -a ./tmp | /usr/bin/grep -c opensandbox-", { cwd = "/", env = { PATH = USUAL } }))
    return result.stdout == "0\n"
  end, "a temporary file stayed in the sandbox")
end

local function parts_in(root)
  local found = {}
  for name in pairs(picture(root)) do
    if name:find("%.part$") or name:find("%.opensandbox") then found[#found + 1] = name end
  end
  return found
end

local function start()
  server = process.devserver { grace = 0.2 }
  client = opensandbox.new(server.url, server.key, { on_request = function(request)
    requests[#requests + 1] = request.method .. " " .. request.url:gsub("^%a+://[^/]*", ""):gsub("^/%x+%-[%x-]+/proxy/%d+", "")
  end })
  requests = {}
  scratch = temporary.directory()
end

local function stop()
  client:close()
  server:stop()
  temporary.remove(scratch)
end

describe("a directory of 520 files", function()
  setup(start)
  teardown(stop)

  local source

  before_each(function() source = source or make_tree(scratch .. "/source") end)

  local function round_trip(sandbox, target, opts)
    check_count(assert(sandbox.files:upload_dir(source, "/work/a copy", opts)))
    check_count(assert(sandbox.files:download_dir("/work/a copy", target, opts)))
    same_trees(source, target)
    assert.same({}, parts_in(target))
    nothing_left_in(sandbox)
  end

  it("goes up in one request and comes down in one, and is the same", function()
    local sandbox = create()
    requests = {}
    check_count(assert(sandbox.files:upload_dir(source, "/work/in")))
    assert.equal(1, count_requests "POST /files/upload")
    assert.equal(2, count_requests "POST /command") -- one of them asks for tar, once
    requests = {}
    check_count(assert(sandbox.files:download_dir("/work/in", scratch .. "/one/deep/er")))
    assert.equal(1, count_requests "GET /files/download")
    assert.equal(1, count_requests "POST /command")
    assert.equal(1, count_requests "DELETE /files")
    assert.equal(3, #requests)
    same_trees(source, scratch .. "/one/deep/er")
    round_trip(sandbox, scratch .. "/one/deep/er") -- over what is there, also where nobody may write
    sandbox:kill()
  end)

  it("is the same without tar, too", function()
    local sandbox = without_tar()
    requests = {}
    round_trip(sandbox, scratch .. "/two")
    assert.equal(math.ceil(EXPECTED.files / 500), count_requests "POST /files/upload")
    assert.equal(EXPECTED.files + 1, count_requests "GET /files/download") -- and one for the targets of the symlinks
    assert.equal(1, count_requests "GET /directories/list")
    sandbox:kill()
  end)

  it("is the same in a task, with the sums compared and progress told", function()
    for index, make in ipairs { create, without_tar } do
      local sandbox, told = make(), {}
      local opts = { verify = true, timeout = 60, on_progress = function(done, all) told[#told + 1] = { done, all } end }
      opensandbox.spawn(round_trip, sandbox, scratch .. "/three" .. index, opts):wait()
      assert.is_true(#told > 5)
      assert.same(told[#told][2], told[#told][1])
      local going_up = true
      for i = 2, #told do
        if told[i][1] < told[i - 1][1] then
          assert.is_true(going_up, "progress went back")
          going_up = false
        end
      end
      sandbox:kill()
    end
  end)
end)

describe("a directory on its way", function()
  setup(start)
  teardown(stop)
  before_each(function() requests = {} end)

  local places = 0
  local function fresh()
    places = places + 1
    local path = scratch .. "/place" .. places
    assert(uv.fs_mkdir(path, mode_of "755"))
    return path
  end

  local function small()
    local root = fresh()
    assert(uv.fs_mkdir(root .. "/sub", mode_of "755"))
    save(root .. "/a", "text of a")
    save(root .. "/sub/b", ("b"):rep(300000))
    assert(uv.fs_symlink("a", root .. "/link"))
    return root
  end

  it("leaves out what patterns and .gitignore files say", function()
    local root = fresh()
    for _, name in ipairs { "src", "src/build", "build", ".git", "src/sub" } do
      assert(uv.fs_mkdir(root .. "/" .. name, mode_of "755"))
    end
    for _, name in ipairs { "a.o", "keep.o", "src/b.o", "src/c.lua", "src/build/x", "build/y", ".git/config", "src/sub/z.tmp",
      "src/sub/z.lua", "src/secret", "secret" } do save(root .. "/" .. name, name) end
    save(root .. "/.gitignore", "*.o\n!keep.o\n/build/\n")
    save(root .. "/src/.gitignore", "*.tmp\n/secret\n")
    for _, make in ipairs { create, without_tar } do
      local sandbox = make()
      local function up(opts)
        assert(sandbox.files:remove("/work/x", { recursive = true }))
        assert(sandbox.files:upload_dir(root, "/work/x", opts))
        local names = {}
        for _, info in ipairs(assert(sandbox.files:list("/work/x", { depth = 9 }))) do
          if info.type == "file" then names[#names + 1] = info.path:sub(#"/work/x/" + 1) end
        end
        table.sort(names)
        return names
      end
      assert.equal(13, #up())
      assert.same({ ".gitignore", "keep.o", "secret", "src/.gitignore", "src/build/x", "src/c.lua", "src/sub/z.lua" },
        up { gitignore = true })
      assert.same({ ".gitignore", "a.o", "secret", "src/.gitignore", "src/build/x", "src/c.lua" },
        up { gitignore = true, ignore = { "keep.o", "!a.o", "sub" } })
      up()
      local function down(patterns)
        local target = fresh()
        local count = assert(sandbox.files:download_dir("/work/x", target, { ignore = patterns }))
        local names = {}
        for name, line in pairs(picture(target)) do
          if line:find("^file") then names[#names + 1] = name end
        end
        table.sort(names)
        assert.equal(#names, count.files)
        return names
      end
      assert.same({ ".gitignore", "keep.o", "secret", "src/.gitignore", "src/c.lua", "src/secret" },
        down { "*.o", "!keep.o", "build/", ".git", "sub" })
      assert.same({ ".gitignore", "a.o", "keep.o", "src/.gitignore", "src/b.o", "src/c.lua" },
        down { "secret", "build", ".git", "/src/sub" })
      sandbox:kill()
    end
  end)

  it("passes over what is neither file nor directory nor link, and counts it", function()
    local root = small()
    local child = process.start { argv = { "mkfifo", root .. "/fifo" } }
    assert.equal(0, (child:wait(10)))
    child:stop()
    local sandbox = create()
    local count = assert(sandbox.files:upload_dir(root, "/work/y"))
    assert.same({ files = 2, directories = 1, symlinks = 1, bytes = 300009, skipped = 1 }, count)
    assert.equal(0, assert(sandbox:run("mkfifo ./work/y/pipe", { cwd = "/" })).exit_code)
    assert.same(count, assert(sandbox.files:download_dir("/work/y", fresh())))
    sandbox:kill()
  end)

  it("carries names of any bytes where there is tar, and says that it cannot where there is none", function()
    local root = fresh()
    local names = { "\255\254", "$HOME", "price$5", ("d"):rep(250) }
    make_odd(root, names)
    assert(uv.fs_mkdir(root .. "/" .. ("deep"):rep(50), mode_of "755"))
    assert(uv.fs_mkdir(root .. "/" .. ("deep"):rep(50) .. "/" .. ("er"):rep(100), mode_of "755"))
    save(root .. "/" .. ("deep"):rep(50) .. "/" .. ("er"):rep(100) .. "/file", "far away")
    local sandbox = create()
    local target = fresh()
    assert(sandbox.files:upload_dir(root, "/work/z"))
    assert(sandbox.files:download_dir("/work/z", target))
    same_trees(root, target)
    sandbox:kill()
    sandbox = without_tar()
    local ok, err = sandbox.files:upload_dir(root, "/work/z")
    assert.is_nil(ok)
    assert.equal("state name_refused files:upload_dir", err.kind .. " " .. err.code .. " " .. err.op)
    for _, call in ipairs {
      function() return sandbox.files:upload_dir(root, "/work/$z", { ignore = { "\255*", "*$*" } }) end,
      function() return sandbox.files:download_dir("/work/$z", fresh()) end,
    } do
      ok, err = call()
      assert.is_nil(ok)
      assert.equal("state name_refused", err.kind .. " " .. err.code)
    end
    assert(sandbox.files:upload_dir(root, "/work/z", { ignore = { "\255*", "*$*" } }))
    sandbox:kill()
  end)

  it("may go to a path that is relative or below the home directory", function()
    local root = small()
    local sandbox = create()
    for _, path in ipairs { "~/x", "~", "rel/a b", "/work/../work/./q//" } do
      local target = fresh()
      assert(sandbox.files:upload_dir(root, path), path)
      assert.equal("text of a", assert(sandbox.files:read(path .. "/a")))
      assert(sandbox.files:download_dir(path, target, { ignore = { "/*", "!/a", "!/sub", "!/link" } }), path)
      same_trees(root, target)
    end
    sandbox:kill()
  end)

  it("goes over what is there, and through no link that stands there", function()
    local root, outside = small(), fresh()
    for _, make in ipairs { create, without_tar } do
      local sandbox, target = make(), fresh()
      assert(sandbox.files:upload_dir(root, "/work/o"))
      save(target .. "/other", "stays", nil, 1)
      assert(uv.fs_symlink(outside .. "/victim", target .. "/a"))
      assert(uv.fs_symlink("/nowhere", target .. "/link"))
      assert(sandbox.files:download_dir("/work/o", target))
      assert.equal("file", uv.fs_lstat(target .. "/a").type)
      assert.equal("stays", read_file(target .. "/other"))
      assert.equal("a", uv.fs_readlink(target .. "/link"))
      target = fresh()
      assert(uv.fs_symlink(outside, target .. "/sub"))
      local ok, err = sandbox.files:download_dir("/work/o", target)
      assert.is_nil(ok)
      assert.equal("state unsafe_archive", err.kind .. " " .. err.code)
      assert.truthy(tostring(err):find("sub", 1, true))
      assert.same({}, picture(outside))
      assert.same({}, parts_in(target))
      target = fresh()
      save(target .. "/sub", "a file")
      ok, err = sandbox.files:download_dir("/work/o", target)
      assert.is_nil(ok)
      assert.equal("unsafe_archive", err.code)
      target = fresh()
      assert(uv.fs_mkdir(target .. "/a", mode_of "755"))
      ok, err = sandbox.files:download_dir("/work/o", target)
      assert.is_nil(ok)
      assert.equal("unsafe_archive", err.code)
      nothing_left_in(sandbox)
      sandbox:kill()
    end
  end)

  it("that is not there, or is none, is an error on either side", function()
    local root = small()
    for _, make in ipairs { create, without_tar } do
      local sandbox = make()
      local function fails(code, part, ok, err)
        assert.is_nil(ok)
        assert.equal(code, err.code, tostring(err))
        assert.truthy(tostring(err):find(part, 1, true), tostring(err))
        assert.truthy(err.op:find("^files:%l+load_dir$"))
      end
      fails("local_file", "No such file", sandbox.files:upload_dir(root .. "/none", "/work/p"))
      fails("local_file", "not a directory", sandbox.files:upload_dir(root .. "/a", "/work/p"))
      fails("local_file", root .. "/a", sandbox.files:download_dir("/work", root .. "/a/b"))
      assert(sandbox.files:write("/work/file", "x"))
      local with_tar = make == create
      fails(with_tar and "not_a_directory" or "FILE_NOT_FOUND", "/work/none", sandbox.files:download_dir("/work/none", fresh()))
      fails(with_tar and "not_a_directory" or "INVALID_REQUEST_BODY", "/work/file",
        sandbox.files:download_dir("/work/file", fresh()))
      fails(with_tar and "tar_failed" or "RUNTIME_ERROR", "/work/file", sandbox.files:upload_dir(root, "/work/file/sub"))
      nothing_left_in(sandbox)
      sandbox:kill()
    end
  end)

  it("raises the caller's mistakes at the caller's line, before anything is sent", function()
    local sandbox = create()
    requests = {}
    local files = sandbox.files
    local function raises(part, fn)
      local ok, message = pcall(fn)
      assert.is_false(ok)
      assert.truthy(message:find("directories_spec%.lua:%d+: files:"), message)
      assert.truthy(message:find(part, 1, true), message)
    end
    raises("the local path must be", function() files:upload_dir(nil, "/x") end)
    raises("the path must be", function() files:upload_dir("x", "") end)
    raises("did you mean 'ignore'", function() files:upload_dir("x", "/x", { ignores = {} }) end)
    raises("option 'ignore' must be a list", function() files:upload_dir("x", "/x", { ignore = "*.o" }) end)
    raises("unknown option 'gitignore'", function() files:download_dir("/x", "x", { gitignore = true }) end)
    raises("option 'timeout'", function() files:download_dir("/x", "x", { timeout = 0 }) end)
    raises("the local path must be", function() files:download_dir("/x", {}) end)
    assert.same({}, requests)
    sandbox:kill()
  end)

  it("ends with its callback's error, and nothing stays, outside of tasks and in them", function()
    local root = small()
    for _, make in ipairs { create, without_tar } do
      local sandbox = make()
      assert(sandbox.files:upload_dir(root, "/work/c"))
      for _, verify in ipairs { false, true } do
        local target = fresh()
        local opts = { verify = verify, on_progress = function() error({ "mine" }) end }
        local function up() return opensandbox.pcall(sandbox.files.upload_dir, sandbox.files, root, "/work/d", opts) end
        local function down()
          return opensandbox.pcall(sandbox.files.download_dir, sandbox.files, "/work/c", target .. "/t", opts)
        end
        for _, work in ipairs { up, down } do
          for _, call in ipairs { function() return work() end, function() return opensandbox.spawn(work):wait() end } do
            local ok, problem = call()
            assert.is_false(ok)
            assert.same({ "mine" }, problem)
            assert.same({}, parts_in(target))
          end
        end
        nothing_left_in(sandbox)
      end
      sandbox:kill()
    end
  end)

  it("may be waited for in its callback", function()
    local root = small()
    for _, make in ipairs { create, without_tar } do
      local sandbox, calls = make(), 0
      local opts = { on_progress = function()
        calls = calls + 1
        assert(sandbox.files:exists("/work"))
      end }
      opensandbox.spawn(function()
        assert(sandbox.files:upload_dir(root, "/work/e", opts))
        assert(sandbox.files:download_dir("/work/e", fresh(), opts))
      end):wait()
      assert.is_true(calls >= 2)
      sandbox:kill()
    end
  end)

  it("stops when its task is cancelled or its time is over, and nothing stays", function()
    local root = small()
    local sandbox = with_script("tar",
      [[for a; do case $a in ./tmp/*) echo half > "$a";; esac; done; touch ./begun; exec sleep 60]])
    local function begun()
      local found = sandbox.files:exists("/begun")
      if found then assert(sandbox.files:remove("/begun")) end
      return found
    end
    local target = fresh()
    local function up(timeout) return sandbox.files:upload_dir(root, "/work/s", { timeout = timeout }) end
    local function down(timeout) return sandbox.files:download_dir("/work", target .. "/t", { timeout = timeout }) end
    for _, work in ipairs { up, down } do
      local one = opensandbox.spawn(work)
      wait_until(begun, "tar was not called")
      one:cancel()
      local ok, err = one:wait()
      assert.is_nil(ok)
      assert.equal("cancelled", err.kind)
      nothing_left_in(sandbox)
      local before = core.now()
      ok, err = work(0.5)
      assert.is_nil(ok)
      assert.equal("timeout timeout", err.kind .. " " .. tostring(err.timeout_option), tostring(err))
      assert.truthy(tostring(err):find("0.5 s ran out", 1, true))
      assert.is_true(core.now() - before < 8)
      nothing_left_in(sandbox)
      assert.is_true(begun())
    end
    assert.same({}, picture(target))
    sandbox:kill()
  end)

  it("stops in the middle of a transfer, too", function()
    local root = small()
    save(root .. "/long", ("long"):rep(4000000))
    for _, make in ipairs { create, without_tar } do
      local sandbox, target, one = make(), fresh(), nil
      assert(sandbox.files:upload_dir(root, "/work/m"))
      for _, verify in ipairs { false, true } do
        local opts = { verify = verify, on_progress = function() one:cancel() end }
        for _, work in ipairs {
          function() return sandbox.files:upload_dir(root, "/work/n", opts) end,
          function() return sandbox.files:download_dir("/work/m", target .. "/t", opts) end,
        } do
          one = opensandbox.spawn(work)
          local count, err = one:wait()
          if count then -- all had come before the first word about it, and there was nothing more to wait for
            same_trees(root, target .. "/t")
          else
            assert.equal("cancelled", err.kind)
          end
          assert.same({}, parts_in(target))
        end
      end
      nothing_left_in(sandbox)
      sandbox:kill()
    end
  end)

  it("tells what tar complained of", function()
    local root = small()
    local sandbox = with_script("tar", [[echo "tar: no room" >&2; exit 2]])
    for _, call in ipairs {
      function() return sandbox.files:upload_dir(root, "/work/t") end,
      function() return sandbox.files:download_dir("/work", fresh()) end,
    } do
      local ok, err = call()
      assert.is_nil(ok)
      assert.equal("state tar_failed", err.kind .. " " .. err.code)
      assert.truthy(tostring(err):find("tar: no room", 1, true))
      assert.equal(2, err.result.exit_code)
      nothing_left_in(sandbox)
    end
    sandbox:kill()
  end)

  it("is an error when the client is closed under it", function()
    local root = small()
    local other = opensandbox.new(server.url, server.key)
    local sandbox = assert(other:create { image = "any" })
    local one
    one = opensandbox.spawn(function()
      return sandbox.files:upload_dir(root, "/work/k", { on_progress = function() other:close() end })
    end)
    local ok, err = one:wait()
    assert.is_nil(ok)
    assert.equal("closed", err.kind, tostring(err))
  end)
end)

describe("a sandbox that lies", function()
  setup(start)
  teardown(stop)

  local entry, header, record, archive = tarball.entry, tarball.header, tarball.record, tarball.archive

  local sandbox

  -- What comes of downloading an archive: the result, its error and the target. Nothing beside the target may change.
  local function downloaded(bytes, prepare, opts)
    sandbox = sandbox or with_script("tar", [[cp "${0%/*}/data" "$2"]])
    save(scratch .. "/scripts/data", bytes)
    assert(sandbox.files:write("/scripts/data", bytes))
    local place = scratch .. "/place"
    local target = place .. "/target"
    assert(uv.fs_mkdir(place, mode_of "755"))
    assert(uv.fs_mkdir(target, mode_of "755"))
    save(place .. "/victim", "as it was", nil, 1)
    if prepare then prepare(target) end
    local count, err = sandbox.files:download_dir("/work", target, opts)
    local seen = picture(target)
    assert.equal("as it was", read_file(place .. "/victim"))
    local names = assert(list_names(place))
    table.sort(names)
    assert.same({ "target", "victim" }, names)
    assert.same({}, parts_in(place))
    temporary.remove(place)
    return count, err, seen
  end

  local function refused(code, ...)
    local count, err, seen = downloaded(...)
    assert.is_nil(count)
    assert.equal(code, err.code, tostring(err))
    assert.is_true(err.kind == "state" or err.kind == "protocol")
    assert.equal("files:download_dir", err.op)
    return err, seen
  end

  it("cannot write outside of the target by a name", function()
    for _, name in ipairs { "/etc/x", "../victim", "a/../../victim", "..", "a/..", "./../victim", "//x" } do
      for _, kind in ipairs { "0", "5", "2", "1" } do
        local content = kind == "0" and "evil" or ""
        local err = refused("unsafe_archive", archive(entry({ name = name, type = kind, target = "x" }, content)))
        assert.truthy(err.message:find(("%q"):format(name), 1, true), err.message)
      end
    end
    local file = entry({ name = "ok" }, "evil")
    refused("unsafe_archive", archive(entry({ name = "p", type = "x" }, record("path", "../victim")), file))
    refused("unsafe_archive", archive(entry({ name = "p", type = "L" }, "../victim\0"), file))
    refused("unsafe_archive", archive(entry({ name = "p", type = "L" }, ("a/"):rep(5000) .. "\0"), file))
    refused("unsafe_archive", archive(entry({ name = ".", type = "0" }, "evil")))
  end)

  it("cannot write through a symlink, whether it sent it or it stands there", function()
    local link = entry { name = "l", type = "2", target = ".." }
    refused("unsafe_archive", archive(link, entry({ name = "l/victim" }, "evil")))
    refused("unsafe_archive", archive(link, entry { name = "l/victim", type = "5" }))
    refused("unsafe_archive", archive(link, entry { name = "l/victim", type = "2", target = "x" }))
    refused("unsafe_archive", archive(entry({ name = "l/victim" }, "evil"), link))
    refused("unsafe_archive", archive(entry { name = "l", type = "5" }, link))
    local function prepare(target) assert(uv.fs_symlink("..", target .. "/l")) end
    refused("unsafe_archive", archive(entry({ name = "l/victim" }, "evil")), prepare)
    refused("unsafe_archive", archive(entry { name = "l/victim", type = "2", target = "x" }), prepare)
    refused("unsafe_archive", archive(entry { name = "l", type = "5", mode = 0 }), prepare)
  end)

  it("cannot read or write by a hard link", function()
    refused("unsafe_archive", archive(entry { name = "h", type = "1", target = "../victim" }))
    refused("unsafe_archive", archive(entry { name = "h", type = "1", target = "/etc/passwd" }))
    refused("unsafe_archive", archive(entry { name = "h", type = "1", target = "none" }))
    refused("unsafe_archive", archive(entry { name = "h", type = "1", target = "l/victim" }),
      function(target) assert(uv.fs_symlink("..", target .. "/l")) end)
    refused("unsafe_archive", archive(entry { name = "h", type = "1", target = "l" }),
      function(target) assert(uv.fs_symlink("../victim", target .. "/l")) end)
  end)

  it("may send hard links to what came before", function()
    local count, err, seen = downloaded(archive(
      entry({ name = "./d/f", mtime = 9 }, "text"), entry { name = "s", type = "2", target = "d/f" },
      entry { name = "h", type = "1", target = "./d/f", mtime = 9 }, entry { name = "t", type = "1", target = "s" }))
    assert(count, tostring(err))
    assert.equal("file 644 9 text", seen.h)
    assert.equal("link -> d/f", seen.t)
  end)

  it("cannot make a file where a directory is, nor a directory where a file is", function()
    refused("unsafe_archive", archive(entry({ name = "x" }, "1"), entry({ name = "x/y" }, "2")))
    refused("unsafe_archive", archive(entry({ name = "x/y" }, "1"), entry({ name = "x" }, "2")))
  end)

  it("cannot pass a cut or garbled archive off as a whole one", function()
    local whole = archive(entry({ name = "a" }, ("x"):rep(1000)), entry({ name = "b" }, "y"))
    for _, bytes in ipairs { "", whole:sub(1, 700), whole:sub(1, 1536), whole:sub(1, 2560), ("garbage"):rep(999),
      archive(header { name = "huge", size = "\128" .. ("\0"):rep(5) .. ("\1"):rep(6) }) } do
      local err = refused("bad_archive", bytes)
      assert.equal("protocol", err.kind)
    end
  end)

  it("cannot hand over setuid bits, and its last word about a name counts", function()
    local count, err, seen = downloaded(archive(entry({ name = "x", mode = mode_of "4755", mtime = 5 }, "1"),
      entry({ name = "y", mtime = 5 }, "1"), entry { name = "y", type = "2", target = "/etc/passwd" },
      entry { name = "z", type = "2", target = "/etc/passwd" }, entry({ name = "z", mtime = 5 }, "2")))
    assert(count, tostring(err))
    assert.same({ x = "file 755 5 1", y = "link -> /etc/passwd", z = "file 644 5 2" }, seen)
    nothing_left_in(sandbox)
  end)

  it("may send any number as a time: what is none is not set, and nothing raises", function()
    local function base256(...) return "\128" .. ("\0"):rep(11 - select("#", ...)) .. string.char(...) end
    for _, mtime in ipairs {
      base256(16, 0, 0, 0, 0, 0, 0), base256(31, 255, 255, 255, 255, 255, 255), base256(232, 212, 165, 16, 0),
      ("7"):rep(11) .. "\0",
      "\255" .. ("\255"):rep(4) .. "\240" .. ("\0"):rep(6), ("\255"):rep(12),
    } do
      local count, err, seen = downloaded(archive(entry({ name = "f", mtime = mtime }, "1"),
        entry { name = "d", type = "5", mode = mode_of "755", mtime = mtime },
        entry { name = "s", type = "2", target = "f", mtime = mtime },
        entry { name = "h", type = "1", target = "f", mtime = mtime }))
      assert(count, tostring(err))
      assert.same({ 2, 1, 1 }, { count.files, count.directories, count.symlinks })
      assert.truthy(seen.f:find("^file 644 %-?%d+ 1$"), seen.f)
    end
    for text, expected in pairs { ["4503599627370496.5"] = "%d+", ["1500000000.25"] = "1500000000" } do
      local pax = entry({ name = "p", type = "x" }, record("mtime", text))
      local count, err, seen = downloaded(archive(pax, entry({ name = "f" }, "1")))
      assert(count, tostring(err))
      assert.truthy(seen.f:find("^file 644 " .. expected .. " 1$"), seen.f)
    end
  end)

  it("has its names checked without tar, too", function()
    local faulty = fault_server.start [[
      local function stream(connection, ...)
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        connection:event { type = "init", text = "c1" }
        for _, text in ipairs { ... } do connection:event { type = "stdout", text = text } end
        connection:event { type = "execution_complete" }
        connection:finish()
      end
      return {
        on_request = function(request, connection)
          local function send(value) connection:respond(200, { ["Content-Type"] = "application/json" }, json.encode(value)) end
          local path = request.path
          if path:find("/endpoints/", 1, true) then return send { endpoint = request.headers.host .. "/execd" } end
          if path:find("^/v1/sandboxes/") then return send { id = "faulty", status = { state = "Running" } } end
          if path:find("/execd/command", 1, true) then return stream(connection, "readlink") end
          if path:find("/execd/directories/list", 1, true) then
            return connection:respond(404, { ["Content-Type"] = "text/plain" }, "404 page not found")
          end
          if path:find("/execd/files/search", 1, true) then
            local bad = path:find("bad", 1, true) and "/bad/../../etc/x" or path:find("else", 1, true) and "/etc/x"
            if bad then return send { { path = bad, size = 1, mode = 644 } } end
            return send { { path = "/old/d/f", size = 4, mode = 640 }, { path = "/old/s", size = 3, mode = 777 } }
          end
          if path:find("%.links") then return connection:respond(200, {}, "f\0ld/f\n\0") end
          if path:find("/execd/files/download", 1, true) then return connection:respond(200, {}, "text") end
          connection:respond(200, {}, "")
        end,
      }
    ]]
    local other = opensandbox.new(faulty.url, "key", { idle_timeout = 5, transfer_idle_timeout = 5, retry = false })
    finally(function()
      other:close()
      faulty:stop()
    end)
    local files = assert(other:connect("faulty")).files
    local target = scratch .. "/old"
    local count = assert(files:download_dir("/old", target))
    assert.same({ files = 1, directories = 0, symlinks = 1, bytes = 4, skipped = 0 }, count)
    assert.equal("text", read_file(target .. "/d/f"))
    assert.equal(mode_of "640", uv.fs_stat(target .. "/d/f").mode % 512)
    assert.equal("d/f\n", uv.fs_readlink(target .. "/s"))
    for _, path in ipairs { "/bad", "/else" } do
      local ok, err = files:download_dir(path, target)
      assert.is_nil(ok)
      assert.equal("unsafe_archive", err.code, tostring(err))
    end
  end)
end)

describe("verification", function()
  setup(start)
  teardown(stop)

  local function source()
    local root = scratch .. "/verified"
    if not uv.fs_stat(root) then
      assert(uv.fs_mkdir(root, mode_of "755"))
      save(root .. "/a", ("text"):rep(50000))
      save(root .. "/b", "")
    end
    return root
  end

  it("finds nothing wrong where nothing is", function()
    local root = source()
    for _, make in ipairs { create, without_tar } do
      local sandbox = make()
      local files, verify = sandbox.files, { verify = true }
      assert(files:write("/work/-x y", "content", verify))
      assert(files:write("/work/empty", "", verify))
      local pieces = { "one", "two", ("three"):rep(100000) }
      assert(files:write("/work/pieces", function() return table.remove(pieces, 1) end, verify))
      local handle = assert(io.open(root .. "/a", "rb"))
      assert(files:write("~/handle", handle, verify))
      handle:close()
      assert(files:upload(root .. "/a", "relative", verify))
      assert(files:download("relative", scratch .. "/back", verify))
      assert.equal(assert(read_file(root .. "/a")), assert(read_file(scratch .. "/back")))
      assert(files:upload_dir(root, "/work/in", verify))
      sandbox:kill()
    end
  end)

  it("finds what is not the same, and the old file stays", function()
    local root = source()
    local sandbox = with_script("cksum", [[echo "4038471504 75"]])
    local files, verify = sandbox.files, { verify = true }
    assert(files:write("/work/x", "content"))
    save(scratch .. "/old", "old")
    local target = scratch .. "/down"
    for _, call in ipairs {
      function() return files:write("/work/x", "content", verify) end,
      function() return files:upload(root .. "/a", "/work/x", verify) end,
      function() return files:download("/work/x", scratch .. "/old", verify) end,
      function() return files:upload_dir(root, "/work/up", verify) end,
      function() return files:download_dir("/work", target, verify) end,
    } do
      local ok, err = call()
      assert.is_nil(ok)
      assert.equal("state verify_failed", err.kind .. " " .. err.code, tostring(err))
      assert.truthy(tostring(err):find("4038471504 75", 1, true), tostring(err))
      nothing_left_in(sandbox)
    end
    assert.equal("old", read_file(scratch .. "/old"))
    assert.is_false(files:exists("/work/up"))
    assert.same({}, picture(target))
    assert.same({}, parts_in(scratch))
    sandbox:kill()
  end)

  it("finds it without tar, too", function()
    local sandbox = with_programs "mkdir rm readlink ln"
    local root = source()
    for _, path in ipairs { scratch .. "/programs/cksum", "/programs/cksum" } do
      if path:sub(1, #scratch) == scratch then
        uv.fs_unlink(path)
        save(path, "#!/bin/sh\necho '1 2'", mode_of "755")
      else
        assert(sandbox.files:write(path, "#!/bin/sh\necho '1 2'", { mode = "0755" }))
      end
    end
    for _, call in ipairs {
      function() return sandbox.files:upload_dir(root, "/work/up", { verify = true }) end,
      function() return sandbox.files:download_dir("/work", scratch .. "/down2", { verify = true }) end,
    } do
      local ok, err = call()
      assert.is_nil(ok)
      assert.equal("state verify_failed", err.kind .. " " .. err.code, tostring(err))
    end
    for _, line in pairs(picture(scratch .. "/down2")) do assert.truthy(line:find("^directory"), line) end
    uv.fs_unlink(scratch .. "/programs/cksum")
    sandbox:kill()
  end)

  it("says so where the sandbox has no cksum, before anything is sent", function()
    local sandbox = with_programs "mkdir rm"
    uv.fs_unlink(scratch .. "/programs/cksum")
    local root, files, verify = source(), sandbox.files, { verify = true }
    requests = {}
    for _, call in ipairs {
      function() return files:write("/work/x", "content", verify) end,
      function() return files:upload(root .. "/a", "/work/x", verify) end,
      function() return files:download("/work/x", scratch .. "/none", verify) end,
      function() return files:upload_dir(root, "/work/up", verify) end,
      function() return files:download_dir("/work", scratch .. "/none", verify) end,
    } do
      local ok, err = call()
      assert.is_nil(ok)
      assert.equal("state verify_unavailable", err.kind .. " " .. err.code, tostring(err))
      assert.truthy(err.hint)
    end
    assert.same({ "POST /command" }, requests) -- it was asked once
    sandbox:kill()
  end)
end)
