--- A command's bytes as it wrote them: redirected to files of our own in the sandbox, fetched, and removed.
--
-- The events carry lines, and of bytes that are not UTF-8 nothing (wire: /command); execd's own files are where execd wants them, and as
-- long as it wants. Ours depend on nothing but a /tmp.

local capture = require "opensandbox.execution.output_buffer"
local errors = require "opensandbox.base.errors"
local output_file = require "opensandbox.files.resumable_read"
local coxpcall = require "opensandbox.loop.coxpcall"
local random = require "opensandbox.base.random"
local tables = require "opensandbox.base.tables"
local url = require "opensandbox.base.url"

local exact = {}

-- Fetches what was written into the result. Raises what a callback raises.
local function fetch(client, endpoint, result, files, opts)
  for _, name in ipairs { "stdout", "stderr" } do
    local store = capture.new(opts.max_output or client.max_output)
    local callback = opts["on_" .. name]
    local ok, err = output_file(client, endpoint, files[name], function(bytes)
      store:append(bytes)
      if callback then callback(bytes) end
    end)
    if not ok then return nil, err end
    result[name], result[name .. "_dropped"] = store:text()
  end
  return result
end

-- Removes the files, without waiting.
local function clean(client, endpoint, op, files)
  local path = "/files" .. url.query { { "path", files.stdout }, { "path", files.stderr } }
  client.http:send_to_endpoint(endpoint, { op = op, method = "DELETE", path = path, may_repeat = true })
end

--- Puts the redirection around a way to run commands.
---@param begin fun(body: table, opts: table): opensandbox.CommandResult?, opensandbox.Error?
function exact.over(begin, client, endpoint, op)
  return function(body, opts)
    local base = "/tmp/opensandbox-" .. random.hex(12)
    local files = { stdout = base .. ".stdout", stderr = base .. ".stderr" }
    -- A line of its own: the shell has redirected before it reads what may not even parse.
    body.command = "exec >" .. files.stdout .. " 2>" .. files.stderr .. "\n" .. body.command
    local own = tables.merge(opts, { redirected = true })
    own.on_stdout, own.on_stderr = nil, nil
    local ok, result, err = coxpcall.pcall(begin, body, own)
    if ok and result then
      local said = result.stderr
      ok, result, err = coxpcall.pcall(fetch, client, endpoint, result, files, opts)
      if ok and err and err.status == 404 then
        err = errors.new { kind = "state", code = "capture_failed", op = op, sandbox_id = err.sandbox_id, cause = err,
          message = "the command's output could not be redirected to the sandbox's /tmp: " .. said,
          hint = "Make /tmp writable for the command's user, or leave out capture = \"exact\"" }
      end
    end
    clean(client, endpoint, op, files)
    if not ok then error(result, 0) end
    if err then err.op = op end
    return result, err
  end
end

return exact
