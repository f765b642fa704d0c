--- Finds the handler of a method and a path. Patterns are paths in which `{name}` stands for one segment.

local url = require "opensandbox.devserver.base.url"

local Router = {}
Router.__index = Router

--- @param table of `["METHOD /path/{name}"] = handler`
local function new(table_of_routes)
  local routes = {}
  for route, handler in pairs(table_of_routes) do
    local method, path = route:match("^(%u+) (.*)$")
    local names = {}
    local pattern = path:gsub("[%-%.]", "%%%0"):gsub("{([%w_]+)}", function(name)
      names[#names + 1] = name
      return "([^/]+)"
    end)
    routes[#routes + 1] = { method = method, pattern = "^" .. pattern .. "$", names = names, handler = handler }
  end
  -- A literal segment is stronger than a name, whatever order pairs() gave.
  table.sort(routes, function(a, b)
    if #a.names ~= #b.names then return #a.names < #b.names end
    return a.method .. a.pattern < b.method .. b.pattern
  end)
  return setmetatable({ routes = routes }, Router)
end

--- @treturn[1] function the handler
-- @treturn[1] table the named segments, decoded
-- @treturn[2] nil
-- @treturn[2] {string,...} the methods the path has; empty when there is no such path
function Router:find(method, path)
  local methods = {}
  for _, route in ipairs(self.routes) do
    local found = { path:match(route.pattern) }
    if found[1] then
      if route.method == method then
        local parameters = {}
        for index, name in ipairs(route.names) do parameters[name] = url.decode(found[index]) end
        return route.handler, parameters
      end
      methods[#methods + 1] = route.method
    end
  end
  return nil, methods
end

return { new = new }
