--- Lists the entries of a local directory tree, for an upload.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local ignore = require "opensandbox.files.ignore"
local tree_count = require "opensandbox.files.tree_count"

local directory_walk = {}

---@class opensandbox.DirectoryWalk the state of a walk
---@field op string
---@field root string
---@field patterns table the caller's, of ignore.new
---@field gitignore? boolean honours .gitignore files
---@field gitignores table[] those of the directories on the way: below (the directory's name with a "/"), patterns
---@field all_gitignores table<string, table> patterns of all of them, by `below`
---@field entries opensandbox.TarEntry[]
---@field count opensandbox.TreeCount

-- Returns whether an entry is ignored. The caller's patterns have precedence, then the nearest .gitignore.
local function is_ignored(self, name, is_directory)
  local verdict = self.patterns:verdict(name, is_directory)
  for i = #self.gitignores, 1, -1 do
    if verdict ~= nil then break end
    local nearest = self.gitignores[i]
    verdict = nearest.patterns:verdict(name:sub(#nearest.below + 1), is_directory)
  end
  return verdict
end

-- Adds the patterns of a directory's .gitignore, if it has one, while the directory is visited.
local function add_gitignore(self, below)
  local path = self.root .. "/" .. below .. ".gitignore"
  if core.lstat(path) ~= "file" then return false end
  local file, problem = io.open(path, "rb")
  if not file then return nil, errors.local_file(self.op, path, problem) end
  self.gitignores[#self.gitignores + 1] = { below = below, patterns = ignore.parse(file:read("*a") or "") }
  self.all_gitignores[below] = self.gitignores[#self.gitignores].patterns
  file:close()
  return true
end

-- Adds the entries of a directory; `below` is its name with a "/", or "".
local function visit(self, below)
  local names, problem = core.list_directory(self.root .. "/" .. below)
  if not names then return nil, errors.local_file(self.op, self.root .. "/" .. below, problem) end
  table.sort(names)
  local has_gitignore, err = false, nil
  if self.gitignore then has_gitignore, err = add_gitignore(self, below) end
  if err then return nil, err end
  for _, base_name in ipairs(names) do
    local name = below .. base_name
    local kind, size, mode, mtime, target = core.lstat(self.root .. "/" .. name)
    if not kind then return nil, errors.local_file(self.op, self.root .. "/" .. name, size) end
    if not (self.gitignore and base_name == ".git") and not is_ignored(self, name, kind == "directory") then
      tree_count.add(self.count, kind, size)
      if tree_count.is_transferred(kind) then
        self.entries[#self.entries + 1] = { name = name, kind = kind, size = size, mode = mode, mtime = mtime, target = target }
      end
      if kind == "directory" then
        local ok
        ok, err = visit(self, name .. "/")
        if not ok then return nil, err end
      end
    end
  end
  if has_gitignore then self.gitignores[#self.gitignores] = nil end
  return true
end

-- Returns a function that returns whether a name is ignored, by itself or with one of its parents. The gitignores are those of the walk.
local function ignores_of(self)
  local directories = {}
  local function verdict_of(name, is_directory)
    if self.gitignore and name:match("[^/]+$") == ".git" then return true end
    local verdict, below = self.patterns:verdict(name, is_directory), name
    while verdict == nil and below ~= "" do
      below = below:match("^(.*/)[^/]+/?$") or ""
      local patterns = self.all_gitignores[below]
      if patterns then verdict = patterns:verdict(name:sub(#below + 1), is_directory) end
    end
    return verdict or false
  end
  local function ignored(name, is_directory)
    if is_directory and directories[name] ~= nil then return directories[name] end
    local parent = name:match("^(.*)/")
    local verdict = parent and ignored(parent, true) or verdict_of(name, is_directory)
    if is_directory then directories[name] = verdict end
    return verdict
  end
  return ignored
end

--- Returns the entries of a local directory, each directory before its own entries. Symlinks are not followed.
---@param op string
---@param root string
---@param patterns table entries to ignore, of ignore.new
---@param gitignore? boolean honours the .gitignore files in it, and ignores .git
---@return opensandbox.TarEntry[]? entries
---@return opensandbox.TreeCount|opensandbox.Error count
---@return (fun(name: string, is_directory: boolean): boolean)? ignored returns whether the patterns ignore a name, which need not exist here
function directory_walk.entries(op, root, patterns, gitignore)
  local kind, problem = core.stat(root)
  if kind ~= "directory" then return nil, errors.local_file(op, root, kind and "is not a directory" or problem) end
  local walk = {
    op = op, root = root, patterns = patterns, gitignore = gitignore, gitignores = {}, all_gitignores = {}, entries = {},
    count = tree_count.new(),
  }
  local ok, err = visit(walk, "")
  if not ok then return nil, err end
  return walk.entries, walk.count, ignores_of(walk)
end

return directory_walk
