--- The playground of examples/openresty: its page in a headless Chromium, where code runs with its output live and a shell answers what is
--- typed, and its terminal as any client of a WebSocket sees it.

local browser = require "spec.support.browser"
local frames = require "spec.support.websocket_frames"
local json = require "opensandbox.base.json"
local nginx = require "spec.hosts.nginx"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local procfs = require "spec.support.procfs"
local uv_loop = require "spec.support.uv_loop"
local wait_until = require "spec.support.wait_until"
local websocket_client = require "spec.support.websocket_client"

local devserver, client, server

local function start(changes)
  local env = { OPEN_SANDBOX_DOMAIN = devserver.url, OPEN_SANDBOX_API_KEY = devserver.key, TIME_LIMIT = "20" }
  for name, value in pairs(changes or {}) do env[name] = value end
  return nginx.start("examples/openresty/nginx.conf", { env = env, edit = nginx.example_here })
end

local function begin()
  devserver = process.devserver { grace = 0.2 }
  client = opensandbox.new(devserver.url, devserver.key)
  server = start()
end

local function finish()
  server:stop()
  client:close()
  devserver:stop()
end

local function no_sandbox_is_left()
  wait_until(function() return #assert(client:list_sandboxes()) == 0 end, "a sandbox is left")
end

describe("The playground's page", function()
  if not nginx.installed() then return pending("nginx with Lua is not installed: " .. nginx.PACKAGES) end
  if not nginx.core() then return pending("the core cannot be built for LuaJIT") end
  if not browser.program() then return pending("Chromium is not installed: apt-get install chromium") end
  if not nginx.has_websocket() then return pending("nginx's Lua has no WebSockets: " .. nginx.WEBSOCKET_PACKAGE) end

  local page

  setup(function()
    begin()
    page = browser.open(server.url .. "/", 900, 860)
  end)
  teardown(function()
    if page then page:close() end
    finish()
  end)

  local function choose(language, code)
    page:evaluate(("document.getElementById('language').value = %q"):format(language))
    page:evaluate(("document.getElementById('code').value = %q"):format(code))
    page:evaluate("document.getElementById('run').click()")
  end

  local OUTPUT, STATUS = "document.getElementById('output').textContent", "document.getElementById('status').textContent"

  it("shows the output while the code runs, then how it ended", function()
    choose("sh", "echo first; sleep 1; echo second >&2; exit 3")
    page:wait(OUTPUT .. " === 'first\\n'")
    assert.equal("runs", page:evaluate(STATUS))
    page:wait(STATUS .. ".startsWith('exit code 3 after')")
    assert.equal("first\nsecond\n", page:evaluate(OUTPUT))
    assert.equal("second\n", page:evaluate("document.querySelector('#output .error').textContent"))
  end)

  it("stops the code", function()
    choose("sh", "echo begun; sleep 60")
    page:wait(OUTPUT .. " === 'begun\\n'")
    page:evaluate("document.getElementById('stop').click()")
    page:wait(STATUS .. " === 'stopped'")
    page:wait("!document.getElementById('run').disabled")
  end)

  it("has a terminal, which answers what is typed and ends with its shell", function()
    page:evaluate("document.getElementById('open').click()")
    local screen = "document.getElementById('terminal').textContent"
    page:wait(screen .. ".length > 0")
    page:type("echo $((6*7)) $TERM\r")
    page:wait(screen .. ".includes('42 dumb')")
    -- PLAYGROUND_PICTURE=FILE keeps a picture of what this sees, for the README of the example.
    local picture = os.getenv("PLAYGROUND_PICTURE")
    if picture then
      page:evaluate("document.getElementById('language').value = 'python3'")
      page:evaluate([[document.getElementById('code').value = document.getElementById('code').defaultValue]])
      page:evaluate("document.getElementById('run').click()")
      page:wait(STATUS .. ".startsWith('exit code 0')")
      local file = assert(io.open(picture, "wb"))
      file:write(require("opensandbox.base.base64").decode(page:screenshot()))
      file:close()
    end
    page:evaluate("document.getElementById('terminal').focus()")
    page:type("stty size\r")
    page:wait(screen .. ".includes(`\\n${size().rows} ${size().cols}\\n`)")
    page:type("exit 5\r")
    page:wait(screen .. ".includes('[exit code 5]')")
  end)

  it("leaves no sandbox when it goes away while its terminal is open, and the next page gets no terminal", function()
    local other = browser.open(server.url .. "/", 900, 860)
    finally(function() other:close() end)
    other:evaluate("document.getElementById('open').click()")
    other:wait("/[#$] *$/.test(document.getElementById('terminal').textContent)")
    other:go("about:blank")
    no_sandbox_is_left()
    assert.equal("refused", other:evaluate(([[new Promise(done => {
      const socket = new WebSocket("%s/terminal")
      socket.onopen = () => done("open")
      socket.onerror = () => done("refused")
    })]]):format((server.url:gsub("^http", "ws")))))
  end)
end)

describe("The playground's terminal", function()
  if not nginx.installed() then return pending("nginx with Lua is not installed: " .. nginx.PACKAGES) end
  if not nginx.core() then return pending("the core cannot be built for LuaJIT") end
  if not nginx.has_websocket() then return pending("nginx's Lua has no WebSockets: " .. nginx.WEBSOCKET_PACKAGE) end

  local ALL_BYTES = {}
  for byte = 0, 255 do ALL_BYTES[byte + 1] = string.char(byte) end
  ALL_BYTES = table.concat(ALL_BYTES)

  local page -- the connection of a test

  setup(begin)
  teardown(finish)
  after_each(function()
    if page then page:close() end
    page = nil
    no_sandbox_is_left()
  end)

  -- Asks for a terminal. `headers` are changes to those that the page's browser sends.
  local function connect(headers, of)
    local url = (of or server).url
    headers = headers or {}
    if headers.Origin == nil then headers.Origin = url end
    page = websocket_client.connect(tonumber(url:match("%d+$")), "/terminal", { headers = headers })
    return page
  end

  local function resize(cols, rows)
    page:send("text", json.encode { type = "resize", cols = cols, rows = rows })
  end

  local function open(of)
    connect(nil, of)
    assert.equal(101, page.status, page.body)
    resize(100, 30)
  end

  local function output()
    local pieces = {}
    for _, frame in ipairs(page.frames) do
      if frame.opcode == "binary" then pieces[#pieces + 1] = frame.payload end
    end
    return table.concat(pieces)
  end

  local function wait_for_output(pattern)
    local found = page:wait(function() return output():match(pattern) end)
    return found or error(("%s is not in %q"):format(pattern, output()), 2)
  end

  -- Returns the control messages that were received.
  local function messages()
    local list = {}
    for _, frame in ipairs(page.frames) do
      if frame.opcode == "text" then list[#list + 1] = json.decode(frame.payload) end
    end
    return list
  end

  it("sends the output of what is typed, then the exit code, and closes", function()
    open()
    page:send("binary", "echo $((6*7)) $TERM\r")
    wait_for_output("42 dumb\r\n")
    page:send("binary", "exit 5\r")
    assert.equal(1000, page:wait_close())
    assert.same({ { type = "exit", code = 5 } }, messages())
    assert.is_true(page.socket:wait_end())
  end)

  it("passes on a mebibyte of any bytes in both directions", function()
    open()
    local PIECE, COUNT = ALL_BYTES:rep(64), 64
    page:send("binary", ("stty raw -echo; echo rea''dy; exec sh -c 'head -c %d; exit 7'\r"):format(#PIECE * COUNT))
    wait_for_output("ready\n")
    for _ = 1, COUNT do page:send("binary", PIECE) end
    assert.equal(1000, page:wait_close(60))
    assert.same({ { type = "exit", code = 7 } }, messages())
    local echoed = output():match("ready\n(.*)$")
    assert.equal(#PIECE * COUNT, #echoed)
    assert.is_true(echoed == PIECE:rep(COUNT), "the bytes are others")
  end)

  it("has the size of the page, which can change", function()
    open()
    page:send("binary", "stty size\r")
    wait_for_output("30 100\r\n")
    resize(1e6, 2.5) -- as close as possible
    page:send("binary", "stty size\r")
    wait_for_output("2 500\r\n")
  end)

  local function wait_for_pong(payload)
    assert.truthy(page:wait(function(received)
      for _, frame in ipairs(received) do
        if frame.opcode == "pong" and frame.payload == payload then return true end
      end
    end))
  end

  it("accepts a message in fragments, and answers pings between them", function()
    open()
    page:send("binary", "echo frag", { fin = false })
    page:send("ping", "between")
    page:send("continuation", "men", { fin = false })
    page:send("continuation", "ted\r")
    wait_for_output("\r\nfragmented\r\n")
    wait_for_pong("between")
  end)

  for name, leave in pairs {
    ["closes the WebSocket"] = function()
      page:send("close", "\3\232") -- 1000
      assert.equal(1000, page:wait_close())
    end,
    ["breaks the connection"] = function() page:close() end,
    ["breaks the connection as soon as the sandbox exists"] = function() page:close() end,
  } do
    it("deletes the sandbox of a page that " .. name, function()
      open()
      if name:find("exists", 1, true) then
        wait_until(function() return #assert(client:list_sandboxes()) == 1 end, "the sandbox")
      else
        page:send("binary", "echo rea''dy; sleep 1000\r")
        wait_for_output("ready\r\n")
        assert.equal(1, #assert(client:list_sandboxes()))
      end
      leave()
      no_sandbox_is_left()
    end)
  end

  it("deletes the sandbox of a page that breaks the connection while the terminal takes no input", function()
    local other = start { PING_INTERVAL = "1" }
    finally(function() other:stop() end)
    open(other)
    page:send("binary", "stty raw -echo; echo rea''dy; sleep 1000\r")
    wait_for_output("ready\n")
    local socket = page.socket
    local frame = frames.write("binary", ("x"):rep(65536), { mask = "\1\2\3\4" })
    local function is_sent() return socket.tcp:get_write_queue_size() == 0 end
    uv_loop.wait(is_sent, 3, function()
      for _ = 1, 500 do socket.tcp:write(frame) end
    end)
    assert.is_false(is_sent(), "32 MB of input were accepted")
    page:close()
    no_sandbox_is_left()
  end)

  it("lets a command wait while the page is slow, at flat memory of the worker, and answers a ping afterwards", function()
    open()
    local worker = procfs.children(server.master)[1]
    page:send("binary", "stty -opost -echo; echo rea''dy\r")
    wait_for_output("ready\n")
    local sandbox = assert(client:connect(assert(client:list_sandboxes())[1].id))
    local before = procfs.rss(worker)
    page.socket:pause()
    page:send("binary", "head -c 24000000 /dev/zero; touch /tmp/written; exit 3\r")
    uv_loop.sleep(2)
    assert.is_false(sandbox.files:exists("/tmp/written"))
    page:send("ping", "slow")
    if before then
      local grown = procfs.rss(worker).current - before.current
      assert.is_true(grown < 12 * 1024, grown .. " KiB more")
    end
    page.socket:resume()
    assert.equal(1000, page:wait_close(60))
    assert.same({ { type = "exit", code = 3 } }, messages())
    wait_for_pong("slow")
    assert.equal(24000000, select(2, output():gsub("%z", "")))
  end)

  it("pings the page, and deletes the sandbox of one that does not answer", function()
    local other = start { PING_INTERVAL = "1" }
    finally(function() other:stop() end)
    local function pings()
      local count = 0
      for _, frame in ipairs(page.frames) do
        if frame.opcode == "ping" then count = count + 1 end
      end
      return count
    end
    open(other)
    assert.truthy(page:wait(function() return pings() >= 4 end)) -- it would be silent for too long without its pongs
    assert.equal(1, #assert(client:list_sandboxes()))
    page.answers_pings = false
    assert.is_true(page.socket:wait_end(20))
    no_sandbox_is_left()
  end)

  for name, origin in pairs { ["of another origin"] = "http://attacker.example", ["without an origin"] = false } do
    it("refuses a page " .. name, function()
      connect { Origin = origin }
      assert.equal(403, page.status)
      assert.equal(0, #assert(client:list_sandboxes()))
      assert.truthy(server:log():find("see $is_own_page in nginx.conf", 1, true))
    end)
  end

  it("refuses a request that is not for a WebSocket", function()
    local response = assert(server:get("/terminal", { headers = { Origin = server.url } }))
    assert.equal(400, response.status)
    assert.truthy(response.body:find("this is for a WebSocket", 1, true), response.body)
  end)

  for name, case in pairs {
    ["a message that is too long"] = { 1009, "binary", ("x"):rep(65537) },
    ["a control message that is not JSON"] = { 1008, "text", "resize" },
    ["a control message of an unknown type"] = { 1008, "text", '{"type":"signal","cols":80,"rows":24}' },
    ["a size that is none"] = { 1008, "text", '{"type":"resize","cols":-1,"rows":[]}' },
    ["a frame without a mask"] = { 1002, "binary", "x", { mask = false } },
  } do
    it("closes the WebSocket, and deletes the sandbox, after " .. name, function()
      open()
      page:send(case[2], case[3], case[4])
      assert.equal(case[1], page:wait_close())
      assert.is_true(page.socket:wait_end())
    end)
  end

  it("wants to know the size first", function()
    connect()
    page:send("binary", "exit\r")
    assert.equal(1008, page:wait_close())
  end)

  it("explains that there is no sandbox, without what the server has said", function()
    local other = start { OPEN_SANDBOX_API_KEY = "wrong" }
    finally(function() other:stop() end)
    open(other)
    assert.equal(1011, page:wait_close())
    assert.same({ { type = "error", message = "there is no sandbox" } }, messages())
    assert.truthy(other:log():find("401", 1, true), other:log())
  end)

  it("explains that the terminal has broken when its sandbox is gone", function()
    open()
    page:send("binary", "echo rea''dy\r")
    wait_for_output("ready\r\n")
    assert(client:delete_sandbox(assert(client:list_sandboxes())[1].id))
    assert.equal(1011, page:wait_close())
    assert.same({ { type = "error", message = "the terminal has broken" } }, messages())
  end)
end)
