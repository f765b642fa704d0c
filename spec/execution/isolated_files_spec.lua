--- The files of an isolated session, by the answers of the recorded execd.

local fault_server = require "spec.support.fault_server"
local files = require "opensandbox.files"
local isolated_files = require "opensandbox.execution.isolated_files"
local opensandbox = require "opensandbox"
local temporary = require "spec.support.temporary"

local unpack = rawget(table, "unpack") or rawget(_G, "unpack")

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

-- The first part of the path is the number of a session and the recordings that answer for it, in their order. Each request must
-- have the method and the route of its recording; the paths in it may be spelt otherwise.
local SERVER = [[
  local played = {}
  local function route(path) return (path:gsub("?.*", ""):gsub("/session/[^/]+", "/session/ID")) end
  return function(request, connection)
    local names, path = request.path:match("^/([^/]+)(/.*)$")
    local position = (played[names] or 0) + 1
    played[names] = position
    local list = {}
    for name in names:gsub("^%d+", ""):gmatch("[^+]+") do list[#list + 1] = name end
    local recorded = list[position] and assert(recording("isolated/" .. list[position]))
    if not recorded or recorded.request.method ~= request.method or route(recorded.request.path) ~= route(path) then
      return connection:respond(599, {}, ("request %d of %s is %s %s"):format(position, names, request.method, path))
    end
    local response, headers = recorded.response, {}
    for _, pair in ipairs(response.headers) do
      if pair[1] ~= "Transfer-Encoding" then headers[#headers + 1] = pair end
    end
    connection:respond(response.status, headers, response.body)
    if response.truncated then connection:close() end
  end
]]

local RW, OVERLAY, RO = "/workspace/rw", "/workspace/ov", "/workspace/ro"

local server, client, helpers
local count = 0
setup(function() server = fault_server.start(SERVER) end)
teardown(function() server:stop() end)
before_each(function()
  client = opensandbox.new(server.url, "key", { retry = false })
  helpers = {}
end)
after_each(function() client:close() end)

-- The files of a session whose directories are `mounts`, answered by recordings; and a function that returns what was sent since.
local function playing(mounts, ...)
  count = count + 1
  local endpoint = { url = ("%s/%d+%s/v1/isolated/session/ID"):format(server.url, count, table.concat({ ... }, "+")), headers = {},
    sandbox_id = "sb", mounts = isolated_files.mounts(type(mounts) == "string" and { workspace = mounts } or mounts) }
  local function run(_, script, opts)
    helpers[#helpers + 1] = { script, opts.cwd }
    return { exit_code = 0, stdout = "", stderr = "" }
  end
  local before = #server:requests()
  return files.of { id = "sb", client = isolated_files.view(client, run), run = run, endpoint = function() return endpoint end },
    function()
      local sent = {}
      for i, request in ipairs(server:requests()) do
        if i > before then
          sent[#sent + 1] = request.method .. " " .. request.path:gsub("^.-/session/ID", ""):gsub("%%(%x%x)", function(hex)
            return string.char(tonumber(hex, 16))
          end) .. (request.headers["content-type"] == "application/json" and " " .. request.body:gsub("\\/", "/") or "")
        end
      end
      return sent
    end
end

describe("the files of an isolated session", function()
  it("are described by absolute paths, without times and owners that execd makes up", function()
    for _, path in ipairs { RW .. "/lower.txt", "lower.txt", "./sub/../lower.txt", RW .. "//./lower.txt" } do
      local session = playing(RW, "files-rw-info")
      local info = assert(session:stat(path))
      assert.same({ RW .. "/lower.txt", "file", 6, "0644" }, { info.path, info.type, info.size, info.mode })
      assert.is_true(info.modified_at > 1.7e9)
      assert.is_nil(info.created_at)
      assert.is_nil(info.owner)
      assert.is_nil(info.group)
    end
  end)

  it("are symlinks where they are symlinks, though execd refuses to look at them", function()
    local answers = { "files-rw-info-inner-link", "files-rw-info-inner-link", "files-rw-list" }
    local info = assert(playing(RW, unpack(answers)):stat "inner-link")
    assert.same({ RW .. "/inner-link", "symlink", nil }, { info.path, info.type, info.owner })
    assert.is_true(playing(RW, unpack(answers)):exists(RW .. "/inner-link"))
    assert.equal("symlink", assert(playing({}, "files-overlay-info-inner-link"):stat "inner-link").type)
    local text, err = playing(RW, "files-rw-download-inner-link"):read "inner-link"
    assert.is_nil(text)
    assert.same({ 500, "symlink_refused", "files:read" }, { err.status, err.code, err.op })
    assert.matches("use the path that the link means, or a run", err.hint)
    assert.equal("lower\n", playing(OVERLAY, "files-overlay-download-inner-link"):read "inner-link")
    err = select(2, playing(RW, "files-rw-upload-symlink"):write("link", "x"))
    assert.same({ "symlink_refused", "files:write" }, { err.code, err.op })
  end)

  it("that are missing do not exist, and are deleted all the same", function()
    assert.is_false(playing(RW, "files-rw-info-missing"):exists "none")
    local info, err = playing(RW, "files-rw-info-missing"):stat "none"
    assert.is_nil(info)
    assert.same({ 404, "FILE_NOT_FOUND" }, { err.status, err.code })
    for _, mounts in ipairs { RW, { workspace = OVERLAY, mode = "overlay" } } do
      local kind = mounts == RW and "rw" or "overlay"
      local missing = ("files-%s-delete-missing"):format(kind)
      assert.is_true(playing(mounts, missing, missing, ("files-%s-list"):format(kind)):remove "none")
    end
    local session, sent = playing(RW, "files-rw-delete-missing", "files-rw-delete", "files-rw-delete-missing", "files-rw-list")
    assert.is_true(session:remove { "over.txt", "none" })
    assert.same({ "DELETE /files?path=/workspace/rw/over.txt&path=/workspace/rw/none", "DELETE /files?path=/workspace/rw/over.txt",
      "DELETE /files?path=/workspace/rw/none", "GET /directories/list?path=/workspace/rw" }, sent())
    assert.is_true(playing(RW, "files-rw-rmdir"):remove("none", { recursive = true }))
    err = select(2, playing(RW, "files-rw-permissions-missing"):chmod("none", "0640"))
    assert.same({ "FILE_NOT_FOUND", "files:chmod" }, { err.code, err.op })
    err = select(2, playing(RW, "files-rw-delete-directory"):remove "new")
    assert.matches("directory not empty", err.message)
  end)

  it("that are symlinks to nothing are deleted by the shell, for execd does not find them", function()
    local session = playing(RW, "files-rw-delete-symlink", "files-rw-delete-symlink", "files-rw-list")
    assert.is_true(session:remove "inner-link")
    assert.same({ { "rm -f -- /workspace/rw/inner-link", "/" } }, helpers)
  end)

  it("that are directories are no files to read, which is known at once", function()
    for mounts, kind in pairs { [RW] = "rw", [OVERLAY] = "overlay", [RO] = "ro" } do
      local recording = ("files-%s-download-directory"):format(kind)
      for _, call in ipairs { { "read", "sub" }, { "open", "sub" }, { "download", "sub", temporary.path() } } do
        local session = playing(mounts, recording)
        local value, err = session[call[1]](session, call[2], call[3])
        assert.is_nil(value)
        assert.same({ "state", "not_a_file", "files:" .. call[1] }, { err.kind, err.code, err.op }, kind)
      end
    end
  end)

  it("are below its directories, and no other path is sent", function()
    local session, sent = playing(RW)
    for _, path in ipairs { "/etc/passwd", "../x", "/workspace/rw/../../etc/x", "/workspace/rwx", "/workspace", "a/../../b" } do
      for name, call in pairs {
        stat = { path }, exists = { path }, read = { path }, open = { path }, write = { path, "x" }, search = { path },
        list = { path }, remove = { path }, mkdir = { path }, chmod = { path, "0644" }, replace = { path, "a", "b" },
        move = { path, "x" },
      } do
        local value, err = session[name](session, unpack(call))
        assert.is_nil(value)
        assert.same({ "state", "outside_workspace", "files:" .. name, "sb" },
          { err.kind, err.code, err.op, err.sandbox_id }, path)
        assert.is_truthy(err.message:find(("%q is not below /workspace/rw"):format(path), 1, true), err.message)
      end
      local err = select(2, session:move("x", path))
      assert.equal("outside_workspace", err.code)
      err = select(2, session:download(path, "/tmp/never"))
      assert.equal("outside_workspace", err.code)
    end
    assert.same({}, sent())
  end)

  it("are found by absolute paths, whatever directory was asked", function()
    local function paths_of(list)
      local found = {}
      for i, info in ipairs(list) do
        found[i] = info.path
        assert.is_nil(info.created_at)
      end
      return found
    end
    local expected = { RW .. "/lower.txt", RW .. "/sub/deep.txt", RW .. "/up.txt" }
    for _, root in ipairs { RW, ".", RW .. "/" } do
      for _, pattern in ipairs { "*.txt", "**/*.txt" } do
        local session, sent = playing(RW, "files-rw-search")
        assert.same(expected, paths_of(assert(session:search(root, pattern))))
        assert.same({ "GET /files/search?path=/workspace/rw&pattern=*.txt" }, sent())
      end
    end
    assert.same({ RW .. "/sub/deep.txt" }, paths_of(assert(playing(RW, "files-rw-search-sub"):search "sub")))
    local none = "files-rw-search-missing"
    local session, sent = playing(RW, "files-rw-search", "files-rw-search-sub", none, none)
    assert.same(expected, paths_of(assert(session:search(RW, "{*.txt,deep.*}{,.b}"))))
    assert.same({ "GET /files/search?path=/workspace/rw&pattern=*.txt", "GET /files/search?path=/workspace/rw&pattern=*.txt.b",
      "GET /files/search?path=/workspace/rw&pattern=deep.*", "GET /files/search?path=/workspace/rw&pattern=deep.*.b" }, sent())
    for pattern, expected_patterns in pairs {
      ["\\{a,b\\}"] = { "\\{a,b\\}" }, ["[{,}]x"] = { "[{,}]x" }, ["{a,b"] = { "{a,b" }, ["a}b"] = { "a}b" }, ["{x}"] = { "x" },
      ["{a,{b,c}d}"] = { "a", "bd", "cd" },
    } do
      local answers = {}
      for i = 1, #expected_patterns do answers[i] = "files-rw-search" end
      session, sent = playing(RW, unpack(answers))
      assert(session:search(RW, pattern))
      for i, one in ipairs(expected_patterns) do
        assert.equal("GET /files/search?path=/workspace/rw&pattern=" .. one, sent()[i])
      end
      assert.equal(#expected_patterns, #sent())
    end
    local ok, problem = pcall(session.search, session, RW, ("{a,b}"):rep(40))
    assert.is_false(ok)
    assert.matches("stands for more than 64 patterns", problem)
    assert.is_true(#assert(playing(RW, "files-rw-list"):list(RW)) > 3)
  end)

  it("are not empty lists where there is no directory", function()
    local list, err = playing(RW, "files-rw-search-missing", "files-rw-info-missing"):search "none"
    assert.is_nil(list)
    assert.same({ "FILE_NOT_FOUND", "files:search" }, { err.code, err.op })
    err = select(2, playing(RW, "files-rw-list-missing"):list "none")
    assert.equal("FILE_NOT_FOUND", err.code)
    list, err = playing(RW, "files-rw-list-file", "files-rw-info"):list "lower.txt"
    assert.is_nil(list)
    assert.same({ "state", "not_a_directory", "files:list" }, { err.kind, err.code, err.op })
    assert.same({}, assert(playing(RW, "files-rw-list-file", "files-rw-info"):list "sub"))
  end)

  it("are not moved over each other", function()
    local session, sent = playing(RW, "files-rw-info")
    local ok, err = session:move("up.txt", "lower.txt")
    assert.is_nil(ok)
    assert.same({ "state", "file_exists", "files:move" }, { err.kind, err.code, err.op })
    assert.equal(1, #sent())
    session, sent = playing(RW, "files-rw-info-missing", "files-rw-mv")
    assert.is_true(session:move("up.txt", RW .. "/new/moved.txt"))
    assert.equal('POST /files/mv [{"src":"/workspace/rw/up.txt","dest":"/workspace/rw/new/moved.txt"}]',
      (sent()[2]:gsub('{"dest":("[^"]*"),"src":("[^"]*")}', '{"src":%2,"dest":%1}')))
    err = select(2, playing(RW, "files-rw-info-missing", "files-rw-mv-missing"):move("none", "x"))
    assert.equal("FILE_NOT_FOUND", err.code)
  end)

  it("keep the directories above a new one open to others", function()
    local session, sent = playing(RW, "files-rw-mkdir", "files-rw-mkdir")
    assert.is_true(session:mkdir("new/dir", { mode = "0700" }))
    assert.same({ 'POST /directories {"/workspace/rw/new":{"mode":755}}',
      'POST /directories {"/workspace/rw/new/dir":{"mode":700}}' }, sent())
    session, sent = playing(RW, "files-rw-mkdir")
    assert.is_true(session:mkdir "new")
    assert.equal(1, #sent())
  end)

  it("count what is replaced by the path that was given", function()
    assert.equal(5, playing(RW, "files-rw-replace-verbose"):replace("over.txt", "a", "A"))
  end)

  it("of a read-only session say so", function()
    for name, recording in pairs { remove = "files-ro-delete", mkdir = "files-ro-mkdir", chmod = "files-ro-permissions" } do
      local session = playing({ workspace = RO, mode = "ro" }, recording)
      local ok, err = session[name](session, "x", name == "chmod" and "0644" or nil)
      assert.is_nil(ok)
      assert.same({ "state", "read_only", "files:" .. name }, { err.kind, err.code, err.op })
      assert.matches("mode \"ro\"", err.hint)
    end
    assert.equal("read_only", select(2, playing({ workspace = RO, mode = "ro" }, "tar-ro-up-1-upload"):write("x", "y")).code)
  end)

  it("have no owners to be set", function()
    local session = playing(RW)
    for name, call in pairs {
      write = { "x", "y", { owner = "root" } }, mkdir = { "x", { group = "root" } }, chmod = { "x", nil, { owner = "root" } },
    } do
      local ok, problem = pcall(session[name], session, unpack(call, 1, 3))
      assert.is_false(ok)
      assert.is_truthy(problem:find("options 'owner' and 'group' are not for the files of an isolated session", 1, true), problem)
      assert.is_truthy(problem:find("isolated_files_spec.lua:", 1, true), problem)
    end
  end)

  it("of a session that has ended say so", function()
    for name, recording in pairs { stat = "unknown-files-info", read = "unknown-files-download", list = "unknown-directories-list",
      search = "unknown-files-search", remove = "unknown-files-delete", mkdir = "unknown-mkdir" } do
      local session = playing(RW, recording)
      local value, err = session[name](session, "x")
      assert.is_nil(value)
      assert.same({ "state", "SESSION_NOT_FOUND", "files:" .. name }, { err.kind, err.code, err.op })
      assert.matches("Create another session", err.hint)
    end
  end)

  it("of several directories belong to the innermost one, and relative paths to the first", function()
    local several = { workspace = "/work", overlays = { { path = "/", mode = "overlay" }, { path = RW } } }
    local list = assert(playing(several, "files-rw-search"):search(RW))
    assert.equal(RW .. "/lower.txt", list[1].path)
    list = assert(playing(several, "files-rw-search"):search "/etc")
    assert.equal("/lower.txt", list[1].path)
    local session, sent = playing(several, "files-rw-search")
    assert.equal("/work/lower.txt", assert(session:search "sub")[1].path)
    assert.same({ "GET /files/search?path=/work/sub&pattern=*" }, sent())
    local workspace, b = { path = "/w", mode = "ro" }, { path = "/b", mode = "overlay", persist = false }
    assert.same({ { path = "/a", mode = "overlay" }, { path = "/b", mode = "ro" } },
      isolated_files.mounts { overlays = { { path = "/a/" }, { path = "/b", mode = "ro" } } })
    assert.same({ workspace, b }, isolated_files.mounts { workspace = workspace, overlays = { workspace, b } })
    assert.same({ workspace, b }, isolated_files.mounts { workspace = "/w", mode = "ro", overlays = { b } })
    assert.same({ { path = "/w", mode = "rw" } }, isolated_files.mounts { workspace = "/w" })
    assert.same({ { path = "/w", mode = "rw" } }, isolated_files.mounts { workspace = { path = "/w" } })
    assert.same({}, isolated_files.mounts { overlays = { 1, { path = 2 } } })
  end)

  it("of an execd that does not report directories are named as they are given", function()
    local session, sent = playing({}, "files-rw-info")
    assert.equal("lower.txt", assert(session:stat "lower.txt").path)
    assert.same({ "GET /files/info?path=lower.txt" }, sent())
  end)
end)
