--- The library's whole API while an allocation fails: torture [options] spec/torture/api.lua URL KEY DIRECTORY
--
-- Each call either raises or returns that memory has run out, or has its right result. Afterwards, without failing allocations, everything
-- works again, and nothing stays behind on the server. The server is a development server.

local url, key, directory = arg[1], arg[2], arg[3]

local core = require "opensandbox.core"
local is_out_of_memory = require "spec.torture.is_out_of_memory"
local opensandbox = require "opensandbox"
local read_file = require "spec.support.read_file"
local torture = rawget(_G, "torture")

local LIMIT = 10 -- seconds for what waits for the server
local CLOCK = 10 -- seconds: the client's time limits

local label -- metadata of the sandboxes of this run
do
  local file = assert(io.open("/proc/self/stat"))
  label = "p" .. file:read("*n")
  file:close()
end
local scratch = directory .. "/" .. label
local contents = ("0123456789"):rep(7000)

local function problem(...) torture.problem(string.format(...)) end

local function write(path, bytes)
  local file = io.open(path, "wb")
  if not file then return end
  file:write(bytes)
  file:close()
end

local armed = false
local failed = false -- something has failed, so that what depends on it may fail in another way

-- Makes a call and checks its result.
local function act(name, call, is_right)
  local ok, value, err = pcall(call)
  local outcome = ok and value ~= nil
  torture.outcome(outcome and 1 or 0)
  if not ok then err = value end
  if outcome then
    if not is_right(value) then problem("%s: a wrong result: %s", name, tostring(value)) end
    return value
  end
  failed = true
  if not armed or not is_out_of_memory(err) then
    problem("%s %s: %s", name, ok and "fails" or "raises", tostring(err):sub(1, 200))
  end
  return nil
end

local function is_true(value) return value == true end
local function is_table(value) return type(value) == "table" end
local function is_contents(value) return value == contents end
local function printed(text)
  return function(result) return result.stdout == text and result.exit_code == 0 end
end

-- Opens an object, calls `use` with it, and closes it. Returns what `use` returned.
local function with(object, err, use)
  if not object then return nil, err end
  local ok, value, problem_text = pcall(use, object)
  local closed, close_problem = pcall(object.close, object)
  if not ok then error(value, 0) end
  if not closed then error(close_problem, 0) end
  return value, problem_text
end

local function pieces()
  local position = 1
  return function()
    local piece = contents:sub(position, position + 20000)
    position = position + #piece
    return piece ~= "" and piece or nil
  end
end

local function of_sandbox(client, sandbox)
  local files = sandbox.files

  act("run", function() return sandbox:run "echo out; echo err >&2; exit 3" end, function(result)
    return result.stdout == "out\n" and result.stderr == "err\n" and result.exit_code == 3
  end)
  act("run a list", function() return sandbox:run { "printf", "%s|", "a b", "$c" } end, printed "a b|$c|\n")
  act("run with stdin", function() return sandbox:run("cat", { stdin = "input" }) end, printed "input\n")
  act("run durable", function() return sandbox:run("echo durable", { durable = true }) end, printed "durable\n")
  act("run exact", function() return sandbox:run("printf 'a\\r\\nb'", { capture = "exact" }) end, printed "a\r\nb")
  act("run with callbacks", function()
    local heard = {}
    local result, err = sandbox:run("echo heard", { on_stdout = function(text) heard[#heard + 1] = text end })
    return result and table.concat(heard), err
  end, function(text) return text == "heard\n" end)
  act("start", function()
    local command, err = sandbox:start "echo background; exit 2"
    if not command then return nil, err end
    local ended, problem_text = command:wait { timeout = LIMIT }
    if not ended then return nil, problem_text end
    local log, log_problem = command:logs()
    if not log then return nil, log_problem end
    return { ended.exit_code, log }
  end, function(ended) return ended[1] == 2 and ended[2] == "background\n" end)
  act("events", function()
    local command, err = sandbox:start "echo event"
    if not command then return nil, err end
    local texts = {}
    for event in command:events() do texts[#texts + 1] = event.text end
    return table.concat(texts)
  end, function(text) return text == "event\n" end)

  act("files:write", function() return files:write("/tmp/a", contents) end, is_true)
  act("files:write from a function", function() return files:write("/tmp/b", pieces(), { verify = true }) end, is_true)
  if not failed then act("files:read", function() return files:read "/tmp/b" end, is_contents) end
  act("files:write and read a path with $", function()
    local ok, err = files:write("/tmp/$c", "dollar")
    if not ok then return nil, err end
    return files:read "/tmp/$c"
  end, function(bytes) return bytes == "dollar" end)
  act("files:open", function()
    local reader, err = files:open "/etc/passwd"
    return with(reader, err, function()
      local first = reader:read("l")
      for _ in reader:lines() do first = first or "" end
      return first
    end)
  end, function(line) return line:find(":", 1, true) ~= nil end)
  act("files:mkdir", function() return files:mkdir "/tmp/d/e" end, is_true)
  act("files:list", function() return files:list "/tmp" end, is_table)
  act("files:exists", function() return files:exists "/tmp/none" or "no" end, function(value) return value == "no" end)
  act("files:search", function() return files:search("/tmp", "*") end, is_table)
  if not failed then
    act("files:stat", function() return files:stat "/tmp/a" end, function(info) return info.size == #contents end)
    act("files:chmod", function() return files:chmod("/tmp/a", "0600") end, is_true)
    act("files:replace", function()
      local count, err = files:replace("/tmp/a", "0123", "4567")
      if not armed or count ~= 0 then return count, err end
      local bytes, problem_text = files:read "/tmp/a" -- without its query, the request does not ask for the count
      return bytes and select(2, bytes:gsub("45674567", "")), problem_text
    end, function(count) return count == 7000 end)
    act("files:move", function() return files:move("/tmp/a", "/tmp/d/a") end, is_true)
    act("files:remove", function() return files:remove("/tmp/d", { recursive = true }) end, is_true)
  end
  write(scratch, contents)
  act("files:upload", function() return files:upload(scratch, "/tmp/up") end, is_true)
  if not failed then
    act("files:download", function() return files:download("/tmp/up", scratch .. ".down") end, is_true)
    if not failed and read_file(scratch .. ".down") ~= contents then problem "files:download: other bytes" end
  end
  act("files:upload_dir", function() return files:upload_dir(directory .. "/tree", "/tmp/tree") end, function(count)
    return count.files == 2
  end)
  if not failed then
    act("files:download_dir", function() return files:download_dir("/tmp/tree", scratch .. ".tree") end, function(count)
      return count.files == 2
    end)
    if not failed and read_file(scratch .. ".tree/sub/two") ~= "two" then problem "files:download_dir: other bytes" end
  end

  act("session", function()
    local session, err = sandbox:session { cwd = "/tmp" }
    return with(session, err, function() return session:run "echo session" end)
  end, printed "session\n")
  act("code", function()
    local code, err = sandbox:code "python"
    return with(code, err, function() return code:run "print(6 * 7)" end)
  end, function(result) return result.stdout == "42\n" end)
  act("terminal", function()
    local terminal, err = sandbox:terminal { command = "read line; echo got $line" }
    return with(terminal, err, function()
      local ok, write_problem = terminal:write "typed\n"
      if not ok then return nil, write_problem end
      return terminal:wait { timeout = LIMIT }
    end)
  end, function(exit_code) return exit_code == 0 end)

  act("info", function() return sandbox:info() end, function(info) return info.id == sandbox.id end)
  act("renew", function() return sandbox:renew(600) end, function(at) return type(at) == "number" end)
  act("patch_metadata", function() return sandbox:patch_metadata { stage = "two" } end, function(info)
    return info.metadata.stage == "two"
  end)
  act("endpoint", function() return sandbox:endpoint(8080) end, is_table)
  act("wait_for_file", function() return sandbox:wait_for_file("/etc/passwd", { timeout = LIMIT }) end, is_true)
  act("handle", function()
    local handle, err = sandbox:handle()
    if not handle then return nil, err end
    return client:connect(handle)
  end, is_table)
  act("egress", function()
    local ok, err = sandbox.egress:allow "example.com"
    if not ok then return nil, err end
    return sandbox.egress:policy()
  end, is_table)
  act("pause and resume", function()
    local ok, err = sandbox:pause()
    if not ok then return nil, err end
    return sandbox:resume()
  end, is_true)
end

local function of_client(client)
  act("create", function()
    local sandbox, err = client:create { image = "python:3.12", metadata = { label = label },
      network_policy = { default_action = "deny", egress = { { action = "allow", target = "example.org" } } } }
    return with(sandbox, err, function()
      of_sandbox(client, sandbox)
      return true
    end)
  end, is_true)
  act("list", function() return client:list_sandboxes { metadata = { label = label } } end, is_table)
  act("map", function()
    local results, problems = opensandbox.map({ 1, 2, 3 }, function(i)
      local alive, err = client:health()
      return alive and i or nil, err
    end, { concurrency = 2 })
    if problems then return nil, select(2, next(problems)) end
    return results
  end, function(results) return results[1] == 1 and results[3] == 3 end)
  act("pool", function()
    local pool = client:pool { image = "python:3.12", metadata = { label = label }, min_idle = 1, max_size = 2 }
    return with(pool, nil, function()
      local sandbox, err = pool:acquire { timeout = LIMIT }
      if not sandbox then return nil, err end
      local result, run_problem = sandbox:run "echo pooled"
      pool:release(sandbox)
      return result, run_problem
    end)
  end, printed "pooled\n")
  act("a sandbox that does not exist", function()
    local info, err = client:get_sandbox "none"
    if err and err.status == 404 then return true end
    return info and "a sandbox" or nil, err
  end, is_true)
end

-- Returns whether an allocation has failed, which no call needs to have noticed.
local function has_failed()
  if not armed then return false end
  local _, allocation_failed = torture.disarm()
  torture.arm()
  return allocation_failed
end

local client

local function all()
  client = nil
  client = opensandbox.new(url, key,
    { timeout = CLOCK, create_timeout = CLOCK, idle_timeout = CLOCK, transfer_idle_timeout = CLOCK })
  of_client(client)
  if not has_failed() then client:close() end -- without memory, a sandbox that could not be deleted yet would be given up
end

-- Once without failures: loads all modules, and proves that every call has its right result.
all()
local before = core.now()
failed, armed = false, true
torture.arm()
local ok, message = pcall(all)
local _, allocation_failed = torture.disarm()
armed = false
if not ok and not is_out_of_memory(message) then problem("raised: %s", tostring(message)) end
if failed and not allocation_failed then problem "a call failed without a failing allocation" end

-- Everything works again, and nothing is left on the server once the client is closed.
failed = false
if client then client:close() end
client = nil
collectgarbage()
collectgarbage()
local observer = opensandbox.new(url, key)
act("afterwards", function()
  local sandbox, err = observer:create { image = "python:3.12" }
  return with(sandbox, err, function() return sandbox:run "echo afterwards" end)
end, printed "afterwards\n")
local deadline = core.now() + LIMIT
local left
repeat
  left = observer:list_sandboxes { metadata = { label = label } }
  if left and #left > 0 then opensandbox.sleep(0.05) end
until not left or #left == 0 or core.now() > deadline
if not left or #left > 0 then problem("%s sandboxes are left", left and #left or "unknown") end
observer:close()
os.remove(scratch)
os.remove(scratch .. ".down")
for _, name in ipairs { "/one", "/sub/two", "/sub", "" } do os.remove(scratch .. ".tree" .. name) end
print(("%.2f s"):format(core.now() - before))
