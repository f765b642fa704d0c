--- Copies a file or a directory into a sandbox or out of it, whichever it is.

local check = require "opensandbox.cli.base.check"
local core = require "opensandbox.core"
local failure = require "opensandbox.cli.base.failure"

local copy = {}

--- Returns the kind of a local file.
---@param path string
---@return "file"|"directory"|string|nil kind nil if it does not exist
---@return string? problem
function copy.local_kind(path)
  return core.stat(path)
end

--- Returns the kind of a file in a sandbox.
---@param sandbox opensandbox.Sandbox
---@param path string
---@return "file"|"directory"|nil kind nil if it does not exist
function copy.remote_kind(sandbox, path)
  local info, err = sandbox.files:stat(path)
  if not info and err.status == 404 and err.code == "FILE_NOT_FOUND" then return nil end
  check(info, err)
  if info.type == "symlink" or not info.type then -- the kind of its target; or an old execd, which does not report kinds
    return sandbox.files:list(path) and "directory" or "file"
  end
  return info.type == "directory" and "directory" or "file"
end

--- Copies in.
---@param sandbox opensandbox.Sandbox
---@param from string local path
---@param to string
---@param opts { on_progress?: function, gitignore?: boolean } gitignore: omit the files that the .gitignore files of a directory name
function copy.upload(sandbox, from, to, opts)
  local kind, problem = copy.local_kind(from)
  if kind ~= "file" and kind ~= "directory" then
    failure.raise(failure.EXIT.FAILED, ("%s: %s"):format(from, kind and "is neither a file nor a directory" or problem))
  end
  if kind == "directory" then
    check(sandbox.files:upload_dir(from, to, { on_progress = opts.on_progress, gitignore = opts.gitignore }))
  else
    check(sandbox.files:upload(from, to, { on_progress = opts.on_progress }))
  end
end

--- Copies out.
---@param sandbox opensandbox.Sandbox
---@param from string
---@param to string local path
---@param opts { on_progress?: function, only_changed?: boolean } only_changed: leave local files of a directory alone that are the same
function copy.download(sandbox, from, to, opts)
  local kind = copy.remote_kind(sandbox, from)
  if not kind then failure.raise(failure.EXIT.FAILED, from .. " does not exist in the sandbox") end
  if kind == "file" then return check(sandbox.files:download(from, to, { on_progress = opts.on_progress })) end
  local ok, err = sandbox.files:download_dir(from, to, { on_progress = opts.on_progress, only_changed = opts.only_changed })
  if not ok and err.code == "compare_unavailable" then -- the image lacks find or cksum
    ok, err = sandbox.files:download_dir(from, to, { on_progress = opts.on_progress })
  end
  check(ok, err)
end

return copy
