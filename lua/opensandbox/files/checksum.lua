--- Whether what arrived is what was sent: size and CRC on both sides, as POSIX `cksum` tells them.

local core = require "opensandbox.core"
local deadline = require "opensandbox.loop.deadline"
local endpoint_call = require "opensandbox.http.endpoint_call"
local errors = require "opensandbox.base.errors"
local inside = require "opensandbox.files.helper_commands"
local loop = require "opensandbox.loop"

local verify = {}

local PIECE = 120 * 1024      -- bytes read at a time
local BREATH = 64 * 1024 * 1024 -- bytes after which others get their turn

local Sum = {}
Sum.__index = Sum

--- Counts bytes in.
---@param bytes string
function Sum:add(bytes)
  self.state, self.size = core.cksum(self.state, bytes), self.size + #bytes
end

--- "CRC SIZE", as cksum prints it.
function Sum:__tostring()
  return ("%.0f %.0f"):format(core.cksum_final(self.state, self.size), self.size)
end

--- A sum of no bytes yet.
function verify.sum()
  return setmetatable({ state = 0, size = 0 }, Sum)
end

--- Content for an upload that is counted while it is read, and its sum.
---@param content string|file*|fun(): string?
---@return string|fun(): string? content
---@return table sum
function verify.counted(content)
  local sum = verify.sum()
  if type(content) == "string" then
    sum:add(content)
    return content, sum
  end
  local read = content
  if io.type(content) then
    read = function() return content:read(PIECE) end
  elseif type(content) ~= "function" then
    return content, sum -- refused where all contents are
  end
  return function()
    local bytes, problem = read()
    if type(bytes) == "string" then sum:add(bytes) end
    return bytes, problem
  end, sum
end

--- The sum of a local file.
---@param op string
---@param path string
---@return table? sum
---@return opensandbox.Error? err
function verify.file(op, path)
  local handle, problem = io.open(path, "rb")
  local sum, breath, err = verify.sum(), BREATH, nil
  while handle and not err do
    local bytes
    bytes, problem = handle:read(PIECE)
    if not bytes then break end
    sum:add(bytes)
    if sum.size >= breath then
      breath = breath + BREATH
      err = loop.sleep(op, 0)
    end
  end
  if handle then handle:close() end
  if problem then err = errors.local_file(op, path, problem) end
  if err then return nil, err end
  return sum
end

--- Whether the sandbox can tell sums.
---@return true? ok
---@return opensandbox.Error? err
function verify.available(target, job)
  local tools, err = inside.tools(target, job)
  if not tools then return nil, err end
  if tools.cksum then return true end
  return nil, errors.new { kind = "state", code = "verify_unavailable", op = job.op, sandbox_id = target.id,
    message = "the sandbox has no program cksum, which verification needs",
    hint = "Install coreutils or busybox in the image, or leave out the option 'verify'" }
end

--- The sums that a command's output holds, a line each.
---@return string[]
function verify.parse(text)
  local sums = {}
  for crc, size in text:gmatch("(%d+)[ \t]+(%d+)[^\n]*\n") do sums[#sums + 1] = crc .. " " .. size end
  return sums
end

--- The sums of files in the sandbox, with as few commands as possible.
---@param list string[] absolute paths
---@return string[]? sums
---@return opensandbox.Error? err
function verify.remote(target, job, list)
  local words, sums = {}, {}
  for i, path in ipairs(list) do words[i] = inside.word(path) end
  for _, names in ipairs(inside.batches(words, " ")) do
    local result, err = inside.run(target, job, ('for f in %s; do cksum < "$f" || exit; done'):format(names), "verify_failed",
      "the sum of a file in the sandbox cannot be told")
    if not result then return nil, err end
    for _, sum in ipairs(verify.parse(result.stdout)) do sums[#sums + 1] = sum end
  end
  if #sums == #list then return sums end
  return nil, errors.new { kind = "protocol", code = "unexpected_response", op = job.op, sandbox_id = target.id,
    message = ("cksum told %d sums of %d files"):format(#sums, #list) }
end

--- Compares the sums of one file on both sides.
---@param name string
---@param here table|string
---@param there string
---@return true? ok
---@return opensandbox.Error? err
function verify.compare(job, name, here, there)
  here = tostring(here)
  if here == there then return true end
  return nil, errors.new { kind = "state", code = "verify_failed", op = job.op,
    message = ("%s is not the same on both sides: CRC and size are %s here, %s in the sandbox"):format(name, here, there),
    hint = "Try again; it may have been changed while it was sent" }
end

-- Compares the sum of one file with that of a file in the sandbox.
local function same(target, job, path, sum)
  local absolute, err = inside.absolute(target, job, path)
  if not absolute then return nil, err end
  local there
  there, err = verify.remote(target, job, { absolute })
  if not there then return nil, err end
  return verify.compare(job, path, sum, there[1])
end

--- Uploads one file and looks whether it arrived as it was.
---@param target opensandbox.FileTarget
---@param op string
---@param file opensandbox.FileUpload
---@param opts table as for upload_files
---@return true? ok
---@return opensandbox.Error? err
function verify.upload(target, op, file, opts)
  local job = { op = op, deadline = deadline.new() }
  local ok, err = verify.available(target, job)
  if not ok then return nil, err end
  local sum
  if file.file then
    sum, err = verify.file(op, file.file)
    if not sum then return nil, err end
  else
    file.content, sum = verify.counted(file.content)
  end
  ok, err = endpoint_call(target.client, op, target.endpoint, "upload_files", { file }, opts)
  if not ok then return nil, err end
  return same(target, job, file.path, sum)
end

--- Looks whether a local file is what a file of the sandbox is.
---@param target opensandbox.FileTarget
---@param op string
---@param path string in the sandbox
---@param here string local path
---@return true? ok
---@return opensandbox.Error? err
function verify.download(target, op, path, here)
  local sum, err = verify.file(op, here)
  if not sum then return nil, err end
  return same(target, { op = op, deadline = deadline.new() }, path, sum)
end

return verify
