--- The completions of the program, in the shells themselves: typed at a terminal, with the Tab key.

local find_program = require "spec.support.find_program"
local program = require "spec.support.program"
local temporary = require "spec.support.temporary"
local uv_loop = require "spec.support.uv_loop"

-- How each shell is started without the user's files, and how it loads the completions.
local SHELLS = {
  bash = { argv = { "bash", "--norc", "--noprofile", "-i" }, load = "source %s" },
  zsh = { argv = { "zsh", "-f", "-i" }, load = "autoload -Uz compinit; compinit -u -D; source %s" },
  fish = { argv = { "fish", "--no-config", "-i" }, load = "source %s" },
}

-- Waits for a text. The shell may write more spaces, and take them back.
local function shows(terminal, text)
  local pattern = text:gsub("%-", "%%-"):gsub(" ", "[ \b]+")
  if uv_loop.wait(function() return terminal.text:find(pattern) end, 20) then return end
  error(("%q is not shown: %q"):format(text, terminal.text), 2)
end

describe("opensandbox completion", function()
  for name, shell in pairs(SHELLS) do
    it("completes subcommands and options in " .. name, function()
      if not find_program(name) then return pending(name .. " is not installed") end
      local home = temporary.directory()
      local path = temporary.file(program.check(nil, { "completion", name }), home)
      local terminal = program.terminal(nil, nil, { argv = shell.argv, columns = 120, env = { HOME = home, XDG_CONFIG_HOME = home,
        XDG_DATA_HOME = home, TMPDIR = home, ENV = false, PS1 = "$ ", TERM = "dumb", LC_ALL = "C" } })
      -- The quotes keep the echo of the line from being taken for its output.
      terminal:write(shell.load:format(path) .. "; echo lo''aded\r")
      terminal:expect "loaded"
      terminal:write "echo first; opensandbox snap\t"
      shows(terminal, "opensandbox snapshot")
      terminal:write "cr\t--na\t"
      shows(terminal, "snapshot create --name")
      assert.is_nil(terminal.text:find("comparguments", 1, true), terminal.text)
      terminal:close()
      temporary.remove(home)
    end)
  end

  it("knows bash, zsh and fish", function()
    local result = program.run(nil, { "completion", "csh" })
    assert.equal(2, result.code)
    assert.truthy(result.err:find("'bash', 'zsh', 'fish'", 1, true), result.err)
  end)

  it("names every subcommand and its options, and so does the document", function()
    local help = program.check(nil, {})
    local text = program.check(nil, { "completion", "bash" })
    local file = assert(io.open("doc/program.md"))
    local document = file:read("*a")
    file:close()
    local count = 0
    for name in help:gmatch("\n   ([a-z]+) +[a-z]") do
      count = count + 1
      assert.truthy(text:find('cmd="' .. name .. '"', 1, true), name)
      assert.truthy(document:find("[`n] ?" .. name .. "[ `]"), name .. " is not in doc/program.md")
      local shown = name == "dev" and "" or program.check(nil, { name, "--help" }) -- dev shows the options of the server
      for option in shown:gmatch("\n +(%-%-[%a-]+)") do
        assert.truthy(text:find(option, 1, true), name .. " " .. option)
      end
    end
    assert.is_true(count >= 20, help)
  end)
end)
