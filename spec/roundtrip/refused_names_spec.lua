--- Names that cannot arrive are refused before anything is sent; those that are not UTF-8 arrive where they are in a query.

local odd = require "spec.roundtrip.odd"
local temporary = require "spec.support.temporary"

local fixture, ways

setup(function() fixture, ways = odd.start() end)
teardown(function() fixture:close() end)

-- Every method that takes a path: those that send it in JSON, and those that send it in a query.
local in_json = {
  write = function(way, path) way.files:write(path, "x") end,
  upload = function(way, path) way.files:upload("Makefile", path) end,
  upload_files = function(way, path)
    way.client:upload_files(way.execd, { { path = "/work/a", content = "x" }, { path = path, content = "x" } })
  end,
  mkdir = function(way, path) way.files:mkdir(path) end,
  make_directories = function(way, path) way.client:make_directories(way.execd, { "/work/a", path }) end,
  move_from = function(way, path) way.files:move(path, "/work/a") end,
  move_to = function(way, path) way.files:move("/work/a", path) end,
  chmod = function(way, path) way.files:chmod(path, "0600") end,
  replace = function(way, path) way.files:replace(path, "a", "b") end,
  run = function(way, path) way.sandbox:run("true", { cwd = path }) end,
  start = function(way, path) way.sandbox:start("true", { cwd = path }) end,
  session = function(way, path) way.sandbox:session { cwd = path } end,
  isolated = function(way, path) way.sandbox:isolated { workspace = path } end,
  run_in_session = function(way, path) way.client:run_in_session(way.execd, "id", "true", { cwd = path }) end,
  create_code_context = function(way, path) way.client:create_code_context(way.execd, "python", { cwd = path }) end,
}
local in_query = {
  read = function(way, path) return way.files:read(path) end,
  open = function(way, path) return way.files:open(path) end,
  download = function(way, path) return way.files:download(path, temporary.path()) end,
  save_file = function(way, path) return way.client:save_file(way.execd, path, temporary.path()) end,
  stat = function(way, path) return way.files:stat(path) end,
  exists = function(way, path) return way.files:exists(path) end,
  search = function(way, path) return way.files:search(path) end,
  list = function(way, path) return way.files:list(path) end,
  remove = function(way, path) return way.files:remove(path) end,
}

-- The methods of a client and of a sandbox. Those of its files reach such a path in another way, see files/literal_paths_spec.lua.
local EXPANDING = {
  "upload_files", "make_directories", "run", "start", "session", "isolated", "run_in_session", "create_code_context", "save_file",
}

for _, name in ipairs { odd.DIRECTLY, odd.PROXIED } do
  describe("a path that cannot arrive, " .. name .. ",", function()
    for _, method in ipairs(EXPANDING) do
      it("because execd would expand it, is refused by " .. method, function()
        local call = in_json[method] or in_query[method]
        for _, text in ipairs(odd.EXPANDED) do odd.refused("expand or drop", call, ways[name], "/work/" .. text) end
      end)
    end

    for method, call in pairs(in_json) do
      it("because JSON is UTF-8, is refused by " .. method, function()
        for _, text in ipairs(odd.BYTES) do odd.refused("UTF-8", call, ways[name], "/work/" .. text) end
      end)
    end
  end)
end

describe("a path that is not UTF-8, in a query,", function()
  it("reaches the file directly", function()
    local way = ways[odd.DIRECTLY]
    for number, text in ipairs(odd.BYTES) do
      local escaped = text:gsub("[\128-\255]", function(byte) return ("\\%03o"):format(byte:byte()) end)
      local place = "/work/bytes" .. number
      local path = place .. "/" .. text
      assert(way.files:mkdir(place))
      local line = [[printf content > "$(printf 'work/bytes%d/%s')"]]
      assert.equal(0, assert(way.sandbox:run(line:format(number, escaped))).exit_code)
      assert.equal("content", assert(way.files:read(path)))
      assert.equal(7, assert(way.files:stat(path)).size)
      assert.is_true(way.files:exists(path))
      assert.equal(1, #assert(way.files:list(place)))
      assert.equal(1, #assert(way.files:search(path)))
      assert(way.files:remove(path))
      assert.is_false(way.files:exists(path))
    end
  end)

  it("is a word of the command that removes an empty directory, also through the server's proxy", function()
    for number, text in ipairs(odd.BYTES) do
      local path = ("/work/empty%d/%s"):format(number, text)
      local direct = ways[odd.DIRECTLY]
      assert(direct.files:mkdir("/work/empty" .. number))
      local escaped = text:gsub("[\128-\255]", function(byte) return ("\\%03o"):format(byte:byte()) end)
      for _, way in ipairs { direct, ways[odd.PROXIED] } do
        local line = [[mkdir "$(printf 'work/empty%d/%s')"]]
        assert.equal(0, assert(way.sandbox:run(line:format(number, escaped))).exit_code)
        assert(way.files:rmdir(path))
        assert.same({}, assert(way.files:list("/work/empty" .. number)))
      end
    end
  end)

  for method, call in pairs(in_query) do
    it("does not pass through the server's proxy, and is refused by " .. method, function()
      for _, text in ipairs(odd.BYTES) do odd.refused("use_server_proxy = false", call, ways[odd.PROXIED], "/work/" .. text) end
    end)
  end
end)
