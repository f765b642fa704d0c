--- Patterns of what to leave out: as git reads them.

local ignore = require "opensandbox.files.ignore"
local new_random = require "spec.support.random"

-- "ignored", "kept" by a "!" or nil, for a path that ends in "/" when it is a directory.
local function verdict(patterns, path)
  local result = ignore.new(patterns):verdict(path:gsub("/$", ""), path:find("/$") ~= nil)
  if result == nil then return nil end
  return result and "ignored" or "kept"
end

local function check(patterns, expected)
  for path, result in pairs(expected) do
    assert.equal(result or nil, verdict(patterns, path), table.concat(patterns, " ") .. " on " .. path)
  end
end

describe("a pattern", function()
  it("without a slash matches at every level", function()
    check({ "*.o" }, { ["a.o"] = "ignored", ["x/y/a.o"] = "ignored", [".o"] = "ignored", ["a.oo"] = false, ["a.o/"] = "ignored" })
    check({ "name" }, { name = "ignored", ["a/name"] = "ignored", names = false, ["a/name/"] = "ignored", ["name/x"] = false })
    check({ "?b[0-9]" }, { ab5 = "ignored", ["x/zb0"] = "ignored", b5 = false, abx = false })
  end)

  it("with a slash before its end is meant from where it stands", function()
    check({ "/top" }, { top = "ignored", ["a/top"] = false })
    check({ "a/b" }, { ["a/b"] = "ignored", ["x/a/b"] = false, ["a/x/b"] = false })
    check({ "a/*" }, { ["a/b"] = "ignored", ["a/b/c"] = false })
  end)

  it("with a slash at its end matches directories only", function()
    check({ "build/" }, { ["build/"] = "ignored", build = false, ["x/build/"] = "ignored" })
    check({ "/a/b/" }, { ["a/b/"] = "ignored", ["a/b"] = false })
  end)

  it("with two stars matches any number of levels", function()
    check({ "**/x" }, { x = "ignored", ["a/x"] = "ignored", ["a/b/x"] = "ignored", xx = false })
    check({ "a/**/b" }, { ["a/b"] = "ignored", ["a/x/b"] = "ignored", ["a/x/y/b"] = "ignored", ["z/a/b"] = false })
    check({ "a/**" }, { ["a/b"] = "ignored", ["a/b/c"] = "ignored", ["a/"] = false })
    check({ "a**b" }, { ab = "ignored", axxb = "ignored", ["x/axb"] = "ignored", ["a/b"] = false })
  end)

  it("that begins with an exclamation mark keeps, and the last one that matches decides", function()
    check({ "*.log", "!keep.log" }, { ["a.log"] = "ignored", ["keep.log"] = "kept", ["x/keep.log"] = "kept" })
    check({ "!keep.log", "*.log" }, { ["keep.log"] = "ignored" })
  end)

  it("may hold sets, and characters that mean themselves", function()
    check({ "[!a]x" }, { bx = "ignored", ax = false })
    check({ "[^a-c]x" }, { dx = "ignored", bx = false })
    check({ "[]x]" }, { ["]"] = "ignored", x = "ignored", y = false })
    check({ "[a%-]" }, { ["%"] = "ignored", ["-"] = "ignored", a = "ignored", b = false })
    check({ "[[:digit:]_]" }, { ["7"] = "ignored", _ = "ignored", d = false })
    check({ "[a\\]b]" }, { ["]"] = "ignored", b = "ignored" })
    check({ "[z-a]" }, { b = false })
    check({ "[open" }, { ["[open"] = "ignored", o = false })
    check({ "a\\*b" }, { ["a*b"] = "ignored", axb = false })
    check({ "a.b+(c)%d$" }, { ["a.b+(c)%d$"] = "ignored", ["axb+(c)%d$"] = false })
    check({ "\255[\200-\210]" }, { ["\255\205"] = "ignored", ["\255\199"] = false })
  end)

  it("is taken from its line as git does", function()
    check({ "# comment", "", "   ", "\\#x", "\\!y", "trailing   ", "kept\\ ", "cr\r" }, {
      ["#x"] = "ignored", ["!y"] = "ignored", trailing = "ignored", ["kept "] = "ignored", kept = false, cr = "ignored",
      ["# comment"] = false, ["   "] = false,
    })
    local patterns = ignore.parse("*.o\n\n# no\n!a.o\n")
    assert.is_true(patterns:verdict("b.o", false))
    assert.is_false(patterns:verdict("a.o", false))
  end)
end)

describe("a filter", function()
  it("leaves out what lies in a directory that is left out, also what a pattern would keep", function()
    local ignored = ignore.new({ "build/", "!build/keep", "*.tmp" }):filter()
    assert.is_true(ignored("build", true))
    assert.is_true(ignored("build/keep", false))
    assert.is_true(ignored("a/build/b/c", false))
    assert.is_false(ignored("build", false))
    assert.is_true(ignored("a/x.tmp", false))
    assert.is_false(ignored("a/x", false))
  end)

  it("without patterns leaves nothing out", function()
    assert.is_false(ignore.new({}):filter()("a/b", false))
  end)
end)

describe("matching", function()
  -- The same by trying everything.
  local function naive(pattern, text)
    if pattern == "" then return text == "" end
    local first, rest = pattern:sub(1, 1), pattern:sub(2)
    if first == "*" then return naive(rest, text) or (text ~= "" and naive(pattern, text:sub(2))) end
    return text ~= "" and (first == "?" or first == text:sub(1, 1)) and naive(rest, text:sub(2))
  end

  it("agrees with trying everything", function()
    local random = new_random(7)
    local function pick(characters)
      local at = random(#characters)
      return characters:sub(at, at)
    end
    for _ = 1, 3000 do
      local pattern, name = {}, {}
      for i = 1, random(6) do pattern[i] = pick "aab*?*" end
      for i = 1, random(9) do name[i] = pick "aab" end
      pattern, name = table.concat(pattern), table.concat(name)
      assert.equal(naive(pattern, name), verdict({ pattern }, name) == "ignored", pattern .. " on " .. name)
    end
  end)

  it("of a name that a sandbox made up takes no time to speak of", function()
    local patterns = ignore.new { "*a*a*a*a*a*b", "*-*-*-*-*.js", "/a/**/a/**/a/**/a/**/b", "**/x/**/y/**/z/**", "?*?*?*?*?*z" }
    local before = os.clock()
    for _, path in ipairs { ("a"):rep(4096), ("-"):rep(4096), ("a/"):rep(2000) .. "a", ("x/y/"):rep(1000) .. "a" } do
      assert.is_nil(patterns:verdict(path, false))
    end
    assert.is_true(os.clock() - before < 1)
  end)
end)

describe("the literal names", function()
  it("are those that no pattern could keep and that need no matching", function()
    assert.same({ "node_modules", ".git" }, ignore.new({ "node_modules", "*.o", "a/b", ".git", "build/", "a?" }):literal_names())
    assert.same({}, ignore.new({ "node_modules", "!x" }):literal_names())
  end)
end)
