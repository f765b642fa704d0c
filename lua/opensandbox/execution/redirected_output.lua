--- The output of a command, byte for byte: the option `capture = "exact"`.
--
-- Events carry lines of text, in which invalid UTF-8 is lost, and execd's own output files may move or be deleted. So the output is
-- redirected to temporary files of ours in the sandbox, which are downloaded and removed.

local coxpcall = require "opensandbox.loop.coxpcall"
local errors = require "opensandbox.base.errors"
local output_buffer = require "opensandbox.execution.output_buffer"
local random = require "opensandbox.base.random"
local resumable_read = require "opensandbox.files.resumable_read"
local tables = require "opensandbox.base.tables"
local url = require "opensandbox.base.url"

local redirected_output = {}

-- Downloads what was written into the result. Raises what a callback raises.
local function fetch_output(client, endpoint, result, files, opts)
  for _, name in ipairs { "stdout", "stderr" } do
    local buffer = output_buffer.new(opts.max_output or client.max_output)
    local callback = opts["on_" .. name]
    local ok, err = resumable_read(client, endpoint, files[name], function(bytes)
      buffer:append(bytes)
      if callback then callback(bytes) end
    end)
    if not ok then return nil, err end
    result[name], result[name .. "_dropped"] = buffer:text()
  end
  return result
end

-- Removes the files without waiting.
local function remove_files(client, endpoint, files)
  local path = "/files" .. url.query { { "path", files.stdout }, { "path", files.stderr } }
  client.http:send_to_endpoint(endpoint, { op = client.op, method = "DELETE", path = path, may_repeat = true })
end

--- Wraps a function that runs commands, so that their output is redirected and fetched.
---@param run fun(body: table, opts: table): opensandbox.CommandResult?, opensandbox.Error?
---@param client opensandbox.Client a view for the method that the user called
---@param endpoint opensandbox.Endpoint|string
---@return fun(body: table, opts: table): opensandbox.CommandResult?, opensandbox.Error?
function redirected_output.wrap(run, client, endpoint)
  return function(body, opts)
    local base = "/tmp/opensandbox-" .. random.hex(12)
    local files = { stdout = base .. ".stdout", stderr = base .. ".stderr" }
    -- The redirection is a line of its own, so that it is in effect even if the command has a syntax error.
    body.command = "exec >" .. files.stdout .. " 2>" .. files.stderr .. "\n" .. body.command
    local own_opts = tables.merge(opts, { redirected = true })
    own_opts.on_stdout, own_opts.on_stderr = nil, nil
    local ok, result, err = coxpcall.pcall(run, body, own_opts)
    if ok and result then
      local shell_message = result.stderr
      ok, result, err = coxpcall.pcall(fetch_output, client, endpoint, result, files, opts)
      if ok and err and err.status == 404 then
        err = errors.new { kind = "state", code = "capture_failed", op = client.op, sandbox_id = err.sandbox_id, cause = err,
          message = "the command's output could not be redirected to the sandbox's /tmp: " .. shell_message,
          hint = "Make /tmp writable for the command's user, or omit capture = \"exact\"" }
      end
    end
    remove_files(client, endpoint, files)
    if not ok then error(result, 0) end
    return result, err
  end
end

return redirected_output
