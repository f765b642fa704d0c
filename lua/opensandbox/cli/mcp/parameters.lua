--- The parameters of a tool: their JSON schema, and the check of the values that a client sends.
--
-- A parameter is { name, kind, description, required = true, default =, fields = }, where `fields` are the parameters of each entry of a list
-- of kind "entries", or of an "object".

local each = require "opensandbox.base.each"
local json = require "opensandbox.base.json"

local parameters = {}

--- The parameter that names the sandbox of a tool.
parameters.SANDBOX_ID = { "sandbox_id", "string", "Id of the sandbox.", required = true }

--- The official server needs this parameter for sandboxes that it did not create. This server connects to any sandbox.
parameters.CONNECT = { "connect_if_missing", "boolean", "Accepted for compatibility; the sandbox is always connected to." }

local strings = { type = "string" }

local function is_list(value)
  if type(value) ~= "table" then return false end
  local count = 0
  for _ in each(value) do count = count + 1 end
  return count == #value
end

local function all_strings(value)
  for _, item in each(value) do
    if type(item) ~= "string" then return false end
  end
  return true
end

-- For each kind its schema, and whether a value is of it.
local KINDS = {
  string = { { type = "string" }, function(value) return type(value) == "string" end, "a string" },
  number = { { type = "number" }, function(value) return type(value) == "number" end, "a number" },
  integer = { { type = "integer" }, function(value) return type(value) == "number" and value % 1 == 0 end, "a whole number" },
  boolean = { { type = "boolean" }, function(value) return type(value) == "boolean" end, "true or false" },
  ["string list"] = {
    { type = "array", items = strings }, function(value) return is_list(value) and all_strings(value) end, "a list of strings",
  },
  ["string map"] = {
    { type = "object", additionalProperties = strings },
    function(value) return type(value) == "table" and (next(value) == nil or not is_list(value)) and all_strings(value) end,
    "an object with strings",
  },
  entries = { { type = "array" }, is_list, "a list of objects" },
  object = { { type = "object" }, function(value) return type(value) == "table" end, "an object" },
}

--- Returns the JSON schema of parameters.
---@param list table[]
---@return table
function parameters.schema(list)
  local properties, required = {}, json.array {}
  for _, parameter in ipairs(list) do
    local name, kind, description = parameter[1], parameter[2], parameter[3]
    local property = { description = description, default = parameter.default, enum = parameter.enum }
    for key, value in each(KINDS[kind][1]) do property[key] = value end
    if kind == "entries" then property.items = parameters.schema(parameter.fields) end
    if kind == "object" and parameter.fields then
      local inner = parameters.schema(parameter.fields)
      property.properties, property.required = inner.properties, inner.required
    end
    properties[name] = property
    if parameter.required then required[#required + 1] = name end
  end
  return { type = "object", properties = properties, required = required }
end

-- Returns nil, or the problem of one value.
local function problem_of(parameter, value, where)
  local name, kind = where .. parameter[1], KINDS[parameter[2]]
  if value == nil then return parameter.required and ("%s is missing"):format(name) or nil end
  if not kind[2](value) then return ("%s must be %s"):format(name, kind[3]) end
  if parameter[2] == "entries" then
    for index, entry in ipairs(value) do
      local problem = parameters.problem(parameter.fields, entry, ("%s[%d]."):format(name, index - 1))
      if problem then return problem end
    end
  elseif parameter.fields then
    return parameters.problem(parameter.fields, value, name .. ".")
  end
end

--- Checks values. Unknown names are an error, because a misspelt parameter would be ignored.
---@param list table[]
---@param values any
---@param where? string prefix of names in messages
---@return string? problem
function parameters.problem(list, values, where)
  where = where or ""
  if type(values) ~= "table" then return (where:gsub("%.$", "")) .. " must be an object" end
  local known = {}
  for _, parameter in ipairs(list) do
    known[parameter[1]] = true
    local problem = problem_of(parameter, values[parameter[1]], where)
    if problem then return problem end
  end
  for name in each(values) do
    if not known[name] then return ("%s%s is not known"):format(where, tostring(name)) end
  end
end

return parameters
