--- The bodies of error responses, from servers that mean harm. (Their forms: spec/errors_spec.lua.)

local error_body = require "opensandbox.http.error_body"

local function unchanged(text) return text end

local function message_of(body, content_type)
  local _, message = error_body.parse(500, body, content_type, unchanged)
  return message
end

describe("the body of an error", function()
  it("is read in a time that grows with its size, whatever stands in it", function()
    local COUNT = 900000
    for name, body in pairs {
      title = "<html><title>" .. (" "):rep(COUNT), titles = ("<title "):rep(100000), open = ("<"):rep(COUNT),
      closed = "<title>" .. (" "):rep(COUNT) .. "</", spaces = "a" .. (" "):rep(COUNT) .. "b",
      lines = ("\r\n"):rep(400000) .. "x",
      brace = "{" .. (" "):rep(COUNT), message = '{"message":"' .. ("a "):rep(400000) .. '"}', before = (" "):rep(COUNT) .. "<",
      code = '{"code":"' .. ("a"):rep(COUNT) .. ' ","message":"x"}', nested = ("["):rep(COUNT),
    } do
      local began = os.clock()
      local message = message_of(body)
      assert.is_true(os.clock() - began < 2, name)
      assert.is_true(#message <= 400, name)
    end
  end)

  it("is one short line without control characters", function()
    assert.equal("404 page not found", message_of("404 page not found\n"))
    assert.equal("a b c", message_of("  a\n\n b \t c\r\n"))
    assert.equal("?[31mred?]0;x?", message_of("\27[31mred\27]0;x\7"))
    assert.equal("?[2J", message_of('{"message":"\\u001b[2J"}'))
    assert.equal(("a"):rep(300) .. "...", message_of(("a"):rep(5000)))
    assert.equal("the response is an HTML page: Bad Gateway", message_of("<html><TITLE lang=en>\n Bad \n Gateway </TITLE>"))
    assert.equal("the response is an HTML page", message_of("<html><title>  </title>"))
    assert.equal("the response is an HTML page", message_of("<html><title>never ends"))
  end)

  it("is redacted before it is shortened", function()
    local function redact(text) return (text:gsub("secret", "***")) end
    local _, message = error_body.parse(500, ("a"):rep(297) .. "secret and more", nil, redact)
    assert.equal(("a"):rep(297) .. "***...", message)
    _, message = error_body.parse(500, "<title>" .. ("a"):rep(290) .. " secret</title>", nil, redact)
    assert.is_nil(message:find("sec", 1, true))
  end)
end)
