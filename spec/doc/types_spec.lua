--- Editors know the library's types: EmmyLua finds nothing in programs that are right, and the mistakes of one that is wrong.
--
-- It runs the emmylua_check that `make types` builds, or that of the PATH, on a workspace of copies. There, a table of options is an object type that has no other keys, because the checker
-- does not report unknown keys of a class.

local core = require "opensandbox.core"
local json = require "opensandbox.base.json"
local find_program = require "spec.support.find_program"
local process = require "spec.support.process"
local read_file = require "spec.support.read_file"
local reference = require "spec.support.reference"
local sources = require "spec.support.sources"
local temporary = require "spec.support.temporary"
local uv = require "luv"

local BUILT = "build/emmylua/bin/emmylua_check"
local TIMEOUT = 300 -- seconds
local SCRIPTS = { "script", "plugin", "handler", "batch", "agent" }

local function write(path, text)
  local directory = path:match("^(.*)/")
  local made = ""
  for part in directory:gmatch("[^/]+") do
    made = made .. "/" .. part
    uv.fs_mkdir(made, 448)
  end
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end

-- Returns the text of a file with its tables of options as object types. Their fields and those of their parents are in `model`.
local function with_exact_options(text, model)
  local lines, is_replaced = {}, false
  for original in (text .. "\n"):gmatch("(.-)\n") do
    local line = original
    local name = line:match("^%-%-%-@class (opensandbox%.%w+)")
    local class = name and model.classes[name]
    if class and #class.methods == 0 and (name:find("Opts$") or name:find("Filter$")) then
      local fields = {}
      local function add(one)
        for _, field in ipairs(one.fields) do
          fields[#fields + 1] = ("%s%s: (%s)"):format(field.name, field.optional and "?" or "", field.type)
        end
        for _, parent in ipairs(one.parents) do add(model.classes[parent]) end
      end
      add(class)
      line, is_replaced = ("---@alias %s { %s, [string]: never }"):format(name, table.concat(fields, ", ")), true
    elseif is_replaced and line:find("^%-%-%-@field") then
      line = nil
    else
      is_replaced = false
    end
    lines[#lines + 1] = line
  end
  return table.concat(lines, "\n")
end

-- The examples of the reference as functions, whose parameters are what the examples assume.
local function examples_of(made)
  local out = { 'local opensandbox = require "opensandbox"' }
  local parameters = {
    client = "opensandbox.Client", sandbox = "opensandbox.Sandbox", session = "opensandbox.Session", code = "opensandbox.Code",
    isolated = "opensandbox.Isolated", command = "opensandbox.Command", pool = "opensandbox.Pool", task = "opensandbox.Task",
    reader = "opensandbox.Reader", stream = "opensandbox.Stream", execd = "opensandbox.Endpoint", egress = "opensandbox.Endpoint",
    snapshot = "opensandbox.SnapshotInfo", context = "opensandbox.CodeContext", handle = "opensandbox.Handle", id = "string",
    run_id = "string", key = "string",
    url = "string", secret = "string", password = "string", script = "string",
    chunk = "string", needle = "string", work = "function",
    pod_template = "table", terminal = "opensandbox.Terminal",
    connection = "opensandbox.WebSocket", watcher = "opensandbox.FileWatcher", traceparent = "string",
    connect_redis = "function", update_row = "function", saved = "integer", other = "any", socket = "any",
  }
  local names = {}
  for name in pairs(parameters) do names[#names + 1] = name end
  table.sort(names)
  local function add(label, example)
    out[#out + 1] = "-- " .. label
    for _, name in ipairs(names) do out[#out + 1] = ("---@param %s %s"):format(name, parameters[name]) end
    out[#out + 1] = ("local function _(%s)"):format(table.concat(names, ", "))
    -- The checker loses some types behind assert in the initial value of a local variable.
    example = (example .. "\n"):gsub("local ([%w_]+) = assert(%b())\n", "local %1 = %2 if not %1 then return end\n")
    out[#out + 1] = (example:gsub("= assert(%b())", "= %1"))
    out[#out + 1] = "end"
  end
  for _, page in ipairs(made.pages) do
    for _, method in ipairs(page.methods) do add(page.prefix .. method.name, method.fn.doc.example) end
    for _, class in ipairs(page.records) do add(class.name, class.doc.example) end
    if page.class and page.class.name ~= "opensandbox" then add(page.class.name, page.class.doc.example) end
  end
  return table.concat(out, "\n") .. "\n"
end

describe("the stub of the core", function()
  it("names the functions of the core, and no others", function()
    local stub = assert(read_file("types/opensandbox/core.lua"))
    local multi = core.multi()
    local transfer = multi:request { method = "GET", url = "http://127.0.0.1:1/", headers = {} }
    local objects = {
      multi = multi, transfer = transfer, poller = core.poller(), notifier = core.notifier(), event_stream = core.event_stream(10),
      websocket_reader = core.websocket_reader(10, true),
    }
    local expected = { core = {} }
    for name, value in pairs(core) do expected.core[name] = type(value) == "function" or nil end
    for name, object in pairs(objects) do
      expected[name] = {}
      for method in pairs(getmetatable(object).__index) do expected[name][method] = true end
    end
    local found = {}
    for owner, name in stub:gmatch("\nfunction ([%w_]+)[.:]([%w_]+)") do
      found[owner] = found[owner] or {}
      found[owner][name] = true
    end
    multi:close()
    assert.same(expected, found)
  end)
end)

describe("emmylua_check", function()
  local checker = uv.fs_access(BUILT, "X") and BUILT or find_program("emmylua_check")
  if not checker then
    pending("is not installed, so the types are not checked: `make types` builds it")
    return
  end

  local scratch, found

  -- Returns what the checker reports, by file: { line, message }.
  local function check(directory)
    local argv = { checker, directory, "-f", "json", "--severity", "warn", "--output", directory .. "/report.json" }
    local child = process.start { argv = argv }
    child:wait(TIMEOUT)
    local problems = child:stderr_text()
    child:stop()
    local report = io.open(directory .. "/report.json", "rb")
    assert(report, problems)
    local text = report:read("*a")
    report:close()
    local reports = {}
    for _, file in ipairs(assert(json.decode(text))) do
      local name = file.file:match("/check/(.*)$") or file.file
      reports[name] = {}
      for _, one in ipairs(file.diagnostics) do
        table.insert(reports[name], { line = one.range.start.line + 1, message = one.message })
      end
    end
    return reports
  end

  setup(function()
    scratch = temporary.directory()
    local made, root = reference.make(), scratch .. "/check"
    for path, text in pairs(reference.texts()) do write(root .. "/" .. path, with_exact_options(text, made.model)) end
    for path, text in pairs(sources.read("examples")) do
      write(root .. "/" .. path, text)
    end
    for _, name in ipairs(SCRIPTS) do
      write(("%s/scripts/%s.lua"):format(root, name), assert(read_file(("spec/types/%s.lua"):format(name))))
    end
    write(root .. "/scripts/wrong.lua", assert(read_file("spec/types/wrong.lua")))
    write(root .. "/scripts/reference.lua", examples_of(made))
    write(root .. "/types/opensandbox/core.lua", assert(read_file("types/opensandbox/core.lua")))
    write(root .. "/.luarc.json", assert(read_file(".luarc.json")))
    found = check(root)
  end)
  teardown(function() temporary.remove(scratch) end)

  local function assert_clean(name)
    local lines = {}
    for _, one in ipairs(found[name] or {}) do lines[#lines + 1] = ("%s:%d: %s"):format(name, one.line, one.message) end
    assert.equal("", table.concat(lines, "\n"))
  end

  for _, name in ipairs(SCRIPTS) do
    it("finds nothing in " .. name .. ".lua", function() assert_clean("scripts/" .. name .. ".lua") end)
  end

  it("finds nothing in the examples", function()
    for path in pairs(sources.read("examples")) do assert_clean(path) end
  end)

  it("finds nothing in the examples of the reference", function() assert_clean("scripts/reference.lua") end)

  it("finds each mistake of wrong.lua, and no other", function()
    local expected, reported = {}, {}
    local number = 0
    for line in (assert(read_file("spec/types/wrong.lua"))):gmatch("([^\n]*)\n") do
      number = number + 1
      expected[number] = line:match(" %-%- ([%w_]+)$")
    end
    for _, one in ipairs(found["scripts/wrong.lua"] or {}) do reported[one.line] = one.message end
    for line, mistake in pairs(expected) do assert.truthy(reported[line], ("line %d: %s is not found"):format(line, mistake)) end
    for line, message in pairs(reported) do assert.truthy(expected[line], ("line %d: %s"):format(line, message)) end
  end)

  it("knows the library in a project whose settings are those of the document on installing", function()
    local settings = assert(read_file("doc/install.md")):match("```json\n(.-)```")
    assert.truthy(settings and settings:find("/usr/local/share/lua/5.4", 1, true), settings)
    local root = temporary.directory() .. "/check"
    write(root .. "/.luarc.json", (settings:gsub("/usr/local/share/lua/5%.4", function() return uv.cwd() .. "/lua" end)))
    write(root .. "/script.lua", 'local opensandbox = require "opensandbox"\nopensandbox.new():no_such_method()\n')
    local reports = check(root)
    temporary.remove((root:gsub("/check$", "")))
    assert.equal(1, #reports["script.lua"])
    assert.truthy(reports["script.lua"][1].message:find("no_such_method", 1, true), reports["script.lua"][1].message)
  end)
end)
