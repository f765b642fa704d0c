--- The head of a response, and the time that a server asks to wait.

local core = require "opensandbox.core"
local headers = require "opensandbox.http.headers"

-- Seconds of processor time that `fn` takes.
local function seconds(fn)
  local began = os.clock()
  fn()
  return os.clock() - began
end

describe("the head of a response", function()
  it("has lower-case names, trimmed values, and joins those of one name", function()
    assert.same({ ["content-type"] = "a/b", x = "1, 2, 3", empty = "", y = "a  b" }, headers.parse(
      "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nX: 1\r\nx:2 \t \r\nX:   3\r\nEmpty:\r\nY:a  b\t\r\n\r\n"))
    assert.same({}, headers.parse("HTTP/1.1 200 OK\r\n\r\n"))
  end)

  it("is read in a time that grows with its size, whatever stands in it", function()
    local function spaces(count) return "HTTP/1.1 200 OK\r\nX: a" .. (" "):rep(count) .. "b\r\n\r\n" end
    local function many(count) return "HTTP/1.1 200 OK\r\n" .. ("a:b\r\n"):rep(count) .. "\r\n" end
    local function colonless(count) return "HTTP/1.1 200 OK\r\n" .. ("a"):rep(count) .. "\r\n\r\n" end
    for _, make in ipairs { spaces, many, colonless } do
      local text = make(300000)
      assert.is_true(seconds(function() headers.parse(text) end) < 2)
    end
    assert.equal("a" .. (" "):rep(100000) .. "b", headers.parse(spaces(100000)).x)
  end)
end)

describe("Retry-After", function()
  local NOW = 784111777 -- Sun, 06 Nov 1994 08:49:37 GMT

  it("is a number of seconds", function()
    for text, expected in pairs { ["0"] = 0, ["5"] = 5, ["0.5"] = 0.5, ["120"] = 120 } do
      assert.equal(expected, headers.retry_after({ ["retry-after"] = text }, NOW))
    end
  end)

  it("is a date, measured against the date of the response", function()
    local later = { ["retry-after"] = "Sun, 06 Nov 1994 08:50:07 GMT" }
    assert.equal(30, headers.retry_after(later, NOW))
    later.date = "Sun, 06 Nov 1994 08:50:00 GMT"
    assert.equal(7, headers.retry_after(later, NOW))
    later.date = "Sun, 06 Nov 1994 08:51:00 GMT"
    assert.equal(0, headers.retry_after(later, NOW))
    assert.equal(30, headers.retry_after({ ["retry-after"] = later["retry-after"], date = "yesterday" }, NOW))
  end)

  it("is ignored when it is nothing of the kind", function()
    assert.is_nil(headers.retry_after({}, NOW))
    for _, text in ipairs { "-1", "soon", "", "0x10", "Sun, 06 Foo 1994 08:50:07 GMT", "1, 2", "nan" } do
      assert.is_nil(headers.retry_after({ ["retry-after"] = text }, core.wall_clock()), text)
    end
  end)
end)
