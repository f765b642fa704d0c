--- The tar format: what we write, others read; what others write, we read; what is garbled or lies is an error.

local process = require "spec.support.process"
local tar = require "opensandbox.files.tar"
local read_file = require "spec.support.read_file"
local tarball = require "spec.support.tarball"
local temporary = require "spec.support.temporary"
local uv = require "luv"

-- Reads an archive, `step` bytes at a time: the entries, each with its content; nil and the problem.
local function read(bytes, step)
  local list, current = {}, nil
  local reader = tar.reader {
    begin = function(entry)
      list[#list + 1] = entry
      if entry.kind == "file" then current, entry.pieces = entry, {} end
      return true
    end,
    data = function(piece)
      current.pieces[#current.pieces + 1] = piece
      return true
    end,
    finish = function()
      current.content = table.concat(current.pieces)
      return true
    end,
  }
  step = step or math.max(#bytes, 1)
  for at = 1, #bytes, step do
    local ok, problem = reader:feed(bytes:sub(at, at + step - 1))
    if not ok then return nil, problem end
  end
  local ok, problem = reader:close()
  if not ok then return nil, problem end
  return list
end

-- A handle on a text, as far as the writer needs one.
local function handle(text)
  local at = 1
  return {
    read = function(_, count)
      if at > #text then return nil end
      local piece = text:sub(at, at + count - 1)
      at = at + #piece
      return piece
    end,
    close = function() end,
  }
end

local function write(entries)
  local pieces = {}
  local next_piece = tar.chunks(entries, function(entry) return handle(entry.text) end)
  while true do
    local piece, problem = next_piece()
    assert.is_nil(problem)
    if not piece then return table.concat(pieces), #pieces end
    pieces[#pieces + 1] = piece
  end
end

local function file(name, text, more)
  local entry = { name = name, kind = "file", size = #text, text = text, mode = 420, mtime = 1700000000 }
  for key, value in pairs(more or {}) do entry[key] = value end
  return entry
end

local ODD_NAMES = {
  "-rf", " ", "a b", "new\nline", "quo'te\"s", "\195\164\195\182", "\255\254", "*", "$HOME", "back\\slash", "tab\tname",
  ("n"):rep(100), ("n"):rep(99), ("m"):rep(101), ("d/"):rep(60) .. "deep", ("long"):rep(60) .. "/" .. ("name"):rep(60) .. "/x",
}

local function odd_entries()
  local entries = {}
  for i, name in ipairs(ODD_NAMES) do entries[i] = file(name, "content " .. i, { mode = 384 + i % 8 }) end
  entries[#entries + 1] = { name = "dir", kind = "directory", size = 0, mode = 493, mtime = 5 }
  entries[#entries + 1] = { name = ("e"):rep(120), kind = "directory", size = 0, mode = 448, mtime = 5 }
  entries[#entries + 1] = { name = "link", kind = "symlink", size = 0, mode = 511, mtime = 7, target = "../a b" }
  entries[#entries + 1] = { name = ("l"):rep(130), kind = "symlink", size = 0, mode = 511, mtime = 7, target = ("t/"):rep(120) }
  entries[#entries + 1] = file("empty", "")
  entries[#entries + 1] = file("block", ("b"):rep(512))
  entries[#entries + 1] = file("large", ("0123456789"):rep(40000))
  entries[#entries + 1] = file("before 1970", "x", { mtime = -86400 })
  entries[#entries + 1] = file("after 2242", "x", { mtime = 2 ^ 34 })
  return entries
end

local function same(expected, actual)
  assert.equal(#expected, #actual)
  for i, entry in ipairs(expected) do
    for _, key in ipairs { "name", "kind", "size", "mode", "mtime" } do
      assert.equal(entry[key], actual[i][key], key .. " of " .. entry.name)
    end
    if entry.text then assert.is_true(entry.text == actual[i].content, "content of " .. entry.name) end
    if entry.target then assert.equal(entry.target, actual[i].target) end
  end
end

describe("an archive that we write", function()
  it("is read back as it was, in one piece, byte by byte and in odd pieces", function()
    local entries = odd_entries()
    local bytes, count = write(entries)
    assert.equal(tar.size(entries), #bytes)
    assert.is_true(count > 2, "it came as a whole")
    same(entries, read(bytes))
    same(entries, read(bytes, 511))
    local few = { entries[1], entries[14], entries[17], entries[20] }
    same(few, read(write(few), 1))
  end)

  it("holds sizes and times that octal digits cannot", function()
    for _, size in ipairs { 8 ^ 11 - 1, 8 ^ 11, 2 ^ 40 + 513 } do
      local header = tar.header(file("huge", "", { size = size }))
      local seen
      local reader = tar.reader { begin = function(entry)
        seen = entry.size
        return true
      end, data = function() return true end, finish = function() return true end }
      assert(reader:feed(header))
      assert.equal(size, seen)
      assert.equal(512, #header)
    end
  end)

  it("tells of a file that became shorter, and of one that cannot be opened", function()
    local next_piece = tar.chunks({ file("short", "abc", { size = 5 }) }, function() return handle("abc") end)
    local piece, problem = next_piece()
    assert.is_nil(piece)
    assert.equal("short: it became shorter while it was read", problem)
    next_piece = tar.chunks({ file("none", "abc") }, function() return nil, "no such file" end)
    piece, problem = next_piece()
    assert.is_nil(piece)
    assert.equal("no such file", problem)
    assert.is_nil((next_piece()))
  end)
end)

-- The tars of this machine: argument lists to put the archive's options behind.
local function programs()
  local found = {}
  for _, argv in ipairs { { "tar" }, { "busybox", "tar" }, { "bsdtar" } } do
    local ok, child = pcall(process.start, { argv = { "sh", "-c", table.concat(argv, " ") .. " --help >/dev/null 2>&1" } })
    if ok and child:wait(10) == 0 then found[#found + 1] = argv end
    if ok then child:stop() end
  end
  return found
end

local function run(argv, ...)
  local line = {}
  for _, argument in ipairs(argv) do line[#line + 1] = argument end
  for _, argument in ipairs { ... } do line[#line + 1] = argument end
  local child = process.start { argv = line }
  local code = child:wait(20)
  local complaint = child:stderr_text()
  child:stop()
  assert.equal(0, code, table.concat(line, " ") .. ": " .. complaint)
end

local function save(path, bytes)
  local out = assert(io.open(path, "wb"))
  assert(out:write(bytes))
  assert(out:close())
end

describe("the tars of this machine", function()
  local scratch

  before_each(function() scratch = temporary.directory() end)
  after_each(function() temporary.remove(scratch) end)

  for _, argv in ipairs(programs()) do
    local name = table.concat(argv, " ")

    it("read what we write: " .. name, function()
      local entries = odd_entries()
      entries[#entries] = nil -- a file system need not know times that late
      save(scratch .. "/ours.tar", (write(entries)))
      assert(uv.fs_mkdir(scratch .. "/out", 448))
      run(argv, "-xopf", scratch .. "/ours.tar", "-C", scratch .. "/out")
      for _, entry in ipairs(entries) do
        local path = scratch .. "/out/" .. entry.name
        local stat = assert(uv.fs_lstat(path), entry.name)
        if entry.kind == "symlink" then
          assert.equal(entry.target, uv.fs_readlink(path))
        else
          assert.equal(entry.mode, stat.mode % 512)
          assert.equal(entry.mtime, stat.mtime.sec)
        end
        if entry.text then assert.is_true(entry.text == read_file(path), entry.name) end
      end
    end)

    it("write what we read: " .. name, function()
      local source = scratch .. "/in"
      assert(uv.fs_mkdir(source, 448))
      local expected = { [""] = "directory" }
      for i, odd in ipairs(ODD_NAMES) do
        local at = 1
        while odd:find("/", at, true) do
          at = odd:find("/", at, true) + 1
          uv.fs_mkdir(source .. "/" .. odd:sub(1, at - 2), 448)
          expected[odd:sub(1, at - 2)] = "directory"
        end
        save(source .. "/" .. odd, "content " .. i)
        expected[odd] = "content " .. i
      end
      assert(uv.fs_symlink(("t/"):rep(120), source .. "/link"))
      expected.link = ("t/"):rep(120)
      run(argv, "-cf", scratch .. "/theirs.tar", "-C", source, ".")
      local seen = 0
      for _, entry in ipairs(assert(read(assert(read_file(scratch .. "/theirs.tar")), 1000))) do
        local short = entry.name:gsub("^%./?", "")
        assert.equal(expected[short], entry.content or entry.target ~= "" and entry.target or entry.kind, entry.name)
        seen = seen + 1
      end
      local count = 0
      for _ in pairs(expected) do count = count + 1 end
      assert.equal(count, seen)
    end)

    if name == "tar" then
      it("write pax headers that we read: " .. name, function()
        local long = ("p"):rep(200) .. "\195\164"
        assert(uv.fs_mkdir(scratch .. "/in", 448))
        save(scratch .. "/in/" .. long, "text")
        assert(uv.fs_utime(scratch .. "/in/" .. long, 1700000000.5, 1700000000.5))
        assert(uv.fs_symlink(long, scratch .. "/in/s"))
        run(argv, "--format=posix", "-cf", scratch .. "/theirs.tar", "-C", scratch .. "/in", long, "s")
        local list = assert(read(assert(read_file(scratch .. "/theirs.tar")), 7))
        assert.equal(2, #list)
        assert.equal(long, list[1].name)
        assert.equal(1700000000.5, list[1].mtime)
        assert.equal("text", list[1].content)
        assert.equal(long, list[2].target)
      end)
    end
  end
end)

describe("an archive of another's", function()
  local entry, record, archive = tarball.entry, tarball.record, tarball.archive

  it("may use ustar's prefix, but what stands there in GNU's format is no prefix", function()
    local list = assert(read(archive(entry({ name = "b", prefix = "a/long/way" }, "1"),
      entry({ name = "c", prefix = "00000", magic = "ustar  \0" }, "2"))))
    assert.equal("a/long/way/b", list[1].name)
    assert.equal("c", list[2].name)
  end)

  it("may come from before ustar", function()
    local list = assert(read(archive(entry({ name = "old/", type = "\0", magic = ("\0"):rep(8) }),
      entry({ name = "old/f", type = "\0", magic = ("\0"):rep(8) }, "text"))))
    assert.equal("directory", list[1].kind)
    assert.equal("old", list[1].name)
    assert.equal("text", list[2].content)
  end)

  it("may say in a pax header what a header has no room for", function()
    local long = ("x"):rep(300) .. "\nwith a line"
    local list = assert(read(archive(
      entry({ name = "pax", type = "x" }, record("path", long) .. record("size", "4") .. record("mtime", "12.25")
        .. record("comment", "any\nthing=")),
      entry({ name = "short", size = 0 }) .. "abcd" .. ("\0"):rep(508),
      entry({ name = "next" }, "z")), 13))
    assert.equal(long, list[1].name)
    assert.equal("abcd", list[1].content)
    assert.equal(12.25, list[1].mtime)
    assert.equal("next", list[2].name)
    assert.equal("z", list[2].content)
  end)

  it("may hold devices, hard links and kinds that nobody knows, and their content is passed over", function()
    local list = assert(read(archive(entry({ name = "fifo", type = "6" }), entry({ name = "dev", type = "3" }),
      entry({ name = "hard", type = "1", target = "f" }), entry({ name = "what", type = "Z" }, "abc"), entry({ name = "f" }, "1"))))
    local kinds = {}
    for i, one in ipairs(list) do kinds[i] = one.kind end
    assert.same({ "other", "other", "link", "other", "file" }, kinds)
    assert.equal("f", list[3].target)
  end)

  it("that is cut off anywhere is an error", function()
    local whole = archive(entry({ name = "a" }, "some text"), entry({ name = "b" }, ("x"):rep(600)))
    for length = 0, #whole - 1024, 100 do
      local list, problem = read(whole:sub(1, length), 64)
      assert.is_nil(list)
      assert.equal("it ends too early", problem)
    end
    assert.equal(2, #assert(read(whole:sub(1, #whole - 512))))
  end)

  it("that is garbled is an error", function()
    local function refused(part, bytes)
      local list, problem = read(bytes)
      assert.is_nil(list)
      assert.truthy(problem:find(part, 1, true), problem)
    end
    refused("checksum", ("garbage"):rep(1000))
    refused("checksum", (archive(entry({ name = "a" }, "x")):gsub("^a", "b")))
    refused("ends too early", "")
    refused("a number in a header is invalid", archive(tarball.header { name = "a", size = "0000000009x\0" }))
    refused("a number in a header is invalid", archive(tarball.header { name = "a", size = ("\255"):rep(12) }))
    refused("a number in a header is invalid", archive(tarball.header { name = "a", size = "\128" .. ("\255"):rep(11) }))
    refused("ends too early", archive(tarball.header { name = "a", size = 100000 }))
    for _, text in ipairs { "5 a=b\n", "99 path=x\n", "x", "path=x\n", "10 path=xx", "0 path=\n", "-1 a=b\n" } do
      refused("pax header", archive(entry({ name = "p", type = "x" }, text), entry({ name = "a" })))
    end
    refused("pax header", archive(entry({ name = "p", type = "x" }, record("size", "-5")), entry({ name = "a" })))
    refused("pax header", archive(entry({ name = "p", type = "x" }, record("size", ("9"):rep(30))), entry({ name = "a" })))
    refused("pax header", archive(entry({ name = "p", type = "x" }, record("path", "a\0b")), entry({ name = "a" })))
    refused("longer than", archive(tarball.header { name = "p", type = "L", size = 2 ^ 31 }))
    refused("longer than", archive(tarball.header { name = "p", type = "x", size = "\128" .. ("\0"):rep(6) .. ("\1"):rep(5) }))
    refused("sparse", archive(entry({ name = "s", type = "S" }, "abc")))
    refused("sparse", archive(entry({ name = "p", type = "x" }, record("GNU.sparse.major", "1")), entry({ name = "a" })))
  end)

  it("with a name that was made to cost time costs none", function()
    local name = ("/"):rep(500000) .. "x" .. ("/"):rep(500000)
    local seen
    local reader = tar.reader { begin = function(one)
      seen = one.name
      return true
    end, data = function() return true end, finish = function() return true end }
    local before = os.clock()
    assert(reader:feed(archive(entry({ name = "p", type = "L" }, name .. "\0"), entry({ name = "a" }, "x"))))
    assert.equal(500001, #seen)
    assert.is_true(os.clock() - before < 1)
  end)

  it("is not read on when its sink wants no more", function()
    local reader = tar.reader { begin = function() return nil, "enough" end }
    local ok, problem = reader:feed(archive(entry({ name = "a" }, "x"), entry({ name = "b" }, "x")))
    assert.is_nil(ok)
    assert.equal("enough", problem)
  end)
end)
