--- The C core as a plan: which file uses which, and what all of them do alike.

local uv = require "luv"

-- The text of every file of src/, by its name.
local function sources()
  local files, handle = {}, assert(uv.fs_scandir("src"))
  local name = uv.fs_scandir_next(handle)
  while name do
    local file = assert(io.open("src/" .. name, "rb"))
    files[name] = file:read("*a")
    file:close()
    name = uv.fs_scandir_next(handle)
  end
  return files
end

-- A .c file and its headers are one: "transfer" stands for transfer.c, transfer.h and transfer_internal.h.
local function module_of(name)
  return (name:gsub("%.[ch]$", ""):gsub("_internal$", ""))
end

-- The modules that each module includes.
local function includes(files)
  local arrows = {}
  for name, text in pairs(files) do
    local from = module_of(name)
    arrows[from] = arrows[from] or {}
    for header in text:gmatch('#include "([%w_]+%.h)"') do
      local to = module_of(header)
      if to ~= from then arrows[from][to] = true end
    end
  end
  return arrows
end

-- A circle of arrows as a text, or nil.
local function circle(arrows)
  local finished, path = {}, {}
  local function visit(name)
    for index, earlier in ipairs(path) do
      if earlier == name then return table.concat(path, " -> ", index) .. " -> " .. name end
    end
    if finished[name] then return nil end
    path[#path + 1] = name
    for to in pairs(arrows[name] or {}) do
      local found = visit(to)
      if found then return found end
    end
    path[#path] = nil
    finished[name] = true
  end
  for name in pairs(arrows) do
    local found = visit(name)
    if found then return found end
  end
end

describe("the C core", function()
  local files = sources()

  it("has no circle of includes", function()
    assert.is_nil(circle(includes(files)))
    assert.is_string(circle { a = { b = true }, b = { c = true }, c = { b = true } })
  end)

  it("knows Lua in the files of the binding only, and libcurl in few others", function()
    for name, text in pairs(files) do
      if not name:find("^lua_") then assert.falsy(text:find("#include <lua", 1, true), name) end
    end
    for _, name in ipairs { "body", "buffer", "event_stream", "output_event", "response", "sink", "transfer_set", "clock_heap",
      "websocket", "websocket_connection" } do
      assert.falsy((files[name .. ".c"] .. files[name .. ".h"]):find("curl", 1, true) and includes(files)[name].curl_api, name)
    end
  end)

  it("allocates through its seam only", function()
    for name, text in pairs(files) do
      if name ~= "alloc.c" then
        for call in text:gsub("/%*.-%*/", ""):gmatch("[%w_]+%s*%(") do
          local called = call:match("^[%w_]+")
          for _, banned in ipairs { "malloc", "calloc", "realloc", "free", "strdup", "strndup", "asprintf" } do
            assert.not_equal(banned, called, name)
          end
        end
      end
    end
  end)

  it("knows large files wherever it knows files", function()
    for name, text in pairs(files) do
      if text:find("#include <sys/stat.h>", 1, true) then assert.truthy(text:find('^#include "large_files.h"'), name) end
    end
  end)
end)
