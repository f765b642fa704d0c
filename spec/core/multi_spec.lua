--- The core by itself: transfers over one multi, its descriptor, its queues, its clocks.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local uv_loop = require "spec.support.uv_loop"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"

-- Steps until `done()` is true; fails after 10 seconds.
local function step_until(multi, done)
  local deadline = core.now() + 10
  while not done() do
    assert.is_true(core.now() < deadline, "nothing happened for 10 s")
    multi:step(1)
  end
end

local function finish(multi, transfer)
  step_until(multi, function() return transfer:outcome() end)
  return transfer:outcome()
end

local function get(multi, url, more)
  local request = { method = "GET", url = url, may_repeat = true }
  for name, value in pairs(more or {}) do request[name] = value end
  return multi:request(request)
end

local function drain(transfer)
  local pieces = {}
  local bytes = transfer:read(1e6)
  while bytes do
    pieces[#pieces + 1] = bytes
    bytes = transfer:read(1e6)
  end
  return table.concat(pieces)
end

describe("a multi", function()
  local server, multi

  setup(function()
    server = fault_server.start [[
      return {
        on_headers = function(request, connection)
          if request.path == "/dead-on-second" and request.method == "POST" then return end
        end,
        on_request = function(request, connection)
          local path = request.path
          if path == "/hello" then
            connection:respond(200, { ["X-Test"] = "a" }, "hello")
          elseif path == "/slow" then
            connection:after(200, function() connection:respond(200, {}, "late") end)
          elseif path == "/silence" then
            connection:silence()
          elseif path == "/cut" then
            connection:send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
            connection:close()
          elseif path == "/reset" then
            connection:reset()
          elseif path == "/garbage" then
            connection:send("this is not HTTP at all\r\n\r\n")
            connection:close()
          elseif path == "/big" then
            connection:start(200, {})
            local piece = ("x"):rep(1000000)
            for _ = 1, 20 do connection:chunk(piece) end
            connection:finish()
          elseif path == "/die" then
            connection:close()
          elseif path == "/interim" then
            connection:send("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
            connection:send("HTTP/1.1 200 OK\r\nX-Last: 1\r\nContent-Length: 2\r\n\r\nok")
          else
            connection:respond(404, {}, "no")
          end
        end,
      }
    ]]
  end)

  teardown(function() server:stop() end)
  before_each(function() multi = core.multi() end)
  after_each(function() multi:close() end)

  it("carries a request and its response", function()
    local transfer = get(multi, server.url .. "/hello")
    assert.equal("complete", (finish(multi, transfer)))
    local status, lines = transfer:head()
    assert.equal(200, status)
    assert.truthy(lines:find("X-Test: a", 1, true))
    assert.equal("hello", drain(transfer))
  end)

  it("gives the head of the final response only, not of an interim one", function()
    local transfer = get(multi, server.url .. "/interim")
    finish(multi, transfer)
    local status, lines = transfer:head()
    assert.equal(200, status)
    assert.falsy(lines:find("Link", 1, true))
    assert.truthy(lines:find("X-Last: 1", 1, true))
  end)

  it("gives each transfer an id of its own, which is never used again", function()
    local seen = {}
    for _ = 1, 20 do
      local transfer = get(multi, server.url .. "/silence")
      local id = transfer:id()
      assert.is_nil(seen[id])
      assert.equal(id, transfer:id())
      seen[id] = true
      transfer:close()
    end
  end)

  it("names those that have news, each once until there is more", function()
    assert.is_nil(multi:changed())
    local hello, silent = get(multi, server.url .. "/hello"), get(multi, server.url .. "/silence")
    finish(multi, hello)
    assert.equal(hello:id(), multi:changed())
    assert.is_nil(multi:changed())
    local others = {}
    for i = 1, 5 do others[i] = get(multi, server.url .. "/hello") end
    for i = 1, 5 do finish(multi, others[i]) end
    local named = {}
    for _ = 1, 5 do named[multi:changed()] = true end
    assert.is_nil(multi:changed())
    for i = 1, 5 do assert.is_true(named[others[i]:id()]) end
    assert.is_nil(named[silent:id()])
  end)

  it("names a transfer again when more comes after it was read", function()
    local big = get(multi, server.url .. "/big", { high_water = 65536 })
    local news, bytes = 0, 0
    step_until(multi, function()
      local id = multi:changed()
      if id then
        assert.equal(big:id(), id)
        news = news + 1
        bytes = bytes + #drain(big)
      end
      return bytes == 20000000
    end)
    assert.is_true(news > 10)
  end)

  it("names none that was closed or left to the background", function()
    local closed, left = get(multi, server.url .. "/hello"), get(multi, server.url .. "/hello")
    finish(multi, closed)
    finish(multi, left)
    closed:close()
    left:detach(1)
    assert.is_nil(multi:changed())
    local later = get(multi, server.url .. "/slow")
    later:detach(1)
    step_until(multi, function() return multi:inflight() == 0 end)
    assert.is_nil(multi:changed())
  end)

  it("names one that ended in an error", function()
    local reset = get(multi, server.url .. "/reset", { may_repeat = false })
    finish(multi, reset)
    assert.equal(reset:id(), multi:changed())
    multi:close()
    assert.is_nil(multi:changed())
  end)

  it("knows whether a request may have reached the server", function()
    local transfer = get(multi, server.url .. "/silence")
    assert.is_false(transfer:sent())
    step_until(multi, function() return transfer:sent() end)
    assert.is_nil(transfer:outcome())
    local refused = get(multi, "http://127.0.0.1:1/", { may_repeat = false })
    finish(multi, refused)
    assert.is_false(refused:sent())
  end)

  it("runs requests side by side", function()
    local began = core.now()
    local transfers = {}
    for i = 1, 10 do transfers[i] = get(multi, server.url .. "/slow") end
    for i = 1, 10 do assert.equal("complete", (finish(multi, transfers[i]))) end
    assert.is_true(core.now() - began < 1, "ten waits of 200 ms took as long as they would one after the other")
  end)

  it("uses a connection again", function()
    local before = server:connections().accepted
    for _ = 1, 5 do
      local transfer = get(multi, server.url .. "/hello")
      finish(multi, transfer)
      transfer:close()
    end
    assert.equal(1, server:connections().accepted - before)
  end)

  it("names the way a transfer failed", function()
    local cases = {
      { "/cut", "receive_failed" }, { "/garbage", "bad_response" }, { "/reset", "receive_failed" }, { "/die", "receive_failed" },
    }
    for _, case in ipairs(cases) do
      local outcome, message, sent = finish(multi, get(multi, server.url .. case[1]))
      assert.equal(case[2], outcome, case[1])
      assert.is_string(message)
      assert.is_true(sent)
    end
    local outcome, _, sent = finish(multi, get(multi, "http://127.0.0.1:1/"))
    assert.equal("connect_failed", outcome)
    assert.is_false(sent)
    outcome, _, sent = finish(multi, get(multi, "http://no-such-host.invalid/"))
    assert.equal("resolve_failed", outcome)
    assert.is_false(sent)
    assert.equal("bad_response", (finish(multi, get(multi, "ftp://127.0.0.1/"))))
  end)

  it("has a clock for silence and one for everything", function()
    local began = core.now()
    assert.equal("idle_timeout", (finish(multi, get(multi, server.url .. "/silence", { idle_timeout = 0.2 }))))
    assert.equal("timeout", (finish(multi, get(multi, server.url .. "/silence", { timeout = 0.2 }))))
    assert.is_true(core.now() - began < 3)
  end)

  it("has a clock for connecting, which covers the TLS handshake", function()
    local mute = fault_server.start [[ return { on_connect = function(connection) connection:silence() end } ]]
    local transfer = get(multi, mute.url:gsub("^http:", "https:"), { connect_timeout = 0.3 })
    assert.equal("connect_timeout", (finish(multi, transfer)))
    mute:stop()
    local plain = fault_server.start [[ return { on_connect = function(connection) connection:send("this is not TLS\r\n") end } ]]
    assert.equal("tls_failed", (finish(multi, get(multi, (plain.url:gsub("^http:", "https:"))))))
    plain:stop()
  end)

  it("does not call a transfer idle while its reader is the slow one", function()
    local transfer = get(multi, server.url .. "/big", { idle_timeout = 0.2, high_water = 100000 })
    step_until(multi, function() return transfer:queued() > 0 end)
    local deadline = core.now() + 0.6
    while core.now() < deadline do multi:step(0.1) end
    assert.is_nil(transfer:outcome())
    local size = 0
    while not transfer:outcome() or transfer:queued() > 0 do
      size = size + #drain(transfer)
      multi:step(0.1)
    end
    assert.equal("complete", (transfer:outcome()))
    assert.equal(20000000, size)
  end)

  it("bounds the queue of a slow reader", function()
    local transfer = get(multi, server.url .. "/big", { high_water = 100000, receive_buffer = 65536 })
    local largest = 0
    local deadline = core.now() + 0.5
    while core.now() < deadline do
      multi:step(0.05)
      largest = math.max(largest, transfer:queued())
    end
    assert.is_true(largest >= 100000 and largest < 100000 + 2 * 65536, "queued " .. largest)
    assert.is_nil(transfer:outcome())
  end)

  it("never sends a command twice: a reused connection that dies after the request is an error", function()
    local once = fault_server.start [[
      return function(request, connection)
        if request.method == "GET" then return connection:respond(200, {}, "") end
        connection:close()
      end
    ]]
    finish(multi, get(multi, once.url .. "/"))
    local transfer = multi:request { method = "POST", url = once.url .. "/command", body = "{}", may_repeat = false }
    local outcome, _, sent = finish(multi, transfer)
    assert.not_equal("complete", outcome)
    assert.is_true(sent)
    finish(multi, get(multi, once.url .. "/"))
    transfer = multi:request { method = "POST", url = once.url .. "/empty", may_repeat = false }
    assert.not_equal("complete", (finish(multi, transfer)))
    local posts = 0
    for _, request in ipairs(once:requests()) do
      if request.method == "POST" then posts = posts + 1 end
    end
    once:stop()
    assert.equal(2, posts)
  end)

  it("goes on over a new connection when the idle one was closed meanwhile", function()
    local closing = fault_server.start [[
      return function(request, connection)
        connection:respond(200, {}, "ok")
        connection:close()
      end
    ]]
    for _ = 1, 5 do
      local transfer = multi:request { method = "POST", url = closing.url .. "/", body = "x", may_repeat = false }
      assert.equal("complete", (finish(multi, transfer)))
      step_until(multi, function() return closing:connections().open == 0 end)
    end
    closing:stop()
  end)

  -- The close-on-exec flag of a descriptor, from the octal flags in /proc.
  local function closes_on_exec(fd)
    local info = io.open("/proc/self/fdinfo/" .. fd)
    local flags = info and info:read("*a"):match("flags:%s*(%d+)")
    if info then info:close() end
    return flags and math.floor(tonumber(flags, 8) / tonumber("2000000", 8)) % 2 == 1
  end

  it("leaves no descriptor behind, and a child of the host inherits none", function()
    local before, known = process.descriptors()
    if not before then return pending("no /proc here") end
    local was_open = {}
    for _, fd in ipairs(known) do was_open[fd:match("^%d+")] = true end
    local one = core.multi()
    local transfer = get(one, server.url .. "/silence")
    local requests = #server:requests()
    step_until(one, function() return #server:requests() > requests or one:step(0.05) == 0 end)
    local during, list = process.descriptors()
    assert.is_true(during >= before + 2)
    for _, fd in ipairs(list) do
      local number = fd:match("^%d+")
      if not was_open[number] then assert.is_true(closes_on_exec(number), "descriptor " .. fd) end
    end
    transfer:close()
    one:close()
    assert.equal(before, (process.descriptors()))
  end)

  it("answers after close instead of crashing", function()
    local transfer = get(multi, server.url .. "/silence")
    multi:step(0.01)
    multi:close()
    multi:close()
    assert.equal("closed", (transfer:outcome()))
    assert.is_nil(transfer:head())
    assert.is_nil(transfer:frame())
    assert.is_nil(transfer:read(10))
    assert.is_nil(multi:pollfd())
    assert.is_nil(multi:timeout())
    assert.equal(0, multi:step(0))
    assert.equal("closed", (multi:request { method = "GET", url = server.url }:outcome()))
    transfer:close()
    transfer:close()
    assert.equal("closed", (transfer:outcome()))
  end)

  it("survives being collected with everything under way", function()
    for _ = 1, 30 do
      local one = core.multi()
      for i = 1, 3 do
        local transfer = get(one, server.url .. (i == 1 and "/big" or i == 2 and "/silence" or "/slow"))
        if i == 2 then transfer:detach(5) end
      end
      one:step(0.005)
      one = nil -- luacheck: ignore
      collectgarbage()
    end
    collectgarbage()
  end)

  it("finishes what must arrive before it closes, and not more", function()
    local before = #server:requests()
    local one = core.multi()
    one:request({ method = "DELETE", url = server.url .. "/arrives" }):detach(10, true)
    one:close()
    local seen = server:requests()
    assert.equal("/arrives", seen[before + 1].path)
    local began = core.now()
    one = core.multi()
    get(one, server.url .. "/silence"):detach(10, false)
    one:step(0.05)
    one:close()
    assert.is_true(core.now() - began < 1)
    began = core.now()
    one = core.multi()
    get(one, server.url .. "/silence"):detach(10, true)
    one:close()
    assert.is_true(core.now() - began < 3, "closing waits 2 s at most")
  end)

  it("is driven by a loop that knows only its descriptor and its timeout", function()
    local fd = multi:pollfd()
    if not fd then return pending("no descriptor: built with poll()") end
    local uv = require "luv"
    local transfers, done = {}, 0
    for i = 1, 5 do transfers[i] = get(multi, server.url .. "/slow") end
    local poll, timer, heart, beats = uv.new_poll(fd), uv.new_timer(), uv.new_timer(), 0
    local wakeups = 0
    local function pump()
      wakeups = wakeups + 1
      multi:step(0)
      done = 0
      for i = 1, 5 do
        if transfers[i]:outcome() then done = done + 1 end
      end
      timer:stop()
      local wait = multi:timeout()
      if wait and done < 5 then timer:start(math.ceil(wait * 1000), 0, pump) end
      if done == 5 then
        poll:stop()
        heart:stop()
      end
    end
    heart:start(10, 10, function() beats = beats + 1 end)
    poll:start("r", pump)
    pump()
    uv_loop.wait(function() return done == 5 end, 10)
    uv_loop.close(poll, timer, heart)
    assert.equal(5, done)
    assert.is_true(beats >= 8, "the heart beat " .. beats .. " times")
    assert.is_true(wakeups < 60, "woken up " .. wakeups .. " times")
  end)
end)

describe("a request body", function()
  local server, multi

  setup(function()
    server = fault_server.start [[
      return {
        on_headers = function(request, connection)
          if request.path == "/refuse" then connection:respond(413, {}, "too much") connection:close() end
        end,
        on_request = function(request, connection) connection:respond(200, {}, "") end,
      }
    ]]
    multi = core.multi()
  end)
  teardown(function()
    multi:close()
    server:stop()
  end)

  local function last_request()
    local all = server:requests()
    return all[#all]
  end

  it("in parts is sent in order, with filenames, and with a length when every part has one", function()
    local path = temporary.file("from a file\0")
    local transfer = multi:request { method = "POST", url = server.url .. "/upload", boundary = "xyz", parts = {
      { name = "metadata", filename = "metadata", type = "application/json", data = '{"a":1}' },
      { name = "file", filename = "file", path = path },
    } }
    assert.equal("complete", (finish(multi, transfer)))
    os.remove(path)
    local request = last_request()
    assert.is_string(request.headers["content-length"])
    local first = request.body:find('name="metadata"; filename="metadata"', 1, true)
    local second = request.body:find('name="file"; filename="file"', 1, true)
    assert.is_true(first < second)
    assert.truthy(request.body:find('\r\n\r\n{"a":1}\r\n', 1, true))
  end)

  it("from a reader is chunked, and waits for the reader", function()
    local transfer = multi:request { method = "POST", url = server.url .. "/upload", boundary = "xyz", parts = {
      { name = "file", filename = "file", reader = true },
    } }
    step_until(multi, function() return transfer:wants() end)
    assert.equal(1, transfer:wants())
    assert.is_nil(transfer:write(2, "wrong part"))
    assert.is_true(transfer:write(1, "first "))
    multi:step(0.05)
    assert.is_nil(transfer:outcome())
    assert.is_true(transfer:write(1, "second"))
    assert.is_true(transfer:write(1, nil))
    assert.is_nil(transfer:write(1, "after the end"))
    assert.equal("complete", (finish(multi, transfer)))
    local request = last_request()
    assert.equal("chunked", request.headers["transfer-encoding"])
    assert.truthy(request.body:find("\r\n\r\nfirst second\r\n", 1, true))
  end)

  it("that cannot be read is an error that says why", function()
    local function upload(part)
      part.name, part.filename = "file", "file"
      local transfer = multi:request { method = "POST", url = server.url .. "/upload", boundary = "xyz", parts = { part } }
      while not transfer:outcome() do
        if transfer:wants() then
          transfer:write(1, "12345")
          transfer:write(1, nil)
        end
        multi:step(0.1)
      end
      return transfer:outcome()
    end
    local outcome, message = upload { path = "/no/such/file" }
    assert.equal("body_failed", outcome)
    assert.truthy(message:find("/no/such/file: No such file", 1, true))
    outcome, message = upload { path = "/" }
    assert.equal("body_failed", outcome)
    assert.truthy(message:find("is a directory", 1, true))
    outcome, message = upload { reader = true, size = 3 }
    assert.equal("body_failed", outcome)
    assert.truthy(message:find("more bytes", 1, true))
    outcome, message = upload { reader = true, size = 30 }
    assert.equal("body_failed", outcome)
    assert.truthy(message:find("ended before", 1, true))
  end)

  it("may be refused before it was sent, and the answer is still read", function()
    local transfer = multi:request { method = "POST", url = server.url .. "/refuse", boundary = "xyz", parts = {
      { name = "file", filename = "file", data = ("x"):rep(5000000) },
    } }
    finish(multi, transfer)
    assert.equal(413, (transfer:head()))
  end)

  it("refuses headers that would break out of their line", function()
    assert.has_error(function()
      multi:request { method = "GET", url = server.url, headers = { "X: a\r\nY: b" } }
    end)
  end)
end)

describe("a fork", function()
  local ffi = rawget(_G, "jit") and require "ffi"
  if not ffi then return end -- only LuaJIT can fork without another module
  ffi.cdef "int fork(void); int waitpid(int, int *, int); void _exit(int);"

  it("leaves the parent's requests to the parent, and the child starts anew", function()
    local server = fault_server.start [[
      return function(request, connection)
        connection:after(200, function() connection:respond(200, {}, request.path) end)
      end
    ]]
    local multi = core.multi()
    finish(multi, get(multi, server.url .. "/warm")) -- a connection to be inherited
    local transfer = get(multi, server.url .. "/parent")
    multi:step(0.05)
    local pid = ffi.C.fork()
    if pid == 0 then
      local ok = pcall(function()
        multi:step(0)
        assert(transfer:outcome() == "forked")
        local own = get(multi, server.url .. "/child")
        local deadline = core.now() + 5
        while not own:outcome() and core.now() < deadline do multi:step(0.5) end
        assert(own:outcome() == "complete" and own:read() == "/child")
        multi:close()
      end)
      ffi.C._exit(ok and 0 or 1)
    end
    assert.equal("complete", (finish(multi, transfer)))
    assert.equal("/parent", drain(transfer))
    local status = ffi.new("int[1]")
    ffi.C.waitpid(pid, status, 0)
    assert.equal(0, status[0])
    finish(multi, get(multi, server.url .. "/after"))
    multi:close()
    server:stop()
  end)
end)

describe("a poller", function()
  local poller

  before_each(function() poller = core.poller() end)
  after_each(function() poller:close() end)

  local function waited(seconds)
    local began = core.now()
    poller:wait(seconds)
    return core.now() - began
  end

  it("waits for one of several multis", function()
    local server = fault_server.start [[
      return function(request, connection)
        connection:after(50, function() connection:respond(200, {}, "late") end)
      end
    ]]
    local multis = { core.multi(), core.multi() }
    local transfers = {}
    for i, multi in ipairs(multis) do
      transfers[i] = get(multi, server.url .. "/")
      if multi:pollfd() then poller:watch(multi:pollfd()) end
    end
    local deadline = core.now() + 10
    while not (transfers[1]:outcome() and transfers[2]:outcome()) do
      assert.is_true(core.now() < deadline)
      local due = math.min(multis[1]:timeout() or 1, multis[2]:timeout() or 1)
      poller:wait(poller:pollfd() and due or 0.005)
      for _, multi in ipairs(multis) do multi:step(0) end
    end
    for _, multi in ipairs(multis) do multi:close() end
    server:stop()
  end)

  it("waits no longer than it may", function()
    local seconds = waited(0.05)
    assert.is_true(seconds >= 0.04 and seconds < 0.5)
    assert.is_true(waited(0) < 0.2)
    assert.is_true(waited(-1) < 0.2)
  end)

  it("wakes by its alarm, which can be moved and put off", function()
    if not poller:pollfd() then
      assert.is_nil(poller:alarm(0.01))
      return
    end
    assert.is_true(poller:alarm(nil)) -- there is none yet
    assert.is_true(poller:alarm(0.05))
    local seconds = waited(5)
    assert.is_true(seconds >= 0.04 and seconds < 1, "after 0.05 s: " .. seconds)
    assert.is_true(waited(5) < 1, "it is readable until it is set again")
    assert.is_true(poller:alarm(5))
    assert.is_true(waited(0.05) >= 0.04, "moved away")
    assert.is_true(poller:alarm(0))
    assert.is_true(waited(5) < 1, "at once")
    assert.is_true(poller:alarm(nil))
    assert.is_true(waited(0.05) >= 0.04, "put off")
    assert.is_true(poller:alarm(1e300))
    assert.is_true(waited(0) < 1)
  end)

  it("is of this process, can be closed twice, and is of no use then", function()
    assert.is_false(poller:inherited())
    poller:close()
    poller:close()
    for _, method in ipairs { "watch", "alarm", "wait", "pollfd" } do
      assert.has_error(function() poller[method](poller, 1) end)
    end
  end)

  it("leaves no descriptor open", function()
    local before = process.descriptors()
    for _ = 1, 10 do
      local one = core.poller()
      one:alarm(1)
      one:close()
      one = core.poller()
      one:alarm(1)
    end
    collectgarbage()
    collectgarbage()
    assert.equal(before, process.descriptors())
  end)

  it("refuses what is not a descriptor", function()
    assert.has_error(function() poller:watch(999999) end)
    assert.has_error(function() poller:watch("one") end)
  end)
end)
