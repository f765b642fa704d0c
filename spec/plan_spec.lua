--- The plan of the rooms: which files may require which. It holds for every `require`, and for the files that are loaded later.

local sources = require "spec.support.sources"

-- The rooms of each program, floor by floor. A file may require files of its own room and of the rooms on lower floors. "." are the files
-- that lie in the program's own directory. `also`: what it may require beside its rooms.
local PLAN = {
  ["lua/opensandbox"] = {
    { "base" },                  -- what knows neither HTTP nor OpenSandbox
    { "loop" },                  -- waiting
    { "http" },                  -- one exchange, one call, errors, retry
    { "lifecycle", "files" },    -- the server's routes; files of a sandbox
    -- Network policy and vault; what execd executes; what pools share.
    { "egress", "execution", "pool" },
    { "." },                     -- the objects that people hold
    also = { "opensandbox.core" },
  },
  ["lua/opensandbox/devserver"] = {
    { "base" },                  -- processes, pipes, paths of this machine
    { "http", "isolation" },     -- the server; bubblewrap or none
    { "execd", "egress" },       -- the APIs of a sandbox
    { "lifecycle" },             -- the API that makes sandboxes
    { "." },
    -- What both programs share.
    also = { "opensandbox.core", "opensandbox.version", "opensandbox.base.*", "opensandbox.lifecycle.ports" },
  },
  ["lua/opensandbox/cli"] = {
    { "base" },                  -- output, event loop, values of arguments
    { "mcp" },                   -- the server of the Model Context Protocol
    { "command" },               -- one file a subcommand
    { "." },
    -- A user of the library, beside which it has an event loop of its own.
    also = { "opensandbox", "opensandbox.core", "opensandbox.intree", "opensandbox.version", "opensandbox.base.*",
      "opensandbox.loop", "opensandbox.loop.scheduler", "opensandbox.devserver", "opensandbox.devserver.program" },
  },
}

-- The program of a file, and its room.
local function place_of(path)
  local program = path:match("^lua/opensandbox/[^/]+")
  if not PLAN[program] then program = "lua/opensandbox" end
  return program, path:sub(#program + 2):match("^([^/]+)/") or "."
end

local function module_of(path)
  return (path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", "."))
end

-- The floor of a room in a program's plan.
local function floor_of(plan, room)
  for floor, rooms in ipairs(plan) do
    for _, name in ipairs(rooms) do
      if name == room then return floor end
    end
  end
end

local function is_also_allowed(plan, module)
  for _, allowed in ipairs(plan.also) do
    local prefix = allowed:match("^(.*)%*$")
    if module == allowed or (prefix and module:sub(1, #prefix) == prefix) then return true end
  end
  return false
end

-- The modules of ours that a file names: in `require`, and in the tables of files that are loaded later. A name that ends in a point stands
-- for the files of a directory.
local function modules_named(text, known)
  local named, code = {}, sources.code(text, true)
  for name in code:gmatch("require%s*%(?%s*[\"'](opensandbox[%w_.]*)[\"']") do named[name] = true end
  for name in code:gmatch("[\"'](opensandbox%.[%w_.]+)[\"']") do named[name] = named[name] or known[name] end
  return named
end

local function sorted(set)
  local list = {}
  for item in pairs(set) do list[#list + 1] = item end
  table.sort(list)
  return list
end

-- Finds a circle: a list of the modules on it, the first one again at its end.
local function circle_in(arrows)
  local state, trail = {}, {}
  local function visit(module)
    if state[module] == "done" then return nil end
    trail[#trail + 1] = module
    if state[module] then
      local first = 1
      while trail[first] ~= module do first = first + 1 end
      return { (table.unpack or unpack)(trail, first) } -- luacheck: std max
    end
    state[module] = "open"
    for _, target in ipairs(sorted(arrows[module] or {})) do
      local circle = visit(target)
      if circle then return circle end
    end
    trail[#trail] = nil
    state[module] = "done"
  end
  for _, module in ipairs(sorted(arrows)) do
    local circle = visit(module)
    if circle then return circle end
  end
end

-- What is wrong with the files `texts` (by path): a list of sentences.
local function faults_of(texts)
  local path_of, arrows, faults, used = {}, {}, {}, {}
  for path in pairs(texts) do path_of[module_of(path)] = path end
  for path, text in pairs(texts) do
    local program, room = place_of(path)
    local plan = PLAN[program]
    local floor = floor_of(plan, room)
    used[program .. " " .. room] = true
    if not floor then faults[#faults + 1] = ("%s is in the room '%s', which is not in the plan"):format(path, room) end
    local named = modules_named(text, path_of)
    named[module_of(path)] = nil
    arrows[module_of(path)] = named
    for _, name in ipairs(sorted(named)) do
      local target = path_of[name] or (name:find("%.$") and "lua/" .. name:gsub("%.", "/"))
      local target_program, target_room
      if target then target_program, target_room = place_of(target) end
      local target_floor = target_program == program and floor_of(plan, target_room)
      local is_down = floor and target_floor and (target_room == room or target_floor < floor)
      if not (is_down or is_also_allowed(plan, name)) then
        faults[#faults + 1] = ("%s requires %s, which is not below it"):format(path, name)
      end
    end
  end
  for program, plan in pairs(PLAN) do
    for _, rooms in ipairs(plan) do
      for _, room in ipairs(rooms) do
        if not used[program .. " " .. room] then faults[#faults + 1] = ("the room %s/%s is empty"):format(program, room) end
      end
    end
  end
  local circle = circle_in(arrows)
  if circle then faults[#faults + 1] = "a circle: " .. table.concat(circle, " -> ") end
  table.sort(faults)
  return faults
end

describe("the plan of the rooms", function()
  local texts

  before_each(function() texts = sources.read "lua/opensandbox" end)

  -- Expects that a change of a file's text makes a fault.
  local function breaks(fault, path, change)
    local before = texts[path]
    texts[path] = change(before or "")
    local found = table.concat(faults_of(texts), "\n")
    assert.truthy(found:find(fault, 1, true), found)
    texts[path] = before
  end

  local function requiring(module)
    return function(text) return ('local added = require "%s"\n'):format(module) .. text end
  end

  it("is held by every file", function()
    assert.equal("", table.concat(faults_of(texts), "\n"))
  end)

  it("is broken when one arrow is turned round", function()
    local from, to = "lua/opensandbox/http/exchange.lua", "lua/opensandbox/base/url.lua"
    local count
    texts[from], count = texts[from]:gsub('require "opensandbox%.base%.url"', "nil")
    assert.equal(1, count)
    breaks("lua/opensandbox/base/url.lua requires opensandbox.http.exchange, which is not below it", to,
      requiring "opensandbox.http.exchange")
  end)

  it("is broken by a require that goes up, or to another room of the same floor", function()
    breaks("base/shell.lua requires opensandbox.loop.timers, which is not below it", "lua/opensandbox/base/shell.lua",
      requiring "opensandbox.loop.timers")
    breaks("files/ignore.lua requires opensandbox.lifecycle.pagination", "lua/opensandbox/files/ignore.lua",
      requiring "opensandbox.lifecycle.pagination")
    breaks("devserver/base/errno.lua requires opensandbox.loop.timers", "lua/opensandbox/devserver/base/errno.lua",
      requiring "opensandbox.loop.timers")
    breaks("base/shell.lua requires opensandbox.loop.adapters.", "lua/opensandbox/base/shell.lua",
      function(text) return text .. '\nlocal _ = require("opensandbox.loop.adapters." .. ...)' end)
  end)

  it("is broken by a file that is loaded later, if that is above", function()
    breaks("http/owned_resource.lua requires opensandbox.sandbox, which is not below it", "lua/opensandbox/http/owned_resource.lua",
      function(text) return (text:gsub("lazy%.modules { ", '%0sandbox = "opensandbox.sandbox", ')) end)
  end)

  it("is broken by a circle", function()
    breaks("a circle: opensandbox.base.options -> opensandbox.base.time -> opensandbox.base.options",
      "lua/opensandbox/base/time.lua", requiring "opensandbox.base.options")
  end)

  it("is broken by a file in a room that it does not have, and by a room without files", function()
    breaks("lua/opensandbox/hall/x.lua is in the room 'hall', which is not in the plan", "lua/opensandbox/hall/x.lua",
      function() return "return {}" end)
    for path in pairs(texts) do
      if path:find("^lua/opensandbox/devserver/isolation/") then texts[path] = nil end
    end
    breaks("the room lua/opensandbox/devserver/isolation is empty", "lua/opensandbox/version.lua", function(text) return text end)
  end)

  it("sees no require in comments, and no text that is not a file", function()
    texts["lua/opensandbox/base/shell.lua"] = '-- require "opensandbox.sandbox"\nprint "opensandbox.no_module"\n'
      .. texts["lua/opensandbox/base/shell.lua"]
    assert.same({}, faults_of(texts))
  end)
end)
