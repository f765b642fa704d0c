--- Quoting: a POSIX shell gives back the very bytes.

local process = require "spec.support.process"
local opensandbox = require "opensandbox"
local shell = require "opensandbox.base.shell"

describe("quoting", function()
  it("leaves plain words readable", function()
    for _, word in ipairs { "ls", "-la", "/usr/bin/env", "a=b", "x_y.z", "user@host:/p", "50%", "1,2", "a+b" } do
      assert.equal(word, shell.quote(word))
    end
  end)

  it("puts everything else between quotes", function()
    assert.equal("''", shell.quote(""))
    assert.equal("'a b'", shell.quote("a b"))
    assert.equal("'$HOME'", shell.quote("$HOME"))
    assert.equal([['it'\''s']], shell.quote("it's"))
    assert.equal("'~'", shell.quote("~"))
    assert.equal("'a\nb'", shell.quote("a\nb"))
    assert.equal("'h\195\169'", shell.quote("h\195\169"))
  end)

  it("takes numbers, and refuses what has no text", function()
    assert.equal("7", shell.quote(7))
    for _, value in ipairs { true, {}, print } do
      assert.error_matches(function() shell.quote(value) end, "quote: the argument must be a string, not ")
    end
    assert.error_matches(function() shell.quote(nil) end, "quote: the argument must be a string, not nil")
  end)

  it("gives one value, and is what the module hands out", function()
    assert.equal(1, select("#", shell.quote("it's")))
    assert.equal(shell.quote, opensandbox.quote)
  end)

  it("joins the arguments", function()
    assert.equal("echo 'a b' '' c", shell.join { "echo", "a b", "", "c" })
    assert.equal("", shell.join {})
  end)

  it("comes through sh unchanged, whatever the bytes", function()
    local arguments = { "", " ", "'", "''", "\"", "\\", "$x", "`id`", "$(id)", "*", "?", "[a]", "~", "~root", "{a,b}", "a;b",
      "&", "|", "!", "!!", "#", "-n", "--", "\\n", "a\nb", "\n", "\t", "\r", "=", "a=b", "%s", "h\195\169llo", "\255\254",
      "it's 'so' \"nice\"" }
    local every = {}
    for byte = 1, 255 do every[byte] = string.char(byte) end
    arguments[#arguments + 1] = table.concat(every)
    for byte = 1, 255 do arguments[#arguments + 1] = string.char(byte) end
    local line = "for a in " .. shell.join(arguments) .. [[; do printf '%s\376\377\376' "$a"; done]]
    local child = process.start { argv = { "sh", "-c", line }, env = { LC_ALL = "C" } }
    assert.equal(0, (child:wait(10)))
    local expected = table.concat(arguments, "\254\255\254") .. "\254\255\254"
    local output = child:output()
    child:stop()
    assert.is_true(expected == output, ("%q"):format(output))
  end)
end)
