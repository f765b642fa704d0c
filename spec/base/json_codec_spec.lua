--- Which JSON library is used, and that all of them give the same values.

local loaded_names = { "opensandbox.base.json", "opensandbox.base.json_codec", "cjson", "dkjson" }

-- The JSON module as a host has it: `hidden` are libraries that it lacks, `given` others in their place.
local function json_with(hidden, given)
  local before, preloaded = {}, {}
  for _, name in ipairs(loaded_names) do
    before[name], package.loaded[name] = package.loaded[name], nil
    preloaded[name] = package.preload[name]
  end
  for _, name in ipairs(hidden) do package.preload[name] = function() error("module '" .. name .. "' not found", 0) end end
  for name, module in pairs(given or {}) do package.preload[name] = function() return module end end
  local ok, json = pcall(require, "opensandbox.base.json")
  for _, name in ipairs(loaded_names) do package.loaded[name], package.preload[name] = before[name], preloaded[name] end
  if not ok then error(json, 0) end
  return json
end

local function with_global(name, value, fn)
  local before = rawget(_G, name)
  rawset(_G, name, value)
  local ok, problem = pcall(fn)
  rawset(_G, name, before)
  if not ok then error(problem, 0) end
end

describe("the JSON library", function()
  it("is lua-cjson, or dkjson where that is missing", function()
    assert.equal("lua-cjson", json_with({}).codec_name)
    assert.equal("dkjson", json_with({ "cjson" }).codec_name)
  end)

  it("is vim.json in Neovim, though lua-cjson is installed", function()
    local vim_json = { encode = function() return "from vim" end, decode = function() return { from = "vim" } end }
    with_global("vim", { json = vim_json, NIL = {} }, function()
      local json = json_with {}
      assert.equal("vim.json", json.codec_name)
      assert.equal("from vim", json.encode {})
      assert.same({ from = "vim" }, json.decode "{}")
    end)
  end)

  it("is named, with what to do, when there is none", function()
    local ok, problem = pcall(json_with, { "cjson", "dkjson" })
    assert.is_false(ok)
    assert.truthy(problem:find("needs lua-cjson or dkjson", 1, true), problem)
    assert.truthy(problem:find(("luarocks --lua-version %s install lua-cjson"):format(_VERSION:match "%d%.%d"), 1, true), problem)
  end)

  it("that lacks memory is not taken for one that found bad JSON", function()
    local function fail() error("not enough memory", 0) end
    local instance = { encode = fail, decode = fail, decode_invalid_numbers = fail, encode_keep_buffer = fail }
    local made = 0
    local json = json_with({}, { cjson = { null = {}, new = function()
      made = made + 1
      instance.decode_invalid_numbers, instance.encode_keep_buffer = function() end, function() end
      return instance
    end } })
    for _, fn in ipairs { json.decode, json.decode_raw, json.encode } do
      local ok, problem = pcall(fn, "{}")
      assert.is_false(ok)
      assert.equal("not enough memory", problem)
    end
    assert.is_true(made >= 1)
  end)
end)

for _, name in ipairs { "lua-cjson", "dkjson" } do
  describe(name, function()
    local json

    setup(function() json = json_with(name == "dkjson" and { "cjson" } or {}) end)

    it("writes what the servers read", function()
      assert.equal(name, json.codec_name)
      for expected, value in pairs {
        ["{}"] = {}, ["[]"] = json.array {}, ["[1,2]"] = { 1, 2 }, ['{"a":{}}'] = { a = {} }, ['{"a":[]}'] = { a = json.array {} },
        ['{"a":null}'] = { a = json.null }, ["[null,1]"] = { json.null, 1 }, ["[100000000000000]"] = { 100000000000000 },
        ["[1000000000000000]"] = { 10 ^ 15 }, ["[0.1]"] = { 0.1 }, ["[-2.5e-08]"] = { -2.5e-8 }, ["[true,false]"] = { true, false },
        ['["h\195\169llo"]'] = { "h\195\169llo" }, ["[9007199254740991]"] = { 2 ^ 53 - 1 },
      } do
        assert.equal(expected, json.encode(value))
      end
      assert.same({ "a\0b\n\"\\/\1" }, json.decode((json.encode { "a\0b\n\"\\/\1" })))
      assert.is_nil(json.encode { print })
      assert.is_nil(json.encode { 0 / 0 })
      local cyclic = {}
      cyclic[1] = cyclic
      assert.is_nil(json.encode(cyclic))
    end)

    it("reads what the servers write", function()
      assert.same({ a = 1, b = { 0.5, "x" }, c = {} }, json.decode '{"a":1,"b":[0.5,"x"],"c":{},"d":null}')
      assert.equal("1", tostring(json.decode("[1]")[1]))
      assert.equal("1250", tostring(json.decode("[1.25e3]")[1]))
      assert.is_true(json.decode("[null,1]")[1] == json.null)
      assert.same({ "\226\128\168 \0 \240\159\140\141" }, json.decode [==[["\u2028 \u0000 \ud83c\udf0d"]]==])
      assert.is_nil(getmetatable(json.decode '{"a":[]}'))
      assert.is_nil(getmetatable(json.decode('{"a":[]}').a))
    end)

    it("gives nil and a message for what is not JSON", function()
      for _, text in ipairs { "", " ", "{", '{"a":}', "[1", "nope", "{'a':1}", "<html>", '{"a":1} x', '"a' } do
        local value, problem = json.decode(text)
        assert.is_nil(value, text)
        assert.truthy(type(problem) == "string" and problem:find("%w"), text)
      end
      local value, problem = json.decode(("["):rep(100000))
      assert.is_nil(value)
      assert.is_string(problem)
    end)
  end)
end
