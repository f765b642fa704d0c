--- Faults that only the program around this script can cause: torture spec/torture/faults.lua URL
--
-- Sockets that cannot be watched, names whose lookup hangs, and children that end in the ordinary way. The server is that of run.lua.

local core = require "opensandbox.core"
local torture = rawget(_G, "torture")

local url = arg[1]

local function problem(...) torture.problem(string.format(...)) end

local function get(multi, path, fields)
  local request = { method = "GET", url = url .. path, timeout = 20, may_repeat = true }
  for name, value in pairs(fields or {}) do request[name] = value end
  return multi:request(request)
end

local function drive(multi, transfer)
  local deadline = core.now() + 15
  while not transfer:outcome() and core.now() < deadline do multi:step(0.05) end
  return transfer:outcome()
end

-- A socket that the epoll set does not take ends its own transfer, with the reason; the others and all later ones go on. Newer versions
-- of libcurl may add a descriptor of their own before.
local hit = 0
for failing = 1, 6 do
  local multi, transfers, complete = core.multi(), {}, 0
  for i = 1, 4 do transfers[i] = get(multi, "/hello") end
  torture.fail_epoll(failing)
  for i = 1, 4 do
    local outcome, message = drive(multi, transfers[i])
    if outcome == "complete" then
      complete = complete + 1
    elseif outcome ~= "failed" or not message:find("cannot be watched: No space left", 1, true) then
      problem("epoll %d: %s, %s", failing, tostring(outcome), tostring(message))
    end
  end
  torture.fail_epoll(0)
  if complete < 3 then problem("epoll %d: %d complete", failing, complete) end
  hit = hit + 4 - complete
  if drive(multi, get(multi, "/hello")) ~= "complete" then problem("epoll %d: the next one fails", failing) end
  multi:close()
end

if hit ~= 4 then problem("epoll: %d transfers ended", hit) end

-- The lookup of a name hangs: clocks run, and nothing waits for it. The best of three tries counts, because this machine may be busy.
local MAX_WAIT = 0.2 -- seconds for step(0.1), and for close()

-- Returns how long the longest step(0.1) took, the whole transfer, and closing a transfer and a multi whose lookups hang.
local function try_lookups(try)
  local function look_up(multi, name, fields)
    local request = { url = ("http://slow-%s%d.invalid/"):format(name, try) }
    for key, value in pairs(fields or {}) do request[key] = value end
    return get(multi, "/", request)
  end
  local multi = core.multi()
  local transfer = look_up(multi, "connect", { connect_timeout = 0.3 })
  local began, longest = core.now(), 0
  while not transfer:outcome() do
    local before = core.now()
    multi:step(0.1)
    longest = math.max(longest, core.now() - before)
  end
  local took = core.now() - began
  if transfer:outcome() ~= "connect_timeout" then problem("lookup: %s", (transfer:outcome())) end
  local closing, left = look_up(multi, "close"), look_up(multi, "left")
  multi:step(0.05)
  if closing:outcome() or left:outcome() then problem "lookup: it has ended" end
  began = core.now()
  closing:close()
  local closed = core.now() - began
  began = core.now()
  multi:close()
  return { longest, took - 0.3, closed, core.now() - began }
end

local version = { core.curl_version:match("libcurl/(%d+)%.(%d+)") }
if tonumber(version[1]) * 1000 + tonumber(version[2]) >= 7087 then -- older versions wait for the lookup when they close
  torture.delay_lookups(3)
  local best
  for try = 1, 3 do
    best = try_lookups(try)
    if math.max(best[1], best[2], best[3], best[4]) <= MAX_WAIT then break end
  end
  if math.max(best[1], best[2], best[3], best[4]) > MAX_WAIT then
    problem("lookup: the longest step took %.2f s, the clock ran out %.2f s late, closing took %.2f and %.2f s", best[1], best[2],
      best[3], best[4])
  end
  local last = core.now() + 3.5 -- the threads that were left behind end by themselves, and then nothing of theirs stays
  while core.now() < last do core.poller():wait(0.1) end
end

-- Descriptors that libcurl opens while it looks up a name are not for children of the host.
do
  local function inheritable()
    local found = {}
    for _, fd in ipairs(core.list_directory("/proc/self/fd") or {}) do
      local info = tonumber(fd) > 2 and io.open("/proc/self/fdinfo/" .. fd)
      local flags = info and info:read("*a"):match("flags:%s*(%d+)")
      if info then info:close() end
      if flags and math.floor(tonumber(flags, 8) / tonumber("2000000", 8)) % 2 == 0 then found[fd] = true end
    end
    return found
  end
  local before = inheritable()
  torture.delay_lookups(0.5)
  local multi = core.multi()
  local transfer = get(multi, "/", { url = "http://slow4.invalid/" })
  for _ = 1, 5 do multi:step(0.02) end
  for fd in pairs(inheritable()) do
    if not before[fd] then problem("descriptor %s would be inherited by a child", fd) end
  end
  drive(multi, transfer)
  multi:close()
end

-- A child that ends in the ordinary way closes its Lua state, and with it what it inherited; the parent must not notice.
for _, way in ipairs { "exit", "close", "step" } do
  local multi = core.multi()
  local transfer = get(multi, "/slow")
  local poller = core.poller()
  if multi:pollfd() then poller:watch(multi:pollfd()) end
  for _ = 1, 5 do multi:step(0.02) end
  local pid = torture.fork()
  if pid == 0 then
    if way == "close" then transfer:close() end
    if way == "step" then
      multi:step(0)
      if transfer:outcome() ~= "forked" then os.exit(1, true) end
      if drive(multi, get(multi, "/hello")) ~= "complete" then os.exit(2, true) end
    end
    os.exit(0, true)
  end
  local status = torture.wait(pid)
  if status ~= 0 then problem("fork, %s: the child exits with %d", way, status) end
  if drive(multi, transfer) ~= "complete" then problem("fork, %s: %s", way, tostring(transfer:outcome())) end
  multi:close()
  poller:close()
end
