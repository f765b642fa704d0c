--- The pages of the reference: which classes and methods stand on which page, and in which order.
--
-- The classes that a page leads to stand on the first page that names them. A class with methods that no page names gets a page of its own,
-- so that an addition to the library is in the reference without a change here.

local model = require "tools.reference.model"

local pages = {}

---@class reference.Page
---@field file string
---@field title string
---@field intro? string
---@field class? reference.Class the object that it documents
---@field methods reference.Method[]
---@field records reference.Class[]
---@field aliases? string[] names of aliases
---@field prefix string of its methods: "client:"

-- `room`: the methods of the class that come from the files of that room. `first`: methods that stand before the others.
local ORDER = {
  { file = "opensandbox", title = "The module", module = true, aliases = { "opensandbox.Duration" } },
  { file = "client", title = "Client", class = "Client", room = ".",
    first = { "create", "connect", "sandboxes", "kill_all", "pool", "close" } },
  { file = "sandbox", title = "Sandbox", class = "Sandbox", first = { "run", "start", "command", "kill", "close", "detach" } },
  { file = "command", title = "Command", class = "Command" },
  { file = "files", title = "Files", class = "Files", prefix = "sandbox.files:",
    first = { "write", "read", "open", "upload", "download", "upload_dir", "download_dir" } },
  { file = "reader", title = "Reader", class = "Reader" },
  { file = "session", title = "Session", class = "Session" },
  { file = "code", title = "Code", class = "Code" },
  { file = "isolated", title = "Isolated session", class = "Isolated" },
  { file = "egress", title = "Egress", class = "Egress", prefix = "sandbox.egress:" },
  { file = "vault", title = "Vault", class = "Vault", prefix = "sandbox.vault:" },
  { file = "pool", title = "Pool", class = "Pool" },
  { file = "task", title = "Task", class = "Task" },
  { file = "errors", title = "Errors", class = "Error", aliases = { "opensandbox.ErrorKind", "opensandbox.ErrorCode" } },
  { file = "environment", title = "Environment variables", aliases = { "opensandbox.EnvironmentVariable" } },
  { file = "routes-lifecycle", title = "Routes of the lifecycle API", class = "Client", room = "lifecycle",
    intro = "A client method for each route of the server: sandboxes, snapshots, pools, diagnostics." },
  { file = "routes-execution", title = "Routes of execd: execution", class = "Client", room = "execution",
    intro = "A client method for each route of execd that executes something. The first argument is an endpoint of "
      .. "`discover_execd`." },
  { file = "routes-files", title = "Routes of execd: files", class = "Client", room = "files",
    intro = "A client method for each route of execd for files. The first argument is an endpoint of `discover_execd`." },
  { file = "routes-egress", title = "Routes of the egress API", class = "Client", room = "egress",
    intro = "A client method for each route of the egress sidecar. The first argument is an endpoint of `discover_egress`." },
}

local function room_of(module)
  return module:match("^opensandbox%.([%w_]+)%.") or "."
end

-- Returns the methods of a class and of those it inherits from.
local function all_methods(self, class)
  local list, seen = {}, {}
  for _, one in ipairs(model.lineage(self, class)) do
    for _, method in ipairs(one.methods) do
      if not seen[method.name] then list[#list + 1] = method end
      seen[method.name] = true
    end
  end
  return list
end

local function ordered(methods, first)
  local rank = {}
  for i, name in ipairs(first or {}) do rank[name] = i end
  local places = {}
  for i, method in ipairs(methods) do places[method] = i end
  table.sort(methods, function(a, b)
    local x, y = rank[a.name] or math.huge, rank[b.name] or math.huge
    if x ~= y then return x < y end
    return places[a] < places[b]
  end)
  return methods
end

local function page_of(self, entry)
  local page = { file = entry.file .. ".md", title = entry.title, intro = entry.intro, aliases = entry.aliases, records = {},
    methods = {} }
  if entry.module then
    page.methods, page.prefix, page.class = self.functions, "opensandbox.", self.classes.opensandbox
    return page
  end
  local class = entry.class and self.classes["opensandbox." .. entry.class]
  if not class then return page end
  page.prefix = entry.prefix or class.variable .. ":"
  local is_whole = not entry.room or entry.room == "."
  if is_whole then page.class = class end
  local list = {}
  for _, method in ipairs(all_methods(self, class)) do
    if not entry.room or room_of(method.module) == entry.room then list[#list + 1] = method end
  end
  page.methods = ordered(list, entry.first)
  return page
end

-- Returns the names of the classes that a page leads to.
local function named_by(self, page)
  local names = {}
  for _, method in ipairs(page.methods) do
    for _, text in ipairs(model.types_of(method.fn)) do names[#names + 1] = text end
  end
  for _, one in ipairs(page.class and model.lineage(self, page.class) or {}) do
    for _, field in ipairs(one.fields) do names[#names + 1] = field.type end
  end
  return names
end

--- Arranges the model on pages.
---@param self reference.Model
---@return reference.Page[]
---@return table<string, reference.Page> page_of by class name
function pages.of(self)
  local list, place = {}, {}
  for _, entry in ipairs(ORDER) do
    local page = page_of(self, entry)
    list[#list + 1] = page
    if page.class then place[page.class.name] = page end
  end
  local rooms = {}
  for _, entry in ipairs(ORDER) do
    if entry.class == "Client" then rooms[entry.room] = true end
  end
  for _, method in ipairs(all_methods(self, self.classes["opensandbox.Client"])) do
    local room = room_of(method.module)
    if not rooms[room] then
      rooms[room] = true
      list[#list + 1] = page_of(self, { file = "routes-" .. room, title = "Routes: " .. room, class = "Client", room = room })
    end
  end
  local function visit(page, text)
    for name in (text or ""):gmatch("opensandbox%.%u[%w_]*") do
      local class = self.classes[name]
      if class and not place[name] then
        if #all_methods(self, class) > 0 then
          local file = class.short:gsub("(%l)(%u)", "%1-%2"):lower()
          local own = page_of(self, { file = file, title = class.short, class = class.short })
          list[#list + 1], place[name] = own, own
        else
          place[name] = page
          page.records[#page.records + 1] = class
          for _, one in ipairs(model.lineage(self, class)) do
            for _, field in ipairs(one.fields) do visit(page, field.type) end
          end
        end
      end
    end
  end
  local index = 1
  while list[index] do
    for _, text in ipairs(named_by(self, list[index])) do visit(list[index], text) end
    index = index + 1
  end
  return list, place
end

return pages
