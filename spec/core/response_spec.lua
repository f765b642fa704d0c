--- The response of a transfer when its server is hostile: every buffer has a limit, and what is refused says why.

local core = require "opensandbox.core"
local driving = require "spec.support.transfers"
local fault_server = require "spec.support.fault_server"

local step_until, finish, get = driving.step_until, driving.finish, driving.get

describe("a response", function()
  local server, multi

  setup(function()
    server = fault_server.start [[
      local BLOCK = ("e"):rep(65536)
      local chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

      -- Sends pieces until the client has gone, a few at a time.
      local function flood(connection, piece)
        local function more()
          if connection.gone or connection.closing then return end
          for _ = 1, 8 do connection:send(piece) end
          connection:after(1, more)
        end
        more()
      end

      local function header(bytes) return "X: " .. ("v"):rep(bytes - 5) .. "\r\n" end
      local function headers(bytes)
        local lines = {}
        while bytes > 1100 do
          lines[#lines + 1] = header(1000)
          bytes = bytes - 1000
        end
        lines[#lines + 1] = header(bytes)
        return table.concat(lines)
      end

      return function(request, connection)
        local path, number = request.path:match("^/([%w-]+)/?(%d*)")
        if path == "switch" then
          connection:send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" .. ("z"):rep(600000))
        elseif path == "interim" then
          flood(connection, ("HTTP/1.1 102 Processing\r\n\r\n"):rep(1000))
        elseif path == "trailers" then
          connection:send(chunked .. "2\r\n{}\r\n0\r\n")
          flood(connection, ("T: " .. ("v"):rep(50) .. "\r\n"):rep(1000))
        elseif path == "trailer-line" then
          connection:send(chunked .. "2\r\n{}\r\n0\r\nT: ")
          flood(connection, BLOCK)
        elseif path == "head-of" then -- a head of so many bytes
          local status, length, last = "HTTP/1.1 200 OK\r\n", "Content-Length: 2\r\n", "\r\n"
          connection:send(status .. headers(tonumber(number) - #status - #length - #last) .. length .. last .. "{}")
        elseif path == "line" then
          connection:send(chunked)
          flood(connection, "10000\r\n" .. BLOCK .. "\r\n")
        elseif path == "data-lines" then
          connection:send(chunked)
          flood(connection, "1000\r\n" .. ("data: x\n"):rep(512) .. "\r\n")
        elseif path == "extension" then
          connection:send(chunked .. "5;")
          flood(connection, BLOCK)
        elseif path == "encoded" then
          local encoding = { "gzip", "identity", "", "br" }
          connection:respond(({ 200, 200, 200, 502 })[tonumber(number)],
            { ["cOnTeNt-EnCoDiNg"] = encoding[tonumber(number)], ["X-A"] = "b" }, "body")
        elseif path == "encoded-empty" then
          connection:respond(200, { ["Content-Encoding"] = "gzip" }, "")
        end
      end
    ]]
  end)
  teardown(function() server:stop() end)
  before_each(function() multi = core.multi() end)
  after_each(function() multi:close() end)

  -- Kilobytes of this process.
  local function memory()
    collectgarbage()
    local file = io.open("/proc/self/status")
    if not file then return 0 end
    local kilobytes = tonumber(file:read("*a"):match("VmRSS:%s*(%d+)"))
    file:close()
    return kilobytes
  end

  -- Asserts how a request ends, and that it takes neither long nor much memory.
  local function assert_refused(path, problem, fields)
    local before, began = memory(), core.now()
    local transfer = get(multi, server.url .. path, fields)
    local outcome, message, sent = finish(multi, transfer)
    assert.same({ "bad_response", true }, { outcome, sent }, path)
    assert.truthy(message:find(problem, 1, true), message)
    assert.is_true(core.now() - began < 5)
    assert.is_true(memory() - before < 32 * 1024, "memory grew by " .. memory() - before .. " KB")
  end

  it("that switches protocols is refused, whatever follows it", function()
    assert_refused("/switch", "switched protocols")
  end)

  it("with interim responses without end is refused", function()
    assert_refused("/interim", "too long")
  end)

  it("with trailers without end is refused", function()
    assert_refused("/trailers", "too long")
  end)

  it("with a trailer without end is refused", function()
    local major, minor = core.curl_version:match("libcurl/(%d+)%.(%d+)")
    if major == "7" and tonumber(minor) < 71 then return pending("libcurl before 7.71 keeps trailers of any length") end
    assert_refused("/trailer-line", "trailers") -- in our words or in those of newer versions of libcurl
  end)

  it("has a head of at most 300 KiB", function()
    local limit = 300 * 1024
    local transfer = get(multi, server.url .. "/head-of/" .. limit)
    assert.equal("complete", (finish(multi, transfer)))
    assert.equal(limit, #select(2, transfer:head()))
    assert_refused("/head-of/" .. limit + 1, "too long")
  end)

  it("that is an endless line stops at the longest event, although nobody reads it", function()
    local limit, before = 200000, memory()
    local transfer = get(multi, server.url .. "/line", { max_event = limit, high_water = 65536, receive_buffer = 65536 })
    step_until(multi, function() return transfer:queued() > limit end)
    for _ = 1, 30 do multi:step(0.01) end
    assert.is_true(transfer:queued() < limit + 3 * 65536, "queued " .. transfer:queued())
    assert.is_true(memory() - before < 16 * 1024)
    assert.same({ nil, "too_large" }, { transfer:next_event() })
    assert.is_nil(transfer:outcome())
  end)

  it("of data lines without end is an event that is too large", function()
    local limit = 100000
    local transfer = get(multi, server.url .. "/data-lines", { max_event = limit, high_water = 65536 })
    local event, failure
    step_until(multi, function()
      event, failure = transfer:next_event()
      return failure
    end)
    assert.is_nil(event)
    assert.equal("too_large", failure)
    assert.is_true(transfer:queued() < limit + 65536 * 3)
  end)

  it("that sends nothing but the extension of a chunk is idle", function()
    local began = core.now()
    local outcome = finish(multi, get(multi, server.url .. "/extension", { idle_timeout = 0.3 }))
    assert.equal("idle_timeout", outcome)
    assert.is_true(core.now() - began < 5)
  end)

  it("that is compressed is refused, because that was not asked for", function()
    assert_refused("/encoded/1", "compressed")
    for _, path in ipairs { "/encoded/2", "/encoded/3" } do
      local transfer = get(multi, server.url .. path)
      assert.equal("complete", (finish(multi, transfer)))
      assert.equal("body", driving.drain(transfer))
    end
    assert.equal("complete", (finish(multi, get(multi, server.url .. "/encoded-empty"))))
  end)

  it("that is compressed and an error keeps its status, without a body", function()
    local transfer = get(multi, server.url .. "/encoded/4")
    assert.equal("complete", (finish(multi, transfer)))
    assert.equal(502, (transfer:head()))
    assert.equal("", driving.drain(transfer))
  end)
end)
