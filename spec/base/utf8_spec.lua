--- UTF-8, as execd's JSON encoder sees it.

local utf8 = require "opensandbox.base.utf8"

local SOUND = {
  "", "ascii\0\127", "é", "日本語", "😀", "\194\128", "\223\191", "\224\160\128", "\237\159\191", "\238\128\128", "\240\144\128\128",
  "\244\143\191\191", ("é"):rep(1000) .. "x", "a\194\133b",
}
local UNSOUND = {
  ["\255"] = 1, ["\128"] = 1, ["\192\175"] = 2, ["\193\191"] = 2, ["\195"] = 1, ["é\195"] = 1, ["\224\159\191"] = 3,
  ["\237\160\128"] = 3, ["\240\143\191\191"] = 4, ["\244\144\128\128"] = 4, ["\245\128\128\128"] = 4, ["\226\130"] = 2,
  ["\226\130a"] = 2, ["é\233é"] = 1, [("日"):rep(100) .. "\254"] = 1,
}

describe("a text", function()
  it("that is UTF-8 is told to be, and stays as it is", function()
    for _, text in ipairs(SOUND) do
      assert.is_true(utf8.is_valid(text), ("%q"):format(text))
      assert.equal(text, utf8.replace_invalid(text))
    end
  end)

  it("that is not is told so, and gets U+FFFD for each byte that is none", function()
    for text, count in pairs(UNSOUND) do
      assert.is_false(utf8.is_valid(text), ("%q"):format(text))
      local made, replaced = utf8.replace_invalid(text), 0
      for _ in made:gmatch("\239\191\189") do replaced = replaced + 1 end
      assert.equal(count, replaced, ("%q"):format(text))
      assert.is_true(utf8.is_valid(made))
    end
  end)
end)

describe("the incomplete character at the end of a text", function()
  it("is found by its first byte, whatever its length", function()
    for text, length in pairs {
      [""] = 0, a = 0, ["a\195"] = 1, ["\195\169"] = 0, ["\226\130"] = 2, ["\226\130\172"] = 0, ["x\240\159\152"] = 3,
      ["\240\159\152\128"] = 0, ["\169"] = 0, ["\169\169\169"] = 0, ["\255"] = 0, ["\195a"] = 0,
    } do assert.equal(length, utf8.incomplete_length(text), ("%q"):format(text)) end
  end)
end)
