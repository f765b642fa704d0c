--- The text that events would have given, made of a command's bytes, however these are cut.

local line_normalizer = require "opensandbox.execution.line_normalizer"

local function rebuilt(pieces)
  local made, text = line_normalizer(), {}
  for _, piece in ipairs(pieces) do text[#text + 1] = made:feed(piece) end
  text[#text + 1] = made:finish()
  return table.concat(text)
end

local cases = {
  { "", "" },
  { "a", "a\n" },
  { "a\n", "a\n" },
  { "\n", "\n" },
  { "\n\n", "\n\n" },
  { "a\n\nb\n\n\nc", "a\n\nb\n\n\nc\n" },
  { "a\rb\r\nc\r\r\nd\n\re\r", "a\nb\nc\n\nd\n\ne\n" },
  { "\r", "\n" }, { "\r\n", "\n" }, { "\n\r", "\n\n" }, { "\r\n\n", "\n\n" }, { "\r\r\n\n", "\n\n\n" },
  { "h\195\169 \226\130\172 \240\159\140\141", "h\195\169 \226\130\172 \240\159\140\141\n" },
  { "\255\254", "\239\191\189\239\191\189\n" },
  { "\195", "\239\191\189\n" }, { "\195\nx", "\239\191\189\nx\n" }, { "\226\130", "\239\191\189\239\191\189\n" },
  { "\237\160\128|\240\143\191\191|\244\144\128\128|\192\128", ("\239\191\189"):rep(3) .. "|" .. ("\239\191\189"):rep(4) .. "|"
    .. ("\239\191\189"):rep(4) .. "|" .. ("\239\191\189"):rep(2) .. "\n" }, -- surrogates, overlong forms, beyond the last
  { "a\0b\27\n", "a\0b\27\n" },
}

describe("the text of lines", function()
  it("is that of execd's events", function()
    for _, case in ipairs(cases) do assert.equal(case[2], rebuilt { case[1] }, ("%q"):format(case[1])) end
  end)

  it("is the same however the bytes are cut", function()
    for _, case in ipairs(cases) do
      local bytes, single = case[1], {}
      for i = 1, #bytes do single[i] = bytes:sub(i, i) end
      assert.equal(case[2], rebuilt(single), ("%q"):format(bytes))
      for i = 0, #bytes do
        for j = i, #bytes do
          assert.equal(case[2], rebuilt { bytes:sub(1, i), "", bytes:sub(i + 1, j), bytes:sub(j + 1) }, ("%q"):format(bytes))
        end
      end
    end
  end)

  it("of a line without end is returned in parts that hold whole characters", function()
    local line = ("\195\169\226\130\172\240\159\140\141x\255"):rep(200000)
    local made, text, most = line_normalizer(), {}, 0
    for at = 1, #line, 99991 do
      local piece = made:feed(line:sub(at, at + 99990))
      most = math.max(most, #piece)
      text[#text + 1] = piece
    end
    text[#text + 1] = made:finish()
    local whole = table.concat(text)
    assert.is_true(whole == line:gsub("\255", "\239\191\189") .. "\n")
    assert.is_true(most > 0 and most < 2.5 * 1024 * 1024, most .. " bytes in one part")
    made = line_normalizer()
    assert.equal(1100000, #made:feed(("x"):rep(1100000)))
    assert.equal("\n", made:feed("\n"))
    assert.equal("", made:finish())
  end)

  it("of one long line takes no more time than it is long", function()
    local piece = ("x"):rep(20000)
    -- Seconds of processor for a line of so many pieces, the best of three.
    local function measure(pieces)
      local best = math.huge
      for _ = 1, 3 do
        collectgarbage()
        local made, began = line_normalizer(), os.clock()
        local size = 0
        for _ = 1, pieces do size = size + #made:feed(piece) end
        assert(size + #made:finish() == pieces * #piece + 1)
        best = math.min(best, os.clock() - began)
      end
      return best
    end
    local short, long = measure(50), measure(400)
    assert.is_true(long < short * 24 + 0.05, ("%g s for 50 pieces, %g s for 400"):format(short, long)) -- 64 times, were it the square
  end)
end)
