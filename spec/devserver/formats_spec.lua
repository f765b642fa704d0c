--- How the development server writes instants and durations of Go, and reads queries.

local go_text = require "opensandbox.devserver.execd.go_text"
local query = require "opensandbox.devserver.http.query"

describe("an instant of execd", function()
  it("has as many digits as it needs", function()
    assert.equal("1970-01-01T00:00:01Z", go_text.instant(1))
    assert.equal("1970-01-01T00:00:01.5Z", go_text.instant(1.5))
    assert.equal("1970-01-01T00:00:01.000001Z", go_text.instant(1.000001))
    assert.equal("1970-01-01T00:00:02Z", go_text.instant(1.9999999))
    assert.equal("2026-11-23T21:28:40.153556117Z", go_text.instant(1795469320, 153556117))
    assert.equal("1970-01-01T00:00:01.00000002Z", go_text.instant(1, 20))
    assert.is_nil(go_text.instant(nil))
  end)
end)

describe("a duration of execd", function()
  it("is written as Go writes it", function()
    for milliseconds, text in pairs {
      [0] = "0ms", [500] = "500ms", [1000] = "1s", [1500] = "1.5s", [1005] = "1.005s", [10000] = "10s", [59999] = "59.999s",
      [60000] = "1m0s", [90500] = "1m30.5s", [3600000] = "1h0m0s", [3723004] = "1h2m3.004s", [86400000] = "24h0m0s",
    } do
      assert.equal(text, go_text.duration(milliseconds))
    end
  end)
end)

describe("a query", function()
  it("is read as a form", function()
    assert.same({ { "a b", "1+1", true }, { "c", "", false }, { "d", "", true }, { "a b", "\255=", true } },
      query.pairs "a+b=1%2B1&c&d=&a%20b=%ff%3d")
    assert.same({ a = { "1", "2" }, b = { "%zz" } }, query.values "a=1&&b=%zz&a=2&")
    assert.same({}, query.values "")
  end)
end)
