--- Paths and modes in a sandbox: what execd would misread is refused, with a reason.

local paths = require "opensandbox.base.paths"

local function refused(part, callback, ...)
  local ok, problem = pcall(callback, ...)
  assert.is_false(ok)
  assert.equal("string", type(problem))
  assert.is_truthy(problem:find(part, 1, true), problem)
  assert.is_truthy(problem:find("write: ", 1, true), problem)
end

describe("a path", function()
  it("is given back as it is", function()
    for _, path in ipairs { "/tmp/x", "relative", "~/x", "/a b/\195\169", "/a'b\"c", "/x$", "/x$.txt", "/a$/b", "/$ x", "/50%",
      "/a\\b", "/$)", "/\255" } do
      assert.equal(path, paths.check("write", path))
    end
  end)

  it("in which execd would expand or drop something is refused, with the place", function()
    for path, found in pairs {
      ["/x/price$5.txt"] = "$5", ["/$HOME/x"] = "$H", ["/${HOME}/x"] = "${", ["/a$_b"] = "$_", ["/a$*"] = "$*", ["/a$#"] = "$#",
      ["/a$@b"] = "$@", ["/a$!"] = "$!", ["/a$?"] = "$?", ["/a$-"] = "$-", ["$0"] = "$0", ["/a$$"] = "$$",
    } do
      refused(("holds '%s'"):format(found), paths.check, "write", path)
    end
  end)

  it("must be a string that is not empty and holds no NUL", function()
    for _, path in ipairs { "", "a\0b", 5, true, {} } do refused("the path must be", paths.check, "write", path) end
    refused("the path must be", paths.check, "write", nil)
    refused("the target must be", paths.check, "write", "", "the target")
  end)
end)

describe("a mode", function()
  it("becomes the octal digits, read as a decimal number", function()
    for mode, number in pairs {
      ["0644"] = 644, ["644"] = 644, ["0755"] = 755, ["755"] = 755, ["0600"] = 600, ["007"] = 7, ["7"] = 7, ["0"] = 0, ["000"] = 0,
      ["rw-r--r--"] = 644, ["rwxr-xr-x"] = 755, ["rw-------"] = 600, ["---------"] = 0, ["rwxrwxrwx"] = 777, ["--x--x--x"] = 111,
      [644] = 644, [755] = 755, [7] = 7, [0] = 0, [777] = 777,
    } do
      assert.equal(number, paths.mode("write", mode), tostring(mode))
    end
    assert.is_nil(paths.mode("write", nil))
    assert.equal("644", ("%d"):format(paths.mode("write", 644)))
  end)

  it("that is none is refused, and shown", function()
    for _, mode in ipairs { "899", 899, 648, "8", "0o644", "644 ", "", "rw-r--r-", "rw-r--r--x", "wr-r--r--", "rwsr-xr-x",
      -644, 0.5, 1 / 0, 0 / 0, 1e300, -1e300, 2 ^ 63, "4755", 4755, "04755", 1000, "u+x", true, {}, "00000644" } do
      refused("mode ", paths.mode, "write", mode)
    end
    refused('mode "899" is not valid', paths.mode, "write", "899")
    refused("mode 4755 is not valid", paths.mode, "write", 4755)
  end)
end)
