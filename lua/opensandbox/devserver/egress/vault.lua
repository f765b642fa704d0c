--- The credential vault of a sandbox: its credentials, and the requests that would receive them.
--
-- No request is changed here, so the values are checked and not stored. A vault is immutable: a patch makes a new one, so that the
-- patch takes effect as a whole or not at all.

local each = require "opensandbox.base.each"
local json = require "opensandbox.base.json"
local policy = require "opensandbox.devserver.egress.policy"
local tables = require "opensandbox.base.tables"
local validation = require "opensandbox.devserver.http.validation"

local TOKEN = "^[%w!#$%%&'*+%-.^_`|~]+$"
local METHODS = { "GET", "POST", "PUT", "PATCH", "DELETE" }
local PLACES = { path = true, query = true, header = true, body = true }
local SCHEMES = { https = true, http = true }
local PORTS = { [80] = true, [443] = true }
local RESERVED = {
  host = true, ["content-length"] = true, ["content-type"] = true, ["transfer-encoding"] = true, connection = true,
  upgrade = true, te = true, trailer = true, forwarded = true, ["x-forwarded-for"] = true, ["x-forwarded-host"] = true,
  ["x-forwarded-proto"] = true,
}

-- By type of auth, its members besides `type` and `substitutions`.
local AUTH_MEMBERS = {
  bearer = { "credential" }, basic = { "credential" }, apiKey = { "name", "credential" }, customHeaders = { "headers" },
  passthrough = {},
}

local Vault = {}
Vault.__index = Vault

-- Raises a refusal, which `catch` returns.
local function refuse(message, ...)
  error({ refusal = message:format(...) }, 0)
end

-- Calls `fn`; returns its result, or nil and the text of a refusal.
local function catch(fn)
  local ok, result = pcall(fn)
  if ok then return result end
  if type(result) ~= "table" then error(result, 0) end
  return nil, result.refusal, result.is_decoding
end

-- Raises the message of Go's decoder, with the words of the route before it.
local function refuse_json(message, ...)
  error({ refusal = "json: " .. message:format(...), is_decoding = true }, 0)
end

local function object(value, noun, members)
  if type(value) ~= "table" or value[1] ~= nil then refuse_json("cannot unmarshal a value into Go value of %s", noun) end
  for name in each(value) do
    local known = false
    for _, member in ipairs(members) do known = known or member == name end
    if not known then refuse_json("unknown field %q", tostring(name)) end
  end
  return value
end

local function text(value, noun)
  if value ~= nil and type(value) ~= "string" then refuse_json("cannot unmarshal a value into Go value of type string") end
  if not value or value == "" then refuse("%s cannot be empty", noun) end
  return value
end

-- Reads an array with a function for its items. An absent or empty one is the default, if there is one.
local function list(value, noun, check, default)
  if value ~= nil and not validation.is_list(value) then refuse_json("cannot unmarshal a value into Go value of an array") end
  if not value or #value == 0 then return default or refuse("%s cannot be empty", noun) end
  local items = json.array {}
  for index, item in ipairs(value) do items[index] = check(item, noun) end
  return items
end

local function one_of(allowed)
  return function(value, noun)
    if not allowed[value] then refuse("unsupported %s %q", noun, tostring(value)) end
    return value
  end
end

local function check_port(binding)
  return function(port)
    if not PORTS[port] then
      refuse("binding %q: unsupported port %s: only ports 80 and 443 are supported (derived from scheme)", binding, tostring(port))
    end
  end
end

local function read_credential(given)
  object(given, "a credential", { "name", "source" })
  local name = text(given.name, "credential name")
  local source = object(given.source or {}, "a source", { "type", "value" })
  if (source.type or "inline") ~= "inline" then
    refuse("credential %q: unsupported credential source type %q", name, tostring(source.type))
  end
  text(source.value, ("credential %q: inline credential value"):format(name))
  return { name = name, source_type = "inline" }
end

local function header_name(value)
  text(value, "header name")
  local key = value:lower()
  if not value:find(TOKEN) then refuse("invalid header name %q", value) end
  if RESERVED[key] or key:find("^proxy%-auth") then refuse("header %s is reserved", value) end
  return value
end

-- Returns the type and the name that the API shows, and the names of all credentials that the binding uses.
local function read_auth(given, binding)
  local kind = type(given) == "table" and given.type or nil
  local members = AUTH_MEMBERS[kind]
  if not members then refuse("binding %q: unsupported auth type %q", binding, tostring(kind or "")) end
  local allowed = { "type", "substitutions" }
  for _, member in ipairs(members) do allowed[#allowed + 1] = member end
  object(given, "auth", allowed)

  local used = {}
  for _, member in ipairs(members) do
    if member == "credential" then
      used[#used + 1] = text(given.credential, "credential")
    elseif member == "name" then
      header_name(given.name)
    else
      list(given.headers, "headers", function(entry)
        object(entry, "a header", { "name", "credential" })
        header_name(entry.name)
        used[#used + 1] = text(entry.credential, "credential")
      end)
    end
  end
  if given.substitutions or kind == "passthrough" then
    list(given.substitutions, "substitutions", function(entry)
      object(entry, "a substitution", { "credential", "placeholder", "in" })
      used[#used + 1] = text(entry.credential, "credential")
      text(entry.placeholder, "placeholder")
      list(entry["in"], "in", one_of(PLACES))
    end)
  end
  return { type = kind, name = given.name }, used
end

local function read_binding(given)
  object(given, "a binding", { "name", "match", "auth" })
  local name = text(given.name, "binding name")
  local match = object(given.match or {}, "a match", { "hosts", "schemes", "ports", "methods", "paths" })
  list(match.ports, "ports", check_port(name), {}) -- not stored, because they follow from the schemes
  local binding = { name = name, match = {
    hosts = list(match.hosts, "hosts", function(host)
      if not text(host, "host"):gsub("^%*%.", ""):find("^[%w][%w%.%-]*$") then refuse("invalid host %q", host) end
      return host:lower()
    end),
    schemes = list(match.schemes, "schemes", one_of(SCHEMES), json.array { "https" }),
    methods = list(match.methods, "methods", function(method) return text(method, "method"):upper() end,
      json.array(METHODS)),
    paths = list(match.paths, "paths", function(path)
      if text(path, "path"):sub(1, 1) ~= "/" then refuse("path %q must start with /", path) end
      return path
    end, json.array { "/*" }),
  } }
  binding.auth, binding.used = read_auth(given.auth, name)
  return binding
end

-- Returns whether `same` is true for an item of one list and one of the other.
local function intersect(a, b, same)
  for _, x in ipairs(a) do
    for _, y in ipairs(b) do
      if same(x, y) then return true end
    end
  end
  return false
end

local function equal(a, b) return a == b end
local function same_host(a, b) return policy.covers(a, b) or policy.covers(b, a) end

-- Returns whether there may be a path that matches both patterns. Only the parts before their first stars are compared.
local function same_path(a, b)
  local start, other = a:match("^[^*]*"), b:match("^[^*]*")
  if start == a and other == b then return a == b end
  if start == a then return a:sub(1, #other) == other end
  if other == b then return b:sub(1, #start) == start end
  local length = math.min(#start, #other)
  return start:sub(1, length) == other:sub(1, length)
end

local function overlap(a, b)
  return intersect(a.hosts, b.hosts, same_host) and intersect(a.schemes, b.schemes, equal)
    and intersect(a.methods, b.methods, equal) and intersect(a.paths, b.paths, same_path)
end

local function sorted(map)
  local items = {}
  for _, item in each(map) do items[#items + 1] = item end
  table.sort(items, function(a, b) return a.name < b.name end)
  return items
end

--- Returns the message about a host that a binding needs and a policy does not allow; nil when the policy allows all.
function Vault:uncovered(current)
  for _, binding in ipairs(sorted(self.bindings)) do
    for _, host in ipairs(binding.match.hosts) do
      if not policy.allows(current, host) then
        return ("binding %q host %q is not allowed by egress policy"):format(binding.name, host)
      end
    end
  end
end

-- Refuses a vault whose parts contradict each other.
local function check(self, current)
  local bindings = sorted(self.bindings)
  for index, binding in ipairs(bindings) do
    for _, name in ipairs(binding.used) do
      if not self.credentials[name] then refuse("binding %q references unknown credential %q", binding.name, name) end
    end
    for other = index + 1, #bindings do
      if overlap(binding.match, bindings[other].match) then
        refuse("bindings %q and %q can match the same request", binding.name, bindings[other].name)
      end
    end
  end
  local problem = self:uncovered(current)
  if problem then refuse("%s", problem) end
  return self
end

-- Applies the operations on credentials or bindings to a copy of them. A name may occur in one operation only.
local function changed(map, operations, noun, read, revision)
  local copy, touched = tables.merge(map), {}
  object(operations, noun .. "s", { "delete", "replace", "add" })
  for _, operation in ipairs { "delete", "replace", "add" } do
    list(operations[operation], operation, function(given)
      local item = operation == "delete" and { name = text(given, noun .. " name") } or read(given)
      local name = item.name
      if touched[name] then refuse("duplicate %s name %q", noun, name) end
      touched[name] = true
      if (copy[name] ~= nil) == (operation == "add") then
        refuse("%s %q %s", noun, name, operation == "add" and "already exists" or "does not exist")
      end
      item.revision = revision
      copy[name] = operation ~= "delete" and item or nil
    end, {})
  end
  return copy
end

local function build(credentials, bindings, operations, revision, current)
  return check(setmetatable({
    revision = revision,
    credentials = changed(credentials, operations.credentials or {}, "credential", read_credential, revision),
    bindings = changed(bindings, operations.bindings or {}, "binding", read_binding, revision),
  }, Vault), current)
end

--- Creates the first revision.
---@param given table the body of the request
---@param current table the policy, which must allow all hosts of the bindings
---@return table? vault
---@return string? problem
---@return boolean? is_decoding the body does not have the right shape
local function new(given, current)
  return catch(function()
    object(given, "the body", { "credentials", "bindings" })
    return build({}, {}, { credentials = { add = given.credentials }, bindings = { add = given.bindings } }, 1, current)
  end)
end

--- Creates the next revision.
---@return table? vault
---@return string? problem
---@return boolean? is_decoding the body does not have the right shape
---@return boolean? conflict the expected revision is not the current one
function Vault:patched(given, current)
  local conflict = false
  local vault, problem, is_decoding = catch(function()
    object(given, "the body", { "expectedRevision", "credentials", "bindings" })
    local expected = given.expectedRevision
    local is_integer = type(expected) == "number" and expected % 1 == 0
    if expected ~= nil and not is_integer then refuse_json("cannot unmarshal expectedRevision") end
    conflict = expected ~= nil and expected ~= self.revision
    if conflict then refuse("expectedRevision %d does not match current revision %d", expected, self.revision) end
    return build(self.credentials, self.bindings, given, self.revision + 1, current)
  end)
  return vault, problem, is_decoding, conflict
end

--- Returns the part that the API shows: no values, and not which binding uses which credential.
function Vault:state()
  local credentials, bindings = json.array {}, json.array {}
  for index, item in ipairs(sorted(self.credentials)) do
    credentials[index] = { name = item.name, sourceType = item.source_type, revision = item.revision }
  end
  for index, item in ipairs(sorted(self.bindings)) do
    bindings[index] = { name = item.name, revision = self.revision, match = item.match, auth = item.auth }
  end
  return { revision = self.revision, credentials = credentials, bindings = bindings }
end

return { new = new }
