--- The file of variables of a sandbox is read as the official SDKs write it.

local variables = require "opensandbox.devserver.isolation.env_file"

describe("a file of variables", function()
  it("takes single quotes as they are, unescapes double ones, and expands what is not in single ones", function()
    assert.same({
      PLAIN = "two words", EMPTY = "", KEPT = "$HOME \\n", LINES = "a\nb", QUOTED = 'say "a\nb" at /root$', HASH = "1 # 2",
      NAMED = "/root/two words/x", AGAIN = "second", MISSING = "[]",
    }, variables.parse([[
# a comment
PLAIN=two words
EMPTY=
KEPT='$HOME \n'
LINES='a
b'
QUOTED="say \"a\nb\" at ${HOME}\$"
HASH=1 # 2

no assignment
NAMED=$HOME/${PLAIN}/x
AGAIN='first'
AGAIN=second
MISSING="[$NOT_THERE]"
]], { HOME = "/root" }))
  end)

  it("goes on after quotes that do not end, and ends with the text", function()
    assert.same({ A = "'open", B = '"open\\', C = "3" }, variables.parse("A='open\nB=\"open\\\nC=3", {}))
    assert.same({ A = "'open" }, variables.parse("A='open", {}))
    assert.same({}, variables.parse("", {}))
  end)
end)
