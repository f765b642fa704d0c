--- Transfers over one multi: its descriptor, its queues, its clocks.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local uv_loop = require "spec.support.uv_loop"
local process = require "spec.support.process"
local driving = require "spec.support.transfers"

local step_until, finish, get, drain = driving.step_until, driving.finish, driving.get, driving.drain

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
    assert.is_nil(transfer:next_event())
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
