--- Downloads through connections that break: the bytes arrive whole, or the error says why they do not.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local temporary = require "spec.support.temporary"

-- Serves one file. The path says what happens: /{fault}/{size}, see `faults`. The file is not in the memory of the tests.
local SERVER = [[
  local SIZE = 300000
  local pieces = {}
  for i = 1, SIZE / 6 do pieces[i] = ("%05d\n"):format(i) end
  local CONTENT = table.concat(pieces)
  local CHANGED = CONTENT:upper():gsub("0", "9")
  local counts = {}

  -- Sends bytes [first, last) of a content, and breaks after `count` of them.
  local function send(connection, request, options)
    local content = options.content or CONTENT
    local from = tonumber((request.headers.range or ""):match("^bytes=(%d+)%-"))
    local to = tonumber((request.headers.range or ""):match("^bytes=%d+%-(%d+)$"))
    local headers = { ["Last-Modified"] = options.time or "Thu, 26 Nov 2026 10:00:00 GMT" }
    local status, body = 200, content
    if from and not options.ignores_range then
      if from >= #content then
        headers["Content-Range"] = "bytes */" .. #content
        return connection:respond(416, headers, "invalid range")
      end
      local last = math.min(to or #content - 1, #content - 1)
      status, body = 206, content:sub(from + 1, last + 1)
      if not options.without_range then headers["Content-Range"] = ("bytes %d-%d/%d"):format(from, last, #content) end
    end
    if not options.chunked then headers["Content-Length"] = tostring(#body) end
    connection:start(status, headers)
    if not options.breaks then
      connection:chunk(body)
      return connection:finish()
    end
    connection:chunk(body:sub(1, options.breaks))
    if options.silent then return connection:silence() end
    connection:after(20, options.reset and connection.reset or connection.close)
  end

  local faults = {}

  function faults.whole() return {} end
  -- Each connection breaks after some bytes.
  function faults.close() return { breaks = 70000 } end
  function faults.reset() return { breaks = 70001, reset = true } end
  function faults.silent(n) return { breaks = n < 3 and 90000 or nil, silent = true } end
  function faults.chunked(n) return { breaks = n < 4 and 80000 or nil, chunked = true } end
  -- Each response begins at the first byte again.
  function faults.ignores(n) return { breaks = n < 3 and 70000 * n or nil, ignores_range = true } end
  -- The rest comes in small pieces, each in a response that does not say which bytes it contains.
  function faults.unranged(n) return { breaks = n == 1 and 70000 or 2, without_range = n > 1 } end
  -- The file is another one after the first break.
  function faults.changed(n)
    return n == 1 and { breaks = 70000 } or { content = CHANGED, time = "Thu, 26 Nov 2026 10:00:01 GMT" }
  end
  function faults.longer(n) return n == 1 and { breaks = 70000 } or { content = CONTENT .. "more" } end
  -- No connection brings a byte after the first.
  function faults.stuck(n) return { breaks = n == 1 and 70000 or 0 } end
  function faults.mute(n) return n > 100 and {} or { mute = true } end
  function faults.mute_once(n) return n == 1 and { mute = true } or {} end

  return function(request, connection)
    local path = request.path:match("path=([^&]*)")
    local fault = path:gsub("%%2F", "/"):match("([%w_]+)/[^/]*$")
    counts[path] = (counts[path] or 0) + 1
    if fault == "directory" then
      connection:start(request.headers.range and 206 or 200, { ["Content-Length"] = "9223372036854775807" })
      return connection:silence()
    end
    local options = faults[fault](counts[path])
    if options.mute then return connection:silence() end
    send(connection, request, options)
  end
]]

local server, client, number

local function content()
  local pieces = {}
  for i = 1, 50000 do pieces[i] = ("%05d\n"):format(i) end
  return table.concat(pieces)
end

local CONTENT = content()

-- A path of its own for each download.
local function path_of(fault)
  number = number + 1
  return ("/%s/%d"):format(fault, number)
end

local function requests_for(path)
  local count, ranges = 0, {}
  for _, request in ipairs(server:requests()) do
    if request.path:gsub("%%2F", "/"):find("path=" .. path, 1, true) then
      count = count + 1
      ranges[count] = request.headers.range or "none"
    end
  end
  return count, ranges
end

local function new_client(options)
  if options.retry == nil then options.retry = { base_delay = 0.01 } end
  return opensandbox.new("http://127.0.0.1:1", "", options)
end

setup(function()
  server, number = fault_server.start(SERVER), 0
  client = new_client { transfer_idle_timeout = 0.5 }
end)
teardown(function()
  client:close()
  server:stop()
end)

-- The ways to download, each returns the bytes or nil and an error.
local ways = {
  ["read of all"] = function(path, opts)
    local reader, err = client:download_file(server.url, path, opts)
    if not reader then return nil, err end
    return reader:read("a")
  end,
  ["reads of odd counts"] = function(path, opts)
    local reader, err = client:download_file(server.url, path, opts)
    if not reader then return nil, err end
    local pieces, bytes = {}
    repeat
      bytes, err = reader:read(9973)
      pieces[#pieces + 1] = bytes
    until not bytes
    if err then return nil, err end
    return table.concat(pieces)
  end,
  ["reads of lines"] = function(path, opts)
    local reader, err = client:download_file(server.url, path, opts)
    if not reader then return nil, err end
    local pieces, line = {}
    repeat
      line, err = reader:read("L")
      pieces[#pieces + 1] = line
    until not line
    if err then return nil, err end
    return table.concat(pieces)
  end,
  save_file = function(path)
    local to = temporary.path()
    local ok, err = client:save_file(server.url, path, to)
    local file = io.open(to, "rb")
    if not ok then
      assert.is_nil(file, "a file is left")
      return nil, err
    end
    local bytes = file:read("*a")
    file:close()
    os.remove(to)
    return bytes
  end,
}

for name, download in pairs(ways) do
  describe("a download by " .. name, function()
    for _, fault in ipairs { "whole", "close", "reset", "silent", "chunked", "ignores" } do
      it("is whole after connections that broke (" .. fault .. ")", function()
        local path = path_of(fault)
        local bytes, err = download(path)
        assert(bytes, tostring(err))
        assert.equal(#CONTENT, #bytes)
        assert.is_true(bytes == CONTENT)
        local count, ranges = requests_for(path)
        assert.is_true(fault == "whole" or count > 1)
        assert.equal("none", ranges[1])
        for i = 2, count do assert.truthy(ranges[i]:find("^bytes=%d+%-$"), ranges[i]) end
      end)
    end

    for fault, kind in pairs { changed = "the same size", longer = "another size" } do
      it("is an error when the file is another one meanwhile, of " .. kind, function()
        local bytes, err = download(path_of(fault))
        assert.is_nil(bytes)
        assert.same({ "state", "file_changed", true }, { err.kind, err.code, err.retryable }, tostring(err))
      end)
    end

    it("is an error that may be tried again when no byte arrives any more", function()
      local path = path_of "stuck"
      local bytes, err = download(path)
      assert.is_nil(bytes)
      assert.same({ "stream", "cut", true }, { err.kind, err.code, err.retryable }, tostring(err))
      assert.equal(3, (requests_for(path)))
    end)

    it("is an error when the rest does not say which bytes it contains, because it might have no end", function()
      local path = path_of "unranged"
      local bytes, err = download(path)
      assert.is_nil(bytes)
      assert.same({ "protocol", "unexpected_response" }, { err.kind, err.code }, tostring(err))
      assert.equal(2, (requests_for(path)))
    end)

    it("is asked for again after silence, once", function()
      assert.is_true(CONTENT == assert(download(path_of "mute_once")))
      local path = path_of "mute"
      local bytes, err = download(path)
      assert.is_nil(bytes)
      assert.same({ "timeout", "transfer_idle_timeout" }, { err.kind, err.timeout_option })
      assert.equal(2, (requests_for(path)))
    end)

    it("of a directory is an error at once", function()
      local path = path_of "directory"
      local bytes, err = download(path)
      assert.is_nil(bytes)
      assert.same({ "state", "not_a_file" }, { err.kind, err.code }, tostring(err))
      assert.truthy(err.message:find("directory", 1, true))
      assert.truthy(err.hint:find("download_dir", 1, true))
      assert.equal(1, (requests_for(path)))
    end)
  end)
end

describe("a download of a range", function()
  it("is whole after connections that broke", function()
    for _, fault in ipairs { "close", "reset", "ignores", "whole" } do
      for _, range in ipairs { { 10, 200000 }, { 100000 }, { 299990, 100 }, { 0, 150000 }, { 70000, 70000 } } do
        local path = path_of(fault)
        local reader = assert(client:download_file(server.url, path, { offset = range[1], length = range[2] }))
        local expected = CONTENT:sub(range[1] + 1, range[2] and range[1] + range[2] or -1)
        assert.equal(#expected, reader.size)
        assert.is_true(expected == assert(reader:read("a")), fault)
      end
    end
  end)
end)

describe("a download without retries", function()
  it("is an error at the first connection that breaks", function()
    local strict = new_client { retry = false }
    local path = path_of "close"
    local reader = assert(strict:download_file(server.url, path))
    local bytes, err = reader:read("a")
    strict:close()
    assert.is_nil(bytes)
    assert.equal("cut", err.code)
    assert.equal(1, (requests_for(path)))
  end)
end)

describe("a download with a timeout", function()
  it("ends when that is over, however often it was tried", function()
    for _, fault in ipairs { "mute", "silent" } do
      local before = opensandbox.now()
      local reader, err = client:download_file(server.url, path_of(fault), { timeout = 0.4 })
      if reader then reader, err = reader:read("a") end
      assert.is_nil(reader)
      assert.same({ "timeout", "timeout", 0.4 }, { err.kind, err.timeout_option, tonumber(err.message:match("of ([%d.]+) s")) })
      assert.is_true(opensandbox.now() - before < 0.9)
      local to = temporary.path()
      local ok
      ok, err = client:save_file(server.url, path_of(fault), to, { timeout = 0.4 })
      assert.is_nil(ok)
      assert.equal("timeout", err.timeout_option)
      assert.is_nil(io.open(to))
    end
  end)
end)

describe("a download from a sandbox that is paused meanwhile", function()
  it("says that, and what to do", function()
    local down = fault_server.start [[
      return function(request, connection)
        local function send(value) connection:respond(200, { ["Content-Type"] = "application/json" }, json.encode(value)) end
        if request.path:find("/endpoints/", 1, true) then return send { endpoint = request.headers.host .. "/execd" } end
        if request.path:find("^/v1/sandboxes/") then
          return send { id = "one", status = { state = state.paused and "Paused" or "Running" } }
        end
        if not request.path:find("/files/download", 1, true) then return connection:respond(200, {}, "") end
        state.paused = true
        connection:start(200, { ["Content-Length"] = "1000" }):chunk("x"):silence()
      end
    ]]
    local one = opensandbox.new(down.url, "key", { transfer_idle_timeout = 0.3, retry = { base_delay = 0.01 } })
    local sandbox = assert(one:connect("one"))
    for _, call in ipairs {
      function() return sandbox.files:read("/a") end,
      function() return sandbox.files:download("/a", temporary.path()) end,
    } do
      local bytes, err = call()
      assert.is_nil(bytes)
      assert.same({ "state", "sandbox_paused" }, { err.kind, err.code }, tostring(err))
      assert.truthy(err.hint:find("resume", 1, true))
      assert.is_truthy(err.cause)
    end
    one:close()
    down:stop()
  end)
end)

describe("save_file, continued after a break,", function()
  it("reports progress that only grows, and the total", function()
    local to, seen = temporary.path(), {}
    assert(client:save_file(server.url, path_of "close", to, { mode = "0640", on_progress = function(done, total)
      seen[#seen + 1] = done
      assert.equal(#CONTENT, total)
    end }))
    os.remove(to)
    for i = 2, #seen do assert.is_true(seen[i] > seen[i - 1]) end
    assert.equal(#CONTENT, seen[#seen])
  end)

  it("leaves nothing when the callback raises then", function()
    local to, reason = temporary.path(), {}
    local ok, raised = pcall(client.save_file, client, server.url, path_of "close", to, { on_progress = function(done)
      if done > 100000 then error(reason) end
    end })
    assert.same({ false, true }, { ok, raised == reason })
    assert.is_nil(io.open(to))
  end)

  it("leaves nothing when the task is cancelled then", function()
    local to = temporary.path()
    local one
    one = opensandbox.spawn(function()
      return client:save_file(server.url, path_of "close", to, { on_progress = function(done)
        if done > 100000 then one:cancel() end
      end })
    end)
    local ok, err = one:wait()
    assert.is_nil(ok)
    assert.equal("cancelled", err.kind)
    assert.is_nil(io.open(to))
  end)
end)
