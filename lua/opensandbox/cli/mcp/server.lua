--- The methods of the Model Context Protocol: the list of tools, their calls, and the handshake before them. Until 2025 a session begins
--- with a handshake; since 2026-07-28 each request names its revision instead, and the server is discovered.

local each = require "opensandbox.base.each"
local failure = require "opensandbox.cli.base.failure"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local parameters = require "opensandbox.cli.mcp.parameters"
local rpc = require "opensandbox.cli.mcp.rpc"
local tables = require "opensandbox.base.tables"

local server = {}

-- The revisions of the protocol that begin with a handshake. They differ in features that we do not use.
local VERSIONS = { ["2024-11-05"] = true, ["2025-03-26"] = true, ["2025-06-18"] = true, ["2025-11-25"] = true }
local LATEST = "2025-11-25"

-- The revision without a handshake, and the field in which a request names it.
local STATELESS = "2026-07-28"
local VERSION_FIELD = "io.modelcontextprotocol/protocolVersion"
local CACHING = { ttlMs = 60000, cacheScope = "private" } -- how long a client may keep the list of tools, which never changes

local INSTRUCTIONS = "Sandboxes for untrusted or throw-away work. Create one with sandbox_create, or run one command with "
  .. "sandbox_run. Sandboxes that this session created are deleted at its end, unless the server was started with --keep."

local CAPABILITIES = { tools = { listChanged = false } }

local FILES = { "sandbox_tools", "command_tools", "file_tools" }

-- Returns all tools, as a list and by name.
local function load_tools()
  local list, by_name = {}, {}
  for _, file in ipairs(FILES) do
    for _, tool in ipairs(require("opensandbox.cli.mcp." .. file)) do
      list[#list + 1], by_name[tool.name] = tool, tool
    end
  end
  return list, by_name
end

local function initialize(params)
  local wanted = params.protocolVersion
  return {
    protocolVersion = VERSIONS[wanted] and wanted or LATEST, capabilities = CAPABILITIES,
    serverInfo = { name = "opensandbox", version = opensandbox._VERSION }, instructions = INSTRUCTIONS,
  }
end

local function discover()
  local found = { supportedVersions = json.array { STATELESS }, capabilities = CAPABILITIES, instructions = INSTRUCTIONS }
  return tables.merge(found, CACHING)
end

local function meta_of(params)
  local meta = params["_meta"] -- a field of the protocol
  return type(meta) == "table" and meta or {}
end

-- Makes a method answer as the revision wants it that the request names.
local function with_revision(method)
  return function(params, connection)
    local version = meta_of(params)[VERSION_FIELD]
    if version == nil then return method(params, connection) end
    if version ~= STATELESS then
      return nil, rpc.ERROR.UNSUPPORTED_VERSION, "this revision of the protocol is not supported",
        { supported = json.array { STATELESS }, requested = version }
    end
    local result, code, message = method(params, connection)
    return result and tables.merge(result, { resultType = "complete" }), code, message
  end
end

local function describe(list)
  local described = json.array {}
  for index, tool in ipairs(list) do
    described[index] = {
      name = tool.name, description = tool.description, inputSchema = parameters.schema(tool.parameters),
      annotations = { readOnlyHint = tool.read_only or false },
    }
  end
  return tables.merge({ tools = described }, CACHING)
end

-- A failed call is a result, so that the model sees why and can do something else.
local function failed(text)
  return { content = json.array { { type = "text", text = text } }, isError = true }
end

-- Returns a function that reports output as progress, if the client asked for that.
local function reporter(params, connection)
  local token = meta_of(params).progressToken
  if token == nil then return nil end
  local count = 0
  return function(text)
    count = count + 1
    connection:notify("notifications/progress", { progressToken = token, progress = count, message = text })
  end
end

local function describe_error(err)
  if failure.is(err) then return err.message or "the output is closed" end
  return failure.argument_problem(err) or tostring(err)
end

--- Returns the methods for rpc.serve, by their names.
---@param sandboxes table of sandboxes.new
---@return table<string, function>
function server.methods(sandboxes)
  local list, by_name = load_tools()
  local described
  local methods = {
    initialize = initialize,
    ["server/discover"] = discover,
    ping = function() return {} end,
    ["tools/list"] = function()
      described = described or describe(list)
      return described
    end,
    ["tools/call"] = function(params, connection)
      local tool = by_name[params.name]
      if not tool then return nil, rpc.ERROR.INVALID_PARAMS, "there is no tool " .. tostring(params.name) end
      local args = params.arguments or {}
      local problem = parameters.problem(tool.parameters, args)
      if problem then return failed(("%s: %s"):format(tool.name, problem)) end
      local ok, result = opensandbox.pcall(tool.run, sandboxes, args, reporter(params, connection))
      if not ok then return failed(describe_error(result)) end
      return { content = json.array { { type = "text", text = assert(json.encode(result)) } }, structuredContent = result,
        isError = false }
    end,
  }
  for name, method in each(methods) do methods[name] = with_revision(method) end
  return methods
end

return server
