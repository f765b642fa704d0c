-- Writes the reference: `make doc`. Reports missing parts of the annotations, and fails then.

local reference = require "tools.reference.init"

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

local texts = {}
local listing = assert(io.popen([[
  find lua -name '*.lua' -not -path 'lua/opensandbox/devserver/*' -not -path 'lua/opensandbox/cli/*' # which document themselves
]]))
for path in listing:lines() do texts[path] = read(path) end
listing:close()

local files, problems = reference.make(texts)
assert(os.execute("rm -rf doc/reference && mkdir -p doc/reference"))
for path, text in pairs(files) do
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end
for _, text in ipairs(problems) do io.stderr:write(text, "\n") end
os.exit(#problems == 0 and 0 or 1)
