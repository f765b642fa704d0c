--- Base64, there and back.

local base64 = require "opensandbox.base.base64"
local core = require "opensandbox.core"

local function random_bytes(count)
  local bytes = {}
  for i = 1, count do bytes[i] = string.char(math.random(0, 255)) end
  return table.concat(bytes)
end

describe("base64", function()
  it("writes and reads the examples of RFC 4648", function()
    local examples = { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=",
      foobar = "Zm9vYmFy" }
    for bytes, text in pairs(examples) do
      assert.equal(text, base64.encode(bytes))
      assert.equal(bytes, base64.decode(text))
      assert.equal(bytes, base64.decode((text:gsub("=", ""))))
    end
    assert.equal("+/+/", base64.encode("\251\255\191"))
    assert.equal("AP8=", base64.encode("\0\255"))
  end)

  it("gives back every byte, at every length and across its own pieces", function()
    for length = 0, 70 do
      local bytes = random_bytes(length)
      assert.equal(bytes, base64.decode(base64.encode(bytes)))
    end
    for _, length in ipairs { 3071, 3072, 3073, 6144, 6145, 100001 } do
      local bytes = random_bytes(length)
      assert.is_true(bytes == base64.decode(base64.encode(bytes)))
    end
  end)

  it("reads over line ends and blanks, as kernels and PEM files have them", function()
    assert.equal("foobar", base64.decode("Zm9v\nYmFy\n"))
    assert.equal("foobar", base64.decode(" Zm 9v\r\n\tYmFy"))
    assert.equal("fo", base64.decode("Zm8\n="))
  end)

  it("says what is not base64", function()
    for _, text in ipairs { "Z", "Zm9vY", "Zm9v!", "Zm8==", "Zg=", "Zg===", "=", "Zm=9", "Zm9v-_==", "Zm\0v", "Zm\2559" } do
      local bytes, problem = base64.decode(text)
      assert.is_nil(bytes, text)
      assert.equal("it is not base64", problem)
    end
  end)

  it("needs little time for an image", function()
    local bytes = random_bytes(3000):rep(1000)
    local began = core.now()
    assert.is_true(base64.decode(base64.encode(bytes)) == bytes)
    assert.is_true(core.now() - began < 10)
  end)
end)
