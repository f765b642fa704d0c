--- Following a log that is cut anywhere: every byte arrives once, no character is divided, and cursors are true.

local deadline = require "opensandbox.loop.deadline"
local log_follower = require "opensandbox.execution.log_follower"

-- Follows a log that arrives in these pieces, and ends then. Returns the texts and the cursors.
local function follow(pieces, first)
  local log, index, asked = table.concat(pieces), 0, {}
  local follower = log_follower {
    op = "test", cursor = first or 0,
    logs = function(cursor)
      asked[#asked + 1] = cursor
      index = index + 1
      local piece = pieces[index] or ""
      assert.equal(piece, log:sub(cursor + 1, cursor + #piece))
      return { text = piece, cursor = cursor + #piece }
    end,
    status = function() return { running = index < #pieces } end,
  }
  local texts, cursors = {}, {}
  while true do
    local text, cursor, status, err = follower:next()
    assert.is_nil(err)
    if status then break end
    texts[#texts + 1], cursors[#cursors + 1] = text, cursor
  end
  return texts, cursors, log
end

local function is_whole(text)
  return not text:find("[\194-\244]$") and not text:find("[\224-\244][\128-\191]$")
    and not text:find("[\240-\244][\128-\191][\128-\191]$") and not text:find("^[\128-\191]")
end

describe("the text of a followed log", function()
  it("holds back an incomplete character until the rest arrives", function()
    assert.same({ "caf", "\195\169 ok\n" }, (follow { "caf\195", "\169 ok\n" }))
    assert.same({ "\226\130\172" }, (follow { "\226", "\130", "\172" }))
    local texts, cursors = follow { "a\240\159", "\140", "\141b" }
    assert.same({ "a", "\240\159\140\141b" }, texts)
    assert.same({ 1, 6 }, cursors)
  end)

  it("has every byte once, wherever it is cut, and cursors between characters", function()
    local log = "h\195\169llo \226\130\172 \240\159\140\141 \194\133 plain\n\255\254 not UTF-8 \195( \224\160\n"
    for one = 1, #log - 1 do
      for two = one, #log - 1 do
        local texts, cursors = follow { log:sub(1, one), log:sub(one + 1, two), log:sub(two + 1) }
        assert.equal(log, table.concat(texts))
        local position = 0
        for i, text in ipairs(texts) do
          position = position + #text
          assert.equal(position, cursors[i])
        end
      end
    end
    local whole = "h\195\169llo \226\130\172 \240\159\140\141 \194\133\n"
    for cut = 1, #whole - 1 do
      for _, text in ipairs((follow { whole:sub(1, cut), whole:sub(cut + 1) })) do
        assert.is_true(is_whole(text), ("%q"):format(text))
      end
    end
  end)

  it("ends with the bytes that no character completes", function()
    assert.same({ "end", "\240\159" }, (follow { "end\240\159" }))
    assert.same({ "\255\255" }, (follow { "\255\255" }))
  end)

  it("ends at its time limit, although every request is answered at once", function()
    local requests = 0
    local function count() -- a follower that goes on would never end
      requests = requests + 1
      return requests < 2000 or error("it goes on after the limit")
    end
    local follower = log_follower {
      op = "test:follow", cursor = 0, limit = deadline.new(0.05),
      logs = function(cursor) return count() and { text = "", cursor = cursor } end,
      status = function() return count() and { running = true } end,
    }
    assert.same({}, { follower:next() })
  end)

  it("has no time for a request after its time limit", function()
    local limit = deadline.new(0)
    assert.is_true(limit:has_passed())
    assert.is_true(limit:remaining() > 0 and limit:remaining() < 1e-5, "an answer could arrive in time")
  end)
end)
