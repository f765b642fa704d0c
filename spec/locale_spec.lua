--- No number of the library depends on the locale: neither one that was set before it was loaded, nor one that the host sets later.

local Fixture = require "spec.support.fixture"
local process = require "spec.support.process"
local uv = require "luv"

-- Everything in which a number becomes text, or a text a number. Prints "ok" at the end.
local SCRIPT = [[
  local function set() assert(os.setlocale "de_DE.UTF-8") end
  if os.getenv "WHEN" == "before" then set() end
  local core = require "opensandbox.core"
  local opensandbox = require "opensandbox"
  local json = require "opensandbox.base.json"
  local client = opensandbox.new(os.getenv "URL", os.getenv "KEY", { timeout = "20.5s" })
  if os.getenv "WHEN" == "after" then set() end
  local has_comma = ("%.1f"):format(0.5) == "0,5" -- not on LuaJIT

  local function same(expected, got) assert(expected == got, tostring(expected) .. " is not " .. tostring(got)) end

  same('{"a":0.5}', json.encode { a = 0.5 })
  same('[1e+300,0.33333333333333331,-0.25]', json.encode { 1e300, 1 / 3, -0.25 })
  same(0.5, json.decode('{"a":0.5}').a)
  same(1250, json.decode('[1.25e3]')[1])
  same(nil, (json.decode '[0,5,]'))
  os.setlocale "C"
  same(0.5, json.decode('[0.5]')[1])
  same('[0.5]', json.encode { 0.5 })
  set()
  same(0.25, json.decode('[0.25]')[1])

  local numbers = require "opensandbox.base.numbers"
  same("0.5", numbers.format(0.5))
  same("0.500", numbers.format(0.5, "%.3f"))
  same(0.5, numbers.parse "0.5")
  same(nil, numbers.parse "0,5")
  local time = require "opensandbox.base.time"
  same(1.25, time.parse "1970-01-01T00:00:01.25Z")
  same("1970-01-01T00:00:01.250000Z", time.format(1.25))
  same(5400, time.parse_duration "1.5h")
  same("?a=0.5", require("opensandbox.base.url").query { { "a", 0.5 } })
  same(0.5, require("opensandbox.http.headers").retry_after({ ["retry-after"] = "0.5" }, 0))
  local err = require("opensandbox.base.errors").timeout { op = "op", code = "c", text = "late", option = "timeout", seconds = 0.5 }
  assert(tostring(err):find("timeout of 0.5 s", 1, true), tostring(err))
  local _, refusal = pcall(opensandbox.sleep, -0.5)
  assert(refusal:find("not -0.5", 1, true), refusal)

  local sandbox = assert(client:create { image = "any", env = { RATIO = 0.5 }, metadata = { ratio = 0.5 } })
  same("0.5", assert(sandbox:info()).metadata.ratio)
  local result = assert(sandbox:run("echo one; sleep 0.1; echo $RATIO $A", { timeout = 5.5, env = { A = 1.5 } }))
  same("one\n0.5 1.5\n", result.stdout)
  assert(result.duration > 0)
  result = assert(sandbox:run { "echo", 0.25, 7 })
  same("0.25 7\n", result.stdout)
  same("x", (assert(sandbox:run("printf x", { durable = true })).stdout))
  assert(sandbox.files:write("/tmp/f", "some text"))
  same("some text", assert(sandbox.files:read("/tmp/f")))
  assert(math.abs(assert(sandbox.files:stat("/tmp/f")).modified_at - core.wall_clock()) < 3600)
  assert(sandbox:wait_for_file("./tmp/f", { timeout = 5.5, interval = 0.05 }))
  local metrics = assert(sandbox:metrics())
  assert(type(metrics) == "table")
  assert(assert(sandbox:renew("90.5s")) > core.wall_clock() + 60)
  assert(sandbox:kill())
  client:close()
  same(has_comma, ("%.1f"):format(0.5) == "0,5")
  io.write "ok"
]]

describe("under a decimal comma", function()
  local fixture, directory, is_made

  -- Makes the locale in a directory of its own, which LOCPATH names.
  setup(function()
    fixture = Fixture.new()
    directory = assert(uv.fs_mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/opensandbox-test-XXXXXX"))
    local maker = process.start { argv = { "sh", "-c",
      'command -v localedef >/dev/null && localedef -i de_DE -f UTF-8 "$1/de_DE.UTF-8"', "sh", directory } }
    is_made = maker:wait(30) == 0
    maker:stop()
  end)

  teardown(function()
    process.start({ argv = { "rm", "-rf", directory } }):wait(10)
    fixture:close()
  end)

  for _, when in ipairs { "before", "after" } do
    it(("that is set %s the library is loaded, everything works as without"):format(when), function()
      if not is_made then return pending("no localedef here, or nothing for it to read") end
      local env = process.module_paths()
      env.URL, env.KEY, env.LOCPATH, env.WHEN = fixture.server.url, fixture.server.key, directory, when
      local code, output, complaint = process.run({ argv = { process.lua(), "-e", SCRIPT }, env = env }, 30)
      assert.equal(0, code, complaint)
      assert.equal("ok", output)
    end)
  end
end)
