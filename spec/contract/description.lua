--- What the real server says about itself in /openapi.json: its routes, and the members of the bodies that they take.

local http_client = require "spec.support.http_client"
local json = require "opensandbox.base.json"

local Description = {}
Description.__index = Description

-- A path with all names in braces alike, and without the version that most routes have in front as well.
local function plain(path)
  return (path:gsub("{[^}]*}", "{}"):gsub("^/v1/", "/"))
end

--- Returns the routes as "METHOD /path", sorted, with `{}` for each name in braces.
---@return string[]
function Description:routes()
  local list = {}
  for route in pairs(self.operations) do list[#list + 1] = route end
  table.sort(list)
  return list
end

--- Returns a route as `routes` has it.
---@param method string
---@param path string with names in braces
---@return string
function Description.route(_, method, path)
  return method .. " " .. plain(path)
end

-- The schema itself, where it is only named.
function Description:resolve(schema)
  local name = schema["$ref"]
  return name and self.schemas[name:match("[^/]*$")] or schema
end

-- Adds the members of a value that no schema of the list knows.
function Description:compare(value, schemas, where, unknown)
  if type(value) ~= "table" then return end
  local properties, items, takes_any = {}, {}, false
  local function look(schema)
    schema = self:resolve(schema)
    for _, one in ipairs(schema.anyOf or schema.oneOf or schema.allOf or {}) do look(one) end
    for name, property in pairs(schema.properties or {}) do
      properties[name] = properties[name] or {}
      table.insert(properties[name], property)
    end
    if schema.items then items[#items + 1] = schema.items end
    takes_any = takes_any or (schema.type == "object" and not schema.properties) or (schema.additionalProperties or false) ~= false
  end
  for _, schema in ipairs(schemas) do look(schema) end
  for key, member in pairs(value) do
    if type(key) == "number" then
      self:compare(member, items, where .. "[]", unknown)
    elseif properties[key] then
      self:compare(member, properties[key], where .. "." .. key, unknown)
    elseif not takes_any then
      unknown[#unknown + 1] = where .. "." .. key
    end
  end
end

--- Returns the members of a body that the route does not know, and so ignores or refuses: "body.member[].other".
---@param method string
---@param path string of a request, without a query
---@param body any to be encoded as JSON
---@return string[]
function Description:unknown_members(method, path, body)
  local unknown = {}
  for route, operation in pairs(self.operations) do
    local pattern = route:gsub("[%-%.]", "%%%0"):gsub("{}", "[^/]+")
    if (method .. " " .. plain(path)):find("^" .. pattern .. "$") then
      local content = operation.requestBody and operation.requestBody.content["application/json"]
      self:compare(body, { content and content.schema or {} }, "body", unknown)
    end
  end
  table.sort(unknown)
  return unknown
end

--- Reads the description of a server.
---@param server table of server.lua
return function(server)
  local response = assert(http_client.request { url = server.url .. "/openapi.json" })
  local document = assert(json.decode(response.body))
  local operations = {}
  for path, methods in pairs(document.paths) do
    for method, operation in pairs(methods) do operations[method:upper() .. " " .. plain(path)] = operation end
  end
  return setmetatable({ operations = operations, schemas = document.components.schemas }, Description)
end
