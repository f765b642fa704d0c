--- Checks of decoded JSON, with the messages of Go's decoder and validator, and so of execd.

local each = require "opensandbox.base.each"

local go_json = {}

-- The name that Go's decoder has for the type of a JSON value.
local function type_name(value)
  if type(value) == "table" then return value[1] ~= nil and "array" or "object" end
  return type(value) == "boolean" and "bool" or type(value)
end

local function is_integer(value, least, limit)
  return type(value) == "number" and value % 1 == 0 and value >= least and value < limit
end

-- By kind: the name of Go's type, and a test of a value, which returns nil, or the type of a part that is wrong.
local kinds = {
  string = { "string", function(value) return type(value) == "string" end },
  boolean = { "bool", function(value) return type(value) == "boolean" end },
  object = { "struct", function(value) return type(value) == "table" and value[1] == nil end },
  int = { "int", function(value) return is_integer(value, -2 ^ 63, 2 ^ 63) end },
  int64 = { "int64", function(value) return is_integer(value, -2 ^ 63, 2 ^ 63) end },
  uint32 = { "uint32", function(value) return is_integer(value, 0, 2 ^ 32) end },
  list = { "[]string", function(value) return type(value) == "table" and (value[1] ~= nil or next(value) == nil) end },
  map = { "map[string]string", function(value) return type(value) == "table" and value[1] == nil end },
  any_list = { "[]interface {}", function(value) return type(value) == "table" and (value[1] ~= nil or next(value) == nil) end },
}

-- The value as a message names it: numbers that do not fit are shown.
local function described(value, kind)
  if type(value) == "number" and kinds[kind][1]:find("int", 1, true) then return ("number %.14g"):format(value) end
  return type_name(value)
end

--- Returns the problem of the types of a body's members; nil when they are right.
---@param body table
---@param structure string the name that execd has for such a body
---@param fields table[] a name, a kind (string, boolean, object, int, int64, uint32, list and map of strings, any_list), and the name of
-- Go's type when it is not the kind's
---@return string?
function go_json.type_problem(body, structure, fields)
  for _, field in ipairs(fields) do
    local name, kind, go_type = field[1], field[2], field[3]
    local value = body[name]
    local function problem(part, expected)
      return ("json: cannot unmarshal %s into Go struct field %s.%s of type %s"):format(part, structure, name, expected)
    end
    if value ~= nil and not kinds[kind][2](value) then return problem(described(value, kind), go_type or kinds[kind][1]) end
    if value ~= nil and (kind == "list" or kind == "map") then
      for _, item in each(value) do
        if type(item) ~= "string" then return problem(type_name(item), "string") end
      end
    end
  end
end

--- Returns the message about a value of a wrong type.
---@param value any
---@param go_type string
function go_json.value_problem(value, go_type)
  return ("json: cannot unmarshal %s into Go value of type %s"):format(type_name(value), go_type)
end

--- Returns the message about a member that breaks a rule.
---@param structure string
---@param field string
---@param rule string
function go_json.rule_problem(structure, field, rule)
  return ("Key: '%s.%s' Error:Field validation for '%s' failed on the '%s' tag"):format(structure, field,
    field:match("[^.]*$"), rule)
end

return go_json
