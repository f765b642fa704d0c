--- The links in the documents lead to files and headings that exist.

local uv = require "luv"
local read_file = require "spec.support.read_file"

-- Returns the Markdown files of a directory, by its paths.
local function documents(directory, list)
  local handle = assert(uv.fs_scandir(directory))
  local name, kind = uv.fs_scandir_next(handle)
  while name do
    local path = directory == "." and name or directory .. "/" .. name
    if kind == "file" and name:find("%.md$") then list[#list + 1] = path end
    if kind == "directory" and (path == "doc" or path:find("^doc/") or path == "examples" or path:find("^examples/")) then
      documents(path, list)
    end
    name, kind = uv.fs_scandir_next(handle)
  end
  return list
end

-- Returns a text without its blocks of code.
local function prose(text)
  return (("\n" .. text):gsub("\n```.-\n```", "\n"):gsub("`[^`\n]*`", ""))
end

-- Returns the anchors of the headings of a document.
local function anchors(text)
  local found = {}
  for heading in ("\n" .. text:gsub("\n```.-\n```", "\n")):gmatch("\n#+ ([^\n]+)") do
    found[(heading:lower():gsub("[^%w _-]", ""):gsub(" ", "-"))] = true
  end
  return found
end

-- Joins a relative path to the directory of a document.
local function resolve(from, path)
  local parts = {}
  for part in ((from:match("^(.*)/[^/]*$") or ".") .. "/" .. path):gmatch("[^/]+") do
    if part == ".." then table.remove(parts) elseif part ~= "." then parts[#parts + 1] = part end
  end
  return table.concat(parts, "/")
end

describe("the links", function()
  for _, path in ipairs(documents(".", {})) do
    it("of " .. path .. " lead to what exists", function()
      local text = read_file(path)
      for target in prose(text):gmatch("%]%(([^)%s]+)%)") do
        if not target:find("^%a+:") then
          local file, anchor = target:match("^([^#]*)#?(.*)$")
          local where = file == "" and path or resolve(path, file)
          assert.truthy(uv.fs_stat(where == "" and "." or where), target)
          if anchor ~= "" then assert.is_true(anchors(read_file(where))[anchor], target .. ": no such heading") end
        end
      end
    end)
  end
end)
