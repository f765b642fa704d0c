--- The files of a sandbox as another user.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"

-- A server that is lifecycle server and execd in one. The uid names how its execd answers: 1000 is well, 404 is too old, 501 cannot.
local SERVER = [[
  local JSON = { ["Content-Type"] = "application/json" }
  local INFO = '{"/f":{"path":"/f","size":1,"mode":644}}'
  return function(request, connection)
    if request.path:find("^/v1/sandboxes/[^/]+/endpoints/") then
      return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/execd", headers = { T = "token" } })
    end
    local uid, rest = request.path:match("^/execd/v1/filesystem/(%d+)/%d+(/.+)$")
    if uid == "404" then
      return connection:respond(404, { ["Content-Type"] = "text/plain" }, "404 page not found")
    elseif uid == "501" then
      return connection:respond(501, JSON, '{"code":"FILESYSTEM_IDENTITY_UNAVAILABLE","message":"operation not permitted"}')
    elseif rest and rest:find("^/files/info") then
      local is_missing = rest:find("missing", 1, true)
      if is_missing then
        local message = "file not found. lstat " .. require("opensandbox.base.url").unescape(rest) .. ": no such file or directory"
        return connection:respond(404, JSON, json.encode { code = "FILE_NOT_FOUND", message = message })
      end
      return connection:respond(200, JSON, INFO)
    elseif request.path == "/execd/command" then
      connection:start(200, { ["Content-Type"] = "text/event-stream" })
      connection:event { type = "init", text = "c1" }
      connection:event { type = "execution_complete", execution_time = 1 }
      return connection:finish()
    end
    connection:respond(200, JSON, (rest or ""):find("search") and "[]" or (rest or ""):find("list") and "[]" or "{}")
  end
]]

describe("the files of a sandbox as another user", function()
  local server, client, sandbox

  setup(function()
    server = fault_server.start(SERVER)
    client = opensandbox.new(server.url, "k", { retry = false })
    sandbox = assert(client:connect("s", { wait = false }))
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  -- The requests to execd of a call, without queries.
  local function sent_by(call)
    local before, list = #server:requests(), {}
    call()
    for i, request in ipairs(server:requests()) do
      if i > before and request.path:find("^/execd/") then
        list[#list + 1] = ("%s %s"):format(request.method, request.path:gsub("%?.*$", ""):sub(#"/execd" + 1))
        assert.equal("token", request.headers.t)
      end
    end
    return list
  end

  it("use execd's routes for that user, all of them", function()
    local files = sandbox.files:as(1000, 100)
    local prefix = "/v1/filesystem/1000/100"
    assert.same({
      "GET " .. prefix .. "/files/info", "GET " .. prefix .. "/files/search", "GET " .. prefix .. "/directories/list",
      "POST " .. prefix .. "/directories", "POST " .. prefix .. "/files/mv", "POST " .. prefix .. "/files/permissions",
      "POST " .. prefix .. "/files/replace", "POST " .. prefix .. "/files/upload", "GET " .. prefix .. "/files/download",
      "DELETE " .. prefix .. "/files", "DELETE " .. prefix .. "/directories",
    }, sent_by(function()
      assert.equal("0644", assert(files:stat("/f")).mode)
      assert(files:search("/d"))
      assert(files:list("/d"))
      assert(files:mkdir("/d"))
      assert(files:move("/a", "/b"))
      assert(files:chmod("/f", "0600"))
      assert(files:replace("/f", "a", "b"))
      assert(files:write("/f", "x"))
      assert(files:read("/f"))
      assert(files:remove("/f"))
      assert(files:remove("/d", { recursive = true }))
    end))
    for _ = 1, 2 do assert.is_false(files:exists("/missing, as a page not found")) end
  end)

  it("run helper commands as that user", function()
    sent_by(function() sandbox.files:as(1000, 100):rmdir("/d") end)
    local requests, bodies = server:requests(), {}
    for _, request in ipairs(requests) do
      if request.path == "/execd/command" then bodies[#bodies + 1] = require("opensandbox.base.json").decode(request.body) end
    end
    assert.is_true(#bodies > 0)
    for _, body in ipairs(bodies) do assert.same({ 1000, 100 }, { body.uid, body.gid }) end
  end)

  it("do not change the files of the sandbox, nor add up", function()
    local own = sandbox.files
    assert.same({ "GET /files/info" }, sent_by(function() own:stat("/f") end))
    assert.same({ "GET /v1/filesystem/0/4294967294/files/info" }, sent_by(function()
      assert(own:as(1000, 1000):as(0, 4294967294):stat("/f"))
    end))
  end)

  it("are an error at once where execd is too old, and from the second time on without a request", function()
    local files = sandbox.files:as(404, 404)
    local function check(value, err, op)
      assert.is_nil(value)
      assert.same({ "state", "unsupported", "s", op }, { err.kind, err.code, err.sandbox_id, err.op })
      assert.equal("this execd has no files as another user: that needs execd 1.1.1 or newer", err.message)
      assert.equal("Run commands as that user instead: sandbox:run(command, { uid = uid, gid = gid })", err.hint)
    end
    assert.equal(1, #sent_by(function()
      local value, err = files:write("/f", "x")
      check(value, err, "files:write")
      assert.equal(404, err.status)
    end))
    assert.same({}, sent_by(function()
      local value, err = files:exists("/f")
      check(value, err, "files:exists")
      value, err = files:read("/f")
      check(value, err, "files:read")
    end))
    assert(sandbox.files:list("/d"))
  end)

  it("are an error where execd has not the right", function()
    local _, err = sandbox.files:as(501, 501):read("/f")
    assert.same({ "http", 501, "FILESYSTEM_IDENTITY_UNAVAILABLE", "files:read" }, { err.kind, err.status, err.code, err.op })
    assert.equal("This execd has no right to act as another user: it must run as root", err.hint)
  end)

  it("need both ids, in the range of Linux, and a sandbox", function()
    local wrong = {
      { {}, "the uid must be a whole number, 0 or greater, not nil" },
      { { 0 }, "the gid must be a whole number, 0 or greater, not nil" },
      { { -1, 0 }, "the uid must be a whole number" }, { { 1.5, 0 }, "the uid must be a whole number" },
      { { "0", 0 }, "the uid must be a whole number" }, { { 0, 4294967295 }, "the gid must be 4294967294 at most" },
    }
    for _, case in ipairs(wrong) do
      assert.error_matches(function() sandbox.files:as(case[1][1], case[1][2]) end, "files:as: " .. case[2], 1, true)
      assert.error_matches(function() client:identity_endpoint("http://x", case[1][1], case[1][2]) end,
        "identity_endpoint: " .. case[2], 1, true)
    end
    assert.error_matches(function() sandbox:isolated({ id = "i" }).files:as(0, 0) end,
      "files:as: the files of an isolated session belong to its user", 1, true)
  end)
end)

for _, isolation in ipairs { "auto", "none" } do
  describe("files:as on the development server, with isolation " .. isolation .. ",", function()
    local server, client, sandbox, files

    setup(function()
      server = process.devserver { grace = 0.1, isolation = isolation, args = { "--newest-execd" } }
      client = opensandbox.new(server.url, server.key)
      sandbox = assert(client:create { image = "any" })
      local uid, gid = assert(sandbox:run("id -u; id -g")).stdout:match("(%d+)\n(%d+)")
      files = sandbox.files:as(tonumber(uid), tonumber(gid))
    end)
    teardown(function()
      client:close()
      server:stop()
    end)

    it("reads and writes files and whole directories", function()
      assert(files:write("/work/a.txt", "one", { verify = true }))
      assert.equal("one", assert(sandbox.files:read("/work/a.txt")))
      assert.equal("one", assert(files:read("/work/a.txt")))
      local from, to = temporary.directory(), temporary.directory()
      temporary.file("content", from)
      assert.equal(1, assert(files:upload_dir(from, "/work/tree")).files)
      assert.equal(1, assert(files:download_dir("/work/tree", to)).files)
      assert.same(temporary.names(from), temporary.names(to))
      assert(files:remove("/work/tree", { recursive = true }))
      assert.is_false(files:exists("/work/tree"))
      temporary.remove(from)
      temporary.remove(to)
    end)

    it("is refused for a user that the server cannot be", function()
      local _, err = sandbox.files:as(54321, 54321):stat("/work")
      assert.same({ 501, "FILESYSTEM_IDENTITY_UNAVAILABLE" }, { err.status, err.code })
    end)
  end)
end
