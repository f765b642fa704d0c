--- The reader of a download by itself, on streams that cost nothing.

local reader = require "opensandbox.files.reader"

local MEBIBYTE = 1024 * 1024

-- A stream of `size` bytes, of which `piece` repeats, in chunks of at most 64 KiB.
local function stream_of(size, piece)
  local chunk, left = piece:rep(math.floor(65536 / #piece)), size
  return {
    size = function() return size end,
    read = function(_, most)
      local count = math.min(most, left, #chunk)
      if count == 0 then return nil end
      left = left - count
      return count == #chunk and chunk or chunk:sub(1, count)
    end,
  }
end

-- The processor time of a function, the least of three times.
local function cpu(fn)
  local least = math.huge
  for _ = 1, 3 do
    collectgarbage()
    local before = os.clock()
    fn()
    least = math.min(least, os.clock() - before)
  end
  return least
end

describe("a reader", function()
  it("takes time in proportion to the bytes of one read", function()
    local function read(mebibytes)
      return cpu(function()
        local one = reader.new(stream_of(mebibytes * MEBIBYTE, "x"))
        assert.equal(mebibytes * MEBIBYTE, #one:read(mebibytes * MEBIBYTE))
        assert.is_nil(one:read(1))
      end)
    end
    local few, many = read(8), read(64)
    assert.is_true(many < 24 * few + 0.1, ("64 MiB took %.3f s, 8 MiB %.3f s"):format(many, few))
  end)

  it("takes time in proportion to the lines of a chunk", function()
    local function lines(count)
      return cpu(function()
        local one, seen = reader.new(stream_of(count * 2, "x\n")), 0
        for line in one:lines() do
          seen = seen + 1
          if line ~= "x" then error("not a line: " .. line) end
        end
        assert.equal(count, seen)
      end)
    end
    local few, many = lines(3000), lines(30000) -- both fit into one chunk
    assert.is_true(many < 30 * few + 0.05, ("30,000 lines took %.3f s, 3,000 lines %.3f s"):format(many, few))
  end)

  it("returns its error again after the stream has failed", function()
    local problem, calls = {}, 0
    local one = reader.new { size = function() end, read = function()
      calls = calls + 1
      if calls == 1 then return "some bytes\nand more" end
      return nil, problem
    end }
    assert.equal("some bytes", one:read("l"))
    assert.same({ "an" }, { one:read(2) })
    for _, format in ipairs { 100, "l", "a", 1, 0 } do
      local bytes, err = one:read(format)
      assert.is_nil(bytes)
      assert.equal(problem, err)
    end
    assert.equal(2, calls)
  end)
end)
