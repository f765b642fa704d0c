--- Snapshots, network policies, metrics, diagnostics, the check of the installation, and the development server of the program; and all
--- subcommands that print, with an output that nobody reads and at a terminal 40 columns wide.

local json = require "opensandbox.base.json"
local process = require "spec.support.process"
local program = require "spec.support.program"
local uv = require "luv"
local uv_loop = require "spec.support.uv_loop"

describe("opensandbox", function()
  local server, id, command, snapshot

  setup(function()
    server = process.devserver { grace = 0.1 }
    local arguments = { "create", "python:3.12", "--lifetime", "1h", "--allow", "pypi", "-m", "project=demonstration-of-a-table" }
    id = program.check(server, arguments):gsub("\n", "")
    command = program.check(server, { "start", id, "--", "echo output" }):gsub("\n", "")
    program.check(server, { "wait", id, "--command", command })
    snapshot = program.check(server, { "snapshot", "create", id, "--name", "first" }):gsub("\n", "")
  end)
  teardown(function() server:stop() end)

  it("makes snapshots, lists them, restores one and deletes them", function()
    program.check(server, { "exec", "-n", id, "--", "echo saved >./tmp/saved" })
    local made = json.decode(program.check(server, { "snapshot", "create", id, "--name", "second", "-o", "json" }))
    assert.same({ "second", "Ready", id }, { made.name, made.state, made.sandbox_id })
    local text = program.check(server, { "snapshot", "ls" })
    assert.truthy(text:find(made.id .. "  Ready  second ", 1, true) and text:find(snapshot .. "  Ready  first ", 1, true), text)
    local list = json.decode(program.check(server, { "snapshot", "ls", "--name", "second", "-o", "json" }))
    assert.same({ 1, made.id }, { #list, list[1].id })
    assert.truthy(program.check(server, { "snapshot", "info", made.id }):find("name: +second\n"))
    local restored = program.check(server, { "create", "--snapshot", made.id }):gsub("\n", "")
    assert.equal("saved\n", program.check(server, { "exec", "-n", restored, "--", "cat ./tmp/saved" }))
    assert.equal(made.id .. "\n", program.check(server, { "snapshot", "rm", made.id }))
    assert.same({}, json.decode(program.check(server, { "snapshot", "ls", "--name", "second", "-o", "json" })))
    program.check(server, { "kill", restored })
    assert.equal(2, program.run(server, { "snapshot" }).code)
  end)

  it("shows the network policy and changes it", function()
    local text = program.check(server, { "egress", id })
    assert.truthy(text:find("allow +pypi.org\n") and text:find("deny +everything else\n"), text)
    text = program.check(server, { "egress", id, "--allow", "example.com", "--deny", "example.org", "--remove", "pypi" })
    assert.truthy(text:find("allow +example.com\n") and text:find("deny +example.org\n"), text)
    assert.is_nil(text:find("pypi", 1, true))
    assert.equal("deny", json.decode(program.check(server, { "egress", id, "-o", "json" })).default_action)
    local plain = program.check(server, { "create", "python:3.12" }):gsub("\n", "")
    assert.equal(1, program.run(server, { "egress", plain }).code)
    program.check(server, { "kill", plain })
  end)

  it("shows the load and the memory once", function()
    local text = program.check(server, { "metrics", id })
    assert.truthy(text:find("cpus: +%d") and text:find("memory: +%d+%.%d %a+ of %d"), text)
    assert.equal("number", type(json.decode(program.check(server, { "metrics", id, "-o", "json" })).cpu_count))
  end)

  it("shows the load as it changes: in lines, as JSON, and as a plot at a terminal, until Ctrl-C", function()
    local child = program.start(server, { "metrics", "--watch", id })
    assert.truthy(child:read_line(20):find("^%d[%d-]+T[%d:]+Z  cpu %d"))
    child:kill("sigterm")
    local _, signal = child:wait(20)
    assert.equal(15, signal)
    child:stop()
    child = program.start(server, { "metrics", "-w", id, "-o", "json" })
    assert.equal("number", type(json.decode(child:read_line(20)).cpu_used_percent))
    child:kill("sigint")
    child:wait(20)
    child:stop()
    local terminal = program.terminal(server, { "metrics", "-w", id }, { columns = 40, env = { LC_ALL = "C" } })
    terminal:expect "\27[2A" -- the second sample replaces the first one
    uv_loop.wait_until(function() return select(2, terminal.text:gsub("MEM ", "")) >= 2 end, "the second sample is shown")
    terminal:write "\3"
    local _, by = terminal:wait()
    local text = terminal.text
    terminal:close()
    assert.equal(2, by)
    for line in text:gmatch("[^\r\n]+") do assert.is_true(#line:gsub("\27%[%d*%a", "") <= 40, line) end
    assert.truthy(text:find("CPU %d[%d.]*%% +[_.=+*%%#-]+"), text)
  end)

  it("shows what the server knows about a sandbox, and what it does not know", function()
    local text = program.check(server, { "diagnose", id })
    for _, part in ipairs { id, "Running", "execd: answers", "\nevents:\n", "\nlogs:\n" } do
      assert.truthy(text:find(part, 1, true), text)
    end
    local value = json.decode(program.check(server, { "diagnose", id, "-o", "json" }))
    assert.same({ id, true }, { value.info.id, value.execd_answers })
    local result = program.run(server, { "diagnose", "no-such" })
    assert.equal(1, result.code)
    assert.truthy(result.err:find("info: ", 1, true) and result.err:find("HTTP 404", 1, true), result.err)
  end)

  it("checks the installation, the server and the key", function()
    local text = program.check(server, { "doctor" })
    local parts = { "libcurl +ok", "health +ok +healthy", "version +ok +%d", "list sandboxes +ok", "list pools +missing" }
    for _, part in ipairs(parts) do
      assert.truthy(text:find(part), text)
    end
    local wrong = program.run(server, { "doctor", "--key", "wrong", "-o", "json" })
    assert.equal(1, wrong.code)
    local results = {}
    for _, check in ipairs(json.decode(wrong.out)) do results[check.check] = check.result end
    assert.same({ "ok", "failed" }, { results.health, results["list sandboxes"] })
    local none = program.run(server, { "doctor", "--url", "http://127.0.0.1:1" })
    assert.equal(1, none.code)
    assert.truthy(none.out:find("health +failed"), none.out)
  end)

  -- Returns the row of the isolation in the JSON that `doctor` prints.
  local function isolation_in(text)
    for _, check in ipairs(json.decode(text)) do
      if check.check == "its isolation" then return check end
    end
  end

  it("tries the isolation of the development server, as that does at its start", function()
    local row = isolation_in(program.check(server, { "doctor", "-o", "json" }))
    local child = program.start(nil, { "dev", "--port", "0", "--exit-with-stdin", "--isolation", "bwrap" })
    local works = child:read_line(20) ~= nil
    child:close_input()
    child:wait(20)
    local banner = child:stderr_text()
    child:stop()
    assert.equal(works and "ok" or "unusable", row.result, row.details)
    assert.truthy(banner:find(row.details, 1, true), banner)
  end)

  it("says why the isolation of the development server does not work, which is no failure", function()
    local options = { env = { TMPDIR = "/nowhere" } }
    local row = isolation_in(program.check(server, { "doctor", "-o", "json" }, options))
    assert.same({ "unusable", "cannot use the directory /nowhere: ENOENT" }, { row.result, row.details:match("^[^:]*: %u+") })
    local refused = program.run(nil, { "dev", "--port", "0" }, options)
    assert.equal(1, refused.code)
    assert.truthy(refused.err:find("cannot use the directory /nowhere (TMPDIR): ENOENT", 1, true), refused.err)
  end)

  it("says that this machine does not allow the isolation", function()
    if uv.getuid() ~= 0 then return pending("only root can take the capabilities away that root's bubblewrap needs") end
    local argv = { "setpriv", "--bounding-set=-all", process.lua(), "bin/opensandbox", "doctor", "-o", "json", "--url", server.url }
    local child = process.start { argv = argv, env = process.module_paths() }
    child:close_input()
    assert.truthy(child:wait(30))
    local row = isolation_in(child:output())
    child:stop()
    assert.equal("unusable", row.result)
    assert.truthy(row.details:find("bubblewrap does not work here: ", 1, true), row.details)
  end)

  it("runs a development server", function()
    local child = program.start(nil, { "dev", "--port", "0", "--exit-with-stdin" })
    local line = child:read_line(20)
    local url = line and line:match("^export OPEN_SANDBOX_DOMAIN=(%S+)$")
    assert.truthy(url, child:stderr_text())
    local key = child:read_line(20):match("^export OPEN_SANDBOX_API_KEY=(%S+)$")
    assert.equal("", program.check({ url = url, key = key }, { "ls", "-q" }))
    child:kill("sigint")
    assert.equal(0, child:wait(20))
    child:stop()
    assert.truthy(program.check(nil, { "dev", "--help" }):find("^Usage: opensandbox dev %[options%]\n"))
    local wrong = program.run(nil, { "dev", "--prot", "1" })
    assert.equal(1, wrong.code)
    assert.truthy(wrong.err:find("opensandbox dev: unknown option '--prot'", 1, true), wrong.err)
  end)

  -- All that print a result.
  local function printing()
    return {
      { "--help" }, { "--version" }, { "ls" }, { "ls", "-q" }, { "ls", "-o", "json" }, { "info", id }, { "renew", id, "1h" },
      { "exec", "-n", id, "--", "echo x" }, { "start", id, "--", "true" }, { "status", id }, { "status", id, command },
      { "logs", id, command }, { "cp", id .. ":/etc/hostname", "-" }, { "port", id, "80" }, { "wait", id, "--command", command },
      { "snapshot", "ls" }, { "snapshot", "info", snapshot }, { "egress", id }, { "metrics", id }, { "diagnose", id }, { "doctor" },
      { "completion", "bash" }, { "stop", id, command }, { "snapshot", "create", id }, { "pause", id }, { "resume", id },
      { "kill", "no-such" },
    }
  end

  it("ends without a message when nobody reads its output", function()
    for _, arguments in ipairs(printing()) do
      local result = program.run_unread(server, arguments)
      assert.same({ 141, 0, "" }, { result.code, result.signal, result.err }, table.concat(arguments, " "))
    end
  end)

  it("leaves no sandbox behind whose id nobody has read", function()
    assert.equal(141, program.run_unread(server, { "create", "python:3.12" }).code)
    assert.equal(141, program.run_unread(server, { "run", "-n", "python:3.12", "--", "echo x" }).code)
    assert.equal(id .. "\n", program.check(server, { "ls", "-q" }))
  end)

  it("fits its tables into 40 columns, with whole ids", function()
    for _, arguments in ipairs { { "ls" }, { "snapshot", "ls" }, { "status", id, command }, { "egress", id }, { "doctor" } } do
      local terminal = program.terminal(server, arguments, { columns = 40, env = { NO_COLOR = "1" } })
      local code, _, text = terminal:wait()
      terminal:close()
      assert.equal(0, code, text)
      for line in text:gmatch("[^\r\n]+") do
        local name, value = line:match("^([A-Z]+): +(.+)$")
        assert.is_true(#line <= 40 or (name ~= nil and not value:find("..", 1, true)), line)
      end
    end
  end)
end)
