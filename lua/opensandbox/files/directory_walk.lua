--- A local directory as a list of what is in it, as it goes up.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local ignore = require "opensandbox.files.ignore"

local tree = {}

---@class opensandbox.TreeCount
---@field files integer
---@field directories integer without the uppermost one
---@field symlinks integer
---@field bytes integer in all files
---@field skipped integer sockets, fifos and devices

--- Nothing, counted.
---@return opensandbox.TreeCount
function tree.count()
  return { files = 0, directories = 0, symlinks = 0, bytes = 0, skipped = 0 }
end

local plurals = { file = "files", directory = "directories", symlink = "symlinks" }

--- Counts one more.
function tree.add(count, kind, size)
  local name = plurals[kind] or "skipped"
  count[name] = count[name] + 1
  if kind == "file" then count.bytes = count.bytes + size end
end

local Walk = {}
Walk.__index = Walk

-- Whether a name is left out: the caller's patterns decide first, then the .gitignore that is nearest.
function Walk:ignored(name, is_directory)
  local verdict = self.patterns:verdict(name, is_directory)
  for i = #self.layers, 1, -1 do
    if verdict ~= nil then break end
    local layer = self.layers[i]
    verdict = layer.patterns:verdict(name:sub(#layer.below + 1), is_directory)
  end
  return verdict
end

-- The patterns of a directory's .gitignore, if it has one, stand before the others while we are in it.
function Walk:enter(below)
  local path = self.root .. "/" .. below .. ".gitignore"
  if core.lstat(path) ~= "file" then return false end
  local file, problem = io.open(path, "rb")
  if not file then return nil, errors.local_file(self.op, path, problem) end
  self.layers[#self.layers + 1] = { below = below, patterns = ignore.parse(file:read("*a") or "") }
  file:close()
  return true
end

-- Adds what is in a directory; `below` is its name with a "/", or "".
function Walk:visit(below)
  local names, problem = core.list_directory(self.root .. "/" .. below)
  if not names then return nil, errors.local_file(self.op, self.root .. "/" .. below, problem) end
  table.sort(names)
  local entered, err = false, nil
  if self.gitignore then entered, err = self:enter(below) end
  if err then return nil, err end
  for _, last in ipairs(names) do
    local name = below .. last
    local kind, size, mode, mtime, target = core.lstat(self.root .. "/" .. name)
    if not kind then return nil, errors.local_file(self.op, self.root .. "/" .. name, size) end
    if not (self.gitignore and last == ".git") and not self:ignored(name, kind == "directory") then
      tree.add(self.count, kind, size)
      if plurals[kind] then
        self.entries[#self.entries + 1] = { name = name, kind = kind, size = size, mode = mode, mtime = mtime, target = target }
      end
      if kind == "directory" then
        local ok
        ok, err = self:visit(name .. "/")
        if not ok then return nil, err end
      end
    end
  end
  if entered then self.layers[#self.layers] = nil end
  return true
end

--- What is in a local directory, each directory before what is in it. Symlinks are not followed.
---@param op string
---@param root string
---@param patterns table what to leave out, of ignore.new
---@param gitignore? boolean honours the .gitignore files in it, and leaves out .git
---@return opensandbox.TarEntry[]? entries
---@return opensandbox.TreeCount|opensandbox.Error count
function tree.walk(op, root, patterns, gitignore)
  local kind, problem = core.stat(root)
  if kind ~= "directory" then return nil, errors.local_file(op, root, kind and "is not a directory" or problem) end
  local walk = setmetatable({
    op = op, root = root, patterns = patterns, gitignore = gitignore, layers = {}, entries = {}, count = tree.count(),
  }, Walk)
  local ok, err = walk:visit("")
  if not ok then return nil, err end
  return walk.entries, walk.count
end

return tree
