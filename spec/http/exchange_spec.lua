--- An exchange whose caller does other things meanwhile, and texts of servers that mean harm.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local leave_garbage = require "spec.support.leave_garbage"
local opensandbox = require "opensandbox"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

describe("the reader function of an upload that makes a call of its own", function()
  local server, client

  setup(function()
    -- The upload is answered while the reader function waits for the answer to its ping.
    server = fault_server.start [[
      return {
        on_headers = function(request, connection)
          local way = request.path:match("^/(%l+)/files/upload")
          if way == "refuse" then
            connection:after(50, function()
              connection:respond(413, { ["Content-Type"] = "application/json" }, '{"code":"TOO_LARGE","message":"no"}')
            end)
          elseif way == "reset" then
            connection:after(50, function() connection:reset() end)
          end
        end,
        on_request = function(request, connection)
          connection:after(request.path:find("ping") and 300 or 0, function() connection:respond(200, {}, "") end)
        end,
      }
    ]]
  end)

  teardown(function() server:stop() end)
  before_each(function() client = opensandbox.new("http://127.0.0.1:1", "key", { transfer_idle_timeout = 20, retry = false }) end)
  after_each(function() client:close() end)

  -- Uploads pieces, and calls `meanwhile` before the third.
  local function upload(way, meanwhile)
    local count = 0
    return client:upload_files(server.url .. "/" .. way, { { path = "/u", content = function()
      count = count + 1
      if count == 3 then meanwhile() end
      return count < 6 and ("z"):rep(100000) or nil
    end } })
  end

  local function ping() assert(client:ping(server.url .. "/other")) end

  local ways = {
    ["in the main program"] = function(fn, ...) return fn(...) end,
    ["in a task"] = function(fn, ...) return opensandbox.spawn(fn, ...):wait(10) end,
  }

  for where, run in pairs(ways) do
    it("learns what has become of the upload meanwhile, " .. where, function()
      for way, expected in pairs { refuse = { http = true }, reset = { transport = true, stream = true } } do
        local began = core.now()
        local ok, err = run(upload, way, ping)
        assert.is_nil(ok)
        assert.is_true(expected[err.kind], tostring(err))
        assert.is_true(core.now() - began < 5, "it took its time")
      end
      assert.is_true(run(upload, "fine", ping))
    end)

    it("may close the client, " .. where, function()
      local ok, err = run(upload, "fine", function() client:close() end)
      assert.is_nil(ok)
      assert.equal("closed", err.kind, tostring(err))
    end)
  end

  it("may have no bytes yet: it is called again, while others go on", function()
    local count, slept = 0, 0
    local sleeper = opensandbox.spawn(function()
      for _ = 1, 5 do
        opensandbox.sleep(0.002)
        slept = slept + 1
      end
    end)
    local ok = opensandbox.spawn(function()
      return client:upload_files(server.url .. "/fine", { { path = "/u", content = function()
        count = count + 1
        if slept < 5 then return "" end
        return count < 1000 and "x" or nil
      end } })
    end):wait(10)
    assert.is_true(ok)
    assert.is_true(sleeper:done())
    local sizes = {}
    for _, request in ipairs(server:requests()) do
      if request.path == "/fine/files/upload" then sizes[#sizes + 1] = request.body_bytes end
    end
    assert.is_true(sizes[#sizes] > 900)
  end)

  it("may return few bytes and be slow: the time limit holds, and other tasks run", function()
    local began, ticks = core.now(), 0
    local ticker = opensandbox.spawn(function()
      while true do
        ticks = ticks + 1
        opensandbox.sleep(0.001)
      end
    end)
    local ok, err = client:upload_files(server.url .. "/fine", { { path = "/u", content = function()
      local now = core.now()
      assert(now - began < 10, "it is called long after the time limit")
      while core.now() < now + 0.001 do end -- luacheck: ignore 542
      return "x"
    end } }, { timeout = 0.3 })
    ticker:cancel()
    assert.is_nil(ok)
    assert.same({ "timeout", "timeout" }, { err.kind, err.timeout_option })
    assert.truthy(err.message:find("timeout of 0.3 s ran out", 1, true), err.message)
    assert.is_true(ticks > 2, tostring(ticks))
  end)
end)

-- Starts a server whose responses do not end. /cut/ and /refused/: the first response to a path ends early. /cut/: the next one does not
-- begin. /refused/ and every sandbox: the server returns 503 and names 20 s in Retry-After.
local function start_endless_server()
  return fault_server.start [[
    local counts = {}
    return function(request, connection)
      counts[request.path] = (counts[request.path] or 0) + 1
      local is_first, is_cut = counts[request.path] == 1, request.path:find("/cut/", 1, true)
      local is_refused = request.path:find("/refused/", 1, true)
      if request.path:find("/metrics/watch", 1, true) then
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
      elseif request.path:find("/sandboxes/", 1, true) or (is_refused and not is_first) then
        return connection:respond(503, { ["Content-Type"] = "application/json", ["Retry-After"] = "20" }, "{}")
      elseif is_first or not is_cut then
        connection:start(200, { ["Content-Length"] = "100" })
        connection:chunk("some bytes")
        if is_cut or is_refused then return connection:after(20, connection.close) end
      end
      connection:silence()
    end
  ]]
end

-- Checks that a wait in another task ends with an error of kind closed as soon as `close` was called. Returns the error.
local function check_ends_wait(wait, close)
  local waiting = opensandbox.spawn(wait)
  opensandbox.sleep(0.2) -- past the first response of /cut/ and /refused/
  assert.is_false(waiting:done())
  local began = core.now()
  close()
  local value, err = waiting:wait(10)
  assert.is_nil(value)
  assert.equal("closed", err.kind, tostring(err))
  assert.is_true(core.now() - began < 5)
  return err
end

describe("a response that other code closes while it is read", function()
  local server, client

  setup(function() server = start_endless_server() end)
  teardown(function() server:stop() end)
  before_each(function()
    client = opensandbox.new(server.url, "key", { timeout = 20, idle_timeout = 20, transfer_idle_timeout = 20 })
  end)
  after_each(function() client:close() end)

  local opened = 0
  local function open(path)
    opened = opened + 1
    return assert(client:download_file(server.url .. path .. opened, "/file"))
  end

  -- Each opens something and returns it with a function that waits for it.
  local readings = {
    ["a reader"] = function()
      local reader = open "/silent/"
      return reader, function() return reader:read(100) end
    end,
    ["a reader that makes its next request"] = function()
      local reader = open "/cut/"
      return reader, function() return reader:read(100) end
    end,
    ["a stream of events"] = function()
      local stream = assert(client:watch_metrics(server.url))
      return stream, function() return stream:next() end
    end,
  }

  -- Closes the object in a task and in a finalizer, while another task waits for it.
  local closings = {
    ["a task"] = function(close) close() end,
    ["a finalizer"] = function(close)
      leave_garbage(close)
      for _ = 1, 3 do collectgarbage() end
    end,
  }

  for what, start in pairs(readings) do
    for where, call in pairs(closings) do
      it(("ends the wait at once: %s, closed in %s"):format(what, where), function()
        local object, read = start()
        local err = check_ends_wait(read, function() call(function() object:close() end) end)
        assert.is_nil(err.message:find("client", 1, true), err.message)
        assert.equal("closed", select(2, read()).kind)
      end)
    end
  end
end)

describe("a call between two requests, in another task", function()
  local server, client

  setup(function() server = start_endless_server() end)
  teardown(function() server:stop() end)
  before_each(function()
    client = opensandbox.new(server.url, "key", { timeout = 30, retry = { base_delay = 20, max_delay = 20, max_retry_after = 60 } })
  end)
  after_each(function() client:close() end)

  local opened = 0
  -- Each returns a function that waits, and optionally one that closes what waits.
  local waits = {
    ["a retry"] = function()
      return function() return client:get_sandbox "s" end
    end,
    ["a download that continues after a cut"] = function()
      opened = opened + 1
      local reader = assert(client:download_file({ url = server.url .. "/refused/" .. opened, headers = {} }, "/file"))
      return function() return reader:read(100) end, function() reader:close() end
    end,
  }

  for what, start in pairs(waits) do
    it("ends when the client is closed: " .. what, function()
      check_ends_wait(start(), function() client:close() end)
    end)
  end

  it("ends when its object is closed: a download that continues after a cut", function()
    check_ends_wait(waits["a download that continues after a cut"]())
  end)
end)

describe("the texts of a server that means harm", function()
  local server, client

  setup(function()
    server = fault_server.start [[
      local SPACES = (" "):rep(200000)
      return function(request, connection)
        if request.path:find("redirect") then
          connection:send("HTTP/1.1 302 F\r\nLocation: http://x/\27[2J\27]0;pwn\7\r\nContent-Length: 0\r\n\r\n"):close()
        elseif request.path:find("escapes") then
          connection:send("HTTP/1.1 200 OK\r\nContent-Type: \27[31mred\r\nX-Request-Id: \27[2Jid\r\n"
            .. "Content-Length: 2\r\n\r\nxx"):close()
        elseif request.path:find("header") then
          connection:send("HTTP/1.1 500 No\r\nX-Request-Id: a" .. SPACES:sub(1, 90000) .. "b\r\nContent-Length: 0\r\n\r\n"):close()
        elseif request.path:find("title") then
          connection:respond(502, { ["Content-Type"] = "text/html" }, "<html><title>" .. SPACES)
        else
          connection:start(200, { ["Content-Type"] = "text/event-stream" })
          connection:event { type = "init", text = "c1" }
          connection:event { type = "error",
            error = { ename = "x", evalue = "a" .. SPACES .. "\27[2Jb", traceback = json.array {} } }
          connection:finish()
        end
      end
    ]]
  end)

  teardown(function() server:stop() end)
  before_each(function() client = opensandbox.new(server.url, "key", { retry = false }) end)
  after_each(function() client:close() end)

  local function check(value, err)
    assert.is_nil(value)
    local began = os.clock()
    local text = tostring(err)
    assert.is_true(os.clock() - began < 1)
    assert.is_true(#text <= 4003 and #err.message <= 1003, ("%d and %d bytes"):format(#text, #err.message))
    for _, shown in ipairs { text, err.message, err.code, err.request_id or "", "failed: " .. err } do
      assert.is_nil(shown:find("[%c]"), ("%q"):format(shown))
    end
  end

  it("are short, on one line and without control characters in errors, and are read at once", function()
    for _, name in ipairs { "redirect", "escapes", "header", "title" } do
      local began = os.clock()
      check(client:get_sandbox(name))
      assert.is_true(os.clock() - began < 2, name)
    end
    local began = os.clock()
    check(client:run_command(server.url, "x"))
    assert.is_true(os.clock() - began < 2)
  end)
end)

describe("while the client closes", function()
  it("a request that fails is an error of kind closed, because its deletes can be the cause; a delete says why", function()
    local server = fault_server.start [[
      return function(request, connection)
        if request.path:find("/reset$") then return connection:reset() end
        connection:respond(404, { ["Content-Type"] = "application/json" }, '{"code":"GONE","message":"it is gone"}')
      end
    ]]
    local client = opensandbox.new(server.url, "key", { retry = false })
    assert.equal("http", select(2, client:get_sandbox("x")).kind)
    client.http:begin_close()
    for _, id in ipairs { "x", "reset" } do
      local err = select(2, client:get_sandbox(id))
      assert.same({ "closed", "closed", "get_sandbox" }, { err.kind, err.code, err.op })
    end
    assert.equal("transport", select(2, client:delete_sandbox("reset")).kind)
    client:close()
    server:stop()
  end)
end)
