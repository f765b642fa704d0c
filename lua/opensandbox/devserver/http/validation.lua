--- Checks of request bodies, with the answers of the real service, whose models are Pydantic's: 422 with a list of all that has a
-- wrong type or is missing.
--
-- A check is a function `(entries, location, value)` that adds an entry for each fault of the value.

local each = require "opensandbox.base.each"
local json = require "opensandbox.base.json"

local validation = {}

--- One entry of a 422 answer.
function validation.entry(kind, location, message, input, context)
  return { type = kind, loc = json.array(location), msg = message, input = input, ctx = context }
end

--- A 422 answer.
function validation.unprocessable(entries)
  return { status = 422, value = { detail = json.array(entries) } }
end

--- The 422 answer of a rule about several members of a body.
function validation.value_error(message, body, location)
  return validation.unprocessable {
    validation.entry("value_error", location or { "body" }, "Value error, " .. message, body, { error = {} }),
  }
end

--- An answer with a code.
function validation.refusal(status, code, message)
  return { status = status, value = { code = code, message = message } }
end

local function is_map(value) return type(value) == "table" and value[1] == nil end

--- Returns whether a decoded value can be an array. An empty table can.
function validation.is_list(value)
  return type(value) == "table" and (value[1] ~= nil or next(value) == nil)
end

local is_list = validation.is_list

local function at(location, name)
  local longer = {}
  for index, part in ipairs(location) do longer[index] = part end
  longer[#longer + 1] = name
  return longer
end

local function add(entries, ...)
  entries[#entries + 1] = validation.entry(...)
end

local check = {}
validation.check = check

function check.any() end

function check.string(entries, location, value)
  if type(value) ~= "string" then add(entries, "string_type", location, "Input should be a valid string", value) end
end

function check.nonempty_string(entries, location, value)
  if type(value) ~= "string" then return check.string(entries, location, value) end
  if value == "" then
    add(entries, "string_too_short", location, "String should have at least 1 character", value, { min_length = 1 })
  end
end

--- A string that matches a pattern.
---@param pattern string of Lua
---@param shown string the same as the real service writes it
function check.pattern(pattern, shown)
  return function(entries, location, value)
    if type(value) ~= "string" then return check.string(entries, location, value) end
    if not value:find(pattern) then
      add(entries, "string_pattern_mismatch", location, ("String should match pattern '%s'"):format(shown), value,
        { pattern = shown })
    end
  end
end

--- One of some strings.
---@param shown string how the message lists them
function check.literal(values, shown)
  return function(entries, location, value)
    for _, allowed in ipairs(values) do
      if value == allowed then return end
    end
    add(entries, "literal_error", location, "Input should be " .. shown, value, { expected = shown })
  end
end

function check.boolean(entries, location, value)
  if type(value) ~= "boolean" then add(entries, "bool_type", location, "Input should be a valid boolean", value) end
end

--- A map whose values are strings.
function check.string_map(entries, location, value)
  if not is_map(value) then return add(entries, "dict_type", location, "Input should be a valid dictionary", value) end
  for name, item in each(value) do check.string(entries, at(location, name), item) end
end

--- A map whose values are strings or null. Those that are null are removed.
function check.nullable_string_map(entries, location, value)
  if is_map(value) then
    for name, item in each(value) do
      if item == json.null then value[name] = nil end
    end
  end
  check.string_map(entries, location, value)
end

function check.map(entries, location, value)
  if not is_map(value) then add(entries, "dict_type", location, "Input should be a valid dictionary", value) end
end

--- An array.
---@param item fun(entries: table, location: table, value: any) the check of its items
---@param least? integer how many items it has at least
function check.list(item, least)
  return function(entries, location, value)
    if not is_list(value) then return add(entries, "list_type", location, "Input should be a valid list", value) end
    if #value < (least or 0) then
      return add(entries, "too_short", location,
        ("List should have at least %d item after validation, not %d"):format(least, #value), json.array {},
        { field_type = "List", min_length = least, actual_length = #value })
    end
    for index, member in ipairs(value) do item(entries, at(location, index - 1), member) end
  end
end

--- Reads an integer, which may be written as a string, or as a number like 60.0.
---@param entries table[] receives an entry for an invalid one
---@param location table
---@param value any
---@param least? number
---@param most? number
---@return number? integer
function validation.integer(entries, location, value, least, most)
  local number = type(value) == "string" and tonumber(value:match("^%s*([+-]?%d+)%s*$")) or value
  if type(value) == "string" and type(number) ~= "number" then
    add(entries, "int_parsing", location, "Input should be a valid integer, unable to parse string as an integer", value)
  elseif type(number) ~= "number" then
    add(entries, "int_type", location, "Input should be a valid integer", value)
  elseif number % 1 ~= 0 then
    add(entries, "int_from_float", location, "Input should be a valid integer, got a number with a fractional part", value)
  elseif least and number < least then
    add(entries, "greater_than_equal", location, ("Input should be greater than or equal to %d"):format(least), value,
      { ge = least })
  elseif most and number > most then
    add(entries, "less_than_equal", location, ("Input should be less than or equal to %d"):format(most), value, { le = most })
  else
    return number
  end
end

function check.integer(least, most)
  return function(entries, location, value) validation.integer(entries, location, value, least, most) end
end

--- An object with certain members.
---@param fields table[] in their order: name, check, and options: `required`; `not_null`: null is not the same as absent
---@param only_these? boolean other members are a fault
function check.model(fields, only_these)
  local known = {}
  for _, field in ipairs(fields) do known[field[1]] = true end
  return function(entries, location, value)
    if not is_map(value) then
      return add(entries, "model_attributes_type", location,
        "Input should be a valid dictionary or object to extract fields from", value)
    end
    for _, field in ipairs(fields) do
      local name, check_member, options = field[1], field[2], field[3] or {}
      if value[name] == json.null and not options.not_null and not options.required then value[name] = nil end
      if value[name] ~= nil then
        check_member(entries, at(location, name), value[name])
      elseif options.required then
        add(entries, "missing", at(location, name), "Field required", value)
      end
    end
    if not only_these then return end
    for name, member in each(value) do
      if not known[name] then add(entries, "extra_forbidden", at(location, name), "Extra inputs are not permitted", member) end
    end
  end
end

--- Decodes a JSON body.
---@param text string
---@param content_type? string
---@return any value nil when it cannot be decoded
---@return table? answer
function validation.decode(text, content_type)
  if text == "" then
    return nil, validation.unprocessable { validation.entry("missing", { "body" }, "Field required", json.null) }
  elseif not (content_type or ""):lower():find("^application/[%w.+-]*json") then
    return text -- no model takes a string
  end
  local value, problem = json.decode_raw(text)
  if problem then
    local position = tonumber(problem:match("at character (%d+)")) or 1
    local why = problem:find("object key", 1, true) and "Expecting property name enclosed in double quotes"
      or "Expecting value"
    return nil, validation.unprocessable {
      validation.entry("json_invalid", { "body", position - 1 }, "JSON decode error", {}, { error = why }),
    }
  end
  return value
end

--- Decodes a JSON body and checks it.
---@param text string
---@param content_type? string
---@param check_body fun(entries: table, location: table, value: any)
---@return any value nil when it is invalid
---@return table? answer
function validation.body(text, content_type, check_body)
  local value, answer = validation.decode(text, content_type)
  if answer then return nil, answer end
  local entries = {}
  check_body(entries, { "body" }, value)
  if entries[1] then return nil, validation.unprocessable(entries) end
  return value
end

return validation
