--- The playground of examples/openresty in a headless Chromium: code runs with its output live, and a shell answers what is typed.

local browser = require "spec.support.browser"
local nginx = require "spec.hosts.nginx"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

describe("The playground", function()
  if not nginx.installed() then return pending("nginx with Lua is not installed: " .. nginx.PACKAGES) end
  if not nginx.core() then return pending("the core cannot be built for LuaJIT") end
  if not browser.program() then return pending("Chromium is not installed: apt-get install chromium") end

  local devserver, client, server, page

  setup(function()
    devserver = process.devserver { grace = 0.2 }
    client = opensandbox.new(devserver.url, devserver.key)
    local env = { OPEN_SANDBOX_DOMAIN = devserver.url, OPEN_SANDBOX_API_KEY = devserver.key, TIME_LIMIT = "20" }
    server = nginx.start("examples/openresty/nginx.conf", { env = env, edit = nginx.example_here })
    page = browser.open(server.url .. "/", 900, 860)
  end)
  teardown(function()
    if page then page:close() end
    server:stop()
    client:close()
    devserver:stop()
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
    page:type("exit 5\r")
    page:wait(screen .. ".includes('[exit code 5]')")
  end)

  it("leaves no sandbox", function()
    local left
    for _ = 1, 400 do
      left = #assert(client:list_sandboxes())
      if left == 0 then break end
      opensandbox.sleep(0.05)
    end
    assert.equal(0, left)
  end)
end)
