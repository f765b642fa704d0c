--- A command's output as it is kept: whole within the limit, beyond it the first and the last half.

local output_buffer = require "opensandbox.execution.output_buffer"
local new_random = require "spec.support.random"

-- What should be kept of a text.
local function model(text, limit)
  if #text <= limit then return text, 0 end
  local tail = math.floor(limit / 2)
  return text:sub(1, limit - tail) .. text:sub(#text - tail + 1), #text - limit
end

local function kept(pieces, limit)
  local store = output_buffer.new(limit)
  for _, piece in ipairs(pieces) do store:append(piece) end
  return store:text()
end

-- Long texts make unreadable failures: they are compared by hand.
local function check(pieces, limit, what)
  local text, dropped = kept(pieces, limit)
  local expected, expected_dropped = model(table.concat(pieces), limit)
  assert.equal(expected_dropped, dropped, what)
  assert.equal(#expected, #text, what)
  assert.is_true(expected == text, what)
end

-- A text in which every place can be told from its neighbours.
local function counted(length)
  local parts = {}
  for number = 1, math.ceil(length / 8) do parts[number] = ("%07d "):format(number) end
  return table.concat(parts):sub(1, length)
end

local function cut(text, size)
  local pieces = {}
  for position = 1, #text, size do pieces[#pieces + 1] = text:sub(position, position + size - 1) end
  return pieces
end

describe("a line of /command", function()
  it("gets the newline back that execd took away", function()
    assert.equal("hello\n", output_buffer.line("hello"))
    assert.equal("a b \n", output_buffer.line("a b "))
  end)

  it("that is blank comes as a newline and stays one", function()
    assert.equal("\n", output_buffer.line("\n"))
    assert.equal("a\n\nb\n", output_buffer.line("a") .. output_buffer.line("\n") .. output_buffer.line("b"))
  end)
end)

describe("what is kept", function()
  it("is everything up to the limit", function()
    assert.same({ "", 0 }, { kept({}, 10) })
    assert.same({ "", 0 }, { kept({ "", "" }, 10) })
    assert.same({ "abc", 0 }, { kept({ "a", "bc" }, 10) })
    assert.same({ "abcdefghij", 0 }, { kept({ "abcde", "fghij" }, 10) })
  end)

  it("is the first and the last half beyond it, with the bytes between them counted", function()
    assert.same({ "abcdeghijk", 1 }, { kept({ "abcdefghijk" }, 10) })
    assert.same({ "abcdevwxyz", 16 }, { kept({ "abcdefghijklm", "nopqrstuvwxyz" }, 10) })
  end)

  it("has the odd byte in its first half", function()
    assert.same({ "abz", 23 }, { kept({ "abcdefghijklmnopqrstuvwxyz" }, 3) })
    assert.same({ "a", 25 }, { kept({ "abcdefghijklmnopqrstuvwxyz" }, 1) })
  end)

  it("is nothing for a limit of 0, and all of it counted", function()
    assert.same({ "", 26 }, { kept({ "abcdefghijklmnopqrstuvwxyz" }, 0) })
    check(cut(counted(300000), 7), 0, "300000 bytes")
  end)

  it("does not depend on the pieces", function()
    local text = counted(5000)
    for _, size in ipairs { 1, 2, 3, 7, 100, 4999, 5000 } do
      for _, limit in ipairs { 0, 1, 2, 99, 100, 4998, 4999, 5000, 5001, 10000 } do
        check(cut(text, size), limit, ("pieces of %d, limit %d"):format(size, limit))
      end
    end
  end)

  it("is exact around the sizes at which pieces become blocks", function()
    -- 1024 pieces or 64 KiB make a block.
    for _, count in ipairs { 1023, 1024, 1025, 2047, 2048, 2049 } do
      for _, limit in ipairs { 1000, 1023, 1024, 1025, 2047, 2048, 2049 } do
        check(cut(counted(count), 1), limit, ("%d pieces, limit %d"):format(count, limit))
      end
    end
    local block = 64 * 1024
    for _, length in ipairs { block - 1, block, block + 1, 2 * block - 1, 2 * block, 2 * block + 1, 5 * block } do
      for _, limit in ipairs { block - 1, block, block + 1, 2 * block - 1, 2 * block, 2 * block + 1 } do
        for _, size in ipairs { 1000, block - 1, block, block + 1, length } do
          check(cut(counted(length), size), limit, ("%d bytes in pieces of %d, limit %d"):format(length, size, limit))
        end
      end
    end
  end)

  it("can be looked at while more comes", function()
    local store, text = output_buffer.new(1000), counted(4000)
    for index, piece in ipairs(cut(text, 37)) do
      store:append(piece)
      local so_far = text:sub(1, index * 37)
      local expected, expected_dropped = model(so_far, 1000)
      for _ = 1, 2 do
        local got, dropped = store:text()
        assert.is_true(expected == got, "after piece " .. index)
        assert.equal(expected_dropped, dropped)
      end
    end
  end)

  it("is what a naive model keeps, on random pieces and limits", function()
    local random_from_1 = new_random(42)
    local function random(limit) return random_from_1(limit) - 1 end
    local source = counted(200000)
    for try = 1, 300 do
      local pieces, limit = {}, random(({ 10, 1000, 70000, 200000 })[random(4) + 1])
      for index = 1, random(({ 5, 50, 1500 })[random(3) + 1]) + 1 do
        local length = random(({ 2, 20, 300, 70000 })[random(random(10) == 0 and 4 or 3) + 1])
        local first = random(#source - length) + 1
        pieces[index] = source:sub(first, first + length - 1)
      end
      check(pieces, limit, "try " .. try)
    end
  end)

  it("takes little more memory than the limit, however much comes", function()
    local store, piece = output_buffer.new(100000), ("x"):rep(99) .. "\n"
    collectgarbage()
    collectgarbage()
    local before, highest = collectgarbage("count"), 0
    for index = 1, 300000 do -- 30 MB
      store:append(piece)
      if index % 30000 == 0 then
        collectgarbage()
        collectgarbage()
        highest = math.max(highest, collectgarbage("count"))
      end
    end
    assert.is_true(highest - before < 1024, ("%.0f KiB"):format(highest - before))
    local text, dropped = store:text()
    assert.same({ 100000, 30000000 - 100000 }, { #text, dropped })
  end)
end)
