--- The tables of closing.lua: objects, uses, closings and places.
--
-- A combination has a context, whose fields are objects. The first use of a field makes the object.

local leave_garbage = require "spec.support.leave_garbage"
local opensandbox = require "opensandbox"

local IMAGE = "python:3.12"
local CONTENT = ("content"):rep(40000)
local LARGE = ("x"):rep(8 * 1024 * 1024) -- bytes: more than the buffers on the way take
local FIRST_DELAY = 0.1                  -- seconds until a use waits
local CLOSE_SECONDS = 1                  -- the time limit of a closing that sends a request to a silent peer

local matrix = { IMAGE = IMAGE, CONTENT = CONTENT }

--- Makes the objects, by the field of the context. closing.lua sets the fields `client`, `metadata` (of every sandbox), `own` (a directory),
--- `upload` (a file) and `tree` (its directory).
matrix.objects = {
  sandbox = function(c)
    local sandbox = assert(c.client:create { image = IMAGE, metadata = c.metadata,
      extensions = { ["bootstrap.execd.isolation"] = "enable" } })
    assert(sandbox.files:write("./tmp/file", CONTENT .. "\n" .. CONTENT))
    return sandbox
  end,
  session = function(c) return assert(c.sandbox:session()) end,
  code = function(c) return assert(c.sandbox:code "python") end,
  isolated = function(c)
    assert(c.sandbox.files:mkdir "/work")
    return assert(c.sandbox:isolated { workspace = "/work" })
  end,
  command = function(c) return assert(c.sandbox:start "echo a; sleep 60") end,
  ["short command"] = function(c) return assert(c.sandbox:start "echo a; sleep 0.1; echo b") end,
  input = function(c) return assert(c.sandbox:start("sleep 60", { stdin = true })) end,
  reader = function(c) return assert(c.sandbox.files:open "./tmp/file") end,
  ["large reader"] = function(c)
    assert(c.sandbox:run "head -c 60000000 /dev/zero > ./large")
    return assert(c.sandbox.files:open "/large")
  end,
  stream = function(c) return (c.sandbox:stream "echo a; sleep 60") end,
  watcher = function(c)
    assert(c.sandbox.files:mkdir "/watched")
    return (c.sandbox.files:watch("/watched", { interval = 0.05 }))
  end,
  terminal = function(c)
    local terminal = assert(c.sandbox:terminal { command = "echo ready; sleep 60" })
    repeat until assert(terminal:read(10)):find "ready"
    return terminal
  end,
  connection = function(c)
    local execd = assert(c.client:discover_execd(c.sandbox.id))
    local id = assert(c.client:create_pty_session(execd, { command = "sleep 60" }))
    local connection = assert(c.client:connect_pty_session(execd, id))
    assert(connection:receive(10))
    return connection
  end,
  metrics = function(c) return assert(c.client:watch_metrics(assert(c.client:discover_execd(c.sandbox.id)))) end,
  pool = function(c) return c.client:pool { image = IMAGE, metadata = c.metadata, min_idle = 0, max_size = 1 } end,
  ["full pool"] = function(c)
    local pool = c.client:pool { image = IMAGE, metadata = c.metadata, min_idle = 0, max_size = 1 }
    c.held = assert(pool:acquire()) -- a sandbox that nobody holds is deleted
    return pool
  end,
  ["slow pool"] = function(c)
    return c.client:pool { image = IMAGE, metadata = c.metadata, min_idle = 2, max_size = 2, max_creates_per_second = 0.02 }
  end,
}

--- What is closed. `object`: the field of the context; without it, what every use depends on. `kinds`: those of the error that a use gets which
--- waits. `is_local`: the wait ends because of the closing, whatever the peer does. `blocks`: nothing else continues in its last fifth of a second
--- if the peer is silent.
matrix.closings = {
  ["the client"] = { close = function(c) c.client:close() end, kinds = { closed = true }, is_local = true, blocks = true },
  ["the task"] = { close = function(c) c.task:cancel() end, kinds = { cancelled = true }, is_local = true },
  ["the sandbox"] = { object = "sandbox", close = function(c) c.sandbox:close() end, kinds = { state = true, closed = true } },
  ["the sandbox's id"] = { object = "sandbox", close = function(c) c.client:delete_sandbox(c.sandbox.id) end,
    kinds = { state = true } },
  ["the session"] = { object = "session", close = function(c) c.session:close() end, kinds = { closed = true } },
  ["the code context"] = { object = "code", close = function(c) c.code:close() end, kinds = { closed = true } },
  ["the isolated session"] = { object = "isolated", close = function(c) c.isolated:close() end, kinds = { closed = true } },
  ["the command"] = { object = "command", close = function(c) c.command:kill() end, kinds = {} },
  ["the command with input"] = { object = "input", close = function(c) c.input:kill() end, kinds = { state = true } },
  ["the reader"] = { object = "reader", close = function(c) c.reader:close() end, kinds = { closed = true }, is_local = true },
  ["the large reader"] = { object = "large reader", close = function(c) c["large reader"]:close() end, kinds = { closed = true },
    is_local = true },
  ["the stream"] = { object = "stream", close = function(c) c.stream:close() end, kinds = { closed = true }, is_local = true },
  ["the watcher"] = { object = "watcher", close = function(c) c.watcher:close() end, kinds = { closed = true }, is_local = true },
  ["the terminal"] = { object = "terminal", close = function(c) c.terminal:close { timeout = CLOSE_SECONDS } end,
    kinds = { closed = true }, is_local = true },
  ["the connection"] = { object = "connection", close = function(c) c.connection:abort() end, kinds = { closed = true },
    is_local = true },
  ["the metrics"] = { object = "metrics", close = function(c) c.metrics:close() end, kinds = { closed = true }, is_local = true },
  ["the pool"] = { object = "pool", close = function(c) c.pool:close { timeout = CLOSE_SECONDS } end, kinds = { closed = true },
    is_local = true },
  ["the full pool"] = { object = "full pool", close = function(c) c["full pool"]:close { timeout = CLOSE_SECONDS } end,
    kinds = { closed = true }, is_local = true },
  ["the slow pool"] = { object = "slow pool", close = function(c) c["slow pool"]:close { timeout = CLOSE_SECONDS } end,
    kinds = { closed = true }, is_local = true },
}

-- What the peer does: "answers"; "falls silent" in the moment of the closing; "is silent" or "is busy" (503 with Retry-After) when the use
-- begins.
local FALLS_SILENT = { "answers", "falls silent" }
local ALL_SILENT = { "answers", "falls silent", "is silent" }
local IS_SILENT, FAILS = { "is silent" }, { "is silent", "is busy" }

-- Calls a method until it returns nil. Returns its error.
local function exhaust(object, method, ...)
  while true do
    local value, err = object[method](object, ...)
    if value == nil then return nil, err end
  end
end

local function iterate(iterator)
  for _ in iterator do end -- luacheck: ignore 542
  return true
end

--- Uses that wait. `op` of the error; `of`: the objects on which the use depends, which closing one must end; `peers`; `sends`: the hook
--- on_request is called in it. It does not end by itself.
matrix.waits = {
  ["run"] = { op = "sandbox:run", of = { "sandbox" }, peers = ALL_SILENT, sends = true,
    call = function(c) return c.sandbox:run "echo a; sleep 60" end },
  ["a durable run"] = { op = "sandbox:run", of = { "sandbox" }, peers = ALL_SILENT, sends = true,
    call = function(c) return c.sandbox:run("echo a; sleep 60", { durable = true }) end },
  ["an exact run"] = { op = "sandbox:run", of = { "sandbox" }, peers = ALL_SILENT, sends = true,
    call = function(c) return c.sandbox:run("echo a; sleep 60", { capture = "exact" }) end },
  ["start"] = { op = "sandbox:start", of = { "sandbox" }, peers = IS_SILENT, sends = true,
    call = function(c) return c.sandbox:start "sleep 60" end },
  ["start with input"] = { op = "sandbox:start", of = { "sandbox" }, peers = IS_SILENT, sends = true,
    call = function(c) return c.sandbox:start("sleep 60", { stdin = true }) end },
  ["stream:next"] = { op = "sandbox:stream", of = { "sandbox", "stream" }, peers = ALL_SILENT, sends = true,
    call = function(c) return exhaust(c.stream, "next") end },
  ["command:wait"] = { op = "command:wait", of = { "sandbox", "command" }, peers = ALL_SILENT, sends = true,
    values = { ["the command"] = true }, call = function(c) return c.command:wait() end },
  ["command:events"] = { op = "command:events", of = { "sandbox", "command" }, peers = ALL_SILENT, sends = true,
    values = { ["the command"] = true }, call = function(c) return iterate(c.command:events()) end },
  ["wait_for_log"] = { op = "sandbox:wait_for_log", of = { "sandbox", "command" }, peers = ALL_SILENT, sends = true,
    kinds = { ["the command"] = { state = true } },
    call = function(c) return c.sandbox:wait_for_log(c.command, "never", { timeout = 60 }) end },
  ["wait_for_port"] = { op = "sandbox:wait_for_port", of = { "sandbox" }, peers = ALL_SILENT, sends = true,
    call = function(c) return c.sandbox:wait_for_port(9, { timeout = 60 }) end },
  ["wait_for_file"] = { op = "sandbox:wait_for_file", of = { "sandbox" }, peers = ALL_SILENT, sends = true,
    call = function(c) return c.sandbox:wait_for_file("./tmp/never", { timeout = 60 }) end },
  ["wait_for_url"] = { op = "sandbox:wait_for_url", of = { "sandbox" }, peers = ALL_SILENT, sends = true,
    call = function(c) return c.sandbox:wait_for_url(9, "/", { timeout = 60 }) end },
  ["command:write"] = { op = "command:write", of = { "sandbox", "input" }, peers = FALLS_SILENT,
    call = function(c) return c.input:write(LARGE) end },
  ["command:close_stdin"] = { op = { ["command:close_stdin"] = true, ["command:write"] = true }, of = { "sandbox", "input" },
    peers = FALLS_SILENT, values = { ["the command with input"] = true },
    call = function(c)
      assert(c.input:write(LARGE:sub(1, 900000)))
      return c.input:close_stdin()
    end },
  ["terminal:read"] = { op = "terminal:read", of = { "sandbox", "terminal" }, peers = FALLS_SILENT,
    call = function(c) return c.terminal:read() end },
  ["terminal:wait"] = { op = "terminal:wait", of = { "sandbox", "terminal" }, peers = FALLS_SILENT,
    call = function(c) return c.terminal:wait() end },
  ["terminal:output"] = { op = "terminal:output", of = { "sandbox", "terminal" }, peers = FALLS_SILENT,
    call = function(c) return iterate(c.terminal:output()) end },
  ["terminal:write"] = { op = "terminal:write", of = { "sandbox", "terminal" }, peers = IS_SILENT,
    call = function(c) return c.terminal:write(LARGE) end },
  ["terminal"] = { op = "sandbox:terminal", of = { "sandbox" }, peers = IS_SILENT, sends = true,
    call = function(c) return c.sandbox:terminal { command = "sleep 60" } end },
  ["attaching a terminal"] = { op = "sandbox:terminal", of = { "sandbox" }, needs = { "terminal" }, peers = FAILS, sends = true,
    call = function(c) return c.sandbox:terminal { id = c.terminal.id, takeover = true } end },
  ["connection:receive"] = { op = "connect_pty_session", of = { "sandbox", "connection" }, peers = FALLS_SILENT,
    kinds = { ["the sandbox"] = { state = true, stream = true }, ["the sandbox's id"] = { state = true, stream = true } },
    call = function(c) return exhaust(c.connection, "receive") end },
  ["metrics:next"] = { op = "watch_metrics", of = { "sandbox", "metrics" }, peers = { "falls silent", "is silent" },
    call = function(c) return exhaust(c.metrics, "next") end },
  ["watcher:next"] = { op = "files:watch", of = { "sandbox", "watcher" }, peers = ALL_SILENT, sends = true,
    call = function(c) return c.watcher:next() end },
  ["files:read"] = { op = "files:read", of = { "sandbox" }, peers = FAILS, sends = true,
    call = function(c) return c.sandbox.files:read "./tmp/file" end },
  ["files:stat"] = { op = "files:stat", of = { "sandbox" }, peers = FAILS, sends = true,
    call = function(c) return c.sandbox.files:stat "./tmp/file" end },
  ["files:download"] = { op = "files:download", of = { "sandbox" }, peers = FAILS, sends = true,
    call = function(c) return c.sandbox.files:download("./tmp/file", c.own .. "/down") end },
  ["files:download_dir"] = { op = "files:download_dir", of = { "sandbox" }, peers = IS_SILENT, sends = true,
    call = function(c) return c.sandbox.files:download_dir("./tmp", c.own .. "/tree") end },
  ["files:upload"] = { op = "files:upload", of = { "sandbox" }, peers = IS_SILENT, sends = true,
    call = function(c) return c.sandbox.files:upload(c.upload, "./tmp/up") end },
  ["files:upload_dir"] = { op = "files:upload_dir", of = { "sandbox" }, peers = IS_SILENT, sends = true,
    call = function(c) return c.sandbox.files:upload_dir(c.tree, "./tmp/up") end },
  -- The development server receives an upload to the end, although its sandbox was deleted, and this one has none.
  ["files:write from a reader function"] = { op = "files:write", of = {}, needs = { "sandbox" }, peers = ALL_SILENT, sends = true,
    call = function(c) return c.sandbox.files:write("./tmp/written", function() return "" end) end },
  ["run with a reader function"] = { op = "sandbox:run", of = {}, needs = { "sandbox" }, peers = ALL_SILENT, sends = true,
    call = function(c) return c.sandbox:run("cat", { stdin = function() return "" end }) end },
  ["reader:read"] = { op = "files:open", of = { "sandbox", "large reader" }, peers = { "is silent" },
    call = function(c) return exhaust(c["large reader"], "read", 5000) end },
  ["session:run"] = { op = "session:run", of = { "sandbox", "session" }, peers = ALL_SILENT, sends = true,
    values = { ["the session"] = true }, call = function(c) return c.session:run "echo a; sleep 60" end },
  ["session"] = { op = "sandbox:session", of = { "sandbox" }, peers = IS_SILENT, sends = true,
    call = function(c) return c.sandbox:session() end },
  ["code:run"] = { op = "code:run", of = { "sandbox", "code" }, peers = ALL_SILENT, sends = true,
    kinds = { ["the code context"] = { state = true, http = true } },
    call = function(c) return c.code:run "import time; time.sleep(60)" end },
  ["code"] = { op = "sandbox:code", of = { "sandbox" }, peers = IS_SILENT, sends = true,
    call = function(c) return c.sandbox:code "python" end },
  ["isolated:run"] = { op = "isolated:run", of = { "sandbox", "isolated" }, peers = ALL_SILENT, sends = true,
    kinds = { ["the isolated session"] = { closed = true, state = true } },
    call = function(c) return c.isolated:run "echo a; sleep 60" end },
  ["isolated"] = { op = "sandbox:isolated", of = { "sandbox" }, peers = IS_SILENT, sends = true,
    call = function(c) return c.sandbox:isolated { workspace = "/work" } end },
  ["pool:acquire"] = { op = "pool:acquire", of = { "full pool" }, peers = FALLS_SILENT,
    call = function(c) return c["full pool"]:acquire { timeout = 60 } end },
  ["pool:acquire of a new one"] = { op = "pool:acquire", of = { "pool" }, peers = FAILS, sends = true,
    call = function(c) return c.pool:acquire { timeout = 60 } end },
  ["pool:fill"] = { op = "pool:fill", of = { "slow pool" }, peers = ALL_SILENT,
    call = function(c) return c["slow pool"]:fill() end },
  ["create"] = { op = "create", of = {}, peers = FAILS, sends = true,
    call = function(c) return c.client:create { image = IMAGE, metadata = c.metadata } end },
  ["list_sandboxes"] = { op = "list_sandboxes", of = {}, peers = FAILS, sends = true,
    call = function(c) return c.client:list_sandboxes() end },
  ["metrics"] = { op = "sandbox:metrics", of = { "sandbox" }, peers = FAILS, sends = true,
    call = function(c) return c.sandbox:metrics() end },
  ["egress:policy"] = { op = "egress:policy", of = { "sandbox" }, peers = FAILS, sends = true,
    call = function(c) return c.sandbox.egress:policy() end },
  ["wait_ready"] = { op = "wait_ready", of = { "sandbox" }, peers = FAILS, sends = true,
    call = function(c) return c.client:wait_ready(c.sandbox.id, { timeout = 60 }) end },
  ["a name lookup"] = { op = "list_sandboxes", of = {}, peers = { "has a slow name" }, sends = true,
    call = function(c) return c.client:list_sandboxes() end },
  ["a create with a name lookup"] = { op = "create", of = {}, peers = { "has a slow name" }, sends = true,
    call = function(c) return c.client:create { image = IMAGE, metadata = c.metadata } end },
}

-- The command has ended before its sandbox was deleted, and its output went with the sandbox.
local OUTPUT_GONE = { ["the sandbox"] = { state = true, stream = true, closed = true },
  ["the sandbox's id"] = { state = true, stream = true } }

--- Uses that call a function of the user: `close` is called there. They may succeed, and leave nothing that waits.
matrix.callbacks = {
  ["on_stdout of run"] = { op = "sandbox:run", call = function(c, close)
    return c.sandbox:run("echo a; sleep 0.05; echo b", { on_stdout = close })
  end },
  ["on_event of run"] = { op = "sandbox:run", call = function(c, close) return c.sandbox:run("echo a", { on_event = close }) end },
  ["a finalizer in on_event of run"] = { op = "sandbox:run", call = function(c, close)
    local result, err
    repeat -- no finalizer runs while that of another combination waits
      result, err = c.sandbox:run("echo a; echo b; sleep 0.1", { on_event = function()
        leave_garbage(close)
        collectgarbage()
      end })
    until c.closed_at
    return result, err
  end },
  ["on_stdout of a durable run"] = { op = "sandbox:run", call = function(c, close)
    return c.sandbox:run("echo a; sleep 0.05; echo b", { durable = true, on_stdout = close })
  end },
  ["on_stdout of an exact run"] = { op = "sandbox:run", kinds = OUTPUT_GONE, call = function(c, close)
    return c.sandbox:run("echo a", { capture = "exact", on_stdout = close })
  end },
  ["on_stdout of session:run"] = { op = "session:run", of = "session", call = function(c, close)
    return c.session:run("echo a; sleep 0.05; echo b", { on_stdout = close })
  end },
  ["on_stdout of code:run"] = { op = "code:run", of = "code", call = function(c, close)
    return c.code:run("print(1)", { on_stdout = close })
  end },
  ["on_stdout of isolated:run"] = { op = "isolated:run", of = "isolated", kinds = { ["the isolated session"] = { state = true } },
    call = function(c, close)
      return c.isolated:run("echo a; sleep 0.05; echo b", { on_stdout = close })
    end },
  ["a reader function of files:write"] = { op = "files:write", call = function(c, close)
    local count = 3
    return c.sandbox.files:write("./tmp/written", function()
      count = count - 1
      if count == 1 then close() end
      return count > 0 and CONTENT or nil
    end)
  end },
  ["a reader function of stdin"] = { op = "sandbox:run", call = function(c, close)
    local count = 2
    return c.sandbox:run("cat", { stdin = function()
      count = count - 1
      close()
      return count > 0 and "input" or nil
    end })
  end },
  ["on_progress of files:upload"] = { op = "files:upload", call = function(c, close)
    return c.sandbox.files:upload(c.upload, "./tmp/up", { on_progress = close })
  end },
  ["on_progress of files:download"] = { op = "files:download", call = function(c, close)
    return c.sandbox.files:download("./tmp/file", c.own .. "/down", { on_progress = close })
  end },
  ["on_progress of files:upload_dir"] = { op = "files:upload_dir", call = function(c, close)
    return c.sandbox.files:upload_dir(c.tree, "./tmp/up", { on_progress = close })
  end },
  ["on_progress of files:download_dir"] = { op = "files:download_dir", call = function(c, close)
    return c.sandbox.files:download_dir("./tmp", c.own .. "/tree", { on_progress = close })
  end },
  ["on_request of run"] = { op = "sandbox:run", call = function(c, close)
    c.on_request = close
    return c.sandbox:run "echo a"
  end },
  ["on_response of files:read"] = { op = "files:read", call = function(c, close)
    c.on_response = close
    return c.sandbox.files:read "./tmp/file"
  end },
  ["on_state of create"] = { op = "create", call = function(c, close)
    return c.client:create { image = IMAGE, metadata = c.metadata, on_state = close }
  end },
  ["check of a pool"] = { op = "pool:acquire", call = function(c, close)
    local pool = c.client:pool { image = IMAGE, metadata = c.metadata, min_idle = 1, max_size = 1, check = function()
      close()
      return true
    end }
    local ok, err = pool:fill()
    if not ok then return nil, err end
    local sandbox, problem = pool:acquire()
    if sandbox then sandbox:close() end
    return sandbox and true, problem
  end },
  ["the events of a command"] = { op = "command:events", of = "short command", call = function(c, close)
    for _ in c["short command"]:events() do close() end
    return true
  end },
  ["the events of a stream"] = { op = "sandbox:stream", call = function(c, close)
    for _ in c.sandbox:stream "echo a; sleep 0.1; echo b" do close() end
    return true
  end },
  ["the lines of a reader"] = { op = "files:open", of = "reader", call = function(c, close)
    for _ in c.reader:lines() do close() end
    return true
  end },
  ["the changes of a watcher"] = { op = "files:watch", of = "watcher", call = function(c, close)
    local watcher = c.watcher
    assert(c.sandbox.files:write("/watched/new", "new"))
    local change, err = watcher:next()
    close()
    return change, err
  end },
  ["on_output of a terminal"] = { op = { ["sandbox:terminal"] = true, ["terminal:wait"] = true }, call = function(c, close)
    local terminal, err = c.sandbox:terminal { command = "echo a; sleep 0.1; echo b", on_output = close }
    if not terminal then return nil, err end
    local code, problem = terminal:wait { timeout = 5 }
    terminal:close()
    return code, problem
  end },
  ["__index of the options"] = { op = "sandbox:run", call = function(c, close)
    return c.sandbox:run("echo a", setmetatable({}, { __index = function() close() end }))
  end },
}

-- Places from which a wait is closed.

local function later(close)
  opensandbox.spawn(function()
    opensandbox.sleep(FIRST_DELAY)
    close()
  end)
end

--- Each place makes a wait and closes something during it. `needs_request`: only for waits that send requests. `op`: of the error of a
--- cancelled task, in place of that of the wait. `blocks`: nothing else continues while the closing waits for a silent peer.
matrix.places = {
  ["another task"] = { run = function(c, use, close)
    later(close)
    return use.call(c)
  end },
  ["a finalizer"] = { blocks = true, run = function(c, use, close)
    later(function()
      while not c.is_closed do
        leave_garbage(close)
        opensandbox.sleep(0.01)
      end
    end)
    return use.call(c)
  end },
  ["on_request"] = { needs_request = true, run = function(c, use, close)
    c.on_request = close
    return use.call(c)
  end },
  ["a task of map"] = { op = "map", run = function(c, use, close)
    local results, errs = opensandbox.map({ use.call, function()
      opensandbox.sleep(FIRST_DELAY)
      close()
      return true
    end }, function(call) return call(c) end)
    if not results then return nil, errs end -- the task was cancelled
    return results[1], errs and errs[1]
  end },
}

return matrix
