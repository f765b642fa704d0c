--- Paths in a sandbox: what execd would misread is refused, with a reason.

local paths = require "opensandbox.base.paths"
local refused = require "spec.support.refused"

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

  it("of a directory for commands is refused with the way around it", function()
    refused("option 'cwd' \"/a$b\" holds '$b', which execd would expand or drop; rename it, or change to it in the command itself",
      paths.check_directory, "write", "/a$b")
    assert.is_nil(paths.check_directory("run", nil))
  end)

  it("must be a string that is not empty and holds no NUL", function()
    refused('the path must be a string without NUL bytes, not "a\\000b"', paths.check, "write", "a\0b")
    for _, path in ipairs { "", "a\0b", 5, true, {} } do refused("the path must be", paths.check, "write", path) end
    refused("the path must be", paths.check, "write", nil)
    refused("the target must be", paths.check, "write", "", "the target")
  end)
end)
