--- Odd names of files arrive as they are: every operation on files is tried with each, directly, through the server's proxy, and in an
--- isolated session.

local odd = require "spec.roundtrip.odd"
local random = require "opensandbox.base.random"
local temporary = require "spec.support.temporary"

local fixture, ways

setup(function() fixture, ways = odd.start() end)
teardown(function() fixture:close() end)

-- A pattern that matches a name and no other.
local function literal(name)
  return (name:gsub("[%*%?%[%]{}!()\\^,]", "\\%0"))
end

local function base(path) return path:match("[^/]*$") end

local function paths_of(list)
  local paths = {}
  for i, info in ipairs(list) do paths[i] = info.path end
  table.sort(paths)
  return paths
end

-- Each is called as odd.try_names does.
local on_paths = {
  ["write, read, stat, exists and remove"] = function(way, path)
    assert(way.files:write(path, "content"))
    assert.equal("content", assert(way.files:read(path)))
    local info = assert(way.files:stat(path))
    assert.same({ path, 7, "file" }, { info.path, info.size, info.type })
    assert.is_true(way.files:exists(path))
    assert(way.files:remove(path))
    assert.is_false(way.files:exists(path))
  end,

  ["upload_files, file_info, download_file and delete_files, several at once"] = function(way, path, place)
    local one, two = path, place .. "/second/" .. base(path)
    assert(way.client:upload_files(way.execd, { { path = one, content = "1" }, { path = two, content = "22" } }))
    local infos = assert(way.client:file_info(way.execd, { one, two }))
    assert.same({ one, 1, two, 2 }, { infos[one].path, infos[one].size, infos[two].path, infos[two].size })
    assert.equal("22", assert(way.client:download_file(way.execd, two)):read("a"))
    assert(way.client:delete_files(way.execd, { one, two }))
    assert.is_false(way.files:exists(one))
    assert.is_false(way.files:exists(two))
  end,

  ["reading a range, and lines"] = function(way, path)
    assert(way.files:write(path, "one\ntwo\nthree\n"))
    assert.equal("wo\nth", assert(way.files:read(path, { offset = 5, length = 5 })))
    assert.equal("two\nthree", assert(way.files:read(path, { lines = { first = 2 } })))
  end,

  ["upload and download of local files, and save_file"] = function(way, path, _, scratch)
    local up, down, saved = scratch .. ".up", scratch .. ".down", scratch .. ".saved"
    local file = assert(io.open(up, "wb"))
    file:write(odd.ALL_BYTES)
    file:close()
    local function content(name)
      local read = assert(io.open(name, "rb"))
      local bytes = read:read("*a")
      read:close()
      os.remove(name)
      return bytes
    end
    assert(way.files:upload(up, path))
    assert(way.files:download(path, down))
    assert(way.client:save_file(way.execd, path, saved))
    assert.is_true(odd.ALL_BYTES == content(up) and odd.ALL_BYTES == content(down) and odd.ALL_BYTES == content(saved))
  end,

  ["search by a pattern that is this name"] = function(way, path, place)
    assert(way.files:write(path, "x"))
    assert(way.files:write(place .. "/other", "x"))
    assert.same({ path }, paths_of(assert(way.files:search(place, literal(base(path))))))
    assert.same({ path }, paths_of(assert(way.files:search(path))))
  end,

  ["list, of the directory that has it and of itself"] = function(way, path, place)
    assert(way.files:write(path .. "/file", "x"))
    assert.same({ path, path .. "/file" }, paths_of(assert(way.files:list(path:match("^(.*)/"), { depth = 2 }))))
    assert.same({ path .. "/file" }, paths_of(assert(way.files:list(path))))
    assert.is_true(#assert(way.files:list(place)) >= 1)
  end,

  ["mkdir and rmdir"] = function(way, path)
    assert(way.files:mkdir(path .. "/below", { mode = "0700" }))
    local info = assert(way.files:stat(path .. "/below"))
    assert.same({ "directory", "0700" }, { info.type, info.mode })
    assert.equal("directory_not_empty", select(2, way.files:rmdir(path)).code)
    assert(way.files:rmdir(path .. "/below"))
    assert(way.files:rmdir(path))
    assert.is_false(way.files:exists(path))
  end,

  ["move, from it and to it"] = function(way, path, place)
    assert(way.files:write(path, "moves"))
    assert(way.files:move(path, place .. "/plain"))
    assert.is_false(way.files:exists(path))
    assert(way.files:move(place .. "/plain", path))
    assert.equal("moves", assert(way.files:read(path)))
  end,

  ["chmod"] = function(way, path)
    assert(way.files:write(path, "x", { mode = "0644" }))
    assert(way.files:chmod(path, "0600"))
    assert.equal("0600", assert(way.files:stat(path)).mode)
  end,

  ["replace"] = function(way, path)
    assert(way.files:write(path, "old and old"))
    assert.equal(2, assert(way.files:replace(path, "old", "new")))
    assert.equal("new and new", assert(way.files:read(path)))
  end,
}

for _, name in ipairs { odd.DIRECTLY, odd.PROXIED, odd.ISOLATED } do
  describe("odd names of files, " .. name .. ":", function()
    for operation, try in pairs(on_paths) do
      it(operation, function()
        if not ways[name] then return pending(fixture.unisolated) end
        odd.try_names(operation, try, ways[name])
      end)
    end

    it("a directory whose names are all of them goes up and comes down", function()
      local way = ways[name]
      if not way then return pending(fixture.unisolated) end
      local top = "/work/" .. random.hex(4)
      local expected = 0
      for _, text in ipairs(odd.NAMES) do
        if not text:find("/", 1, true) then
          assert(way.files:write(top .. "/" .. text, text))
          expected = expected + 1
        end
      end
      local scratch = temporary.path()
      assert(way.files:download_dir(top, scratch))
      assert(way.files:upload_dir(scratch, top .. "-again"))
      for _, text in ipairs(odd.NAMES) do
        if not text:find("/", 1, true) then assert.equal(text, assert(way.files:read(top .. "-again/" .. text))) end
      end
      assert.equal(expected, #assert(way.files:list(top .. "-again")))
      temporary.remove(scratch)
      assert(way.files:remove(top, { recursive = true }))
      assert(way.files:remove(top .. "-again", { recursive = true }))
    end)
  end)
end
