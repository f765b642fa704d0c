--- Local files and directories that are copied into a sandbox before a command, and back after it: `run -v LOCAL:REMOTE[:MODE]`.

local copy = require "opensandbox.cli.base.copy"
local failure = require "opensandbox.cli.base.failure"

local volumes = {}

---@class opensandbox.cli.Volume
---@field from string local path
---@field to string path in the sandbox
---@field mode "rw"|"ro"|"out" both ways, only in, only back

--- Checks that the files to copy in exist, before a sandbox is created.
---@param list opensandbox.cli.Volume[]
function volumes.check(list)
  for _, volume in ipairs(list) do
    if volume.mode ~= "out" then
      local kind, problem = copy.local_kind(volume.from)
      if kind ~= "directory" and kind ~= "file" then
        failure.usage(("-v %s: %s"):format(volume.from, kind and "is neither a file nor a directory" or problem))
      end
    end
  end
end

--- Copies in.
---@param sandbox opensandbox.Sandbox
---@param list opensandbox.cli.Volume[]
---@param gitignore? boolean omit the files that .gitignore files name
function volumes.upload(sandbox, list, gitignore)
  for _, volume in ipairs(list) do
    if volume.mode ~= "out" then copy.upload(sandbox, volume.from, volume.to, { gitignore = gitignore }) end
  end
end

--- Copies changed files back. A file that the command deleted in the sandbox stays here.
---@param sandbox opensandbox.Sandbox
---@param list opensandbox.cli.Volume[]
function volumes.download(sandbox, list)
  for _, volume in ipairs(list) do
    if volume.mode ~= "ro" then copy.download(sandbox, volume.to, volume.from, { only_changed = true }) end
  end
end

return volumes
