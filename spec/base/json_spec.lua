--- JSON: the same values on every Lua and with every lua-cjson.

local json = require "opensandbox.base.json"

local has_integers = math.type ~= nil

-- Strings are compared as numbers too: "10" must not pass for 10.
local function round(value)
  local text = assert(json.encode { value })
  return assert(json.decode(text))[1], text
end

describe("writing", function()
  it("a whole number gives no fraction and no exponent", function()
    for text, number in pairs {
      ["0"] = 0, ["1"] = 1, ["-1"] = -1, ["3600"] = 3600, ["86401"] = 86401, ["500"] = 0.5 * 1000,
      ["2147483648"] = 2147483648, ["-2147483649"] = -2147483649, ["4294967296"] = 4294967296,
      ["99999999999999"] = 99999999999999, ["1795469296015"] = 1795469296015,
      ["9007199254740991"] = 9007199254740991, ["9007199254740992"] = 2 ^ 53, ["-9007199254740991"] = -9007199254740991,
      ["123456789012345"] = 123456789012345,
    } do
      assert.equal("[" .. text .. "]", json.encode { number })
    end
  end)

  -- Go reads no "1e+15" into an integer: execd would refuse the whole request.
  it("a large round whole number gives no exponent", function()
    assert.equal("[100000000000000]", json.encode { 100000000000000 })
    assert.equal("[1000000000000000]", json.encode { 10 ^ 15 })
    assert.equal("[-1200000000000000]", json.encode { -1200000000000000 })
  end)

  it("a number keeps the 17 digits that tell it from its neighbours", function()
    for _, number in ipairs { 1 / 3, 0.1, 0.1 + 0.2, math.pi, -2.5e-8, 1.7976931348623157e308, 123456789.123456789, 1e300,
      5e-324, 2 ^ 53, 2 ^ 60 } do
      local got, text = round(number)
      assert.is_true(got == number, text)
    end
    assert.equal("[0.1]", json.encode { 0.1 })
  end)

  it("integers of 64 bits come through whole, where there are integers", function()
    if not has_integers then return end
    for _, text in ipairs { "9223372036854775807", "-9223372036854775807", "9007199254740993" } do
      assert.equal("[" .. text .. "]", json.encode { math.tointeger(text) or tonumber(text) })
    end
  end)

  it("a table is an object when it is empty, and an array when it is marked", function()
    assert.equal("{}", json.encode {})
    assert.equal("[]", json.encode(json.array {}))
    assert.equal('{"a":[]}', json.encode { a = json.array {} })
    assert.equal('{"a":{}}', json.encode { a = {} })
    assert.equal("[[],[]]", json.encode { json.array {}, json.array {} })
    assert.equal("[1,2]", json.encode(json.array { 1, 2 }))
    assert.equal('{"a":{"b":{"c":[]}}}', json.encode { a = { b = { c = json.array {} } } })
  end)

  it("a null is written where it is meant", function()
    assert.equal('{"a":null}', json.encode { a = json.null })
    assert.equal("[null,1]", json.encode { json.null, 1 })
  end)

  it("strings are bytes: invalid UTF-8 and U+2028 stay as they are, controls are escaped", function()
    for _, text in ipairs { "\255\254", "a\192b", "\226\128\168", "h\195\169llo", "\194\133", '"\\/', "\1\31\127", "a\0b", "" } do
      assert.equal(text, (round(text)))
    end
    assert.equal('["\255"]', json.encode { "\255" })
    assert.is_nil(json.encode({ "\0\n" }):find("[%c]"))
  end)

  it("strings that look like numbers or like our marks stay strings", function()
    assert.equal('["9007199254740993"]', json.encode { "9007199254740993" })
    assert.equal('{"a":"[]"}', json.encode { a = "[]" })
    local text = "opensandbox" .. ("0"):rep(16) .. "[]"
    assert.equal(text, (round(text)))
  end)

  it("does not change what it is given", function()
    local inner = json.array {}
    local value = { number = 1 / 3, list = inner, deep = { big = 2 ^ 53 } }
    local deep = value.deep
    assert(json.encode(value))
    assert.is_true(value.list == inner and value.deep == deep)
    assert.same({ number = 1 / 3, list = {}, deep = { big = 2 ^ 53 } }, value)
  end)

  it("refuses what is not JSON, and says why", function()
    for _, value in ipairs { { 0 / 0 }, { 1 / 0 }, { -1 / 0 }, { a = 0 / 0 }, { print }, { [{}] = 1 }, { [true] = 1 } } do
      local text, problem = json.encode(value)
      assert.is_nil(text)
      assert.equal("string", type(problem))
      assert.is_truthy(problem:find("%w"))
      assert.is_nil(problem:find("json%.lua:"))
    end
  end)

  it("refuses a table that holds itself instead of overflowing the stack", function()
    local loop = {}
    loop.inner = { loop }
    local called, text, problem = pcall(json.encode, loop)
    assert.is_true(called, tostring(text))
    assert.is_nil(text)
    assert.equal("string", type(problem))
  end)
end)

describe("reading", function()
  it("whole numbers give integers, where there are integers", function()
    local value = json.decode '{"a":1,"b":-3.0,"c":[2,1e3],"d":0.5,"e":1795469296015,"f":{"g":[{"h":7}]}}'
    assert.same({ a = 1, b = -3, c = { 2, 1000 }, d = 0.5, e = 1795469296015, f = { g = { { h = 7 } } } }, value)
    assert.equal("1", tostring(value.a))
    assert.equal("1000", tostring(value.c[2]))
    assert.equal("1795469296015", ("%d"):format(value.e))
    if has_integers then
      for _, number in ipairs { value.a, value.b, value.c[1], value.c[2], value.e, value.f.g[1].h } do
        assert.equal("integer", math.type(number))
      end
      assert.equal("float", math.type(value.d))
    end
    assert.equal("7", tostring(json.decode "7"))
  end)

  it("big numbers stay numbers", function()
    assert.is_true(json.decode("[1e300]")[1] == 1e300)
    assert.is_true(json.decode("[9007199254740992]")[1] == 2 ^ 53)
    assert.is_true(json.decode("[18446744073709551616]")[1] == 2 ^ 64)
    assert.is_true(json.decode("[0.30000000000000004]")[1] == 0.1 + 0.2)
  end)

  it("a null in an object is an absent key, at every depth", function()
    local value = json.decode '{"a":null,"b":{"c":null,"d":1},"e":[{"f":null}]}'
    assert.same({ b = { d = 1 }, e = { {} } }, value)
    assert.is_nil(value.a)
  end)

  it("a null in an array holds its place", function()
    local value = json.decode "[1,null,3]"
    assert.equal(3, #value)
    assert.is_true(value[2] == json.null)
  end)

  it("decode_raw leaves nulls", function()
    local value = json.decode_raw '{"a":null,"b":2}'
    assert.is_true(value.a == json.null and value.b == 2)
  end)

  it("empty arrays and objects are empty tables", function()
    assert.same({ a = {}, b = {} }, json.decode '{"a":[],"b":{}}')
  end)

  it("escapes and raw bytes", function()
    assert.equal("<&> \226\128\168 \0 \240\159\140\141", json.decode([["\u003c\u0026\u003e \u2028 \u0000 \ud83c\udf0d"]]))
    assert.equal("\194\133\255", json.decode('"\194\133\255"'))
  end)

  it("what is not JSON gives nil and a message", function()
    for _, text in ipairs { "", " ", "{", '{"a":}', "[1,]", "nope", "{'a':1}", "<html>", '{"a":1} x', "[NaN]", "[Infinity]",
      "[0x10]", '"a' } do
      for _, decode in ipairs { json.decode, json.decode_raw } do
        local value, problem = decode(text)
        assert.is_nil(value, text)
        assert.equal("string", type(problem), text)
        assert.is_truthy(problem:find("%w"), text)
      end
    end
  end)

  it("a text of thousands of brackets gives a message, not a crash", function()
    local value, problem = json.decode(("["):rep(100000))
    assert.is_nil(value)
    assert.equal("string", type(problem))
  end)

  it("neither reads nor changes the settings of the host's cjson", function()
    local ok, cjson = pcall(require, "cjson")
    if not ok then return end
    local before = cjson.encode_number_precision()
    cjson.encode_number_precision(5)
    local ours, theirs = json.encode { 1 / 3 }, cjson.encode { 1 / 3 }
    cjson.encode_number_precision(before)
    assert.same({ "[0.33333333333333331]", "[0.33333]" }, { ours, theirs })
    assert.is_true(cjson.null == json.null)
  end)
end)
