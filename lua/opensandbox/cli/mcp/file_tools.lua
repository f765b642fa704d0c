--- The tools of the MCP server for files. Names and parameters are those of the official server, and some more.

local base64 = require "opensandbox.base.base64"
local check = require "opensandbox.cli.base.check"
local failure = require "opensandbox.cli.base.failure"
local json = require "opensandbox.base.json"
local tool_parameters = require "opensandbox.cli.mcp.parameters"
local utf8 = require "opensandbox.base.utf8"

local ID, CONNECT = tool_parameters.SANDBOX_ID, tool_parameters.CONNECT
local ENCODING = { "encoding", "string", "utf-8, or base64 for bytes.", default = "utf-8" }

local MAX_READ = 1024 * 1024 -- bytes: a model reads the result

local function fail(text)
  failure.raise(failure.EXIT.FAILED, text)
end

-- Returns whether the content is base64.
local function is_base64(encoding)
  local name = (encoding or "utf-8"):lower()
  if name == "base64" then return true end
  if name ~= "utf-8" and name ~= "utf8" and name ~= "ascii" then fail("encoding must be utf-8 or base64") end
  return false
end

-- Reads the header Range of HTTP for one range.
local function range_of(header)
  if not header then return nil, MAX_READ + 1 end
  local first, last = header:match("^bytes=(%d+)%-(%d*)$")
  if not first then fail("range_header must be like bytes=0-99") end
  first, last = tonumber(first), tonumber(last)
  if last and last < first then fail("range_header ends before it begins") end
  return first, last and last - first + 1 or MAX_READ + 1
end

local function read(sandboxes, args)
  local as_base64 = is_base64(args.encoding)
  local offset, length = range_of(args.range_header)
  local files = sandboxes:get(args.sandbox_id).files
  local reader = check(files:open(args.path, { offset = offset, length = math.min(length, MAX_READ + 1) }))
  local bytes = check(reader:read("a"))
  if #bytes > MAX_READ then fail(("the file is longer than %d bytes: read it in parts, with range_header"):format(MAX_READ)) end
  if as_base64 then return { path = args.path, content = base64.encode(bytes), encoding = "base64" } end
  if not utf8.is_valid(bytes) then fail(args.path .. " is not UTF-8 text: use the encoding base64") end
  return { path = args.path, content = bytes }
end

local function write(sandboxes, args)
  local content = args.content
  if is_base64(args.encoding) then
    content = base64.decode(content)
    if not content then fail("content is not base64") end
  end
  local opts = { mode = args.mode, owner = args.owner, group = args.group }
  check(sandboxes:get(args.sandbox_id).files:write(args.path, content, opts))
  return { status = "written" }
end

local function tool(name, description, parameters, run, read_only)
  return { name = name, description = description, parameters = parameters, run = run, read_only = read_only }
end

local PATHS = { "paths", "string list", "Paths in the sandbox.", required = true }

return {
  tool("file_read", "Reads a file of a sandbox, at most 1 MiB at a time.", {
    ID, { "path", "string", "Path in the sandbox.", required = true }, ENCODING,
    { "range_header", "string", "Part of the file, as bytes=0-99." }, CONNECT,
  }, read, true),
  tool("file_write", "Writes a file of a sandbox. Its directories are created.", {
    ID, { "path", "string", "Path in the sandbox.", required = true }, { "content", "string", "Its content.", required = true },
    ENCODING,
    { "mode", "integer", "Permissions in octal digits, for example 644." }, { "owner", "string", "Name of a user." },
    { "group", "string", "Name of a group." }, CONNECT,
  }, write),
  tool("file_delete", "Deletes files.", { ID, PATHS, CONNECT }, function(sandboxes, args)
    check(sandboxes:get(args.sandbox_id).files:remove(args.paths))
    return { status = "deleted" }
  end),
  tool("file_search", "Searches files below a directory by a pattern of their names.", {
    ID, { "path", "string", "Directory.", required = true }, { "pattern", "string", "For example *.py.", required = true }, CONNECT,
  }, function(sandboxes, args)
    return { result = json.array(check(sandboxes:get(args.sandbox_id).files:search(args.path, args.pattern))) }
  end, true),
  tool("file_list", "Lists a directory.", {
    ID, { "path", "string", "Directory.", required = true }, { "depth", "integer", "Levels of directories.", default = 1 },
  }, function(sandboxes, args)
    return { result = json.array(check(sandboxes:get(args.sandbox_id).files:list(args.path, { depth = args.depth }))) }
  end, true),
  tool("file_create_directories", "Creates directories and their parents.", {
    ID, { "entries", "entries", "The directories.", required = true, fields = {
      { "path", "string", "Path.", required = true }, { "mode", "integer", "Permissions in octal digits.", default = 755 },
      { "owner", "string", "Name of a user." }, { "group", "string", "Name of a group." },
    } }, CONNECT,
  }, function(sandboxes, args)
    local files = sandboxes:get(args.sandbox_id).files
    for _, entry in ipairs(args.entries) do
      check(files:mkdir(entry.path, { mode = entry.mode, owner = entry.owner, group = entry.group }))
    end
    return { status = "created" }
  end),
  tool("file_delete_directories", "Deletes directories and everything in them.", { ID, PATHS, CONNECT }, function(sandboxes, args)
    check(sandboxes:get(args.sandbox_id).files:remove(args.paths, { recursive = true }))
    return { status = "deleted" }
  end),
  tool("file_move", "Moves or renames files and directories.", {
    ID, { "entries", "entries", "What to move.", required = true, fields = {
      { "source", "string", "Old path.", required = true }, { "destination", "string", "New path.", required = true },
    } }, CONNECT,
  }, function(sandboxes, args)
    local files = sandboxes:get(args.sandbox_id).files
    for _, entry in ipairs(args.entries) do check(files:move(entry.source, entry.destination)) end
    return { status = "moved" }
  end),
  tool("file_replace_contents", "Replaces each occurrence of a text in files.", {
    ID, { "entries", "entries", "The changes.", required = true, fields = {
      { "path", "string", "Path.", required = true }, { "old_content", "string", "Text to replace.", required = true },
      { "new_content", "string", "Its replacement.", required = true },
    } }, CONNECT,
  }, function(sandboxes, args)
    local files, list = sandboxes:get(args.sandbox_id).files, json.array {}
    for index, entry in ipairs(args.entries) do
      local count = check(files:replace(entry.path, entry.old_content, entry.new_content))
      list[index] = { path = entry.path, replaced_count = count }
    end
    return { result = list }
  end),
}
