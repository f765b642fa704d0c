--- Modes of files in a sandbox: each way of writing them, and the refusal of others.

local modes = require "opensandbox.base.modes"
local refused = require "spec.support.refused"

describe("a mode", function()
  it("becomes the octal digits, read as a decimal number", function()
    for mode, number in pairs {
      ["0644"] = 644, ["644"] = 644, ["0755"] = 755, ["755"] = 755, ["0600"] = 600, ["007"] = 7, ["7"] = 7, ["0"] = 0, ["000"] = 0,
      ["rw-r--r--"] = 644, ["rwxr-xr-x"] = 755, ["rw-------"] = 600, ["---------"] = 0, ["rwxrwxrwx"] = 777, ["--x--x--x"] = 111,
      [644] = 644, [755] = 755, [7] = 7, [0] = 0, [777] = 777,
    } do
      assert.equal(number, modes.number("write", mode), tostring(mode))
    end
    assert.is_nil(modes.number("write", nil))
    assert.equal("644", ("%d"):format(modes.number("write", 644)))
  end)

  it("that is none is refused, and shown", function()
    for _, mode in ipairs { "899", 899, 648, "8", "0o644", "644 ", "", "rw-r--r-", "rw-r--r--x", "wr-r--r--", "rwsr-xr-x",
      -644, 0.5, 1 / 0, 0 / 0, 1e300, -1e300, 2 ^ 63, "4755", 4755, "04755", 1000, "u+x", true, {}, "00000644" } do
      refused("mode ", modes.number, "write", mode)
    end
    refused('mode "899" is not valid', modes.number, "write", "899")
    refused("mode 4755 is not valid", modes.number, "write", 4755)
  end)
end)
