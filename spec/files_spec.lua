--- Files in and out of a sandbox: every byte of them, of any size, under any name, and what is left when it goes wrong.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local list_names = require "opensandbox.devserver.base.list_directory"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local read_file = require "spec.support.read_file"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local wait_until = require "spec.support.wait_until"

local MEBIBYTE = 1024 * 1024

local server, client, sandbox, files, scratch

local function every_byte()
  local bytes = {}
  for i = 0, 255 do bytes[i + 1] = string.char(i) end
  return table.concat(bytes)
end

-- Text of a given size in which no two places look alike for long.
local function text_of(size)
  local pieces, length, i = {}, 0, 0
  while length < size do
    i = i + 1
    pieces[i] = i .. (" \r\n\0\255"):rep(16)
    length = length + #pieces[i]
  end
  return table.concat(pieces):sub(1, size)
end

local function save(path, bytes)
  local file = assert(io.open(path, "wb"))
  assert(file:write(bytes))
  assert(file:close())
  return path
end

local function names(directory)
  local list = assert(list_names(directory))
  table.sort(list)
  return list
end

-- `assert.equal` would print megabytes.
local function same_bytes(expected, actual, why)
  assert.is_string(actual, why)
  assert.equal(#expected, #actual, why)
  assert.is_true(expected == actual, why or "the bytes differ")
end

local function raises(fn, ...)
  local ok, message = pcall(fn)
  assert.is_false(ok, "nothing was raised")
  assert.is_string(message)
  assert.truthy(message:find("files_spec%.lua:%d+: [%l_:]+: "), message)
  for i = 1, select("#", ...) do assert.truthy(message:find(select(i, ...), 1, true), message) end
end

local function start()
  server = process.devserver { grace = 0.2 }
  client = opensandbox.new(server.url, server.key)
  sandbox = assert(client:create { image = "python:3.12" })
  files = sandbox.files
  scratch = temporary.directory()
end

local function stop()
  client:close()
  server:stop()
  temporary.remove(scratch)
end

-- A server that is its own execd and misbehaves for files, and a sandbox on it.
local function misbehaving(handler)
  local faulty = fault_server.start([[
    local handle = ]] .. handler .. [[

    return {
      on_headers = function(request, connection)
        if request.path:find("^/execd/files/upload") and handle then handle(request, connection) end
      end,
      on_request = function(request, connection)
        local function send(value)
          connection:respond(200, { ["Content-Type"] = "application/json" }, json.encode(value))
        end
        if request.path:find("/endpoints/", 1, true) then return send { endpoint = request.headers.host .. "/execd" } end
        if request.path:find("^/v1/sandboxes/") then return send { id = "faulty", status = { state = "Running" } } end
        if request.path:find("^/execd/files/download") then return handle(request, connection) end
        connection:respond(200, {}, "")
      end,
    }
  ]])
  local one = opensandbox.new(faulty.url, "key", { idle_timeout = 5, transfer_idle_timeout = 5 })
  finally(function()
    one:close()
    faulty:stop()
  end)
  return assert(one:connect("faulty")), faulty, one
end

-- Runs a script in a process of its own; it reads its arguments from `arg_1` ... Gives its exit code and its output.
local function child(script, options)
  local env = process.module_paths()
  env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY, env.OPEN_SANDBOX_PROTOCOL = server.url, server.key, false
  for name, value in pairs(options.env or {}) do env[name] = value end
  local argv = { process.lua(), "-e", script }
  if options.limit then
    argv = { "sh", "-c", ("trap '' XFSZ; ulimit -f %d; exec \"$@\""):format(options.limit), "sh", process.lua(), "-e", script }
  end
  local program = process.start { argv = argv, env = env }
  local code = program:wait(30)
  local output, complaint = program:output(), program:stderr_text()
  program:stop()
  assert.equal(0, code, complaint)
  return output
end

describe("a file of a sandbox", function()
  setup(start)
  teardown(stop)

  it("comes back as it was written: every byte, nothing, five megabytes", function()
    for name, content in pairs {
      bytes = every_byte() .. every_byte():reverse(), empty = "", one = "\0", lines = "a\r\nb\n\r\n", long = text_of(5 * MEBIBYTE),
      looks = "--boundary\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n--opensandbox-\r\n--",
    } do
      local path = "/work/round trip/" .. name
      assert.is_true(files:write(path, content))
      same_bytes(content, assert(files:read(path)), name)
      assert.equal(#content, assert(files:stat(path)).size)
    end
    assert.equal(text_of(5 * MEBIBYTE):sub(1, 9), assert(files:read("/work/round trip/long", { length = 9 })))
  end)

  it("is overwritten, not appended to, and seen by commands", function()
    assert(files:write("/work/over", "a long content"))
    assert(files:write("/work/over", "short"))
    assert.equal("short", assert(files:read("/work/over")))
    assert.equal("short\n", assert(sandbox:run("cat work/over; printf more >> work/over")).stdout)
    assert.equal("shortmore", assert(files:read("/work/over")))
  end)

  it("is written from a file handle, from where it stands", function()
    local content = text_of(300000)
    local path = save(scratch .. "/handle", content)
    local handle = assert(io.open(path, "rb"))
    assert.is_true(files:write("/work/handle", handle))
    same_bytes(content, assert(files:read("/work/handle")))
    handle:seek("set", 100001)
    assert.is_true(files:write("/work/handle", handle))
    same_bytes(content:sub(100002), assert(files:read("/work/handle")))
    assert.is_true(files:write("/work/handle", handle), "it stands at its end")
    same_bytes("", assert(files:read("/work/handle")))
    assert.equal("file", io.type(handle))
    handle:close()
    raises(function() files:write("/work/handle", handle) end, "closed file")
    local pipe = assert(io.popen("printf 'from a pipe'; sleep 0.1; printf ', slowly'"))
    assert.is_true(files:write("/work/pipe", pipe))
    pipe:close()
    assert.equal("from a pipe, slowly", assert(files:read("/work/pipe")))
  end)

  it("is not written from a handle that cannot be read", function()
    local handle = assert(io.open(scratch .. "/write-only", "wb"))
    handle:write("something")
    handle:seek("set", 0)
    local ok, err = files:write("/work/write-only", handle)
    handle:close()
    assert.is_nil(ok)
    assert.equal("state", err.kind)
    assert.equal("body_failed", err.code)
    assert.is_false(files:exists("/work/write-only"))
  end)

  local function pieces(list)
    local i = 0
    return function()
      i = i + 1
      return list[i]
    end
  end

  it("is written from a reader function, whatever pieces it gives", function()
    local uneven, all = {}, {}
    for i = 1, 60 do
      uneven[i] = text_of(i % 7 == 0 and 200000 or i)
      all[i] = uneven[i]
    end
    assert.is_true(files:write("/work/reader", pieces(uneven)))
    same_bytes(table.concat(all), assert(files:read("/work/reader")))
    assert.is_true(files:write("/work/reader", pieces { "", "a", "b", "", "", "and this", "" }))
    assert.equal("aband this", assert(files:read("/work/reader")))
    assert.is_true(files:write("/work/reader", pieces {}))
    assert.equal("", assert(files:read("/work/reader")))
    assert.is_true(files:write("/work/reader", pieces { "" }))
    assert.equal("", assert(files:read("/work/reader")))
    assert.is_true(files:write("/work/reader", pieces { text_of(3 * MEBIBYTE) }))
    same_bytes(text_of(3 * MEBIBYTE), assert(files:read("/work/reader")))
  end)

  it("waits for a reader function that has nothing yet, while other tasks go on", function()
    local turns, calls = 0, 0
    local other = opensandbox.spawn(function()
      while turns < 50 do
        turns = turns + 1
        opensandbox.sleep(0.001)
      end
    end)
    assert.is_true(files:write("/work/patient", function()
      calls = calls + 1
      if turns < 50 then return "" end
      turns = turns + 1
      return turns < 60 and "x" or nil
    end))
    other:wait()
    assert.equal("xxxxxxxxx", assert(files:read("/work/patient")):sub(1, 9))
    assert.is_true(calls > 11) -- ten with bytes, and some without
    local one = opensandbox.spawn(function() return files:write("/work/never", function() return "" end) end)
    opensandbox.sleep(0.05)
    one:cancel()
    local ok, err = one:wait()
    assert.is_nil(ok)
    assert.equal("cancelled", err.kind)
    assert.is_false(files:exists("/work/never"))
  end)

  it("is as long as reading its source gives: files of /proc, and files that grow or shrink meanwhile", function()
    local function sources(path)
      local handle = assert(io.open(path, "rb"))
      return {
        upload = function(opts) return files:upload(path, "/work/as-read", opts) end,
        write = function(opts) return files:write("/work/as-read", handle, opts) end,
      }, handle
    end
    if uv.fs_stat("/proc/self/limits") then
      for _, send in pairs((sources "/proc/self/limits")) do
        local totals = {}
        assert.is_true(send { on_progress = function(done, total) totals[#totals + 1] = { done, total } end })
        assert.equal(assert(read_file("/proc/self/limits")), assert(files:read("/work/as-read")))
        assert.is_nil(totals[#totals][2])
      end
    end
    local before, more = text_of(4 * MEBIBYTE), ("more"):rep(100000)
    for _, name in ipairs { "upload", "write" } do
      local path = save(scratch .. "/changing", before)
      local list, handle = sources(path)
      local changed
      assert.is_true(list[name] { on_progress = function()
        if changed then return end
        changed = true
        local file = assert(io.open(path, "ab"))
        file:write(more)
        file:close()
      end })
      handle:close()
      same_bytes(before .. more, assert(files:read("/work/as-read")), name .. " of a file that grows")
      save(path, before)
      list, handle = sources(path)
      changed = nil
      assert.is_true(list[name] { verify = false, on_progress = function(done)
        if changed or done == 0 then return end
        changed = true
        assert(uv.fs_truncate and uv.fs_truncate(path, 2 * MEBIBYTE) or os.execute("truncate -s 2M '" .. path .. "'"))
      end })
      handle:close()
      local got = assert(files:read("/work/as-read"))
      assert.is_true(#got >= 2 * MEBIBYTE and #got <= #before and got == before:sub(1, #got), name .. " of a file that shrinks")
    end
  end)

  it("is not written when the reader function fails, and the client goes on", function()
    local function after(last)
      local first = true
      return function()
        if first then
          first = false
          return "something"
        end
        return last()
      end
    end
    local reason = { "any value" }
    local ok, raised = pcall(files.write, files, "/work/broken", after(function() error(reason) end))
    assert.is_false(ok)
    assert.equal(reason, raised)
    local written, err = files:write("/work/broken", after(function() return nil, "the source is gone" end))
    assert.is_nil(written)
    assert.equal("state", err.kind)
    assert.equal("body_failed", err.code)
    assert.truthy(err.message:find("the source is gone", 1, true), err.message)
    for _, bad in ipairs { 5, true, {} } do
      written, err = files:write("/work/broken", after(function() return bad end))
      assert.is_nil(written)
      assert.equal("body_failed", err.code)
      assert.truthy(err.message:find("a " .. type(bad), 1, true), err.message)
    end
    assert.is_false(files:exists("/work/broken"))
    assert.equal(0, assert(sandbox:run("true")).exit_code)
  end)

  it("is not written when the size that was declared is not the size", function()
    local execd = assert(sandbox:endpoint(opensandbox.EXECD_PORT))
    for _, case in ipairs { { 3, "more bytes" }, { 5, "more bytes" }, { 30, "ended before" } } do
      local ok, err = client:upload_files(execd, {
        { path = "/work/sized", content = pieces { "12345", "67890" }, size = case[1] },
      })
      assert.is_nil(ok)
      assert.equal("body_failed", err.code)
      assert.equal("state", err.kind)
      assert.truthy(err.message:find(case[2], 1, true), err.message)
      assert.is_false(files:exists("/work/sized"))
    end
    assert.is_true(client:upload_files(execd, { { path = "/work/sized", content = pieces { "12345", "67890" }, size = 10 } }))
    assert.equal("1234567890", assert(files:read("/work/sized")))
    assert.is_true(client:upload_files(execd, { { path = "/work/sized", content = pieces {}, size = 0 } }))
    assert.equal("", assert(files:read("/work/sized")))
  end)

  it("is not cut short in silence when the reader function has more than the declared size", function()
    local execd = assert(sandbox:endpoint(opensandbox.EXECD_PORT))
    local piece = text_of(256 * 1024)
    for size, content in pairs { [0] = { "12345" }, [#piece] = { piece, "more" }, [2 * #piece] = { piece, piece, "more" } } do
      local ok, err = client:upload_files(execd, { { path = "/work/short", content = pieces(content), size = size } })
      assert.is_nil(ok, "declared " .. size)
      assert.equal("body_failed", err.code)
      assert.truthy(err.message:find("more bytes", 1, true), err.message)
    end
  end)

  it("gets the mode that was asked for", function()
    for given, expected in pairs {
      ["0644"] = "0644", ["rw-r-----"] = "0640", [600] = "0600", ["755"] = "0755", ["rwxr-xr-x"] = "0755", ["0400"] = "0400",
      ["7"] = "0007", [777] = "0777",
    } do
      assert.is_true(files:write("/work/mode-" .. given, "x", { mode = given }))
      assert.equal(expected, assert(files:stat("/work/mode-" .. given)).mode, given)
    end
    local path = save(scratch .. "/mode", "x")
    assert.is_true(files:upload(path, "/work/mode-uploaded", { mode = "rwx------" }))
    assert.equal("0700", assert(files:stat("/work/mode-uploaded")).mode)
    for _, bad in ipairs { "0999", "rwz------", "rw-r--r-", "rwrwrwrwr", "u+x", "", " 644", 1000, -1, 6.5, 8, "01777", true } do
      raises(function() files:write("/work/bad-mode", "x", { mode = bad }) end, "mode")
      raises(function() files:upload(path, "/work/bad-mode", { mode = bad }) end, "mode")
    end
    assert.is_false(files:exists("/work/bad-mode"))
  end)

  it("cannot be given to users and groups that do not exist", function()
    local ok, err = files:write("/work/owned", "x", { owner = "no-such-user" })
    assert.is_nil(ok)
    assert.equal("http", err.kind)
    assert.equal("RUNTIME_ERROR", err.code)
    assert.truthy(err.message:find("no-such-user", 1, true), err.message)
    ok, err = files:write("/work/owned", "x", { group = "no-such-group" })
    assert.is_nil(ok)
    assert.truthy(err.message:find("no-such-group", 1, true), err.message)
    local info = assert(files:stat("/work/owned"))
    assert.is_true(files:write("/work/owned", "y", { owner = info.owner, group = info.group }))
  end)

  it("exists or not, and is described", function()
    assert(files:write("/work/described", "12345", { mode = "0640" }))
    assert.is_true(files:exists("/work/described"))
    assert.is_true(files:exists("/work"))
    assert.is_false(files:exists("/work/nothing"))
    assert.is_false(files:exists("/nothing/at/all"))
    assert.is_false(files:exists("/work/described/below"), "below a file nothing exists")
    assert.is_false(files:exists("/work/described/$below"))
    local info = assert(files:stat("/work/described"))
    assert.equal("/work/described", info.path)
    assert.equal("file", info.type)
    assert.equal(5, info.size)
    assert.equal("0640", info.mode)
    assert.is_string(info.owner)
    assert.is_string(info.group)
    assert.is_true(math.abs(info.modified_at - core.wall_clock()) < 60)
    assert.is_true(math.abs(info.created_at - core.wall_clock()) < 60)
    assert.equal("directory", assert(files:stat("/work")).type)
    assert(sandbox:run("ln -s described work/link"))
    assert.equal("symlink", assert(files:stat("/work/link")).type)
    assert.equal("12345", assert(files:read("/work/link")))
    local none, err = files:stat("/work/nothing")
    assert.is_nil(none)
    assert.equal("http", err.kind)
    assert.equal(404, err.status)
    assert.equal("FILE_NOT_FOUND", err.code)
    assert.truthy(err.message:find("/work/nothing", 1, true), err.message)
  end)

  it("is read in part", function()
    local content = text_of(100000)
    assert(files:write("/work/part", content))
    for _, case in ipairs {
      { 0, 1 }, { 0, 100000 }, { 5, 10 }, { 99999, 1 }, { 99990, 1000 }, { 0, 200000 }, { 70000 }, { nil, 7 },
    } do
      local first = case[1] or 0
      local expected = content:sub(first + 1, case[2] and first + case[2] or -1)
      same_bytes(expected, assert(files:read("/work/part", { offset = case[1], length = case[2] })))
    end
    for _, offset in ipairs { 100000, 100001, 10 ^ 12 } do
      local bytes, err = files:read("/work/part", { offset = offset })
      assert.is_nil(bytes)
      assert.equal("http", err.kind)
      assert.equal("range_not_satisfiable", err.code)
      assert.truthy(err.message:find("ends before the offset", 1, true), err.message)
    end
    assert.equal(7, assert(files:open("/work/part", { offset = 1, length = 7 })).size)
    raises(function() files:read("/work/part", { length = 0 }) end, "length")
    raises(function() files:read("/work/part", { offset = -1 }) end, "offset")
    raises(function() files:read("/work/part", { offset = 1, lines = { first = 1 } }) end, "do not go together")
    raises(function() files:read("/work/part", { ofset = 1 }) end, "did you mean 'offset'")
  end)

  it("is read by lines", function()
    assert(files:write("/work/lines", "one\ntwo\r\nthree\n\nfive"))
    for expected, lines in pairs {
      ["one"] = { count = 1 }, ["two\nthree"] = { first = 2, count = 2 }, ["\nfive"] = { first = 4 }, [""] = { first = 9 },
    } do
      assert.equal(expected, assert(files:read("/work/lines", { lines = lines })))
    end
    raises(function() files:read("/work/lines", { lines = { first = 0 } }) end, "begin at 1")
    raises(function() files:read("/work/lines", { lines = { firs = 1 } }) end, "did you mean 'first'")
  end)

  it("that is none cannot be read, and says so", function()
    for _, call in ipairs { "read", "open" } do
      local bytes, err = files[call](files, "/work/nothing")
      assert.is_nil(bytes)
      assert.equal(404, err.status)
      assert.equal("FILE_NOT_FOUND", err.code)
    end
    local bytes, err = files:read("/work")
    assert.is_nil(bytes)
    assert.truthy(tostring(err):find("directory", 1, true), tostring(err))
    local ok
    ok, err = files:write("/work", "x")
    assert.is_nil(ok)
    assert.equal("http", err.kind)
    assert.truthy(err.message:find("directory", 1, true), err.message)
    assert(files:write("/work/a file", "x"))
    ok, err = files:write("/work/a file/below", "x")
    assert.is_nil(ok)
    assert.equal("http", err.kind)
  end)

  it("needs a path", function()
    local path = save(scratch .. "/path", "x")
    for _, bad in ipairs { "", "a\0b", 5, false } do
      local shown = "path"
      raises(function() files:write(bad, "x") end, shown)
      raises(function() files:read(bad) end, shown)
      raises(function() files:open(bad) end, shown)
      raises(function() files:stat(bad) end)
      raises(function() files:exists(bad) end)
      raises(function() files:search(bad) end, shown)
      raises(function() files:list(bad) end, shown)
      raises(function() files:remove(bad) end)
      raises(function() files:remove(bad, { recursive = true }) end)
      raises(function() files:upload(path, bad) end, "files:upload: ", shown)
      raises(function() files:download(bad, path) end, "files:download: ", shown)
    end
    for _, bad in ipairs { "", 5, false } do
      raises(function() files:upload(bad, "/work/x") end, "files:upload: the local path")
      raises(function() files:download("/work/x", bad) end, "files:download: the local path")
    end
    assert.equal("x", read_file(path))
  end)

  it("may have any other name", function()
    local before = scratch .. "/names-up"
    local after = scratch .. "/names-down"
    for i, name in ipairs {
      "a b", " ", "a%20b", "%", "%zz", "a+b", "a#b", "a?b", "a&b=c", "quo\"te", "it's", "new\nline", "tab\there",
      "häß → 😀", "semi;colon", "back\\slash", "*", "[x]", "{a,b}", "-rf", "a$", "a$ b", "~", "...", "a:b@c", "<>|", ("n"):rep(200),
    } do
      local directory = "/work/names " .. i
      local path = directory .. "/" .. name
      assert.is_true(files:write(path, "content of " .. name))
      assert.equal("content of " .. name, assert(files:read(path)), name)
      assert.is_true(files:exists(path), name)
      assert.equal(path, assert(files:stat(path)).path)
      local reader = assert(files:open(path))
      assert.equal("content", reader:read(7))
      reader:close()
      local listed = assert(files:list(directory))
      assert.equal(1, #listed)
      assert.equal(path, listed[1].path)
      local found = assert(files:search(directory))
      assert.equal(1, #found)
      assert.equal(path, found[1].path)
      assert.is_true(files:download(path, after))
      assert.equal("content of " .. name, assert(read_file(after)))
      save(before, "another content")
      assert.is_true(files:upload(before, path))
      assert.equal("another content", assert(files:read(path)))
      assert.is_true(files:remove(path))
      assert.is_false(files:exists(path), name)
      assert.is_true(files:write(path .. "/inner", ""))
      assert.is_true(files:remove(path, { recursive = true }))
      assert.same({}, assert(files:list(directory)))
    end
  end)
end)

describe("a reader of a file", function()
  local content = text_of(700000)

  setup(function()
    start()
    assert(files:write("/work/content", content))
    assert(files:write("/work/big", text_of(8 * MEBIBYTE)))
    assert(files:write("/work/lines", "one\n\nthree\r\n" .. ("x"):rep(600000) .. "\nlast"))
  end)
  teardown(stop)

  it("knows the size, and gives counts of bytes", function()
    local reader = assert(files:open("/work/content"))
    assert.equal(#content, reader.size)
    local got = {}
    for _, count in ipairs { 1, 2, 0, 3, 65536, 5, 300000, 7 } do
      local bytes = assert(reader:read(count))
      assert.equal(count, #bytes)
      got[#got + 1] = bytes
    end
    got[#got + 1] = reader:read("a")
    same_bytes(content, table.concat(got))
    assert.equal("", reader:read("a"))
    assert.is_nil(reader:read(1))
    assert.is_nil(reader:read(0))
    assert.is_nil(reader:read())
    assert.is_nil(reader:read("l"))
    assert.is_true(reader:close())
    assert.is_true(reader:close())
  end)

  it("gives the whole in pieces of any size", function()
    for _, count in ipairs { 4096, 99999, 262144, 262145, 10 ^ 6 } do
      local reader, got = assert(files:open("/work/content")), {}
      for bytes in function() return (reader:read(count)) end do
        assert.is_true(#bytes > 0 and #bytes <= count)
        got[#got + 1] = bytes
      end
      same_bytes(content, table.concat(got))
    end
    local reader, got = assert(files:open("/work/content")), {}
    for bytes in function() return (reader:read()) end do got[#got + 1] = bytes end
    same_bytes(content, table.concat(got))
  end)

  it("gives lines", function()
    local expected = { "one", "", "three\r", ("x"):rep(600000), "last" }
    local reader, got = assert(files:open("/work/lines")), {}
    for line in reader:lines() do got[#got + 1] = line end
    assert.equal(#expected, #got)
    for i = 1, #expected do assert.is_true(expected[i] == got[i], "line " .. i) end
    reader = assert(files:open("/work/lines"))
    assert.equal("one\n", reader:read("L"))
    assert.equal("", reader:read("l"))
    assert.equal("thr", reader:read(3))
    assert.equal("ee\r", reader:read("*l"))
    assert.equal(600001, #reader:read("*L"))
    assert.equal("last", reader:read("L"))
    assert.is_nil(reader:read("L"))
    assert.equal("", reader:read("*a"))
  end)

  it("raises for a format that it does not know", function()
    local reader = assert(files:open("/work/content"))
    for _, bad in ipairs { "n", "x", "", -1, {} } do
      raises(function() reader:read(bad) end, "reader:read: the format must be")
    end
    reader:close()
  end)

  it("frees its connection when it is closed in the middle", function()
    local before = process.descriptors()
    if not before then return pending("no /proc here") end
    for _ = 1, 5 do
      local reader = assert(files:open("/work/big"))
      assert.equal(1000, #reader:read(1000))
      assert.is_true(reader:close())
      local bytes, err = reader:read(1)
      assert.is_nil(bytes)
      assert.equal("closed", err.kind)
      bytes, err = reader:read("a")
      assert.is_nil(bytes)
      assert.equal("closed", err.kind)
      assert.has_error(function() for _ in reader:lines() do end end) -- luacheck: ignore
    end
    assert.is_true(process.descriptors() <= before)
    assert.equal(0, assert(sandbox:run("true")).exit_code)
  end)

  it("that nobody refers to any more leaves no descriptor", function()
    local before = process.descriptors()
    if not before then return pending("no /proc here") end
    local function drop()
      for _ = 1, 10 do assert.equal(10, #assert(files:open("/work/big")):read(10)) end
    end
    drop()
    assert.is_true(process.descriptors() > before, "nothing was open")
    wait_until(function()
      collectgarbage()
      return process.descriptors() <= before
    end, "descriptors stay open")
  end)

  it("does not run ahead of who reads it", function()
    local script = [[
      local opensandbox, process = require "opensandbox", require "spec.support.process"
      local client = opensandbox.new()
      local sandbox = assert(client:connect(os.getenv("ID")))
      local reader = assert(sandbox.files:open("/work/small"))
      reader:read("a")
      local before = process.rss().peak
      reader = assert(sandbox.files:open("/work/sparse"))
      local size, bytes = 0, reader:read(1000)
      for _ = 1, 20 do client:step(0.01) end
      while bytes do
        size = size + #bytes
        bytes = reader:read(100000)
      end
      io.write(("%d %d"):format(size, process.rss().peak - before))
      client:close()
    ]]
    if not process.rss() then return pending("no /proc here") end
    assert(files:write("/work/small", text_of(3 * MEBIBYTE)))
    assert.equal(0, assert(sandbox:run("truncate -s 200M work/sparse")).exit_code)
    local size, growth = child(script, { env = { ID = sandbox.id } }):match("^(%d+) (%-?%d+)$")
    assert(files:remove("/work/sparse"))
    assert.equal(200 * MEBIBYTE, tonumber(size))
    assert.is_true(tonumber(growth) < 16 * 1024, "it took " .. growth .. " KiB")
  end)
end)

describe("a local file", function()
  setup(start)
  teardown(stop)

  -- Asserts that what was told of progress only grew, and ended at the size.
  local function check_progress(told, size)
    local last = -1
    for _, pair in ipairs(told) do
      assert.is_true(pair[1] >= last, "progress went back")
      assert.equal(size, pair[2])
      last = pair[1]
    end
    assert.equal(size, last)
  end

  it("is uploaded and downloaded, telling the progress", function()
    for name, content in pairs { big = text_of(4 * MEBIBYTE), small = every_byte() } do
      local told = {}
      local function on_progress(done, size) told[#told + 1] = { done, size } end
      local path = save(scratch .. "/" .. name, content)
      assert.is_true(files:upload(path, "/work/" .. name, { on_progress = on_progress }))
      check_progress(told, #content)
      same_bytes(content, assert(files:read("/work/" .. name)))
      told = {}
      save(path, "something older")
      assert.is_true(files:download("/work/" .. name, path, { on_progress = on_progress }))
      check_progress(told, #content)
      same_bytes(content, assert(read_file(path)))
    end
    local empty = save(scratch .. "/empty", "")
    assert.is_true(files:upload(empty, "/work/empty"))
    assert.equal(0, assert(files:stat("/work/empty")).size)
    assert.is_true(files:download("/work/empty", scratch .. "/empty again"))
    assert.equal("", read_file(scratch .. "/empty again"))
  end)

  it("of a size that is not known has a progress without a total", function()
    local seen, left = {}, 20
    local function on_progress(...) seen[#seen + 1] = { n = select("#", ...), ... } end
    assert.is_true(files:write("/work/unsized", function()
      left = left - 1
      return left > 0 and ("x"):rep(100000) or nil
    end, { on_progress = on_progress }))
    assert.equal(1900000, seen[#seen][1])
    for _, call in ipairs(seen) do assert.same({ 2, nil }, { call.n, call[2] }) end
    seen = {}
    assert.is_true(files:write("/work/sized", ("x"):rep(1000), { on_progress = on_progress }))
    assert.same({ 1000, 1000 }, { seen[#seen][1], seen[#seen][2] })
  end)

  it("is told the progress of in the end, too, when it is empty", function()
    local told
    local empty = save(scratch .. "/nothing", "")
    assert.is_true(files:upload(empty, "/work/nothing", { on_progress = function(done) told = done end }))
    assert.equal(0, told)
  end)

  it("stays as it is when on_progress raises", function()
    assert(files:write("/work/source", text_of(MEBIBYTE)))
    local target, reason = save(scratch .. "/target", "the old content"), {}
    local before = names(scratch)
    local ok, raised = pcall(files.download, files, "/work/source", target, { on_progress = function() error(reason) end })
    assert.is_false(ok)
    assert.equal(reason, raised)
    assert.equal("the old content", read_file(target))
    assert.same(before, names(scratch))
    ok, raised = pcall(files.upload, files, target, "/work/never", { on_progress = function() error(reason) end })
    assert.is_false(ok)
    assert.equal(reason, raised)
    assert.equal(0, assert(sandbox:run("true")).exit_code)
  end)

  it("stays when there is nothing to download", function()
    local path = save(scratch .. "/kept", "the old content")
    local before = names(scratch)
    local ok, err = files:download("/work/not-there", path)
    assert.is_nil(ok)
    assert.equal("FILE_NOT_FOUND", err.code)
    ok, err = files:download("/work", path)
    assert.is_nil(ok)
    assert.truthy(tostring(err):find("directory", 1, true), tostring(err))
    assert.equal("the old content", read_file(path))
    assert.same(before, names(scratch))
  end)

  it("stays when the download breaks off", function()
    local broken = misbehaving [[function(request, connection)
      connection:start(200, { ["Content-Length"] = "1000000" }):chunk(("x"):rep(300000)):close()
    end]]
    local path = save(scratch .. "/cut", "the old content")
    local before = names(scratch)
    local ok, err = broken.files:download("/a", path)
    assert.is_nil(ok)
    assert.equal("stream", err.kind)
    assert.equal("cut", err.code)
    assert.equal("the old content", read_file(path))
    ok, err = broken.files:download("/a", scratch .. "/new")
    assert.is_nil(ok)
    assert.equal("stream", err.kind)
    assert.same(before, names(scratch))
    ok, err = broken.files:read("/a")
    assert.is_nil(ok)
    assert.equal("cut", err.code)
    local reader = assert(broken.files:open("/a"))
    local ended, problem = pcall(function() for _ in reader:lines() do end end) -- luacheck: ignore
    assert.is_false(ended)
    assert.equal("cut", problem.code)
    assert.equal("cut", select(2, reader:read(1)).code)
  end)

  it("stays when the download goes silent", function()
    local _, faulty, one = misbehaving [[function(request, connection)
      connection:start(200, { ["Content-Length"] = "1000000" }):chunk(("x"):rep(30000)):silence()
    end]]
    local silent = assert(one:connect("faulty"))
    local reader = assert(silent.files:open("/a", { idle_timeout = 0.3 }))
    local bytes, err = reader:read("a")
    assert.is_nil(bytes)
    assert.equal("timeout", err.kind)
    assert.equal("idle_timeout", err.timeout_option)
    local quick = opensandbox.new(faulty.url, "key", { transfer_idle_timeout = 0.3 })
    bytes, err = assert(quick:connect("faulty")).files:read("/a")
    quick:close()
    assert.is_nil(bytes)
    assert.equal("transfer_idle_timeout", err.timeout_option)
    assert.truthy(tostring(err):find("transfer_idle_timeout", 1, true), tostring(err))
  end)

  it("stays when the disk is full, and the error names it", function()
    assert(files:write("/work/big", text_of(3 * MEBIBYTE)))
    assert(files:write("/work/small", "a few bytes"))
    local script = [[
      local client = require("opensandbox").new()
      local sandbox = assert(client:connect(os.getenv("ID")))
      local ok, err = sandbox.files:download(os.getenv("FROM"), os.getenv("TO"))
      io.write(tostring(ok), " ", err and err.kind or "-", " ", err and err.code or "-", " ", tostring(err))
      client:close()
    ]]
    local path = save(scratch .. "/full", "the old content")
    local before = names(scratch)
    -- The small file meets the full disk only when it is closed.
    for from, limit in pairs { ["/work/big"] = 64, ["/work/small"] = 0 } do
      for _, to in ipairs { path, scratch .. "/not yet" } do
        local said = child(script, { limit = limit, env = { ID = sandbox.id, FROM = from, TO = to } })
        assert.truthy(said:find("^nil state "), said)
        assert.truthy(said:find(to, 1, true), said)
        assert.truthy(said:find("File too large", 1, true), said)
        assert.equal("the old content", read_file(path))
        assert.same(before, names(scratch))
      end
    end
  end)

  it("of save_file gets the mode that was asked for, written as everywhere", function()
    local execd = assert(client:discover_execd(sandbox.id))
    assert(files:write("/work/moded", "x"))
    for given, expected in pairs { ["0644"] = "644", ["rw-r-----"] = "640", [644] = "644", [600] = "600", ["755"] = "755" } do
      local path = scratch .. "/moded"
      assert.is_true(client:save_file(execd, "/work/moded", path, { mode = given }))
      assert.equal(tonumber(expected, 8), assert(uv.fs_stat(path)).mode % tonumber("1000", 8), tostring(given))
      assert(os.remove(path))
    end
    for _, bad in ipairs { "0999", 420.5, 1000, true, "u+x" } do
      raises(function() client:save_file(execd, "/work/moded", scratch .. "/never", { mode = bad }) end, "mode")
    end
    assert.is_nil(uv.fs_lstat(scratch .. "/never"))
  end)

  it("keeps the permissions of the file it replaces", function()
    local path = save(scratch .. "/private", "old")
    assert(uv.fs_chmod(path, tonumber("600", 8)))
    assert(sandbox.files:write("/work/secret", "new"))
    assert(sandbox.files:download("/work/secret", path))
    assert.equal("new", read_file(path))
    assert.equal(tonumber("600", 8), uv.fs_stat(path).mode % tonumber("1000", 8))
  end)

  it("cannot be a directory, nor be in one that does not exist", function()
    assert(files:write("/work/source", "x"))
    local before = names(scratch)
    local ok, err = files:download("/work/source", scratch)
    assert.is_nil(ok)
    assert.equal("local_file", err.code)
    assert.equal("files:download", err.op)
    assert.equal(scratch .. ": is a directory", err.message)
    ok, err = files:download("/work/source", scratch .. "/missing/file")
    assert.is_nil(ok)
    assert.equal("state", err.kind)
    assert.truthy(err.message:find("No such file", 1, true), err.message)
    assert.truthy(err.message:find(scratch .. "/missing/file", 1, true), err.message)
    assert.same(before, names(scratch))
    ok, err = files:upload(scratch, "/work/x")
    assert.is_nil(ok)
    assert.equal("state", err.kind)
    assert.equal("local_file", err.code)
    assert.equal("files:upload", err.op)
    assert.equal(scratch .. ": is a directory", err.message)
    ok, err = files:upload(scratch .. "/missing", "/work/x")
    assert.is_nil(ok)
    assert.equal("local_file", err.code)
    assert.equal(scratch .. "/missing: No such file or directory", err.message)
    ok, err = files:upload("/dev/null", "/work/x")
    assert.is_nil(ok)
    assert.equal("local_file", err.code)
    assert.is_false(files:exists("/work/x"))
    ok, err = files:upload(save(scratch .. "/source", "x"), "/work")
    assert.is_nil(ok)
    assert.equal("http", err.kind)
    assert.truthy(err.message:find("directory", 1, true), err.message)
  end)

  it("keeps its permissions, as far as the system gives them to a new file", function()
    assert(files:write("/work/source", "x"))
    local path = scratch .. "/permissions"
    assert.is_true(files:download("/work/source", path))
    local other = assert(uv.fs_stat(save(scratch .. "/ordinary", "x")))
    assert.equal(other.mode, assert(uv.fs_stat(path)).mode)
  end)

  it("of any size is uploaded in little memory, however slow the server", function()
    if not process.rss() then return pending("no /proc here") end
    local _, faulty = misbehaving [[function(request, connection)
      connection:pause_reading():after(300, function() connection:resume_reading() end)
    end]]
    local path = scratch .. "/sparse"
    local file = assert(io.open(path, "wb"))
    file:seek("set", 200 * MEBIBYTE - 1)
    file:write("x")
    file:close()
    local said = child([[
      local opensandbox, process = require "opensandbox", require "spec.support.process"
      local client = opensandbox.new(os.getenv("FAULTY"), "key")
      local sandbox = assert(client:connect("faulty"))
      assert(sandbox.files:write("/small", ("x"):rep(1000000)))
      local before = process.rss().peak
      assert(sandbox.files:upload(os.getenv("FROM"), "/big"))
      local uploaded = process.rss().peak - before
      local file, left = assert(io.open(os.getenv("FROM"), "rb")), 400
      assert(sandbox.files:write("/big", function()
        left = left - 1
        return left > 0 and file:read(65536) or nil
      end))
      file:close()
      io.write(("%d %d"):format(uploaded, process.rss().peak - before))
      client:close()
    ]], { env = { FAULTY = faulty.url, FROM = path } })
    os.remove(path)
    local uploaded, written = said:match("^(%-?%d+) (%-?%d+)$")
    assert.is_true(tonumber(uploaded) < 16 * 1024, "the upload took " .. uploaded .. " KiB")
    assert.is_true(tonumber(written) < 16 * 1024, "the reader function took " .. written .. " KiB")
    local sizes = {}
    for _, request in ipairs(faulty:requests()) do
      if request.path:find("^/execd/files/upload") then sizes[#sizes + 1] = request.body_bytes end
    end
    assert.equal(3, #sizes)
    assert.is_true(sizes[2] > 200 * MEBIBYTE and sizes[2] < 200 * MEBIBYTE + 2000)
  end)

  it("that the server refuses midway gives the server's error", function()
    local refusing, faulty = misbehaving [[function(request, connection)
      connection:respond(413, { ["Content-Type"] = "application/json" }, '{"code":"TOO_LARGE","message":"not that much"}')
      connection:close()
    end]]
    local path = scratch .. "/refused"
    local file = assert(io.open(path, "wb"))
    file:seek("set", 30 * MEBIBYTE - 1)
    file:write("x")
    file:close()
    for _, upload in ipairs {
      function() return refusing.files:upload(path, "/a") end,
      function() return refusing.files:write("/a", text_of(3 * MEBIBYTE)) end,
      function() return refusing.files:write("/a", function() return text_of(100000) end) end,
      function() return refusing.files:write("/a", "x") end,
    } do
      local before = #faulty:requests()
      local ok, err = upload()
      assert.is_nil(ok)
      assert.equal("http", err.kind, tostring(err))
      assert.equal(413, err.status)
      assert.equal("TOO_LARGE", err.code)
      assert.truthy(err.message:find("not that much", 1, true), err.message)
      assert.equal(before + 1, #faulty:requests(), "an upload is never sent twice")
    end
    os.remove(path)
  end)
end)

describe("the files of a sandbox", function()
  setup(start)
  teardown(stop)

  local function paths_of(list)
    local paths = {}
    for i, info in ipairs(list) do paths[i] = info.path end
    table.sort(paths)
    return paths
  end

  it("are found by their names", function()
    for _, name in ipairs { "a.txt", "b.txt", "c.lua", "deep/er/d.txt", "deep/e.md", ".hidden.txt" } do
      assert(files:write("/work/found/" .. name, name))
    end
    local function search(pattern) return paths_of(assert(files:search("/work/found", pattern))) end
    assert.equal(6, #search())
    assert.same({ "/work/found/.hidden.txt", "/work/found/a.txt", "/work/found/b.txt", "/work/found/deep/er/d.txt" },
      search("*.txt"))
    assert.same({ "/work/found/a.txt", "/work/found/b.txt" }, search("[ab].txt"))
    assert.same({ "/work/found/c.lua", "/work/found/deep/e.md" }, search("?.{lua,md}"))
    assert.same({}, assert(files:search("/work/found", "nothing*")))
    assert.same({}, assert(files:search("/work/found", "deep")), "directories are never found")
    local found = assert(files:search("/work/found", "a.txt"))[1]
    assert.equal(5, found.size)
    assert.is_number(found.modified_at)
    local list, err = files:search("/work/not-there", "*")
    assert.is_nil(list)
    assert.equal("FILE_NOT_FOUND", err.code)
    list, err = files:search("/work/found", "[")
    assert.is_nil(list)
    assert.equal("http", err.kind)
    raises(function() files:search("/work", "") end, "the pattern")
  end)

  it("are listed", function()
    for _, name in ipairs { "one", "two", "dir/three", "dir/deep/four" } do assert(files:write("/work/listed/" .. name, name)) end
    assert.same({ "/work/listed/dir", "/work/listed/one", "/work/listed/two" }, paths_of(assert(files:list("/work/listed"))))
    assert.same({ "/work/listed/dir", "/work/listed/dir/deep", "/work/listed/dir/three", "/work/listed/one", "/work/listed/two" },
      paths_of(assert(files:list("/work/listed", { depth = 2 }))))
    assert.equal(6, #assert(files:list("/work/listed", { depth = 9 })))
    local kinds = {}
    for _, info in ipairs(assert(files:list("/work/listed"))) do kinds[info.path:match("[^/]+$")] = info.type end
    assert.same({ dir = "directory", one = "file", two = "file" }, kinds)
    local list, err = files:list("/work/not-there")
    assert.is_nil(list)
    assert.equal("FILE_NOT_FOUND", err.code)
    list, err = files:list("/work/listed/one")
    assert.is_nil(list)
    assert.truthy(err.message:find("not a directory", 1, true), err.message)
    raises(function() files:list("/work", { depth = "all" }) end, "depth")
  end)

  it("are removed", function()
    for _, name in ipairs { "a", "b", "c", "dir/inner" } do assert(files:write("/work/removed/" .. name, name)) end
    assert.is_true(files:remove("/work/removed/a"))
    assert.is_false(files:exists("/work/removed/a"))
    assert.is_true(files:remove("/work/removed/a"), "what does not exist is a success")
    assert.is_true(files:remove { "/work/removed/b", "/work/removed/c" })
    assert.same({ "/work/removed/dir" }, paths_of(assert(files:list("/work/removed"))))
    local ok, err = files:remove("/work/removed/dir")
    assert.is_nil(ok)
    assert.equal("http", err.kind)
    assert.truthy(err.message:find("directory", 1, true), err.message)
    assert.is_true(files:exists("/work/removed/dir/inner"))
    assert.is_true(files:remove("/work/removed/dir", { recursive = true }))
    assert.is_false(files:exists("/work/removed/dir"))
    assert.is_true(files:remove("/work/removed/dir", { recursive = true }))
    raises(function() files:remove({}) end, "must not be empty")
    raises(function() files:remove("/work/x", { recursiv = true }) end, "did you mean 'recursive'")
  end)

  it("and directories: an empty one is removed by rmdir, and nothing else", function()
    assert(files:write("/work/rmdir/dir/inner", "x"))
    assert(files:mkdir("/work/rmdir/empty"))
    assert(sandbox:run("ln -s empty work/rmdir/link; ln -s nothing work/rmdir/dangling; mkdir work/rmdir/-rf"))
    for path, code in pairs {
      ["/work/rmdir/dir"] = "directory_not_empty", ["/work/rmdir/dir/inner"] = "not_a_directory",
      ["/work/rmdir/link"] = "not_a_directory", ["/work/rmdir/dangling"] = "not_a_directory",
    } do
      local ok, err = files:rmdir(path)
      assert.is_nil(ok, path)
      assert.same({ "state", code, "files:rmdir", sandbox.id }, { err.kind, err.code, err.op, err.sandbox_id }, tostring(err))
    end
    assert.truthy(select(2, files:rmdir("/work/rmdir/dir")).hint:find("recursive", 1, true))
    assert.equal("x", assert(files:read("/work/rmdir/dir/inner")))
    for _, path in ipairs { "/work/rmdir/empty", "/work/rmdir/-rf", "/work/rmdir/empty", "/work/nothing/at/all" } do
      assert.is_true(files:rmdir(path), path)
    end
    assert.same({ "/work/rmdir/dangling", "/work/rmdir/dir", "/work/rmdir/link" }, paths_of(assert(files:list("/work/rmdir"))))
    assert.is_true(files:remove("/work/rmdir/dir", { recursive = true }))
    assert.is_false(files:exists("/work/rmdir/dir"))
  end)

  it("arrive all, 500 in a request", function()
    local requests, told, size = 0, {}, 0
    local one = opensandbox.new(server.url, server.key, { on_request = function(request)
      if request.url:find("/files/upload$") then requests = requests + 1 end
    end })
    finally(function() one:close() end)
    local execd = assert(one:discover_execd(sandbox.id))
    local list = {}
    for i = 1, 600 do
      list[i] = { path = ("/work/many/%d"):format(i), content = "content " .. i }
      size = size + #list[i].content
    end
    list[600].content = nil
    list[600].file = save(scratch .. "/last", "from a file")
    size = size - #"content 600" + #"from a file"
    assert.is_true(one:upload_files(execd, list, { on_progress = function(done, all)
      told[#told + 1] = done
      assert.equal(size, all)
    end }))
    assert.equal(2, requests)
    assert.equal(600, #assert(files:list("/work/many")))
    for _, i in ipairs { 1, 499, 500, 501, 599 } do
      assert.equal("content " .. i, assert(files:read("/work/many/" .. i)))
    end
    assert.equal("from a file", assert(files:read("/work/many/600")))
    for i = 2, #told do assert.is_true(told[i] >= told[i - 1], "progress went back") end
    assert.equal(size, told[#told])
  end)

  it("are not uploaded when one of the list is wrong", function()
    local execd = assert(client:discover_execd(sandbox.id))
    local good = { path = "/work/good", content = "x" }
    raises(function() client:upload_files(execd, {}) end, "must not be empty")
    raises(function() client:upload_files(execd, "x") end, "the files")
    raises(function() client:upload_files(execd, { good, "x" }) end, "file 2")
    raises(function() client:upload_files(execd, { good, { path = "/a" } }) end, "'content' or 'file'")
    raises(function() client:upload_files(execd, { good, { path = "/a", content = "", file = "b" } }) end, "not both")
    raises(function() client:upload_files(execd, { good, { path = "/a", content = 5 } }) end, "the content must be")
    raises(function() client:upload_files(execd, { good, { path = "/a", contents = "" } }) end, "did you mean 'content'")
    local ok, err = client:upload_files(execd, { good, { path = "/work/bad", file = scratch .. "/missing" } })
    assert.is_nil(ok)
    assert.equal("body_failed", err.code)
    assert.truthy(err.message:find(scratch .. "/missing: No such file", 1, true), err.message)
    assert.is_false(files:exists("/work/good"))
  end)
end)
