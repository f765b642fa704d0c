--- The subcommands that make, show and delete sandboxes, against a development server.

local api_client = require "spec.support.api_client"
local json = require "opensandbox.base.json"
local process = require "spec.support.process"
local program = require "spec.support.program"

describe("opensandbox", function()
  local server, api

  setup(function()
    server = process.devserver { grace = 0.1 }
    api = api_client.new(server)
  end)
  teardown(function() server:stop() end)
  after_each(function() program.check(server, { "kill", "--all" }) end)

  local function create(...)
    return (program.check(server, { "create", "python:3.12", ... }):gsub("\n$", ""))
  end

  local function info(id)
    return api:call("GET", "/v1/sandboxes/" .. id)
  end

  local function fails(code, text, arguments, options)
    local result = program.run(server, arguments, options)
    assert.equal(code, result.code, result.err)
    assert.truthy(result.err:find(text, 1, true), result.err)
    return result
  end

  it("creates a sandbox with what it is given, prints its id, and leaves it", function()
    local id = create("-m", "project=demo", "-e", "A=1", "--lifetime", "1h30m", "--cpu", "2", "--allow", "pypi.org",
      "--no-wait")
    assert.truthy(id:find("^[%x-]+$"), id)
    local found = json.decode(info(id).body)
    assert.equal("demo", found.metadata.project)
    local listed = json.decode(program.check(server, { "info", id, "-o", "json" }))
    assert.equal(5400, math.floor(listed.expires_at - listed.created_at + 0.5))
  end)

  it("takes a variable of its own environment by its name, and refuses one that is not set", function()
    local arguments = { "create", "python:3.12", "-e", "OURS", "-e", "A=b=c" }
    local id = program.check(server, arguments, { env = { OURS = "x y" } }):gsub("\n", "")
    assert.equal("x y b=c\n", program.check(server, { "exec", id, "--", 'echo "$OURS $A"' }))
    fails(2, "'OURS' is not set here", { "create", "python:3.12", "-e", "OURS" }, { env = { OURS = false } })
  end)

  it("lists sandboxes as a table, as ids, and as JSON, by state and metadata", function()
    local first, second = create("-m", "n=1"), create("-m", "n=2")
    local text = program.check(server, { "ls" })
    assert.truthy(text:find("^ID +STATE +IMAGE +AGE +EXPIRES +METADATA\n"), text)
    local row = text:match("([^\n]*)n=1\n")
    assert.equal(first, row:match("^%S+"))
    assert.truthy(row:find("^%S+  Running  python:3%.12  %d+s +[%dms]+ +$"), row)
    assert.truthy(text:find(second, 1, true))
    assert.equal(first .. "\n", program.check(server, { "ls", "-q", "-m", "n=1" }))
    assert.equal("", program.check(server, { "ls", "-q", "--state", "Paused" }))
    assert.same({}, json.decode(program.check(server, { "ls", "-o", "json", "--state", "Paused" })))
    local list = json.decode(program.check(server, { "ls", "-o", "json" }))
    assert.equal(2, #list)
    assert.same({ n = "2" }, list[1].metadata)
    assert.is_nil(list[1].raw)
  end)

  it("shows one sandbox, and fails for one that does not exist", function()
    local id = create()
    local text = program.check(server, { "info", id })
    assert.equal(id, text:match("^id: +(%S+)\nstate: +Running\n"))
    assert.truthy(text:find("expires: +%d%d%d%d%-%d%d%-%d%dT"), text)
    local result = fails(1, "HTTP 404", { "info", "no-such" })
    assert.equal("", result.out)
  end)

  it("renews, pauses and resumes", function()
    local id = create()
    assert.truthy(program.check(server, { "renew", id, "2h" }):find("^expires %d"))
    local renewed = json.decode(program.check(server, { "renew", id, "1h30m", "-o", "json" }))
    assert.equal(id, renewed.id)
    assert.equal("number", type(renewed.expires_at))
    assert.equal(id .. "\n", program.check(server, { "pause", id }))
    assert.equal(id .. "\n", program.check(server, { "ls", "-q", "--state", "Paused" }))
    assert.equal(id .. "\n", program.check(server, { "resume", id }))
    local result = fails(1, "no-such: ", { "pause", "no-such", id })
    assert.equal(id .. "\n", result.out)
  end)

  it("deletes by ids and by filters, but everything only when it is told so", function()
    local first, second, third = create("-m", "n=1"), create("-m", "n=2"), create("-m", "n=2")
    assert.equal(first .. "\n", program.check(server, { "kill", first }))
    local killed = program.check(server, { "kill", "-m", "n=2" })
    assert.truthy(killed:find(second, 1, true) and killed:find(third, 1, true), killed)
    assert.equal("", program.check(server, { "ls", "-q" }))
    fails(2, "either ids of sandboxes, or filters, or --all", { "kill" })
    fails(2, "either ids of sandboxes, or filters, or --all", { "kill", "--all", "x" })
  end)

  it("names wrong arguments, and exits with 2", function()
    fails(2, "unknown command 'lss'. Did you mean 'ls'?", { "lss" })
    fails(2, "'10 m' is not a duration: write 90s, 10m or 1h30m, or never", { "create", "x", "--lifetime", "10 m" })
    fails(2, "'n' is not of the form NAME=VALUE", { "ls", "-m", "n" })
    fails(2, "an IMAGE, --snapshot or --template is needed", { "create" })
    fails(2, "Options of a command in a sandbox come after --", { "exec", "x", "ls", "-l" })
    fails(2, "neither a host with a dot nor a preset", { "create", "x", "--allow", "pipy" })
    fails(2, "a subcommand is missing", { "--" })
  end)

  it("names the help that shows the arguments, and the place of an option before the subcommand", function()
    fails(2, "'opensandbox create --help' shows the arguments", { "create" })
    fails(2, "'opensandbox kill --help' shows the arguments", { "kill" })
    fails(2, "'opensandbox --help' shows the arguments", { "--" })
    fails(2, "unknown option '--url'. Options come after the subcommand (see 'opensandbox --help')", { "--url", "http://h", "ls" })
  end)

  it("names what fails: the server, the key", function()
    fails(1, "connect", { "ls", "--url", "http://127.0.0.1:1" })
    fails(1, "HTTP 401", { "ls", "--key", "wrong" })
  end)
end)
