--- Failures of the file system in the words of execd, which are those of Go.

local errno = {}

local TEXTS = {
  EACCES = "permission denied", EBUSY = "device or resource busy", EEXIST = "file exists", EINVAL = "invalid argument",
  EISDIR = "is a directory", ELOOP = "too many levels of symbolic links", ENAMETOOLONG = "file name too long",
  ENOENT = "no such file or directory", ENOSPC = "no space left on device", ENOTDIR = "not a directory",
  ENOTEMPTY = "directory not empty", EPERM = "operation not permitted", EROFS = "read-only file system",
  EXDEV = "invalid cross-device link", E2BIG = "argument list too long", EMFILE = "too many open files",
}

--- Returns the text of an error code such as "ENOENT".
function errno.text(code)
  return TEXTS[code] or tostring(code)
end

--- Creates an error: `code`, and `message` like "open /tmp/x: no such file or directory".
---@param code? string "ENOENT"; without a code, `operation` is the whole message
---@param operation string
---@param path? string
---@return table
function errno.new(code, operation, path)
  local message = code and errno.text(code) or operation
  if code and path then message = ("%s %s: %s"):format(operation, path, message) end
  return { code = code, message = message }
end

--- Returns the error with words before its message.
function errno.wrap(words, problem)
  return { code = problem.code, message = words .. ": " .. problem.message }
end

return errno
