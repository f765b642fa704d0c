--- The output of a command, byte for byte: the option `capture = "exact"`.
--
-- Events carry lines of text, in which invalid UTF-8 is lost, and execd's own output files may move or be deleted. So the output is
-- redirected to temporary files of ours in the sandbox, which are downloaded and removed.
--
-- The files are in the command's temporary directory: TMPDIR, or /tmp. The command reports its TMPDIR before the redirection. execd
-- may know that directory as /tmp: a development server without isolation does.

local coxpcall = require "opensandbox.loop.coxpcall"
local errors = require "opensandbox.base.errors"
local output_buffer = require "opensandbox.execution.output_buffer"
local paths = require "opensandbox.base.paths"
local random = require "opensandbox.base.random"
local tables = require "opensandbox.base.tables"
local temporary_files = require "opensandbox.files.temporary_files"

local redirected_output = {}

local DEFAULT_DIRECTORY = "/tmp"
local MAX_PATH_LENGTH = 4096 -- bytes
local STREAMS = { "stdout", "stderr" }

-- The redirection is a line of its own, so that it is in effect even if the command has a syntax error. It sets no variable.
local REDIRECTION = [[if case "${TMPDIR:-}" in /*) [ -d "$TMPDIR" ] && [ -w "$TMPDIR" ];; *) false;; esac; then echo "$TMPDIR"; ]]
  .. [[exec >"$TMPDIR/NAME.stdout" 2>"$TMPDIR/NAME.stderr"; else exec >/tmp/NAME.stdout 2>/tmp/NAME.stderr; fi]] .. "\n"

-- Returns the directories in which execd may find the files.
local function directories_of(reported)
  local directory = reported:match("^[^\n]*")
  local is_usable = directory:find("^/") and #directory < MAX_PATH_LENGTH and not directory:find("%z")
    and not paths.expansion(directory)
  if not is_usable or directory == DEFAULT_DIRECTORY then return { DEFAULT_DIRECTORY } end
  return { directory, DEFAULT_DIRECTORY }
end

-- Opens an output file in the directory that has it, which is then the only one.
local function open_file(client, endpoint, directories, name)
  local reader, err
  for _, directory in ipairs(directories) do
    reader, err = client:download_file(endpoint, directory .. "/" .. name)
    if reader then return reader end
    if err.status ~= 404 then break end
  end
  return nil, err
end

-- Downloads the output into the result. An error that a callback raises is passed on.
local function fetch_output(client, endpoint, directories, base, result, opts)
  for _, stream in ipairs(STREAMS) do result[stream], result[stream .. "_dropped"] = "", 0 end
  for _, stream in ipairs(STREAMS) do
    local buffer = output_buffer.new(opts.max_output or client.max_output)
    local callback = opts["on_" .. stream]
    local reader, err = open_file(client, endpoint, directories, base .. "." .. stream)
    local ok
    if reader then
      ok, err = reader:for_each(function(bytes)
        buffer:append(bytes)
        if callback then callback(bytes) end
      end)
    end
    result[stream], result[stream .. "_dropped"] = buffer:text()
    if not ok then return nil, err end
  end
  return result
end

-- Removes the files without waiting.
local function remove_files(client, endpoint, directories, base)
  local files = {}
  for _, directory in ipairs(directories) do
    for _, stream in ipairs(STREAMS) do files[#files + 1] = ("%s/%s.%s"):format(directory, base, stream) end
  end
  temporary_files.remove(client, endpoint, files)
end

-- Makes the error for an output that cannot be downloaded. The result of the command is known.
local function output_error(client, err, result, shell_message)
  local fields = { op = client.op, sandbox_id = err.sandbox_id, cause = err }
  if err.code == "FILE_NOT_FOUND" then
    fields.kind, fields.code = "state", "capture_failed"
    fields.message = "the command's output could not be redirected to its temporary directory: " .. shell_message
    fields.hint = "Make TMPDIR, or /tmp, writable for the command's user, or omit capture = \"exact\""
  else
    fields.kind, fields.code = "stream", "output_lost"
    fields.message = ("the command ended with exit code %s, but its output cannot be downloaded: %s"):format(
      tostring(result.exit_code), err.message)
  end
  if err.kind ~= "cancelled" and err.kind ~= "closed" then err = errors.new(fields) end
  err.result, err.command_id = result, result.id
  return err
end

--- Wraps a function that runs commands, so that their output is redirected and downloaded.
---@param run fun(body: table, opts: table): opensandbox.CommandResult?, opensandbox.Error?
---@param client opensandbox.Client a view for the method that the user called
---@param endpoint opensandbox.Endpoint|string
---@return fun(body: table, opts: table): opensandbox.CommandResult?, opensandbox.Error?
function redirected_output.wrap(run, client, endpoint)
  return function(body, opts)
    local base = "opensandbox-" .. random.hex(12)
    body.command = REDIRECTION:gsub("NAME", base) .. body.command
    local directories = directories_of(opts.env and opts.env.TMPDIR or "") -- until the command has reported it
    local function remove() remove_files(client, endpoint, directories, base) end
    local guard = temporary_files.guard(remove)
    -- A command that is stopped may create the files after they were removed, so they are removed again when it runs no more.
    local own_opts = tables.merge(opts, { redirected = true, after_stop = remove })
    own_opts.on_stdout, own_opts.on_stderr = nil, nil
    local ok, result, err = coxpcall.pcall(run, body, own_opts)
    local known = ok and (result or err.result)
    if known and (result or known.stdout ~= "") then directories = directories_of(known.stdout) end
    local value = result
    if ok and result then
      local shell_message = result.stderr ~= "" and result.stderr or result.stdout -- a log holds both streams
      ok, value, err = coxpcall.pcall(fetch_output, client, endpoint, directories, base, result, opts)
      if ok and not value then err = output_error(client, err, result, shell_message) end
    elseif known then
      known.stdout = "" -- it was the report
    end
    guard.remove()
    if not ok then error(value, 0) end
    return value, err
  end
end

return redirected_output
