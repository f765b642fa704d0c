--- Foreign text as it is shown: one line, short, harmless to a terminal.

local printable = require "opensandbox.base.printable"

describe("foreign text", function()
  it("stays as it is when it is harmless", function()
    for _, text in ipairs { "", "plain", "h\195\169llo \226\130\172 \240\159\152\128", "a  b", "\194\160" } do
      assert.equal(text, printable(text, 100))
    end
  end)

  it("becomes one line", function()
    assert.equal("a b c d", printable("a\nb\r\n\r\nc\t\td", 100))
  end)

  it("has no character that controls a terminal, and no byte that is not UTF-8", function()
    assert.equal("?[2J?]0;x??", printable("\27[2J\27]0;x\7\0", 100))
    assert.equal("?31m", printable("\194\15531m", 100)) -- U+009B
    assert.equal("caf? ??", printable("caf\233 \255\254", 100))
    assert.equal("?", printable("\127", 100))
  end)

  it("is cut where it is too long, and never inside of a character", function()
    assert.equal("aaaaa...", printable(("a"):rep(9), 5))
    assert.equal("aaaaa", printable(("a"):rep(5), 5))
    assert.equal("aaaa...", printable("aaaa\226\130\172", 5))
    assert.equal("aaaa...", printable("aaaa\226\130\172", 6))
    assert.equal("aaaa\226\130\172", printable("aaaa\226\130\172", 7))
  end)
end)
