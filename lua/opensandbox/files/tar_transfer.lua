--- A directory up or down as one tar archive: one transfer, and one command in the sandbox.

local errors = require "opensandbox.base.errors"
local inside = require "opensandbox.files.helper_commands"
local random = require "opensandbox.base.random"
local shell = require "opensandbox.base.shell"
local tar = require "opensandbox.files.tar"
local tree = require "opensandbox.files.directory_walk"
local tree_writer = require "opensandbox.files.directory_writer"
local verify = require "opensandbox.files.checksum"

local by_archive = {}

local PIECE = 120 * 1024 -- bytes read from a local archive at a time
local NO_DIRECTORY = 66  -- how our script ends when there is nothing to archive
local OTHER_SUM = 67     -- and when the archive is not what was sent

-- The archive, made while it is read, and its sum when that is wanted.
local function archive_of(job)
  local read, close = tar.pieces(job.entries, function(entry) return io.open(job.from .. "/" .. entry.name, "rb") end)
  job:at_end(close)
  local size, done = tar.size(job.entries), 0
  local function content()
    if job.deadline:has_passed() then return nil, "the time is over" end
    local bytes, problem = read()
    if bytes then done = done + #bytes end
    return bytes, problem
  end
  local sum
  if job.opts.verify then content, sum = verify.counted(content) end
  return { content = content, size = size, sum = sum, done = function() return done end }
end

local unpack_script = [[
f=%s
%smkdir -p %s && tar -xopf "$f" -C %s
code=$?
rm -f "$f"
exit $code]]

local check_script = [[
set -- $(cksum < "$f")
if [ "$1 $2" != '%s' ]; then echo "$1 $2"; rm -f "$f"; exit %d; fi
]]

-- Unpacks the archive that was sent, and removes it whatever comes of that.
local function unpack_there(job, path, sum)
  local target = inside.word(job.to)
  local check = sum and check_script:format(tostring(sum), OTHER_SUM) or ""
  local result, err = inside.run(job.target, job, unpack_script:format(inside.word(path), check, target, target), "tar_failed",
    "the archive could not be unpacked in the sandbox")
  if result then return true end
  local told = err.result and err.result.exit_code == OTHER_SUM and err.result.stdout:match("^[^\n]*")
  if sum and told then return verify.compare(job, "the archive", sum, told) end
  return nil, err
end

--- Sends `job.entries` of the local directory `job.from` to `job.to`.
---@return opensandbox.TreeCount? count
---@return opensandbox.Error? err
function by_archive.upload(job)
  local archive, path = archive_of(job), inside.temporary(".tar")
  local unpacked = false
  job:at_end(function()
    if not unpacked then inside.forget(job.target, job.execd, path) end
  end)
  local ok, err = job:call("upload_files",
    { { path = path, content = archive.content, size = archive.size, mode = "0600" } }, {
      idle_timeout = job:idle_timeout(),
      on_progress = job.opts.on_progress and function() job:progress(archive.done(), archive.size) end,
    })
  if not ok then return nil, err end
  job:progress(archive.size, archive.size)
  ok, err = unpack_there(job, path, archive.sum)
  if not ok then return nil, err end
  unpacked = true
  return job.count
end

local pack_script = [[
umask 077
f=%s
[ -d %s ] || exit %d
tar -cf "$f"%s -C %s . || { code=$?; rm -f "$f"; exit $code; }
%s]]

-- Makes the archive in the sandbox. Gives its sum when that is wanted.
local function pack_there(job, path)
  local from = inside.word(job.from)
  local excluded = {}
  for _, name in ipairs(job.patterns:plain_names()) do excluded[#excluded + 1] = " --exclude=" .. shell.quote(name) end
  local script = pack_script:format(inside.word(path), from, NO_DIRECTORY, table.concat(excluded), from,
    job.opts.verify and 'cksum < "$f"' or ":")
  local result, err = inside.run(job.target, job, script, "tar_failed", "the archive could not be made in the sandbox")
  if result then return true, verify.parse(result.stdout)[1] end
  if err.result and err.result.exit_code == NO_DIRECTORY then
    err.code, err.message = "not_a_directory", ("%s is not a directory of the sandbox"):format(job.from)
  elseif err.result and err.result.stderr:find("changed as we read it", 1, true) then
    err.hint = "Try again when nothing writes there, or leave the file out with a name in 'ignore'"
  end
  return nil, err
end

-- What of the archive becomes of each entry.
local function sink_of(job, writer)
  local open = false -- whether the bytes that come are of a file that is wanted
  local sink = {}

  function sink.begin(entry)
    local name, err = writer:clean(entry.name)
    if not name then return nil, err end
    open = false
    local kind = entry.kind
    if name ~= "" and job.ignored(name, kind == "directory") then return true end
    if kind == "directory" then return writer:directory(name, entry.mode, entry.mtime) end
    if kind == "symlink" then return writer:symlink(name, entry.target, entry.mtime) end
    if kind == "link" then return writer:link(name, entry.target, entry.mode, entry.mtime) end
    if kind == "file" then
      open = true
      return writer:open(name, entry.mode, entry.mtime)
    end
    tree.add(writer.count, kind)
    return true
  end

  function sink.data(bytes)
    if not open then return true end
    return writer:write(bytes)
  end

  function sink.finish()
    if not open then return true end
    return writer:close()
  end

  return sink
end

local function bad_archive(job, problem)
  if errors.is(problem) then return problem end
  return errors.new { kind = "protocol", code = "bad_archive", op = job.op, sandbox_id = job.target.id,
    message = "the sandbox's archive cannot be read: " .. problem }
end

-- The archive as it comes: a function that gives its pieces.
local function stream(job, path)
  local reader, err = job:call("download_file", path, { idle_timeout = job:idle_timeout() })
  if not reader then return nil, err end
  job:at_end(function() reader:close() end)
  local done = 0
  return function()
    local bytes, problem = reader:read()
    if problem then problem.op = job.op end
    if bytes then
      done = done + #bytes
      job:progress(done, reader.size)
    end
    return bytes, problem
  end
end

-- The archive by way of a local file, whose sum must be the one that was told before anything of it is used.
local function verified(job, path, told)
  local part = ("%s.%s.part"):format(job.to:gsub("(.)/+$", "%1"), random.hex(6))
  job:at_end(function() os.remove(part) end)
  local ok, err = job:call("save_file", path, part, {
    idle_timeout = job:idle_timeout(), mode = 384, -- 0600
    on_progress = job.opts.on_progress and function(done, all) job:progress(done, all) end,
  })
  if not ok then return nil, err end
  local sum
  sum, err = verify.file(job.op, part)
  if not sum then return nil, err end
  ok, err = verify.compare(job, "the archive", sum, told or "not told")
  if not ok then return nil, err end
  local handle, problem = io.open(part, "rb")
  if not handle then return nil, errors.local_file(job.op, part, problem) end
  job:at_end(function() handle:close() end)
  return function()
    local bytes
    bytes, problem = handle:read(PIECE)
    return bytes, problem and errors.local_file(job.op, part, problem)
  end
end

--- Fetches the directory `job.from` of the sandbox into the local directory `job.to`.
---@return opensandbox.TreeCount? count
---@return opensandbox.Error? err
function by_archive.download(job)
  local path = inside.temporary(".tar")
  job:at_end(function() inside.forget(job.target, job.execd, path) end)
  local ok, told = pack_there(job, path)
  if not ok then return nil, told end
  local writer, err = tree_writer.new(job.op, job.to)
  if not writer then return nil, err end
  job:at_end(function() writer:discard() end)
  local read
  read, err = (job.opts.verify and verified or stream)(job, path, told)
  if not read then return nil, err end
  local archive = tar.reader(sink_of(job, writer))
  while true do
    local bytes, problem = read()
    if problem then return nil, problem end
    if not bytes then break end
    ok, problem = archive:feed(bytes)
    if not ok then return nil, bad_archive(job, problem) end
    if job.deadline:has_passed() then return nil, job.deadline:error(job.op) end
  end
  ok, err = archive:close()
  if not ok then return nil, bad_archive(job, err) end
  ok, err = writer:finish()
  if not ok then return nil, err end
  return writer.count
end

return by_archive
