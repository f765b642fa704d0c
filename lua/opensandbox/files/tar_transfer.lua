--- Transfers a directory as one tar archive: one transfer, and one command in the sandbox.

local checksum = require "opensandbox.files.checksum"
local core = require "opensandbox.core"
local directory_writer = require "opensandbox.files.directory_writer"
local errors = require "opensandbox.base.errors"
local helper_commands = require "opensandbox.files.helper_commands"
local local_target = require "opensandbox.files.local_target"
local shell = require "opensandbox.base.shell"
local tar = require "opensandbox.files.tar"
local temporary_files = require "opensandbox.files.temporary_files"
local tree_count = require "opensandbox.files.tree_count"

local tar_transfer = {}

local CHUNK_SIZE = 120 * 1024     -- bytes read from a local archive at a time
local EXIT_NOT_A_DIRECTORY = 66   -- exit code of our script
local EXIT_CHECKSUM_MISMATCH = 67 -- exit code of our script

-- Returns the archive, which is made while it is read, and its checksum if that is wanted.
local function archive_of(job)
  local read, close = tar.chunks(job.entries, function(entry) return io.open(job.from .. "/" .. entry.name, "rb") end)
  job:defer(close)
  local size, done = tar.size(job.entries), 0
  local function content()
    if job.deadline:has_passed() then return nil, "the time is over" end
    local bytes, problem = read()
    if bytes then done = done + #bytes end
    return bytes, problem
  end
  local sum
  if job.opts.verify then content, sum = checksum.with_checksum(content) end
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

-- Unpacks the archive in the sandbox, and removes it.
local function unpack_remote(job, path, sum)
  local directory = helper_commands.quoted_path(job.to)
  local check = sum and check_script:format(tostring(sum), EXIT_CHECKSUM_MISMATCH) or ""
  local script = unpack_script:format(helper_commands.quoted_path(path), check, directory, directory)
  local result, err = helper_commands.run(job.target, job, script, "tar_failed", "the archive could not be unpacked in the sandbox",
    { ignores_output = true })
  if result then return true end
  local is_mismatch = sum and err.result and err.result.exit_code == EXIT_CHECKSUM_MISMATCH
  if is_mismatch then return checksum.compare(job.op, "the archive", sum, err.result.stdout:match("^[^\n]*")) end
  return nil, err
end

--- Uploads `job.entries` of the local directory `job.from` to `job.to`.
---@param job opensandbox.DirectoryJob
---@return opensandbox.TreeCount? count
---@return opensandbox.Error? err
function tar_transfer.upload(job)
  local archive, path = archive_of(job), temporary_files.path(job.target, ".tar")
  local is_unpacked = false
  job:defer(function()
    if not is_unpacked then temporary_files.remove(job.target.client, job.endpoint, { path }) end
  end)
  local ok, err = job:call("upload_files",
    { { path = path, content = archive.content, size = archive.size, mode = "0600" } }, {
      idle_timeout = job:idle_timeout(),
      on_progress = job.opts.on_progress and function() job:progress(archive.done(), archive.size) end,
    })
  if not ok then return nil, err end
  job:progress(archive.size, archive.size)
  ok, err = unpack_remote(job, path, archive.sum)
  if not ok then return nil, err end
  is_unpacked = true
  return job.count
end

-- Returns the command that makes the archive.
local function pack_command(job, archive)
  local excluded = {}
  for _, name in ipairs(job.patterns:literal_names()) do excluded[#excluded + 1] = " --exclude=" .. shell.quote(name) end
  local words = {}
  for i, name in ipairs(job.names or { "." }) do words[i] = job.names and helper_commands.quoted_path(name) or name end
  return ("tar -cf %s%s -C %s %s"):format(archive, table.concat(excluded), helper_commands.quoted_path(job.from),
    table.concat(words, " "))
end

local function pack_error(job, err)
  if err.result and err.result.exit_code == EXIT_NOT_A_DIRECTORY then
    err.code, err.message = "not_a_directory", ("%s is not a directory of the sandbox"):format(job.from)
  elseif err.result and err.result.stderr:find("changed as we read it", 1, true) then
    err.hint = "Try again when nothing writes there, or leave the file out by its name in 'ignore'"
  end
  return err
end

local PACK_FAILURE = "the archive could not be made in the sandbox"

local function directory_test(job)
  return ("[ -d %s ] || exit %d"):format(helper_commands.quoted_path(job.from), EXIT_NOT_A_DIRECTORY)
end

local pack_script = [[
umask 077
f=%s
%s
%s || { code=$?; rm -f "$f"; exit $code; }
%s]]

-- Makes the archive in the sandbox. Returns its checksum if that is wanted.
local function pack_remote(job, path)
  local script = pack_script:format(helper_commands.quoted_path(path), directory_test(job), pack_command(job, '"$f"'),
    job.opts.verify and 'cksum < "$f"' or ":")
  local result, err = helper_commands.run(job.target, job, script, "tar_failed", PACK_FAILURE,
    { ignores_output = not job.opts.verify })
  if result then return true, checksum.parse_cksum(result.stdout)[1] end
  return nil, pack_error(job, err)
end

-- Checks that the directory exists. The archive is made later.
local function check_remote(job)
  local result, err = helper_commands.run(job.target, job, directory_test(job), "tar_failed", PACK_FAILURE,
    { ignores_output = true })
  if result then return true end
  return nil, pack_error(job, err)
end

-- Returns the sink that writes the entries of an archive.
local function sink_of(job, writer)
  local is_wanted = false -- the data that follow belong to a file to write
  local sink = {}

  function sink.begin(entry)
    local name, err = writer:safe_name(entry.name)
    if not name then return nil, err end
    is_wanted = false
    local kind = entry.kind
    if name ~= "" and (job.ignored(name, kind == "directory") or job.unchanged[name]) then return true end
    if kind == "directory" then return writer:directory(name, entry.mode, entry.mtime) end
    if kind == "symlink" then return writer:symlink(name, entry.target, entry.mtime) end
    if kind == "link" then return writer:link(name, entry.target, entry.mode, entry.mtime) end
    if kind == "file" then
      is_wanted = true
      return writer:open(name, entry.mode, entry.mtime)
    end
    tree_count.add(writer.count, kind)
    return true
  end

  function sink.data(bytes)
    if not is_wanted then return true end
    return writer:write(bytes)
  end

  function sink.finish()
    if not is_wanted then return true end
    return writer:close()
  end

  return sink
end

local function bad_archive(job, problem)
  if errors.is(problem) then return problem end
  return errors.new { kind = "protocol", code = "bad_archive", op = job.op, sandbox_id = job.target.id,
    message = "the sandbox's archive cannot be read: " .. problem }
end

-- Returns a function that returns the chunks of the archive as they arrive.
local function stream(job, path)
  local reader, err = job:call("download_file", path, { idle_timeout = job:idle_timeout() })
  if not reader then return nil, err end
  job:defer(function() reader:close() end)
  local done = 0
  return function()
    local bytes, problem = reader:read()
    if bytes then
      done = done + #bytes
      job:progress(done, reader.size)
    end
    return bytes, problem
  end
end

-- Returns the path of a local file for the archive. The file is removed at the end.
local function local_archive(job)
  local path = (job.to:gsub("(.)/+$", "%1"):match("^.*/") or "") .. local_target.part_name()
  job:defer(function() os.remove(path) end)
  return path
end

-- Compares the checksum of a local archive, if that is wanted. Returns a function that returns its chunks.
local function chunks_of(job, path, remote_sum)
  if job.opts.verify then
    local sum, err = checksum.of_file(job.op, path)
    if not sum then return nil, err end
    local ok
    ok, err = checksum.compare(job.op, "the archive", sum, remote_sum or "not known")
    if not ok then return nil, err end
  end
  local handle, problem = io.open(path, "rb")
  if not handle then return nil, errors.local_file(job.op, path, problem) end
  job:defer(function() handle:close() end)
  return function()
    local bytes
    bytes, problem = handle:read(CHUNK_SIZE)
    return bytes, problem and errors.local_file(job.op, path, problem)
  end
end

-- Downloads the archive to a local file and compares its checksum. Returns a function that returns its chunks.
local function verified(job, path, remote_sum)
  local part = local_archive(job)
  local ok, err = job:call("save_file", path, part, {
    idle_timeout = job:idle_timeout(), mode = "0600",
    on_progress = job.opts.on_progress and function(done, total) job:progress(done, total) end,
  })
  if not ok then return nil, err end
  return chunks_of(job, part, remote_sum)
end

-- Receives the archive as the output of the command that makes it, in a local file. The checksum is that of a second archive,
-- because the first one is nowhere in the sandbox. Returns a function that returns its chunks.
local function piped(job)
  local part = local_archive(job)
  local handle, problem = core.create(part)
  if handle then handle, problem = io.open(part, "wb") end
  if not handle then return nil, errors.local_file(job.op, part, problem) end
  job:defer(function()
    if io.type(handle) == "file" then handle:close() end
  end)
  local done, command = 0, pack_command(job, "-")
  local result, err = helper_commands.run(job.target, job, command, "tar_failed", PACK_FAILURE, { sink = function(bytes)
    done = done + #bytes
    if not problem then problem = select(2, handle:write(bytes)) end -- the command is not stopped: that may stop more than it
    job:progress(done)
  end })
  local ok, close_problem = handle:close()
  problem = problem or not ok and close_problem
  if not result then return nil, pack_error(job, err) end
  if problem then return nil, errors.local_file(job.op, part, problem) end
  local remote_sum
  if job.opts.verify then
    result, err = helper_commands.run(job.target, job, command .. " | cksum", "tar_failed", PACK_FAILURE)
    if not result then return nil, err end
    remote_sum = checksum.parse_cksum(result.stdout)[1]
  end
  return chunks_of(job, part, remote_sum)
end

--- Downloads the directory `job.from` of the sandbox into the local directory `job.to`.
---@param job opensandbox.DirectoryJob
---@return opensandbox.TreeCount? count
---@return opensandbox.Error? err
function tar_transfer.download(job)
  local path = temporary_files.path(job.target, ".tar")
  local ok, remote_sum
  if job.target.pipe then
    ok, remote_sum = check_remote(job)
  else
    job:defer(function() temporary_files.remove(job.target.client, job.endpoint, { path }) end)
    ok, remote_sum = pack_remote(job, path)
  end
  if not ok then return nil, remote_sum end
  local writer, err = directory_writer.new(job.op, job.to)
  if not writer then return nil, err end
  job:defer(function() writer:discard() end)
  local read
  read, err = (job.target.pipe and piped or job.opts.verify and verified or stream)(job, path, remote_sum)
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

return tar_transfer
