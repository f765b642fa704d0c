--- Finalizers that run in the middle of a method, as pushing a string can make them, and __index that runs while a request is read: they
--- may close, read and step whatever they like.

local core = require "opensandbox.core"
local leave_garbage = require "spec.support.leave_garbage"
local driving = require "spec.support.transfers"
local fault_server = require "spec.support.fault_server"

local finish, get = driving.finish, driving.get

-- Calls a function while the collector is at work in every allocation.
local function with_busy_collector(fn, ...)
  collectgarbage()
  local pause, multiplier = collectgarbage("setpause", 0), collectgarbage("setstepmul", 1000000)
  local ok, problem = pcall(fn, ...)
  collectgarbage("setpause", pause)
  collectgarbage("setstepmul", multiplier)
  if not ok then error(problem, 0) end
end

describe("a finalizer", function()
  local server

  setup(function()
    server = fault_server.start [[
      local lines = {}
      for i = 1, 400 do
        lines[i] = ('{"type":"%s","text":"%s","timestamp":1}\n'):format(i % 3 == 0 and "stdout" or "init", ("x"):rep(i * 20))
      end
      local body = table.concat(lines)
      return function(request, connection)
        if not request.headers.upgrade then return connection:respond(200, { ["X-Long"] = ("h"):rep(5000) }, body) end
        local peer = websocket.accept(request, connection)
        for i = 1, 400 do peer:send("text", ("x"):rep(i * 20)) end
        peer:close(4000, ("r"):rep(100))
      end
    ]]
  end)
  teardown(function() server:stop() end)

  -- What a finalizer may do, and what a method may be doing meanwhile.
  local actions = {
    close = function(_, transfer) transfer:close() end,
    ["close the multi"] = function(multi) multi:close() end,
    read = function(_, transfer) transfer:read(700) end,
    ["take an event"] = function(_, transfer) transfer:next_event() end,
    ["take output"] = function(_, transfer) transfer:next_output() end,
    step = function(multi) multi:step(0) end,
    detach = function(_, transfer) transfer:detach(1) end,
    receive = function(_, transfer) transfer:receive() end,
    send = function(_, transfer) transfer:send("text", ("y"):rep(100)) end,
    ["send a close frame"] = function(_, transfer) transfer:send_close(1000) end,
  }
  local methods = {
    head = function(transfer) return transfer:head() end,
    read = function(transfer) return transfer:read(3000) end,
    next_event = function(transfer) return transfer:next_event() end,
    next_output = function(transfer)
      local stream, text = transfer:next_output()
      return stream or text
    end,
    outcome = function(transfer) return transfer:outcome() end,
    receive = function(transfer) return transfer:receive() end,
    close_status = function(transfer) return transfer:close_status() end,
  }
  local of_websockets = { receive = true, close_status = true }

  for action, act in pairs(actions) do
    for method, call in pairs(methods) do
      it(("may %s while %s pushes its results"):format(action, method), function()
        for complete = 0, 1 do
          local multi = core.multi()
          local transfer
          if of_websockets[method] then
            transfer = multi:websocket { url = server.url .. "/", receive_high_water = 20000 }
          else
            transfer = get(multi, server.url .. "/", { max_event = 100000, high_water = 20000 })
          end
          if complete == 1 and of_websockets[method] then
            driving.step_until(multi, function() return transfer:receive() end)
          elseif complete == 1 then
            driving.step_until(multi, function() return transfer:head() and transfer:queued() > 20000 end)
          else
            multi:step(0.01)
          end
          with_busy_collector(function()
            for _ = 1, 10 do
              leave_garbage(function() act(multi, transfer) end)
              call(transfer)
              if multi:inflight() > 0 then multi:step(0.001) end
            end
          end)
          collectgarbage()
          multi:close()
        end
      end)
    end
  end

  it("that reads makes no byte come twice, and none be lost", function()
    local multi = core.multi()
    local transfer = get(multi, server.url .. "/", { high_water = 1e8 })
    finish(multi, transfer)
    local expected = get(multi, server.url .. "/", { high_water = 1e8 })
    finish(multi, expected)
    local pieces = {}
    with_busy_collector(function()
      local bytes
      repeat
        leave_garbage(function()
          local stolen = transfer:read(100)
          if stolen then pieces[#pieces + 1] = stolen end
        end)
        bytes = transfer:read(1000)
        if bytes then pieces[#pieces + 1] = bytes end
      until not bytes
    end)
    assert.is_true(#pieces > 100)
    local length = 0
    for _, piece in ipairs(pieces) do length = length + #piece end
    assert.equal(#driving.drain(expected), length)
    multi:close()
  end)

  it("that receives makes no message come twice, and none be lost", function()
    local multi = core.multi()
    local transfer = multi:websocket { url = server.url .. "/", receive_high_water = 1e8 }
    finish(multi, transfer)
    local lengths = {}
    local function note(bytes) lengths[#bytes] = (lengths[#bytes] or 0) + 1 end
    with_busy_collector(function()
      local kind, bytes
      repeat
        leave_garbage(function()
          local other, stolen = transfer:receive()
          if other then note(stolen) end
        end)
        kind, bytes = transfer:receive()
        if kind then note(bytes) end
      until not kind
    end)
    collectgarbage()
    for i = 1, 400 do assert.equal(1, lengths[i * 20], i) end
    assert.same({ 4000, ("r"):rep(100) }, { transfer:close_status() })
    multi:close()
  end)

  it("may feed the decoder whose event is pushed, and take events from it", function()
    local stream = core.event_stream(1000000)
    local fed, taken = 0, 0
    with_busy_collector(function()
      for i = 1, 300 do
        stream:feed("{" .. ("y"):rep(i * 30) .. "\n")
        fed = fed + 1
        leave_garbage(function()
          stream:feed("{" .. ("z"):rep(i * 60) .. "\n")
          fed = fed + 1
          if i % 2 == 0 and stream:next() then taken = taken + 1 end
        end)
        local event = stream:next()
        if event then
          assert.truthy(event:find("^{y*$") or event:find("^{z*$"))
          taken = taken + 1
        end
      end
    end)
    collectgarbage()
    collectgarbage()
    while stream:next() do taken = taken + 1 end
    assert.equal(fed, taken)
  end)
end)

describe("a request's table", function()
  it("may close the multi and change itself while it is read", function()
    local headers = { "A: " .. ("a"):rep(100), "B: " .. ("b"):rep(100) }
    for _, field in ipairs { "body", "sink", "insecure", "proxy", "parts", "key" } do
      local multi = core.multi()
      local request = setmetatable({ method = "POST", url = "http://127.0.0.1:1/", headers = headers }, {
        __index = function(self, name)
          if name ~= field then return nil end
          multi:close()
          self.headers, headers = nil, { "C: d" }
          collectgarbage()
        end,
      })
      assert.equal("closed", (multi:request(request):outcome()))
    end
  end)

  it("may make its strings anew each time", function()
    local multi = core.multi()
    local request = setmetatable({}, { __index = function(_, name)
      collectgarbage()
      if name == "method" then return ("PO" .. "ST") end
      if name == "url" then return "http://127.0.0.1:1/" .. ("u"):rep(500) end
      if name == "boundary" then return ("b"):rep(30) end
      if name == "headers" then return { "A: " .. ("a"):rep(200), "B: " .. ("b"):rep(200) } end
      if name == "parts" then
        return { setmetatable({}, { __index = function(_, field)
          collectgarbage()
          if field == "name" or field == "filename" or field == "data" then return field:rep(100) end
        end }) }
      end
    end })
    assert.equal("connect_failed", (finish(multi, multi:request(request))))
    multi:close()
  end)

  it("has numbers that fit, and no strings in place of numbers", function()
    local multi = core.multi()
    local function refused(fields)
      fields.method, fields.url = "GET", "http://127.0.0.1:1/"
      return not pcall(multi.request, multi, fields)
    end
    for _, name in ipairs { "max_event", "high_water", "receive_buffer", "sink_mode" } do
      for _, value in ipairs { -2, 0 / 0, 1 / 0, -1 / 0, 1e300, "5", true, {} } do
        assert.is_true(refused { [name] = value }, name .. " = " .. tostring(value))
      end
    end
    for _, name in ipairs { "timeout", "connect_timeout", "idle_timeout" } do
      for _, value in ipairs { 0 / 0, 1 / 0, 1e300, "5", true, {} } do
        assert.is_true(refused { [name] = value }, name .. " = " .. tostring(value))
      end
    end
    assert.is_true(refused { high_water = 0 })
    for _, name in ipairs {
      "max_message", "receive_high_water", "send_high_water", "ping_interval", "ping_timeout", "close_timeout",
    } do
      for _, value in ipairs { -1, 0 / 0, 1 / 0, 1e300, "5", true, {} } do
        local ok = pcall(multi.websocket, multi, { url = "http://127.0.0.1:1/", [name] = value })
        assert.is_false(ok, name .. " = " .. tostring(value))
      end
    end
    for _, channels in ipairs { 1, true, {}, "123456789" } do
      local ok = pcall(multi.websocket, multi, { url = "http://127.0.0.1:1/", channels = channels })
      assert.is_false(ok, tostring(channels))
    end
    local part = { name = "a", filename = "b", reader = true }
    for _, size in ipairs { -2, 0 / 0, 1e17, "5" } do
      part.size = size
      assert.is_true(refused { parts = { part }, boundary = "c" })
    end
    multi:close()
  end)
end)
