--- Odd names and values, and the ways in which a sandbox is reached with them: the common part of the specs of round trips.

local Fixture = require "spec.support.fixture"
local luassert = require "luassert"
local opensandbox = require "opensandbox"
local random = require "opensandbox.base.random"
local temporary = require "spec.support.temporary"

local odd = {}

-- Names of files and directories.
odd.NAMES = {
  "a b", " leading", "trailing ", "  ", "100%", "%41", "%2F", "%252F%", "%0A", "a+b", "+", "#", "a#b", "?", "a?b=c", "&",
  "a&b=c&d", "=", "a=b", ";", "a;b", "a,b", "a:b", "'", "'single'", '"', '"double"', "`id`", "\\", "back\\slash", "\\n",
  "\\'", "\\/x", "new\nline", "\n", "\nfirst", "last\n", "\r", "\r\n", "tab\t", "\1\27\31\127", "é", "naïve/ü",
  "日本語", "😀", "e\204\129", "\194\133", "\226\128\168", "\239\187\191bom", "-rf", "--help", "-", "~", "~root", "~/~",
  ".hidden", "...", "..x", "*", "?*[a-c]{a,b}", "!(x)", "[", "]", "{", "}", "(", ")", "<", ">", "|", "^", "@", "!", "cost$",
  "a$.b", "$ x", "$", ("long"):rep(63), ("é"):rep(127), "a%20b+c?d=e&f#g;h", "http:/x/y?z", "C:\\x", "null", "0",
}
-- Names that are not UTF-8.
odd.BYTES = { "\255", "a\254b", "caf\233", "\195", "\237\160\128" }
-- What execd would expand, or drop.
odd.EXPANDED = { "price$5", "$HOME", "a${HOME}b", "$$", "$?", "$_x" }

odd.TEXTS = {
  "", " ", "a b", "'", '"', "\\", "\\\\n", "$HOME", "${HOME}", "$(id)", "`id`", "a\nb\n", "\n", "\r\n", "\t", "=", "a=b", "é日😀",
  "%41", "a+b&c#d?", "-n", "--", "*", "~", "!x", "\1\27\127", "\226\128\168", "\194\133", "</script>", "null", ("x"):rep(50000),
}

local bytes = {}
for byte = 0, 255 do bytes[byte + 1] = string.char(byte) end
odd.ALL_BYTES = table.concat(bytes)

odd.DIRECTLY, odd.PROXIED, odd.ISOLATED = "directly", "through the server's proxy", "in an isolated session"

local requests = 0

-- A client of the fixture's server, and the objects of the sandbox that a test needs through it.
local function reach(fixture, use_server_proxy)
  local client = fixture:another_client {
    use_server_proxy = use_server_proxy, on_request = function() requests = requests + 1 end,
  }
  local sandbox = assert(client:connect(fixture.sandbox.id))
  return {
    client = client, sandbox = sandbox, files = sandbox.files, execd = assert(client:discover_execd(sandbox.id)),
    egress = assert(client:discover_egress(sandbox.id)),
  }
end

--- Makes a sandbox that is reached in several ways, each a table with `client`, `sandbox`, `files` and `execd`; those of the whole sandbox
--- have `egress`, too. There is no isolated session without bubblewrap.
---@return table fixture
---@return table<string, table> ways by name
function odd.start()
  local fixture = Fixture.new {
    network_policy = { default_action = "deny", egress = { { action = "allow", target = "*.example.com" } } },
    credential_proxy = true, extensions = { ["bootstrap.execd.isolation"] = "enable" },
  }
  local proxied = reach(fixture, true)
  local ways = { [odd.DIRECTLY] = reach(fixture, false), [odd.PROXIED] = proxied }
  if not fixture.unisolated then
    local session = assert(proxied.sandbox:isolated { workspace = "/work", mode = "rw" })
    ways[odd.ISOLATED] = { -- and through the server's proxy
      client = proxied.client, sandbox = session, files = session.files,
      execd = proxied.client:isolated_endpoint(proxied.execd, session.id),
    }
  end
  return fixture, ways
end

--- Tries an operation with every odd name.
---@param try fun(way: table, path: string, place: string, scratch: string) called with a path that ends with an odd name, the directory of
--- its own that this is in, and a local path
function odd.try_names(operation, try, way)
  local scratch, top = temporary.file(), "/work/" .. random.hex(4)
  opensandbox.map(odd.NAMES, function(name, number)
    local place = ("%s/%d"):format(top, number)
    local ok, problem = opensandbox.pcall(try, way, place .. "/" .. name, place, scratch .. number)
    assert(ok, ("%s with %q: %s"):format(operation, name, tostring(problem)))
  end)
  os.remove(scratch)
  assert(way.files:remove(top, { recursive = true }))
end

--- Calls `fn` and expects it to raise, at a line of the spec, an error in which `part` stands, and to send nothing.
function odd.refused(part, fn, ...)
  local before = requests
  local ok, problem = pcall(fn, ...)
  luassert.is_false(ok)
  luassert.equal("string", type(problem))
  luassert.truthy(problem:find(part, 1, true), problem)
  luassert.truthy(problem:find("spec/roundtrip/", 1, true), problem)
  luassert.equal(before, requests)
end

return odd
