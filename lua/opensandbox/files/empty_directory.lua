--- Removes an empty directory in the sandbox. execd's own route removes directories with everything in them.

local helper_commands = require "opensandbox.files.helper_commands"
local remote_paths = require "opensandbox.files.remote_paths"

local empty_directory = {}

local EXIT_NOT_A_DIRECTORY = 66 -- exit codes of our script
local EXIT_NOT_EMPTY = 67

-- The kernel checks that the directory is empty when it removes it. The tests after a failure only choose the error.
local RMDIR_SCRIPT = [[
d=%s
rmdir -- "$d" && exit 0
code=$?
[ -h "$d" ] && exit %d
[ -e "$d" ] || exit 0
[ -d "$d" ] || exit %d
[ -z "$(ls -A -- "$d")" ] || exit %d
exit $code]]

local explanations = {
  [EXIT_NOT_A_DIRECTORY] = { code = "not_a_directory", text = "is not a directory" },
  [EXIT_NOT_EMPTY] = { code = "directory_not_empty", text = "is a directory that is not empty",
    hint = "Use files:remove with the option recursive to remove it with everything in it" },
}

--- Removes an empty directory. If the path does not exist, that is a success.
---@param target opensandbox.FileTarget
---@param op string the method that the user called
---@param path string
---@return true? ok
---@return opensandbox.Error? err
function empty_directory.remove(target, op, path)
  local absolute, err = remote_paths.absolute(target, op, path)
  if not absolute then return nil, err end
  local script = RMDIR_SCRIPT:format(helper_commands.quoted_path(absolute), EXIT_NOT_A_DIRECTORY, EXIT_NOT_A_DIRECTORY,
    EXIT_NOT_EMPTY)
  local result
  result, err = helper_commands.run(target, helper_commands.plain_job(target, op), script, "rmdir_failed",
    "the directory could not be removed")
  if result then return true end
  local explanation = err.result and explanations[err.result.exit_code]
  if explanation then
    err.code, err.message, err.hint = explanation.code, ("%s %s"):format(path, explanation.text), explanation.hint
  end
  return nil, err
end

return empty_directory
