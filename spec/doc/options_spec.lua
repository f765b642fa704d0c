--- The documented options are those that the functions accept: each refuses an unknown one, and names those that it knows.

local opensandbox = require "opensandbox"
local reference = require "spec.support.reference"

local unpack_list = table.unpack or unpack -- luacheck: ignore 113 143
local URL = "http://127.0.0.1:1" -- nothing listens there, and nothing is sent

local VAULT = {
  credentials = { { name = "c", value = "x" } },
  bindings = { { name = "b", hosts = { "example.com" }, auth = { type = "bearer", credential = "c" } } },
}

local model = reference.make().model

local client, objects

setup(function()
  client = opensandbox.new(URL, "key", { retry = false, timeout = 1 })
  local handle = { id = "a", url = client.url, endpoints = { ["44772"] = { url = URL }, ["18080"] = { url = URL } } }
  local sandbox = assert(client:connect(handle, { wait = false }))
  local isolated = sandbox:isolated { id = "i" }
  objects = {
    ["opensandbox.Client"] = client, ["opensandbox.Sandbox"] = sandbox, ["opensandbox.Files"] = sandbox.files,
    ["opensandbox.Command"] = sandbox:command "c", ["opensandbox.Session"] = sandbox:session { id = "s" },
    ["opensandbox.Code"] = sandbox:code("python", { id = "k" }), ["opensandbox.Isolated"] = isolated,
    ["opensandbox.Pool"] = client:pool { image = "x", min_idle = 0 },
    ["opensandbox.Task"] = opensandbox.spawn(function() end),
  }
end)
teardown(function() client:close() end)

-- Returns the documented names of a type that is a class or a table: { name? : type }, or nil.
local function documented(kind)
  local names = {}
  local inline = kind:match("^(%b{})")
  if inline and not inline:find("^{ ?%[") then
    for name in inline:gsub("fun%b()", ""):gmatch("([%w_]+)%??:") do names[name] = true end
    return names
  end
  local class = model.classes[kind:match("^opensandbox%.[%w_]+")]
  if not class or #class.methods > 0 then return nil end
  local function add(one)
    for _, field in ipairs(one.fields) do names[field.name] = true end
    for _, parent in ipairs(one.parents) do add(model.classes[parent]) end
  end
  add(class)
  return names
end

-- Returns a value that a function accepts for a parameter.
local function value_for(name, kind)
  if kind:find("opensandbox.Endpoint", 1, true) then return URL end
  if kind:find("^fun") then return function() end end
  if kind:find("^integer") or kind:find("^number") or kind:find("Duration") then return 80 end
  if kind:find("^string%[%]") or kind:find("^any%[%]") then return { "x" } end
  if kind:find("FileUpload") then return { { path = "/x", content = "y" } } end
  if kind:find("EgressRule") then return { { action = "allow", target = "example.com" } } end
  if kind:find("NetworkPolicy") then return { default_action = "deny" } end
  if kind:find("VaultOpts") then return VAULT end
  if kind:find("VaultChanges") then return { credentials = { delete = { "x" } } } end
  if name == "moves" then return { { from = "/x", to = "/y" } } end
  if kind:find("^table<string, opensandbox.AccessOpts>") then return { ["/x"] = { mode = "0600" } } end
  if kind:find("^table<string, { old") then return { ["/x"] = { old = "a", new = "b" } } end
  if kind:find("CreateEvent") then return { success = true, duration = 1 } end
  if kind:find("PoolCapacity") then return { buffer_min = 0, buffer_max = 0, pool_min = 0, pool_max = 1 } end
  if kind:find("^table<string, string") then return { A = "b" } end
  if kind:find("^table") then return {} end
  if name == "scope" then return "all" end
  return name == "from" and "lua" or "/x"
end

-- Returns the names of the options in the message that refuses an unknown one.
local function known_to(fn, arguments, count)
  local ok, message = pcall(fn, unpack_list(arguments, 1, count))
  local list = not ok and tostring(message):match("unknown option '.-'; known are (.+)$")
  if not list then return nil, ok and "nothing is raised" or tostring(message) end
  local names = {}
  for name in list:gmatch("[%w_]+") do names[name] = true end
  return names
end

local UNKNOWN = { ["q-q-q-q-q-q-q-q-q-q-q"] = 1 }

-- These are no options: data that the call is about, checked by its own rules.
local DATA = { ["opensandbox.Endpoint|string"] = true,
  ["opensandbox.NetworkPolicy"] = true, ["opensandbox.VaultOpts"] = true, ["opensandbox.VaultChanges"] = true,
  ["opensandbox.PoolCapacity"] = true, ["opensandbox.Handle"] = true }

-- These are refused with a hint by the object's method, and are for the route's.
local REFUSED = { ["sandbox:run"] = { background = true }, ["code:run"] = { context = "c", language = "python" } }

describe("the documented options", function()
  local function check(label, method, fn, object)
    local params = method.fn.doc.params
    local first = object and (params[1] and params[1].name == method.fn.params[1]) and 2 or 1
    for i = first, #params do
      local expected = not DATA[params[i].type] and params[i].name ~= "..." and documented(params[i].type or "")
      if expected and not params[i].type:find("%[%]$") then
        it("of " .. label .. " are those that it accepts", function()
          local arguments, count = {}, 0
          if object then arguments[1], count = objects[object], 1 end
          for j = first, i - 1 do
            count = count + 1
            arguments[count] = value_for(params[j].name, params[j].type)
          end
          count = count + 1
          arguments[count] = UNKNOWN
          local names, problem = known_to(fn or objects[object][method.name], arguments, count)
          assert.truthy(names, problem)
          for name, value in pairs(REFUSED[label] or {}) do
            arguments[count], names[name] = { [name] = value }, nil
            assert.is_false((pcall(fn or objects[object][method.name], unpack_list(arguments, 1, count))), name)
          end
          for name in pairs(names) do assert.is_true(expected[name], name .. " is not documented") end
          for name in pairs(expected) do assert.is_true(names[name], name .. " is documented, but refused") end
        end)
      end
    end
  end

  for _, method in ipairs(model.functions) do check("opensandbox." .. method.name, method, opensandbox[method.name]) end
  for _, name in ipairs { "Client", "Sandbox", "Files", "Command", "Session", "Code", "Isolated", "Pool", "Task" } do
    local class = model.classes["opensandbox." .. name]
    local seen = {}
    local function visit(one)
      for _, method in ipairs(one.methods) do
        if not seen[method.name] then check(class.variable .. ":" .. method.name, method, nil, class.name) end
        seen[method.name] = true
      end
      for _, parent in ipairs(one.parents) do visit(model.classes[parent]) end
    end
    visit(class)
  end
end)
