--- Files and directories, as the official end-to-end suites try them: tests/go filesystem_e2e; tests/python test_sandbox_e2e 03 and
--- 03a; tests/javascript test_sandbox_e2e 03 and 03a; components/execd/tests smoke_api.py.

local opensandbox = require "opensandbox"
local Fixture = require "spec.support.fixture"

local fixture, sandbox, files

setup(function()
  fixture = Fixture.new()
  sandbox, files = fixture.sandbox, fixture.sandbox.files
end)
teardown(function() fixture:close() end)

local function names(list)
  local paths = {}
  for i, info in ipairs(list) do paths[i] = info.path end
  table.sort(paths)
  return paths
end

local function is_missing(path)
  local info, err = files:stat(path)
  assert.is_nil(info)
  assert.same({ 404, "FILE_NOT_FOUND" }, { err.status, err.code })
end

describe("directories", function()
  it("are made with the modes that are given, and are directories", function()
    assert(files:mkdir("/work/dirs/one", { mode = 755 }))
    assert(files:mkdir("/work/dirs/two", { mode = 644 }))
    local infos = assert(fixture.client:file_info(fixture:execd(), { "/work/dirs/one", "/work/dirs/two" }))
    assert.same({ "0755", "0644" }, { infos["/work/dirs/one"].mode, infos["/work/dirs/two"].mode })
    assert.equal("directory", infos["/work/dirs/one"].type)
    assert.equal("yes\n", assert(sandbox:run("test -d work/dirs/one && echo yes")).stdout)
  end)

  it("are removed with all that is in them", function()
    assert(files:write("/work/full/below/file.txt", "x"))
    assert(files:remove("/work/full", { recursive = true }))
    is_missing("/work/full")
    assert.equal(1, assert(sandbox:run("test -d work/full")).exit_code)
  end)
end)

describe("a file of the image", function()
  it("has a size", function()
    assert.is_true(assert(files:stat("/etc/os-release")).size > 0)
  end)

  it("is downloaded, and is not empty", function()
    assert.is_true(#assert(files:read("/etc/os-release")) > 0)
  end)

  it("is found among others by a pattern", function()
    assert.is_table(assert(files:search("/etc", "*.conf")))
  end)
end)

describe("a file", function()
  it("that a command wrote is there until it is deleted", function()
    assert.equal(0, assert(sandbox:run("printf 'from the shell' > work/shell.txt")).exit_code)
    assert.equal(14, assert(files:stat("/work/shell.txt")).size)
    assert(files:remove("/work/shell.txt"))
    is_missing("/work/shell.txt")
    assert.is_false(assert(sandbox:run("cat work/shell.txt")).exit_code == 0)
  end)

  it("goes up and comes down as it was", function()
    local content = "uploaded content\nwith two lines\n"
    assert(files:write("/work/up.txt", content))
    assert.equal(content, assert(files:read("/work/up.txt")))
    assert.equal(content, assert(sandbox:run("cat work/up.txt")).stdout)
  end)

  it("below the home directory can be named with ~", function()
    assert(files:write("~/in-home.txt", "home"))
    assert.equal("home", assert(files:read("~/in-home.txt")))
    assert.equal("home\n", assert(sandbox:run('cat "$HOME/in-home.txt"')).stdout)
  end)

  it("has the permissions that are set", function()
    assert(files:write("/work/mode.txt", "x"))
    assert(files:chmod("/work/mode.txt", 644))
    assert.equal("644\n", assert(sandbox:run("stat -c %a work/mode.txt")).stdout)
  end)

  it("that is moved has its content in the new place, and is not in the old one", function()
    assert(files:write("/work/old.txt", "moved content"))
    assert(files:move("/work/old.txt", "/work/new/place.txt"))
    assert.equal("moved content", assert(files:read("/work/new/place.txt")))
    local content, err = files:read("/work/old.txt")
    assert.is_nil(content)
    assert.same({ 404, "FILE_NOT_FOUND" }, { err.status, err.code })
  end)
end)

describe("replacing in files", function()
  it("says how often it did: once, never, three times, and for each of several files", function()
    assert(files:write("/work/r1.txt", "one old here"))
    assert(files:write("/work/r3.txt", "old old old"))
    assert.equal(1, assert(files:replace("/work/r1.txt", "old", "new")))
    assert.equal("one new here", assert(files:read("/work/r1.txt")))
    assert.equal(0, assert(files:replace("/work/r1.txt", "not there", "new")))
    assert.equal(3, assert(files:replace("/work/r3.txt", "old", "new")))
    assert.equal("new new new", assert(files:read("/work/r3.txt")))
    assert.same({ ["/work/r1.txt"] = 1, ["/work/r3.txt"] = 3 }, assert(fixture.client:replace_in_files(fixture:execd(), {
      ["/work/r1.txt"] = { old = "new", new = "last" }, ["/work/r3.txt"] = { old = "new", new = "last" },
    })))
    assert.equal("last last last", assert(files:read("/work/r3.txt")))
  end)
end)

describe("reading lines", function()
  setup(function() assert(files:write("/work/lines.txt", "line1\nline2\nline3\nline4\nline5\n")) end)

  for _, case in ipairs {
    { "from one on, so many", { first = 2, count = 2 }, "line2\nline3" },
    { "from one on to the end", { first = 4 }, "line4\nline5" },
    { "so many from the first", { count = 2 }, "line1\nline2" },
    { "beyond the end", { first = 9 }, "" },
  } do
    it(case[1] .. " gives them without the last line break", function()
      assert.equal(case[3], assert(files:read("/work/lines.txt", { lines = case[2] })))
    end)
  end
end)

describe("three files in their life", function()
  local text, bytes = "Hello Filesystem!\nLine 2 with special chars: åäö\nLine 3\n", "binary \0\1\2\254\255 content"
  local is_root

  before_each(function()
    is_root = assert(sandbox:run("id -u")).stdout == "0\n"
    local owner = is_root and { mode = 644, owner = "nobody", group = "nogroup" } or { mode = 644 }
    assert(files:mkdir("/work/life"))
    assert(files:write("/work/life/text.txt", text, owner))
    assert(files:write("/work/life/bytes.bin", bytes, owner))
    local pieces = { "streamed ", "content ", "in pieces" }
    assert(files:write("/work/life/stream.txt", function() return table.remove(pieces, 1) end, owner))
  end)

  it("are read as text, as bytes, piece by piece, and in a range", function()
    assert.equal(text, assert(files:read("/work/life/text.txt")))
    assert.equal(bytes, assert(files:read("/work/life/bytes.bin")))
    local reader, pieces = assert(files:open("/work/life/stream.txt")), {}
    for piece in function() return reader:read(4) end do pieces[#pieces + 1] = piece end
    assert.equal("streamed content in pieces", table.concat(pieces))
    assert.equal(text:sub(1, 10), assert(files:read("/work/life/text.txt", { offset = 0, length = 10 })))
  end)

  it("have the size, the mode and the owner that they were given", function()
    local info = assert(files:stat("/work/life/text.txt"))
    assert.same({ "file", #text, "0644" }, { info.type, info.size, info.mode })
    if is_root then assert.same({ "nobody", "nogroup" }, { info.owner, info.group }) end
  end)

  it("are found by a search, all three", function()
    assert.same({ "/work/life/bytes.bin", "/work/life/stream.txt", "/work/life/text.txt" },
      names(assert(files:search("/work/life", "*"))))
  end)

  it("change their modes and their owners", function()
    local owner = is_root and { owner = "nobody", group = "nogroup" } or nil
    assert(files:chmod("/work/life/text.txt", 755, owner))
    assert(files:chmod("/work/life/bytes.bin", 600, owner))
    local infos = assert(fixture.client:file_info(fixture:execd(), { "/work/life/text.txt", "/work/life/bytes.bin" }))
    assert.same({ "0755", "0600" }, { infos["/work/life/text.txt"].mode, infos["/work/life/bytes.bin"].mode })
    if is_root then assert.equal("nobody", infos["/work/life/bytes.bin"].owner) end
  end)

  it("have another size and a later time when they are written again", function()
    local before = assert(files:stat("/work/life/stream.txt"))
    opensandbox.sleep(0.02)
    assert(files:write("/work/life/stream.txt", "longer: streamed content in pieces, again"))
    local after = assert(files:stat("/work/life/stream.txt"))
    assert.equal(41, after.size)
    assert.is_true(after.modified_at > before.modified_at)
    assert.equal("longer: streamed content in pieces, again", assert(files:read("/work/life/stream.txt")))
  end)

  it("are gone when they are removed: the search finds the others, and after the directory nothing", function()
    assert(files:remove({ "/work/life/text.txt", "/work/life/bytes.bin" }))
    assert.same({ "/work/life/stream.txt" }, names(assert(files:search("/work/life", "*"))))
    assert(files:remove("/work/life", { recursive = true }))
    local list, err = files:search("/work/life", "*")
    assert.is_nil(list)
    assert.equal(404, err.status)
    is_missing("/work/life")
  end)
end)
