--- The credential vault of a sandbox: which credentials there are, and which requests would get them.
--
-- Nothing is put into requests here, so the values are checked and forgotten. A vault is never changed: a patch makes a new
-- one, so that it takes effect as a whole or not at all.

local json = require "opensandbox.base.json"
local policy = require "opensandbox.devserver.egress.policy"
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

-- The members of each type of auth, besides `type` and `substitutions`.
local AUTH = {
  bearer = { "credential" }, basic = { "credential" }, apiKey = { "name", "credential" }, customHeaders = { "headers" },
  passthrough = {},
}

local Vault = {}
Vault.__index = Vault

-- Ends the reading of a request; `protected` takes it up.
local function refuse(message, ...)
  error({ refusal = message:format(...) }, 0)
end

-- @treturn[2] nil
-- @treturn[2] string why the request is refused
local function protected(fn)
  local ok, result = pcall(fn)
  if ok then return result end
  if type(result) ~= "table" then error(result, 0) end
  return nil, result.refusal
end

local function object(value, what, members)
  if type(value) ~= "table" or value[1] ~= nil then refuse("%s must be an object", what) end
  for name in pairs(value) do
    local known = false
    for _, member in ipairs(members) do known = known or member == name end
    if not known then refuse("json: unknown field %q", tostring(name)) end
  end
  return value
end

local function text(value, what)
  if type(value) ~= "string" or value == "" then refuse("%s is required, as a string", what) end
  return value
end

-- An array whose items `check` takes; an absent or empty one is the default, if there is one.
local function list(value, what, check, default)
  if value ~= nil and not validation.is_list(value) then refuse("%s must be an array", what) end
  if not value or #value == 0 then return default or refuse("%s must not be empty", what) end
  local items = json.array {}
  for index, item in ipairs(value) do items[index] = check(item, what) end
  return items
end

local function one_of(allowed)
  return function(value, what)
    if not allowed[value] then refuse("%s: unsupported value %s", what, tostring(value)) end
    return value
  end
end

local function read_credential(given)
  object(given, "a credential", { "name", "source" })
  local name = text(given.name, "credential name")
  local source = object(given.source, "source of credential " .. name, { "type", "value" })
  if (source.type or "inline") ~= "inline" then refuse("credential %s: unsupported source type", name) end
  text(source.value, "value of credential " .. name)
  return { name = name, source_type = "inline" }
end

local function header_name(value)
  text(value, "header name")
  local key = value:lower()
  if not value:find(TOKEN) then refuse("invalid header name %q", value) end
  if RESERVED[key] or key:find("^proxy%-auth") then refuse("header %s is reserved", value) end
  return value
end

-- The type and the name that are shown, and the names of all credentials that are used.
local function read_auth(given)
  local kind = type(given) == "table" and given.type or nil
  local members = AUTH[kind]
  if not members then refuse("unsupported auth type %s", tostring(kind)) end
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
  local match = object(given.match, "match of binding " .. name, { "hosts", "schemes", "ports", "methods", "paths" })
  list(match.ports, "ports", one_of(PORTS), {})   -- they follow from the schemes
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
  binding.auth, binding.used = read_auth(given.auth)
  return binding
end

-- Whether any item of one list goes with any of the other.
local function meet(a, b, same)
  for _, x in ipairs(a) do
    for _, y in ipairs(b) do
      if same(x, y) then return true end
    end
  end
  return false
end

local function equal(a, b) return a == b end
local function same_host(a, b) return policy.covers(a, b) or policy.covers(b, a) end

-- Whether there may be a path that matches both patterns: what comes before their first stars decides.
local function same_path(a, b)
  local start, other = a:match("^[^*]*"), b:match("^[^*]*")
  if start == a and other == b then return a == b end
  if start == a then return a:sub(1, #other) == other end
  if other == b then return b:sub(1, #start) == start end
  local length = math.min(#start, #other)
  return start:sub(1, length) == other:sub(1, length)
end

local function overlap(a, b)
  return meet(a.hosts, b.hosts, same_host) and meet(a.schemes, b.schemes, equal) and meet(a.methods, b.methods, equal)
    and meet(a.paths, b.paths, same_path)
end

local function sorted(map)
  local items = {}
  for _, item in pairs(map) do items[#items + 1] = item end
  table.sort(items, function(a, b) return a.name < b.name end)
  return items
end

--- What a policy does not allow, although a binding needs it; nil when there is nothing.
function Vault:uncovered(current)
  for _, binding in ipairs(sorted(self.bindings)) do
    for _, host in ipairs(binding.match.hosts) do
      if not policy.allows(current, host) then
        return ("binding %s: host %s is not covered by an allow rule of the egress policy"):format(binding.name, host)
      end
    end
  end
end

-- Refuses a vault whose parts do not go together.
local function check(self, current)
  local bindings = sorted(self.bindings)
  for index, binding in ipairs(bindings) do
    for _, name in ipairs(binding.used) do
      if not self.credentials[name] then refuse("binding %s: unknown credential %s", binding.name, name) end
    end
    for other = index + 1, #bindings do
      if overlap(binding.match, bindings[other].match) then
        refuse("ambiguous bindings: %s and %s match the same requests", binding.name, bindings[other].name)
      end
    end
  end
  local problem = self:uncovered(current)
  if problem then refuse("%s", problem) end
  return self
end

-- Applies the operations on credentials or bindings to a copy of them. A name occurs in one operation only.
local function changed(map, operations, what, read, revision)
  local copy, touched = {}, {}
  for name, item in pairs(map) do copy[name] = item end
  object(operations, what .. "s", { "delete", "replace", "add" })
  for _, operation in ipairs { "delete", "replace", "add" } do
    list(operations[operation], operation, function(given)
      local item = operation == "delete" and { name = text(given, what .. " name") } or read(given)
      local name = item.name
      if touched[name] then refuse("%s %s occurs more than once", what, name) end
      touched[name] = true
      if (copy[name] ~= nil) == (operation == "add") then
        refuse("%s %s %s", what, name, operation == "add" and "already exists" or "does not exist")
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

--- Makes the first revision.
-- @param given the body of the request
-- @param current the policy that must allow what the bindings need
-- @treturn[2] nil
-- @treturn[2] string what is wrong with it
local function new(given, current)
  return protected(function()
    object(given, "the body", { "credentials", "bindings" })
    return build({}, {}, { credentials = { add = given.credentials }, bindings = { add = given.bindings } }, 1, current)
  end)
end

--- The next revision.
-- @treturn[2] nil
-- @treturn[2] number the status of the refusal
-- @treturn[2] string why
function Vault:patched(given, current)
  local conflict = false
  local vault, problem = protected(function()
    object(given, "the body", { "expectedRevision", "credentials", "bindings" })
    local expected = given.expectedRevision
    if expected ~= nil and (type(expected) ~= "number" or expected % 1 ~= 0) then refuse("expectedRevision must be an integer") end
    conflict = expected ~= nil and expected ~= self.revision
    if conflict then refuse("revision mismatch: expected %d, is %d", expected, self.revision) end
    return build(self.credentials, self.bindings, given, self.revision + 1, current)
  end)
  return vault, conflict and 409 or 400, problem
end

--- What may be shown of it: no value, and not which credential goes where.
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
