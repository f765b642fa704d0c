--- What is tried again, how often, for how long, and what is never sent twice.

local core = require "opensandbox.core"
local deadlines = require "opensandbox.loop.deadline"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local retry = require "opensandbox.http.retry"

local FAST = { base_delay = 0.001 }

local server, client

local function new(options)
  if client then client:close() end
  client = opensandbox.new(server.url, "", options or { retry = FAST })
  return client
end

local function close_client()
  if client then client:close() end
  client = nil
end

-- The requests whose path begins with a text.
local function sent(prefix, method)
  local list = {}
  for _, request in ipairs(server:requests()) do
    if request.path:sub(1, #prefix) == prefix and (not method or request.method == method) then list[#list + 1] = request end
  end
  return list
end

describe("a read", function()
  setup(function()
    -- /v1/sandboxes/KIND-N-TAG fails N times in the way KIND says; then it is there.
    server = fault_server.start [[
      local JSON = { ["Content-Type"] = "application/json" }
      local counts, ways = {}, {}
      function ways.close(connection) connection:close() end
      function ways.reset(connection) connection:reset() end
      function ways.cut(connection)
        connection:send('HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"id":"half')
        connection:close()
      end
      function ways.chunk(connection)
        connection:send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{"id":"half\r\n'):close()
      end
      function ways.head(connection) connection:send("HTTP/1.1 200 OK\r\nContent-Le"):close() end
      function ways.late(connection)
        connection:after(30, function() connection:respond(503, {}, "busy") end)
      end
      function ways.ask(connection) connection:respond(503, { ["Retry-After"] = "0.4" }, "busy") end
      function ways.whole(connection) connection:respond(429, { ["Retry-After"] = "1" }, "busy") end
      function ways.tomorrow(connection) connection:respond(503, { ["Retry-After"] = "86400" }, "busy") end
      function ways.patience(connection) connection:respond(503, { ["Retry-After"] = "20" }, "busy") end
      function ways.date(connection)
        connection:respond(503, { ["Retry-After"] = "Wed, 21 Oct 2026 07:28:00 GMT" }, "busy")
      end
      function ways.silence(connection) connection:silence() end
      function ways.drip(connection)
        connection:start(200, JSON)
        local function more()
          if connection.gone then return end
          connection:chunk(" ")
          connection:after(20, more)
        end
        more()
      end
      return function(request, connection)
        local name = request.path:match("/([%w-]+)$")
        local kind, times = name:match("^(%w+)-(%d+)")
        counts[name] = (counts[name] or 0) + 1
        if kind and counts[name] <= tonumber(times) then
          if tonumber(kind) then return connection:respond(tonumber(kind), {}, "") end
          return ways[kind](connection)
        end
        if request.method == "DELETE" then return connection:respond(204, {}, "") end
        connection:respond(200, JSON, json.encode { id = name, status = { state = "Running" } })
      end
    ]]
  end)

  teardown(function() server:stop() end)
  after_each(close_client)

  local function tries(name) return #sent("/v1/sandboxes/" .. name) end

  it("is made again when the connection fails, the body is cut, or a gateway answers", function()
    new()
    for _, kind in ipairs { "close", "reset", "cut", "chunk", "429", "502", "503", "504" } do
      local name = kind .. "-2-read"
      local info, err = client:get_sandbox(name)
      assert.is_table(info, kind .. ": " .. tostring(err))
      assert.equal(name, info.id)
      assert.equal(3, tries(name), kind)
    end
  end)

  it("is made again when the answer was cut in the middle of its head", function()
    new()
    local info, err = client:get_sandbox "head-2-read"
    assert.is_table(info, tostring(err))
    assert.equal(3, tries "head-2-read")
  end)

  it("is given up after so many attempts, with the last error", function()
    new()
    for _, case in ipairs { { "close", "transport" }, { "cut", "stream" }, { "503", "http" } } do
      local name = case[1] .. "-9-up"
      local info, err = client:get_sandbox(name)
      assert.is_nil(info)
      assert.equal(case[2], err.kind)
      assert.equal(3, err.attempts)
      assert.is_true(err.retryable)
      assert.equal(3, tries(name))
    end
    new { retry = { max_attempts = 5, base_delay = 0.001 } }
    local _, err = client:get_sandbox "502-9-five"
    assert.equal(5, err.attempts)
    assert.equal(5, tries "502-9-five")
  end)

  it("is made once without retries", function()
    for i, off in ipairs { false, { max_attempts = 1 }, { max_attempts = 0 } } do
      new { retry = off }
      local name = "503-9-off" .. i
      local info, err = client:get_sandbox(name)
      assert.is_nil(info)
      assert.equal(1, err.attempts)
      assert.is_true(err.retryable, "that it could be made again is known, though we do not do it")
      assert.equal(1, tries(name))
    end
  end)

  it("is not made again when the answer would be the same", function()
    new()
    for _, status in ipairs { 400, 401, 403, 404, 405, 409, 422, 500, 501 } do
      local name = status .. "-9-final"
      local info, err = client:get_sandbox(name)
      assert.is_nil(info)
      assert.equal(status, err.status)
      assert.is_false(err.retryable, name)
      assert.equal(1, tries(name))
    end
  end)

  it("waits as long as the server asks", function()
    new()
    for name, seconds in pairs { ["ask-1-wait"] = 0.4, ["whole-1-wait"] = 1 } do
      local began = core.now()
      assert(client:get_sandbox(name))
      local took = core.now() - began
      assert.is_true(took >= seconds - 0.01 and took < seconds + 1, name .. " took " .. took)
    end
  end)

  it("does not wait longer than its patience, nor beyond its time: the error says when", function()
    new { retry = { base_delay = 0.001, max_retry_after = 10 } }
    local began = core.now()
    local _, err = client:get_sandbox "patience-1-a"
    assert.equal(20, err.retry_after)
    assert.equal(1, tries "patience-1-a")
    new()
    _, err = client:get_sandbox "tomorrow-1-a"
    assert.equal(86400, err.retry_after)
    assert.equal(1, tries "tomorrow-1-a")
    new { timeout = 5, retry = FAST }
    _, err = client:get_sandbox "patience-1-b"
    assert.equal(503, err.status)
    assert.equal(1, tries "patience-1-b")
    assert.is_true(core.now() - began < 4, "it waited")
  end)

  it("does not trip over a Retry-After that is a date", function()
    new()
    assert(client:get_sandbox "date-1-a")
    assert.equal(2, tries "date-1-a")
  end)

  it("has one budget of time for all its tries", function()
    new { timeout = 0.5, retry = { max_attempts = 1000, base_delay = 0.02, max_delay = 0.02 } }
    local began = core.now()
    local _, err = client:get_sandbox "late-9999-a"
    local took = core.now() - began
    assert.is_true(took < 1.5, "it took " .. took)
    assert.is_true(err.attempts > 2 and err.attempts < 20, err.attempts .. " attempts")
    assert.is_truthy(err.kind == "http" or err.kind == "timeout")
  end)

  it("that runs out of time is not made again, and the error names the whole time", function()
    new { timeout = 0.3, retry = FAST }
    for _, name in ipairs { "silence-9-a", "drip-9-a" } do
      local began = core.now()
      local _, err = client:get_sandbox(name)
      assert.is_true(core.now() - began < 1.5)
      assert.equal("timeout", err.kind)
      assert.equal("timeout", err.timeout_option)
      assert.is_truthy(err.message:find("0.3 s", 1, true), err.message)
      assert.is_truthy(err.hint:find("timeout", 1, true))
      assert.equal(1, tries(name))
    end
  end)

  it("that had used a part of its time still names the whole of it", function()
    local two = fault_server.start [[
      local count = 0
      return function(request, connection)
        count = count + 1
        if count == 1 then return connection:after(100, function() connection:respond(503, {}, "") end) end
        connection:silence()
      end
    ]]
    local other = opensandbox.new(two.url, "", { timeout = 0.4, retry = FAST })
    finally(function()
      other:close()
      two:stop()
    end)
    local began = core.now()
    local _, err = other:get_sandbox "a"
    assert.is_true(core.now() - began < 1.4)
    assert.equal("timeout", err.timeout_option)
    assert.equal(2, err.attempts)
    assert.is_truthy(err.message:find("0.4 s", 1, true), err.message)
  end)

  it("of a refused port is made again, with little delay in all", function()
    local refusing = opensandbox.new("http://127.0.0.1:1", "")
    finally(function() refusing:close() end)
    local began = core.now()
    local _, err = refusing:get_sandbox "a"
    assert.equal("connect_failed", err.code)
    assert.equal(3, err.attempts)
    assert.is_true(core.now() - began < 2)
  end)

  it("has the same rules for what does no harm twice: delete and renew", function()
    new()
    assert(client:delete_sandbox "close-2-delete")
    assert.equal(3, tries "close-2-delete")
    assert(client:delete_sandbox "504-1-delete")
    local _, err = client:delete_sandbox "500-1-delete"
    assert.equal(500, err.status)
  end)
end)

describe("a delete", function()
  setup(function()
    server = fault_server.start [[
      local JSON = { ["Content-Type"] = "application/json", ["X-Request-ID"] = "r1" }
      local count = 0
      return function(request, connection)
        local name = request.path:match("/(%w+)$")
        if name == "gone" then
          connection:respond(404, JSON, '{"code":"DOCKER::SANDBOX_NOT_FOUND","message":"Sandbox gone not found."}')
        elseif name == "lost" then
          count = count + 1
          -- The first answer is lost after the server has done it.
          if count == 1 then return connection:close() end
          connection:respond(404, JSON, '{"code":"DOCKER::SANDBOX_NOT_FOUND","message":"not found"}')
        elseif name == "route" then
          connection:respond(404, JSON, '{"detail":"Not Found"}')
        elseif name == "page" then
          connection:respond(404, { ["Content-Type"] = "text/html" }, "<html><title>404</title>")
        elseif name == "bare" then
          connection:respond(404, {}, "")
        else
          connection:respond(204, {}, "")
        end
      end
    ]]
  end)

  teardown(function() server:stop() end)
  before_each(function() new() end)
  after_each(close_client)

  it("of what is gone already is a success", function()
    assert.is_true(assert(client:delete_sandbox "gone"))
    assert.is_true(assert(client:delete_sandbox "there"))
    assert.is_true(assert(client:delete_sandbox "lost"))
  end)

  it("at a server that does not know the route is not", function()
    for _, name in ipairs { "route", "page", "bare" } do
      local ok, err = client:delete_sandbox(name)
      assert.is_nil(ok, name)
      assert.equal(404, err.status)
      assert.equal("HTTP_404", err.code)
      assert.equal("delete_sandbox", err.op)
      assert.equal(name, err.sandbox_id)
    end
  end)
end)

describe("a create", function()
  setup(function()
    -- The first path segment says what happens to the answer, and what the listing knows.
    server = fault_server.start [[
      local JSON = { ["Content-Type"] = "application/json" }
      local labels, lists, creates = {}, {}, {}
      local function unescape(text) return (text:gsub("%%(%x%x)", function(x) return string.char(tonumber(x, 16)) end)) end
      local losses = {}
      function losses.close(connection) connection:close() end
      function losses.reset(connection) connection:reset() end
      function losses.cut(connection)
        connection:send("HTTP/1.1 202 Accepted\r\nContent-Length: 500\r\n\r\n{\"id\":"):close()
      end
      function losses.head(connection) connection:send("HTTP/1.1 202 Accepted\r\nContent-Le"):close() end
      function losses.gateway(connection) connection:respond(504, {}, "") end
      function losses.bad(connection) connection:respond(502, {}, "") end
      function losses.silent(connection) connection:silence() end
      losses.unlisted, losses.slow = losses.close, losses.close
      function losses.refused(connection)
        connection:respond(400, JSON, '{"code":"SANDBOX::INVALID_PARAMETER","message":"no"}')
      end
      function losses.broken(connection)
        connection:respond(500, JSON, '{"code":"DOCKER::SANDBOX_START_FAILED","message":"no image"}')
      end
      function losses.again(connection)
        if creates.again < 2 then return connection:respond(429, {}, "") end
        connection:after(300, function() connection:respond(202, JSON, '{"id":"made"}') end)
      end
      function losses.busy(connection)
        if creates.busy < 3 then return connection:respond(429, {}, "") end
        connection:respond(202, JSON, '{"id":"made"}')
      end
      return function(request, connection)
        local name = request.path:match("^/(%w+)/")
        if request.method == "POST" then
          creates[name] = (creates[name] or 0) + 1
          labels[name] = json.decode(request.body).metadata["opensandbox-lua-create"]
          return losses[name](connection)
        end
        lists[name] = (lists[name] or 0) + 1
        local filter = unescape(unescape(request.path:match("[?&]metadata=([^&]*)") or ""))
        local items = json.array {}
        local known = name ~= "slow" or lists[name] > 2
        if name == "unlisted" then return connection:respond(500, JSON, '{"code":"X","message":"no list"}') end
        if known and filter == "opensandbox-lua-create=" .. labels[name] then
          items[1] = { id = "found-" .. name, status = { state = "Pending" },
            metadata = { ["opensandbox-lua-create"] = labels[name], mine = "yes" } }
        end
        connection:respond(200, JSON, json.encode { items = items, pagination = { hasNextPage = false } })
      end
    ]]
  end)

  teardown(function() server:stop() end)
  after_each(close_client)

  local function create(name, options)
    options = options or { retry = FAST }
    close_client()
    client = opensandbox.new(server.url .. "/" .. name, "", options)
    return client:create_sandbox { image = "x", metadata = { mine = "yes" } }
  end

  it("whose answer is lost is sent once, and found by its label", function()
    for _, name in ipairs { "close", "reset", "cut", "gateway", "bad" } do
      local info, err = create(name)
      assert.is_table(info, name .. ": " .. tostring(err))
      assert.equal("found-" .. name, info.id)
      assert.equal("Pending", info.state)
      assert.same({ mine = "yes" }, info.metadata)
      assert.equal(1, #sent("/" .. name .. "/v1/sandboxes", "POST"), name)
    end
  end)

  it("is not disturbed when the collector finds what an earlier attempt of it left", function()
    local is_over
    local collector = opensandbox.spawn(function()
      while not is_over do
        collectgarbage()
        opensandbox.sleep(0.01)
      end
    end)
    local info, err = opensandbox.spawn(create, "again"):wait()
    is_over = true
    collector:wait()
    assert.is_table(info, tostring(err))
    assert.equal("made", info.id)
    assert.equal(2, #sent("/again/v1/sandboxes", "POST"))
  end)

  it("whose answer was cut in the middle of its head is found too", function()
    local info, err = create "head"
    assert.is_table(info, tostring(err))
    assert.equal("found-head", info.id)
    assert.equal(1, #sent("/head/v1/sandboxes", "POST"))
  end)

  it("whose answer did not come in time is found too", function()
    local info, err = create("silent", { create_timeout = 0.3 })
    assert.is_table(info, tostring(err))
    assert.equal("found-silent", info.id)
    assert.equal(1, #sent("/silent/v1/sandboxes", "POST"))
  end)

  it("is looked for until the listing shows it", function()
    local info = assert(create "slow")
    assert.equal("found-slow", info.id)
    assert.equal(1, #sent("/slow/v1/sandboxes", "POST"))
    assert.equal(3, #sent("/slow/v1/sandboxes", "GET"))
  end)

  it("that cannot be found is the first error, with the label to look for", function()
    local began = core.now()
    local info, err = create "unlisted"
    client:close()
    assert.is_true(core.now() - began < 10) -- and not the 30 seconds of a search during an outage
    assert.is_nil(info)
    assert.equal("transport", err.kind)
    assert.equal("create_sandbox", err.op)
    assert.is_false(err.retryable)
    local posts = sent("/unlisted/v1/sandboxes", "POST")
    assert.equal(1, #posts)
    local label = posts[1].body:match('"opensandbox%-lua%-create":"(%x+)"')
    assert.is_truthy(err.hint:find("opensandbox-lua-create=" .. label, 1, true), err.hint)
  end)

  it("that the server refused is neither sent again nor looked for", function()
    for name, code in pairs { refused = "SANDBOX::INVALID_PARAMETER", broken = "DOCKER::SANDBOX_START_FAILED" } do
      local info, err = create(name)
      assert.is_nil(info)
      assert.equal(code, err.code)
      assert.equal(1, #sent("/" .. name .. "/v1/sandboxes"))
    end
  end)

  it("that was provably not carried out is sent again", function()
    assert.equal("made", assert(create "busy").id)
    local posts = sent("/busy/v1/sandboxes", "POST")
    assert.equal(3, #posts)
    assert.equal(posts[1].body, posts[3].body)
    assert.equal(0, #sent("/busy/v1/sandboxes", "GET"))
  end)

  it("that did not reach the server is not looked for", function()
    local refusing = opensandbox.new("http://127.0.0.1:1", "", { retry = FAST })
    finally(function() refusing:close() end)
    local began = core.now()
    local info, err = refusing:create_sandbox { image = "x" }
    assert.is_nil(info)
    assert.equal("connect_failed", err.code)
    assert.is_true(err.retryable)
    assert.equal(3, err.attempts)
    assert.is_true(core.now() - began < 1)
  end)
end)

describe("judging an error", function()
  local cases = {
    -- what is not known to have been carried out may be made again only when that does no harm
    { "a refused connection", { kind = "transport", code = "connect_failed", not_sent = true }, true, true },
    { "an unknown host", { kind = "transport", code = "resolve_failed", not_sent = true }, true, true },
    { "no connection in time", { kind = "timeout", code = "connect_timeout", not_sent = true }, true, true },
    { "a lost answer", { kind = "transport", code = "receive_failed" }, false, true },
    { "a request broken off", { kind = "transport", code = "send_failed" }, false, true },
    { "a cut body", { kind = "stream", code = "cut" }, false, true },
    { "no answer in time", { kind = "timeout", code = "timeout" }, false, true },
    { "silence", { kind = "timeout", code = "idle_timeout" }, false, true },
    -- never
    { "bad TLS", { kind = "transport", code = "tls_failed", not_sent = true }, false, false },
    { "no memory", { kind = "transport", code = "no_memory", not_sent = true }, false, false },
    { "a body of the caller's", { kind = "state", code = "body_failed" }, false, false },
    { "a closed client", { kind = "closed", code = "closed", not_sent = true }, false, false },
    { "an answer not understood", { kind = "protocol", code = "unexpected_response" }, false, false },
    { "a cancelled call", { kind = "cancelled", code = "cancelled" }, false, false },
    { "400", { kind = "http", status = 400 }, false, false },
    { "401", { kind = "http", status = 401 }, false, false },
    { "404", { kind = "http", status = 404 }, false, false },
    { "409", { kind = "http", status = 409 }, false, false },
    { "500", { kind = "http", status = 500 }, false, false },
    { "500 with a Retry-After", { kind = "http", status = 500, retry_after = 1 }, false, false },
    { "501", { kind = "http", status = 501 }, false, false },
    -- a gateway that may have passed it on
    { "502", { kind = "http", status = 502 }, false, true },
    { "502 of another kind", { kind = "http", status = 502, code = "X", message = "bad gateway" }, false, true },
    { "503", { kind = "http", status = 503 }, false, true },
    { "504", { kind = "http", status = 504 }, false, true },
    { "504 with a Retry-After", { kind = "http", status = 504, retry_after = 1 }, false, true },
    -- a server that says that it did nothing
    { "429", { kind = "http", status = 429 }, true, true },
    { "503 with a Retry-After", { kind = "http", status = 503, retry_after = 0 }, true, true },
    { "no backend", { kind = "http", status = 502, code = "BACKEND_CONNECTION_FAILED" }, true, true },
    { "no backend, in words", { kind = "http", status = 502, message = "Could not connect to the backend sandbox x: y" },
      true, true },
  }

  for _, case in ipairs(cases) do
    it(("finds %s %s"):format(case[1], case[3] and "harmless" or case[4] and "harmless for a read only" or "final"), function()
      local function copy()
        local err = {}
        for name, value in pairs(case[2]) do err[name] = value end
        return err
      end
      local err = copy()
      assert.equal(err, retry.set_retryable(err, false))
      assert.is_true(err.retryable == case[3])
      err = retry.set_retryable(copy(), true)
      assert.is_true(err.retryable == case[4])
    end)
  end

  it("overrules what was thought of it before", function()
    assert.is_false(retry.set_retryable({ kind = "http", status = 400, retryable = true }, true).retryable)
  end)
end)

describe("the wait before the next try", function()
  local policy = retry.policy { max_attempts = 10, base_delay = 0.1, max_delay = 0.5, max_retry_after = 3 }

  it("is random, at most doubles each time, and has a limit", function()
    for attempt = 1, 9 do
      local most = math.min(0.5, 0.1 * 2 ^ (attempt - 1))
      local lowest, highest = math.huge, 0
      for _ = 1, 300 do
        local delay = retry.delay(policy, attempt, { retryable = true }, 100)
        assert.is_true(delay >= 0 and delay <= most)
        lowest, highest = math.min(lowest, delay), math.max(highest, delay)
      end
      assert.is_true(lowest < most * 0.3 and highest > most * 0.7, "it is not spread")
    end
  end)

  it("is what the server asks at least, and none beyond patience, attempts and time", function()
    assert.is_true(retry.delay(policy, 1, { retryable = true, retry_after = 2 }, 100) >= 2)
    assert.is_nil(retry.delay(policy, 1, { retryable = true, retry_after = 3.1 }, 100))
    assert.is_nil(retry.delay(policy, 1, { retryable = true, retry_after = 2 }, 1.9))
    assert.is_nil(retry.delay(policy, 10, { retryable = true }, 100))
    assert.is_nil(retry.delay(policy, 1, { retryable = false }, 100))
    assert.is_nil(retry.delay(policy, 1, { retryable = true }, 0))
    assert.is_nil(retry.delay(policy, 1, { retryable = true, kind = "timeout", timer = "timeout" }, 100))
    assert.is_number(retry.delay(policy, 1, { retryable = true, kind = "timeout", timer = "connect_timeout" }, 100))
  end)

  it("has defaults, and a policy of one try for false", function()
    local default, off = retry.policy(nil), retry.policy(false)
    assert.equal(3, default.max_attempts)
    assert.equal(1, off.max_attempts)
    assert.is_nil(retry.delay(off, 1, { retryable = true }, 100))
    assert.equal(7, retry.policy({ max_attempts = 7 }).max_attempts)
    assert.equal(default.base_delay, retry.policy({ max_attempts = 7 }).base_delay)
  end)
end)

describe("a time limit that has passed", function()
  setup(function()
    server = fault_server.start [[
      return function(_, connection)
        connection:respond(200, { ["Content-Type"] = "application/json" }, '{"id":"s","status":{"state":"Running"}}')
      end
    ]]
  end)
  teardown(function()
    close_client()
    server:stop()
  end)

  it("leaves a request unsent, because a server nearby could answer it, and the error names the whole limit", function()
    assert(new():get_sandbox("early")) -- there is a connection now, to which a request could be written at once
    local limited = client:within(deadlines.since(core.now() - 10, 0.5))
    local calls = {
      function() return limited:get_sandbox("late") end,
      function() return limited:delete_sandbox("late") end,
      function() return limited:run_command(server.url, "true") end,
    }
    for _, call in ipairs(calls) do
      local value, err = call()
      assert.is_nil(value)
      assert.same({ "timeout", "timeout", "timeout", true }, { err.kind, err.code, err.timeout_option, err.not_sent })
      assert.truthy(err.message:find("timeout of 0.5 s ran out", 1, true), err.message)
    end
    assert(client:get_sandbox("last"))
    assert.equal(2, #server:requests(), "requests were sent after the limit")
  end)

  it("is no number in an error whose caller names the limit itself", function()
    local value, err = new():get_sandbox("late", { timeout = deadlines.new(0):remaining() })
    assert.is_nil(value)
    assert.same({ "timeout", "timeout", true }, { err.kind, err.timeout_option, err.not_sent })
    assert.equal("no time was left for the request", err.message)
  end)
end)
