--- Instants: RFC 3339 on the wire, Unix seconds here.

local time = require "opensandbox.base.time"

describe("reading an instant", function()
  it("gives Unix seconds", function()
    assert.equal(0, time.parse "1970-01-01T00:00:00Z")
    assert.equal(-1, time.parse "1969-12-31T23:59:59Z")
    assert.equal(1795469327, time.parse "2026-11-23T21:28:47Z")
    assert.equal(4070908800, time.parse "2099-01-01T00:00:00Z")
    assert.equal(-62135596800, time.parse "0001-01-01T00:00:00Z") -- Go's zero time
    assert.equal(253402300799, time.parse "9999-12-31T23:59:59Z")
  end)

  it("knows the leap years", function()
    assert.equal(86400, time.parse "2024-03-01T00:00:00Z" - time.parse "2024-02-29T00:00:00Z")
    assert.equal(86400, time.parse "2000-03-01T00:00:00Z" - time.parse "2000-02-29T00:00:00Z")
    assert.equal(86400, time.parse "2100-03-01T00:00:00Z" - time.parse "2100-02-28T00:00:00Z")
    assert.equal(366 * 86400, time.parse "2025-01-01T00:00:00Z" - time.parse "2024-01-01T00:00:00Z")
    assert.equal(365 * 86400, time.parse "2101-01-01T00:00:00Z" - time.parse "2100-01-01T00:00:00Z")
  end)

  it("agrees with the calendar of the system, day by day", function()
    for day = 0, 60000, 7 do
      assert.equal(day * 86400, time.parse(os.date("!%Y-%m-%dT%H:%M:%SZ", day * 86400)))
    end
  end)

  it("takes a fraction of any length", function()
    assert.equal(0.5, time.parse "1970-01-01T00:00:00.5Z")
    assert.equal(0.25, time.parse "1970-01-01T00:00:00.250000000Z")
    assert.is_true(math.abs(time.parse "2026-11-23T21:28:40.153556117Z" - 1795469320.153556117) < 1e-6)
    assert.equal(1.125, time.parse "1970-01-01T00:00:01.125000000000000000000Z")
  end)

  it("takes any zone, and none as UTC", function()
    assert.equal(0, time.parse "1970-01-01T02:00:00+02:00")
    assert.equal(0, time.parse "1969-12-31T18:30:00-05:30")
    assert.equal(0.5, time.parse "1970-01-01T01:00:00.5+01:00")
    assert.equal(0, time.parse "1970-01-01T01:00:00+0100")
    assert.equal(0, time.parse "1970-01-01T00:00:00")
    assert.equal(0, time.parse "1970-01-01t00:00:00z")
    assert.equal(0, time.parse "1970-01-01 00:00:00Z")
  end)

  it("gives nil for what is none", function()
    for _, text in ipairs { "", "soon", "2026-11-23", "21:28:47", "2026-11-23T21:28Z", "2026-11-23T21:28:47X",
      "2026-11-23T21:28:47.Z", "2026-11-23T21:28:47+2", "x2026-11-23T21:28:47Z", "26-11-23T21:28:47Z", "2026-11-23T21:28:47Z\n" } do
      assert.is_nil(time.parse(text), text)
    end
    assert.is_nil(time.parse(nil))
    assert.is_nil(time.parse(1795469327))
    assert.is_nil(time.parse({}))
  end)
end)

describe("writing an instant", function()
  it("gives UTC with microseconds, unless they are zero", function()
    assert.equal("1970-01-01T00:00:00Z", time.format(0))
    assert.equal("2026-11-23T21:28:47Z", time.format(1795469327))
    assert.equal("2026-11-23T21:28:47.500000Z", time.format(1795469327.5))
    assert.equal("2099-01-01T00:00:00Z", time.format(4070908800))
  end)

  it("carries a fraction that rounds to a whole second", function()
    assert.equal("1970-01-01T00:00:02Z", time.format(1.9999999))
    assert.equal("1970-01-01T00:01:00Z", time.format(59.9999996))
    assert.equal("1970-01-01T00:00:01.999999Z", time.format(1.999999))
  end)

  it("is undone by reading", function()
    for _, seconds in ipairs { 0, 1, 1795469327, 1795469327.25, 951782400, 4102444799.999999 } do
      assert.is_true(math.abs(time.parse(time.format(seconds)) - seconds) < 1e-6)
    end
  end)
end)

describe("the date of an HTTP header", function()
  it("is written and read as RFC 9110 has it", function()
    assert.equal("Thu, 01 Jan 1970 00:00:00 GMT", time.format_http_date(0))
    assert.equal("Thu, 26 Nov 2026 12:27:13 GMT", time.format_http_date(1795696033))
    assert.equal("Sun, 29 Feb 2032 23:59:59 GMT", time.format_http_date(1961711999))
    for day = 0, 60000, 59 do
      local text = time.format_http_date(day * 86400 + 86399)
      assert.equal(os.date("!%a, %d %b %Y %H:%M:%S GMT", day * 86400 + 86399), text)
      assert.equal(day * 86400 + 86399, time.parse_http_date(text))
    end
    for _, text in ipairs {
      "", "Thu, 26 Nov 2026 12:27:13", "Thu, 26 Foo 2026 12:27:13 GMT", "Thursday, 26-Nov-26 12:27:13 GMT",
    } do
      assert.is_nil(time.parse_http_date(text), text)
    end
  end)
end)
