--- Finds the handler of a method and a path. In the path of a route, `{name}` stands for one segment.

local each = require "opensandbox.base.each"
local url = require "opensandbox.base.url"

local Router = {}
Router.__index = Router

--- Creates a router.
---@param table_of_routes table<string, function> keys are like "GET /path/{name}"
local function new(table_of_routes)
  local routes = {}
  for route, handler in each(table_of_routes) do
    local method, path = route:match("^(%u+) (.*)$")
    local names = {}
    local pattern = path:gsub("[%-%.]", "%%%0"):gsub("{([%w_]+)}", function(name)
      names[#names + 1] = name
      return "([^/]+)"
    end)
    routes[#routes + 1] = { method = method, pattern = "^" .. pattern .. "$", names = names, handler = handler }
  end
  -- A literal segment comes before a name.
  table.sort(routes, function(a, b)
    if #a.names ~= #b.names then return #a.names < #b.names end
    return a.method .. a.pattern < b.method .. b.pattern
  end)
  return setmetatable({ routes = routes }, Router)
end

--- Finds a handler.
---@return function? handler
---@return table parameters the named segments, decoded; without a handler the methods of that path, none for an unknown path
function Router:find(method, path)
  local methods = {}
  for _, route in ipairs(self.routes) do
    local found = { path:match(route.pattern) }
    if found[1] then
      if route.method == method then
        local parameters = {}
        for index, name in ipairs(route.names) do parameters[name] = url.unescape(found[index]) end
        return route.handler, parameters
      end
      methods[#methods + 1] = route.method
    end
  end
  return nil, methods
end

return { new = new }
