--- URLs: bases, escaping, endpoints without a scheme, and what is shown of them.

local core = require "opensandbox.core"
local url = require "opensandbox.base.url"

describe("escaping", function()
  it("leaves the unreserved characters alone and no other byte", function()
    local unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    assert.equal(unreserved, url.escape(unreserved))
    for byte = 0, 255 do
      local c = string.char(byte)
      if not unreserved:find(c, 1, true) then assert.equal(("%%%02X"):format(byte), url.escape(c)) end
    end
    assert.equal("a%2Fb%3Fc%20d%C3%A9", url.escape("a/b?c d\195\169"))
  end)

  it("gives one value", function()
    assert.equal(1, select("#", url.escape("a b")))
  end)

  it("can be undone", function()
    local all = {}
    for byte = 0, 255 do all[byte + 1] = string.char(byte) end
    all = table.concat(all)
    assert.equal(all, url.unescape(url.escape(all)))
    assert.equal(1, select("#", url.unescape("a%20b")))
  end)
end)

describe("a query", function()
  it("holds the pairs in order, escaped", function()
    assert.equal("?a=1&b=x%26y&a=%2F", url.query { { "a", 1 }, { "b", "x&y" }, { "a", "/" } })
  end)

  it("leaves out what is nil, not what is empty or false", function()
    assert.equal("?b=&c=false&d=0", url.query { { "a", nil }, { "b", "" }, { "c", false }, { "d", 0 } })
    assert.equal("", url.query {})
    assert.equal("", url.query { { "a", nil } })
  end)
end)

describe("parsing", function()
  it("splits an address", function()
    assert.same({ scheme = "http", host = "h", port = 80, path = "" }, url.parse "http://h")
    assert.same({ scheme = "https", host = "h.example", port = 443, path = "/v1/x" }, url.parse "HTTPS://h.example/v1/x")
    assert.same({ scheme = "http", host = "h", port = 8080, path = "/" }, url.parse "http://h:8080/")
    assert.same({ scheme = "http", userinfo = "u:p", host = "h", port = 80, path = "" }, url.parse "http://u:p@h")
    assert.is_nil((url.parse "http://u@x:p@h:1"), "libcurl takes no raw @ either")
  end)

  it("knows IPv6", function()
    assert.same({ scheme = "http", host = "[::1]", port = 80, path = "" }, url.parse "http://[::1]")
    assert.same({ scheme = "http", host = "[fe80::1]", port = 44772, path = "/p" }, url.parse "http://[fe80::1]:44772/p")
    assert.is_nil((url.parse "http://::1/"))
    assert.is_nil((url.parse "http://[::1"))
  end)

  it("says what is wrong", function()
    for text, problem in pairs {
      ["h:80"] = "no scheme", [""] = "no scheme", ["//h"] = "no scheme", ["ftp://h"] = "only http and https",
      ["http://"] = "host", ["http:///x"] = "host", ["http://h:0"] = "port", ["http://h:65536"] = "port", ["http://h:x"] = "host",
      ["http://h x"] = "white space", ["http://h\n"] = "white space", ["http://h/\0"] = "white space",
      ["http://h?a=1"] = "query", ["http://h/x#y"] = "query or a fragment",
    } do
      local parsed, got = url.parse(text)
      assert.is_nil(parsed, text)
      assert.is_truthy(got:find(problem, 1, true), ("%q: %s"):format(text, got))
    end
  end)
end)

describe("the base of the lifecycle API", function()
  it("gets a scheme and /v1 where it has none", function()
    assert.equal("http://h:8080/v1", (url.normalize_base("h:8080", "http")))
    assert.equal("https://h/v1", (url.normalize_base("h", "https")))
    assert.equal("https://h/v1", (url.normalize_base("https://h", "http")))
    assert.equal("http://h/v1", (url.normalize_base("http://h///", "https")))
    assert.equal("http://localhost:8080/v1", (url.normalize_base("localhost:8080", "http")))
  end)

  it("keeps the path, without slashes at its end, and gets /v1 unless it ends in it", function()
    assert.equal("http://h/v1", (url.normalize_base("http://h/v1/", "http")))
    assert.equal("http://h/gate/way/v1", (url.normalize_base("h/gate/way//", "http")))
    assert.equal("https://h/box/v1", (url.normalize_base("https://h/box/v1/", "http")))
    assert.equal("https://h/xv1/v1", (url.normalize_base("https://h/xv1", "http")))
  end)

  it("comes with its parts, or with what is wrong", function()
    local _, parsed = url.normalize_base("h:81", "https")
    assert.same({ "https", "h", 81 }, { parsed.scheme, parsed.host, parsed.port })
    local full, problem = url.normalize_base("h:99999", "http")
    assert.is_nil(full)
    assert.is_truthy(problem:find("port"))
  end)
end)

describe("an endpoint", function()
  it("gets the scheme of the server", function()
    assert.equal("http://192.0.2.2:44916", url.endpoint("192.0.2.2:44916", "http"))
    assert.equal("https://h/sandboxes/x/proxy/44772", url.endpoint("h/sandboxes/x/proxy/44772", "https"))
    assert.equal("http://h:1/p", url.endpoint("http://h:1/p/", "https"))
  end)

  it("gets brackets around an IPv6 address without them", function()
    assert.equal("http://[::1]:44772", url.endpoint("::1:44772", "http"))
    assert.equal("http://[2001:db8::5]:44772/proxy/1", url.endpoint("2001:db8::5:44772/proxy/1", "http"))
    assert.equal("http://[2001:db8::5]:44772", url.endpoint("[2001:db8::5]:44772", "http"))
  end)
end)

describe("a URL that is shown", function()
  it("has no user, no password and no query", function()
    assert.equal("http://h/x", url.redacted "http://user:secret@h/x")
    assert.equal("http://h/x", url.redacted "http://h/x?token=secret&y=1")
    assert.equal("https://h:1/a@b", url.redacted "https://h:1/a@b")
    assert.equal("http://h", url.redacted "http://h")
    assert.equal(1, select("#", url.redacted "http://u@h/x?y"))
  end)

  it("shows no part of a password with an @ in it", function()
    assert.equal("http://h/x", url.redacted "http://user:se@cret@h/x")
  end)

  it("has no user and no password when it has no scheme, as a base may be given", function()
    assert.equal("h:80/x", url.redacted "user:secret@h:80/x")
    assert.equal("h/a@b", url.redacted "h/a@b")
  end)
end)

describe("slashes at the end", function()
  it("are removed, however many a server sends, and none elsewhere", function()
    local before = core.now()
    assert.equal("http://h/x", url.endpoint("h/x//", "http"))
    assert.equal("http://h//x", url.endpoint("h//x", "http"))
    assert.equal("http://h", url.endpoint("h" .. ("/"):rep(1000000), "http"))
    local long = "h" .. ("/"):rep(1000000) .. "x"
    assert.is_true(url.endpoint(long, "http") == "http://" .. long)
    assert.is_true(core.now() - before < 5)
  end)
end)
