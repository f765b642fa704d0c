--- The checks of arguments that routes and operations on files share. A wrong argument raises before anything is sent.

local modes = require "opensandbox.base.modes"
local options = require "opensandbox.base.options"

local arguments = {}

local download_options = {
  offset = "natural", length = "natural", lines = "table", timeout = "seconds", idle_timeout = "seconds",
}

--- Checks the options of a download, and returns them.
---@param op string
---@param opts? opensandbox.DownloadOpts
---@return opensandbox.DownloadOpts
function arguments.check_download(op, opts)
  opts = options.check(op, opts, download_options)
  local lines = opts.lines
  if lines then
    options.check(op, lines, { first = "natural", count = "natural" })
    if lines.first == 0 or lines.count == 0 then options.raise(op, "option 'lines': first and count begin at 1") end
    if opts.offset or opts.length then
      options.raise(op, "options 'lines' and 'offset' or 'length' do not go together")
    end
  end
  if opts.length == 0 then options.raise(op, "option 'length' must be greater than 0") end
  return opts
end

local file_options = {
  path = "any", content = "any", file = "nonempty string", mode = "any", owner = "nonempty string", group = "nonempty string",
  size = "natural",
}

local function check_content(op, content)
  local is_readable = type(content) == "string" or type(content) == "function" or io.type(content) == "file"
  if is_readable then return end
  options.raise(op, "the content must be a string, an open file or a function, not " .. (io.type(content) or "a " .. type(content)))
end

--- Checks a file to be uploaded, except for its path.
---@param op string
---@param file table
function arguments.check_upload(op, file)
  options.check(op, file, file_options)
  modes.number(op, file.mode)
  if (file.content == nil) == (file.file == nil) then options.raise(op, "a file needs 'content' or 'file', and not both") end
  if file.content ~= nil then check_content(op, file.content) end
end

--- Checks the replacement of a text.
---@param op string
---@param change any
function arguments.check_change(op, change)
  options.argument(op, "the change of a path", change, "table")
  options.check(op, change, { old = "string", new = "string" })
  if not change.old or change.old == "" then
    options.raise(op, "the text to replace ('old') must be a string that is not empty")
  end
  if not change.new then options.raise(op, "a replacement ('new') is needed") end
end

return arguments
