--- Numbers as text: with a point, in every locale. (The locales themselves: spec/locale_spec.lua.)

local numbers = require "opensandbox.base.numbers"

describe("a number as text", function()
  it("has no fraction if it is integral, and a point if it is not", function()
    for text, value in pairs {
      ["0"] = 0, ["1"] = 1, ["-1"] = -1, ["600"] = 600.0, ["8080"] = 8080, ["0.5"] = 0.5, ["-2.25"] = -2.25, ["1e+20"] = 1e20,
      ["9007199254740991"] = 2 ^ 53 - 1, ["0.1"] = 0.1, ["inf"] = 1 / 0,
    } do
      assert.equal(text, numbers.format(value))
    end
    assert.equal("nan", (numbers.format(0 / 0):gsub("^-", "")))
  end)

  it("has the form that is asked for", function()
    assert.equal("0.500", numbers.format(0.5, "%.3f"))
    assert.equal("0.3", numbers.format(1 / 3, "%.1g"))
  end)
end)

describe("a text as a number", function()
  it("is a decimal number, with or without a fraction and an exponent", function()
    for text, value in pairs {
      ["0"] = 0, ["15"] = 15, ["-3"] = -3, ["+3"] = 3, ["0.5"] = 0.5, [".5"] = 0.5, ["5."] = 5, ["1e3"] = 1000, ["2.5E-1"] = 0.25,
    } do
      assert.equal(value, numbers.parse(text), text)
    end
  end)

  it("is nothing else", function()
    for _, text in ipairs {
      "", " ", " 1", "1 ", "0x10", "nan", "inf", "infinity", "1,5", "1.2.3", ".", "-", "e5", "1e", "five", "1\n", "--1",
    } do
      assert.is_nil(numbers.parse(text), text)
    end
  end)
end)

describe("a natural number", function()
  it("is whole, not negative, and exact in every Lua", function()
    for _, value in ipairs { 0, 1, 2 ^ 53 - 1 } do assert.is_true(numbers.is_natural(value), value) end
    for _, value in ipairs { -1, 0.5, 2 ^ 53, math.huge, -math.huge, 0 / 0, "1", {} } do
      assert.is_false(numbers.is_natural(value), tostring(value))
    end
    assert.is_false(numbers.is_natural(nil))
  end)
end)
