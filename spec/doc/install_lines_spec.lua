--- The lines that the documents show for an installation name the Lua that they install for.

local read_file = require "spec.support.read_file"

-- Returns the lines of a document's code blocks for the shell that match a pattern.
local function shell_lines(path, pattern)
  local found = {}
  for block in assert(read_file(path)):gmatch("\n```sh\n(.-)```") do
    for line in block:gmatch("[^\n]+") do
      if line:find(pattern) then found[#found + 1] = line end
    end
  end
  return found
end

describe("the lines for an installation", function()
  it("name the Lua for which LuaRocks installs, because its default is another one on Debian", function()
    local lines = shell_lines("doc/install.md", "^luarocks ")
    assert.is_true(#lines > 0)
    for _, line in ipairs(lines) do assert.truthy(line:find("^luarocks %-%-lua%-version %d%.%d "), line) end
  end)

  it("do so outside of code blocks, too", function()
    for _, path in ipairs { "README.md", "doc/install.md", "doc/program.md", "doc/devserver.md", "CONTRIBUTING.md" } do
      assert.is_nil((assert(read_file(path)):match("luarocks install[^\n]*")), path)
    end
  end)

  it("install LuaRocks, and Lua with its headers, before they are used", function()
    local lines = shell_lines("doc/install.md", "^apt%-get install .*luarocks")
    assert.equal(1, #lines)
    for _, name in ipairs { "gcc", "libcurl4%-openssl%-dev", "lua5%.4", "liblua5%.4%-dev" } do
      assert.truthy((lines[1] .. " "):find(" " .. name .. " "), name)
    end
  end)
end)
