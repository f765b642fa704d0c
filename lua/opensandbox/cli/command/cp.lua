--- `opensandbox cp`: files and directories both ways, with a progress bar at a terminal.

local check = require "opensandbox.cli.base.check"
local copy = require "opensandbox.cli.base.copy"
local failure = require "opensandbox.cli.base.failure"
local input = require "opensandbox.cli.base.input"
local output = require "opensandbox.cli.base.output"
local progress = require "opensandbox.cli.base.progress"

local cp = { example = "opensandbox cp ./src SANDBOX:/work/src", has_no_result = true }

local CHUNK_SIZE = 65536 -- bytes

function cp.declare(parser)
  parser:argument("from", "A local path, SANDBOX:PATH, or - for standard input."):argname "FROM"
  parser:argument("to", "The same; - is standard output. Into an existing directory, or one that ends in /, it is copied under "
    .. "its name."):argname "TO"
  parser:flag("--gitignore", "Leave out of a directory what its .gitignore files name, and .git.")
end

-- Splits SANDBOX:PATH. A local path with a colon is written as ./a:b.
local function remote(argument)
  local id, path = argument:match("^([^/:.][^/:]*):(.*)$")
  if not id then return nil end
  if path == "" then failure.usage(("'%s' has no path"):format(argument)) end
  return id, path
end

-- Returns the path at which a copy of `from` is made.
local function target(from, to, kind)
  if to:sub(-1) ~= "/" and kind ~= "directory" then return to end
  local name = from:gsub("/+$", ""):match("[^/]+$")
  if not name or name == "." or name == ".." then return to end -- the contents of a directory
  return to:gsub("(.)/+$", "%1") .. "/" .. name
end

local function upload(sandbox, from, to, gitignore)
  if from == "-" then
    return check(sandbox.files:write(to, function()
      local bytes = input.read()
      return bytes ~= "" and bytes or nil
    end))
  end
  progress.show(from, function(on_progress)
    local opts = { on_progress = on_progress, gitignore = gitignore }
    copy.upload(sandbox, from, target(from, to, copy.remote_kind(sandbox, to)), opts)
  end)
end

local function download(sandbox, from, to)
  if to ~= "-" then
    return progress.show(from, function(on_progress)
      copy.download(sandbox, from, target(from, to, copy.local_kind(to)), { on_progress = on_progress })
    end)
  end
  local reader = check(sandbox.files:open(from))
  local bytes, err = reader:read(CHUNK_SIZE)
  while bytes do
    output.write(bytes)
    bytes, err = reader:read(CHUNK_SIZE)
  end
  if err then error(err, 0) end
end

function cp.run(context)
  local args = context.args
  local from_id, from_path = remote(args.from)
  local to_id, to_path = remote(args.to)
  if (from_id ~= nil) == (to_id ~= nil) then
    failure.usage("one of FROM and TO is SANDBOX:PATH, and the other one is a local path (./a:b for one with a colon)")
  end
  if to_id then
    upload(context:sandbox(to_id), args.from, to_path, args.gitignore)
  else
    download(context:sandbox(from_id), from_path, args.to)
  end
end

return cp
