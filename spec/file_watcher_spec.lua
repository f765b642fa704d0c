--- Watching a directory of a sandbox: every change is reported once, and what was there before is not.

local Fixture = require "spec.support.fixture"
local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local silencing_relay = require "spec.support.silencing_relay"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local FAST = { interval = "50ms", timeout = "60s" }

local fixture, sandbox, files

setup(function()
  fixture = Fixture.new()
  sandbox = fixture.sandbox
  files = sandbox.files
end)
teardown(function() fixture:close() end)

local function run(script)
  local result = assert(sandbox:run(script, { cwd = "/" }))
  assert.equal(0, result.exit_code, result.stderr)
end

-- The next changes, as "type kind path".
local function changes(watcher, count)
  local list = {}
  for i = 1, count do
    local change = assert(watcher:next())
    list[i] = ("%s %s %s"):format(change.type, change.kind, change.path)
  end
  return list
end

describe("files:watch", function()
  it("reports what is created, modified and deleted, and not what was there before", function()
    run "mkdir -p ./watched/sub; echo x > ./watched/old; echo y > ./watched/sub/gone"
    local watcher = files:watch("/watched", FAST)
    run "echo new > ./watched/new"
    local change = assert(watcher:next())
    assert.same({ "created", "/watched/new", "file", 4 }, { change.type, change.path, change.kind, change.size })
    assert.is_true(math.abs(change.modified_at - core.wall_clock()) < 300)
    run "echo more >> ./watched/old"
    assert.same({ "modified file /watched/old" }, changes(watcher, 1))
    run "chmod 600 ./watched/old"
    assert.same({ "modified file /watched/old" }, changes(watcher, 1))
    run "rm -r ./watched/sub"
    assert.same({ "deleted file /watched/sub/gone", "deleted directory /watched/sub" }, changes(watcher, 2))
    run "mkdir -p ./watched/a/b; ln -s b ./watched/a/link; mkfifo ./watched/fifo"
    assert.same({ "created directory /watched/a", "created directory /watched/a/b", "created symlink /watched/a/link",
      "created other /watched/fifo" }, changes(watcher, 4))
    run "mv ./watched/old ./watched/renamed"
    assert.same({ "deleted file /watched/old", "created file /watched/renamed" }, changes(watcher, 2))
    watcher:close()
    local nothing, err = watcher:next()
    assert.is_nil(nothing)
    assert.equal("closed", err.kind)
  end)

  it("ends a wait between two polls at once when it, or its client, is closed", function()
    run "mkdir -p ./quiet"
    local client = opensandbox.new(fixture.server.url, fixture.server.key)
    local same = assert(client:connect(assert(sandbox:handle()), { wait = false }))
    local watcher = files:watch("/quiet", { interval = 30 })
    for what, one in pairs { [watcher] = watcher, [client] = same.files:watch("/quiet", { interval = 30 }) } do
      local waiting = opensandbox.spawn(function() return one:next() end)
      opensandbox.sleep(0.3)
      assert.is_false(waiting:done())
      what:close()
      local change, err = waiting:wait(10)
      assert.is_nil(change)
      assert.equal("closed", err.kind, tostring(err))
    end
  end)

  it("ends a poll at once that the sandbox does not answer, when it is closed or its task is cancelled", function()
    run "mkdir -p ./unanswered"
    local relay = silencing_relay.start(tonumber(fixture.server.url:match ":(%d+)$"))
    local port = relay.open()
    local client = opensandbox.new("http://127.0.0.1:" .. port, fixture.server.key, { use_server_proxy = true })
    local same = assert(client:connect(sandbox.id, { wait = false }))
    local watchers = { closed = same.files:watch("/unanswered", FAST), cancelled = same.files:watch("/unanswered", FAST) }
    relay.change(port, "silent")
    for kind, watcher in pairs(watchers) do
      local waiting = opensandbox.spawn(function() return watcher:next() end)
      opensandbox.sleep(0.3) -- a poll is under way
      assert.is_false(waiting:done())
      if kind == "closed" then watcher:close() else waiting:cancel() end
      local change, err = waiting:wait(5)
      assert.is_nil(change)
      assert.same({ kind, "files:watch" }, { err.kind, err.op })
    end
    client:close()
    relay.stop()
  end)

  it("is an iterator of a for loop, which can be left", function()
    run "mkdir -p ./looped"
    local writer = opensandbox.spawn(function()
      for i = 1, 3 do
        assert(files:write("/looped/" .. i, "x"))
        opensandbox.sleep(0.1)
      end
    end)
    local seen = {}
    for change in files:watch("/looped", FAST) do
      seen[#seen + 1] = change.path
      if change.path == "/looped/3" then break end
    end
    assert.equal("/looped/3", seen[#seen])
    writer:wait()
  end)

  it("watches a file, a path that does not exist yet, and odd names", function()
    run "echo x > './single file'"
    local single, missing = files:watch("/single file", FAST), files:watch("/not/yet", FAST)
    run "echo longer > './single file'; mkdir -p ./not/yet; touch './not/yet/it'\\''s $HOME' './not/yet/ -n' ./not/yet/*"
    assert.same({ "modified file /single file" }, changes(single, 1))
    local list = changes(missing, 4)
    assert.equal("created directory /not/yet", list[1])
    table.sort(list)
    assert.same({ "created directory /not/yet", "created file /not/yet/ -n", "created file /not/yet/*",
      "created file /not/yet/it's $HOME" }, list)
    run "rm -r ./not"
    assert.equal("deleted directory /not/yet", changes(missing, 4)[4])
    local relative = files:watch("relative-directory", FAST)
    assert(files:write("relative-directory/x", "y"))
    assert.truthy(changes(relative, 2)[2]:find("^created file /.*relative%-directory/x$"))
  end)

  it("sends the list only when something has changed", function()
    run "mkdir -p ./quiet; for i in $(seq 300); do echo $i > ./quiet/file$i; done"
    local received, events = 0, 0
    local own = fixture:another_client { on_response = function(response)
      if response.op == "files:watch" and response.url:find("/command", 1, true) then events = events + 1 end
    end }
    local exchange = require "opensandbox.http.exchange"
    local start = exchange.start
    exchange.start = function(http, request)
      local one = start(http, request)
      local next_output = one.output_event
      function one.output_event(self)
        local stream, text = next_output(self)
        if request.op == "files:watch" and stream then received = received + #text end
        return stream, text
      end
      return one
    end
    local watcher = assert(own:connect(sandbox.id)).files:watch("/quiet", { interval = "20ms", timeout = "1s" })
    local first = received
    local change, err = watcher:next()
    exchange.start = start
    assert.is_nil(change)
    assert.same({ "timeout", "watch_timeout", "timeout", "files:watch" }, { err.kind, err.code, err.timeout_option, err.op })
    assert.is_true(first > 300 * 20, tostring(first))
    assert.is_true(events > 3, tostring(events))
    assert.equal(first, received)
  end)

  it("reports an error of the first poll by the first step, and goes on after errors", function()
    local ok, err = pcall(function()
      for _ in files:watch("/quiet", { timeout = 0.001 }) do error("a change?") end
    end)
    assert.is_false(ok)
    assert.equal("watch_timeout", err.code)
    local bare = fixture:create { env = { PATH = "/nowhere" }, entrypoint = { "/usr/bin/tail", "-f", "/dev/null" } }
    local change
    change, err = bare.files:watch("/", FAST):next()
    assert.is_nil(change)
    assert.same({ "watch_unavailable", "files:watch" }, { err.code, err.op })
    bare:kill()
  end)

  it("ends with the task that waits", function()
    local task = opensandbox.spawn(function() return files:watch("/looped", { interval = 30 }):next() end)
    opensandbox.sleep(0.3)
    task:cancel()
    local change, err = task:wait(10)
    assert.is_nil(change)
    assert.equal("cancelled", err.kind)
  end)

  it("raises for wrong arguments before anything is sent", function()
    for _, wrong in ipairs { { "" }, { 5 }, { "/a", { interval = 0 } }, { "/a", { recursive = true } } } do
      local ok, message = pcall(files.watch, files, wrong[1], wrong[2])
      assert.is_false(ok)
      assert.truthy(message:find("files:watch: ", 1, true), message)
    end
  end)
end)
