--- The core's whole API while an allocation fails: torture [options] spec/torture/core.lua URL DIRECTORY
--
-- Each piece of work either raises, or ends with an outcome; one that ends well must have the right result. Afterwards, without failing
-- allocations, everything works again. The server is that of run.lua.

local core = require "opensandbox.core"
local torture = rawget(_G, "torture")

local url, directory = arg[1], arg[2]
local sink = os.tmpname() -- several of these scripts run at the same time
os.remove(sink)
local BODY = 700000 -- bytes of /body
local TIMEOUT = 8   -- seconds. libcurl 8.23 loses some failures of its allocations: then this clock ends the transfer
local MAX_WAIT = 12 -- seconds for one transfer

local function problem(...) torture.problem(string.format(...)) end

-- Errors that say that memory has run out. The last is how Lua 5.4.4 says it where its own buffers cannot grow.
local function is_out_of_memory(message)
  return message:find("not enough memory", 1, true) or message:find("Cannot allocate memory", 1, true)
    or message:find("got a non-closable value", 1, true)
end

local current      -- the name of the work that runs
local outcomes = {} -- the last one of each

-- Steps until a transfer has ended; `each` is called after every step.
local function drive(multi, transfer, each)
  local deadline = core.now() + MAX_WAIT
  while not transfer:outcome() do
    multi:step(0.001)
    if each then each() end
    if core.now() > deadline then
      problem("a transfer hangs")
      return "hangs"
    end
  end
  outcomes[current] = transfer:outcome()
  return outcomes[current]
end

local function get(multi, path, fields)
  local request = { method = "GET", url = url .. path, headers = { "A: b", "Empty:" }, timeout = TIMEOUT, may_repeat = true }
  for name, value in pairs(fields or {}) do request[name] = value end
  return multi:request(request)
end

-- The bytes of /body at some offset: each tells its place.
local function byte_at(offset) return (offset + math.floor(offset / 251)) % 251 end

local function check_body(bytes, offset)
  for index = 1, #bytes, 997 do
    if bytes:byte(index) ~= byte_at(offset + index - 1) then return false end
  end
  return true
end

local work = {}

function work.get(multi)
  local transfer = get(multi, "/hello")
  local outcome = drive(multi, transfer)
  if outcome == "complete" then
    local status, lines = transfer:head()
    local body = transfer:read(100)
    if status ~= 200 or not lines:find("X-Test: a", 1, true) or body ~= "hello" then
      problem("get: %s %s", status, tostring(body))
    end
  end
  transfer:close()
end

-- A body that is longer than the queue, read slowly: it pauses and resumes.
function work.pauses(multi)
  local transfer = get(multi, "/body", { high_water = 65536 })
  local received, steps = 0, 0
  local function read()
    local bytes = transfer:read(50000)
    if not bytes then return false end
    if not check_body(bytes, received) then problem("pauses: wrong bytes") end
    received = received + #bytes
    return true
  end
  local outcome = drive(multi, transfer, function()
    steps = steps + 1
    if steps % 2 == 0 then read() end
  end)
  while read() do end
  if outcome == "complete" and received ~= BODY then problem("pauses: complete with %d of %d bytes", received, BODY) end
  transfer:close()
end

function work.post(multi)
  local transfer = multi:request { method = "POST", url = url .. "/echo", body = ("b"):rep(3000), timeout = TIMEOUT }
  if drive(multi, transfer) == "complete" and transfer:read(1e6) ~= ("b"):rep(3000) then problem("post: another body came back") end
  transfer:close()
end

-- Parts from memory, from a file and from a reader that is slower than the network.
function work.parts(multi)
  local left = 5
  local transfer = multi:request {
    method = "POST", url = url .. "/count", boundary = "xyz", timeout = TIMEOUT,
    headers = { "Content-Type: multipart/form-data; boundary=xyz" },
    parts = {
      { name = "a", filename = "a", type = "application/json", data = "{}" },
      { name = "b", filename = "b", path = directory .. "/upload" },
      { name = "c", filename = "c", reader = true },
    },
  }
  local outcome = drive(multi, transfer, function()
    local part = transfer:wants()
    if part and left > 0 then
      left = left - 1
      transfer:write(part, ("r"):rep(90000))
    elseif part then
      transfer:write(part, nil)
    end
  end)
  if outcome == "complete" then
    local counted = tonumber(transfer:read(100)) or 0
    if counted < 2 + 100000 + 5 * 90000 then problem("parts: complete, but only %d bytes arrived", counted) end
  end
  transfer:close()
end

function work.sink(multi)
  local transfer = get(multi, "/body", { sink = sink, sink_mode = 384 })
  if drive(multi, transfer) == "complete" then
    local _, size = core.stat(sink)
    if size ~= BODY then problem("sink: complete with %s bytes", tostring(size)) end
  end
  transfer:close()
  os.remove(sink)
end

function work.events(multi)
  local transfer = get(multi, "/events", { max_event = 100000, high_water = 20000 })
  local count, failure = 0, nil
  local function take()
    for _ = 1, 40 do
      local stream, text, why = transfer:next_output()
      if not stream and not text then
        failure = failure or why
        return false
      end
      count = count + 1
    end
    return true
  end
  local outcome = drive(multi, transfer, take)
  while take() do end
  if outcome == "complete" and not failure and count ~= 1500 then problem("events: complete with %d of 1500", count) end
  transfer:close()
end

function work.refused(multi)
  local transfer = multi:request { method = "GET", url = "http://127.0.0.1:1/", timeout = TIMEOUT }
  if drive(multi, transfer) == "complete" then problem "refused: complete" end
  transfer:close()
end

function work.name(multi)
  local transfer = get(multi, "/hello", { url = url:gsub("127%.0%.0%.1", "localhost") .. "/hello" })
  if drive(multi, transfer) == "complete" and transfer:read(100) ~= "hello" then problem "name: another body" end
  transfer:close()
end

function work.broken(multi)
  for _, path in ipairs { "/cut", "/garbage", "/switch" } do
    local transfer = get(multi, path)
    if drive(multi, transfer) == "complete" then problem("broken: %s is complete", path) end
    transfer:close()
  end
end

function work.many(multi)
  local transfers = {}
  for i = 1, 5 do transfers[i] = get(multi, "/hello") end
  for i = 1, 5 do drive(multi, transfers[i]) end
  while multi:changed() do end
  for i = 1, 5 do transfers[i]:close() end
end

function work.detached(multi)
  get(multi, "/hello"):detach(2, true)
  get(multi, "/silence"):detach(0.05)
  multi:step(0.02)
  get(multi, "/silence"):close()
end

function work.descriptors(multi)
  local poller = core.poller()
  if multi:pollfd() then poller:watch(multi:pollfd()) end
  poller:alarm(0.001)
  poller:wait(0.01)
  poller:close()
  local notifier = core.notifier()
  if notifier then
    notifier:path()
    notifier:close()
  end
end

function work.files()
  local names = core.list_directory(directory)
  if names and #names < 1 then problem "files: an empty list" end
  core.lstat(directory)
  core.stat(directory)
  core.random(8)
end

function work.decoder()
  local stream = core.event_stream(1000)
  stream:feed("data: a\ndata: b\n\n{x}\n")
  local first, second = stream:next(), stream:next()
  if first and first ~= "a\nb" or second and second ~= "{x}" then problem("decoder: %s, %s", tostring(first), tostring(second)) end
end

-- Messages that come back, a ping that is answered, and the closing handshake.
function work.websocket(multi)
  local transfer = multi:websocket {
    url = url .. "/websocket", timeout = TIMEOUT, receive_high_water = 4000, send_high_water = 4000,
  }
  local sent, received, largest = 0, 0, 3000
  local outcome = drive(multi, transfer, function()
    while sent < 20 do
      local accepted = transfer:send("binary", ("m"):rep(largest - sent))
      if not accepted then break end
      sent = sent + 1
    end
    local kind, bytes = transfer:receive()
    if kind then
      if bytes ~= ("m"):rep(largest - received) then problem("websocket: another message came back") end
      received = received + 1
    end
    if received == 20 then transfer:send_close(1000, "done") end
  end)
  if outcome == "complete" and (received ~= 20 or transfer:close_status() ~= 1000) then
    problem("websocket: complete with %d messages", received)
  end
  transfer:close()
end

function work.codec()
  local reader = core.websocket_reader(1000, true)
  reader:feed(core.websocket_frame("text", "hello", "mask"))
  local kind, bytes = reader:next()
  if kind and bytes ~= "hello" then problem "codec: another text" end
  core.websocket_close_frame(1000, "bye")
end

local ORDER = {
  "get", "pauses", "post", "parts", "sink", "events", "refused", "name", "broken", "many", "detached", "websocket", "descriptors",
  "files", "decoder", "codec",
}

local function all()
  torture.arm()
  local multi = core.multi()
  for _, name in ipairs(ORDER) do
    current = name
    local ok, message = pcall(work[name], multi)
    if not ok and not is_out_of_memory(tostring(message)) then problem("%s raised: %s", name, tostring(message)) end
  end
  multi:close()
end

local ok, message = pcall(all)
local _, failed = torture.disarm()
for _, name in ipairs { "get", "pauses", "post", "parts", "sink", "events", "name", "websocket" } do
  if not failed and outcomes[name] ~= "complete" then problem("%s: %s without a failure", name, tostring(outcomes[name])) end
end
if not ok and not is_out_of_memory(tostring(message)) then problem("raised: %s", tostring(message)) end

current = "afterwards"
collectgarbage()
local multi = core.multi()
local transfer = get(multi, "/hello")
if drive(multi, transfer) ~= "complete" then problem("afterwards: %s", tostring(select(2, transfer:outcome()))) end
multi:close()
os.remove(sink)
