--- Transfers a directory file by file, for a sandbox without tar.
--
-- Up, many files go in one request; down, several are downloaded at a time. Symlinks and modification times, for which execd has no
-- route, are made by helper commands. Names pass through JSON here, so a name that JSON would change is refused.

local checksum = require "opensandbox.files.checksum"
local directory_writer = require "opensandbox.files.directory_writer"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local helper_commands = require "opensandbox.files.helper_commands"
local paths = require "opensandbox.base.paths"
local shell = require "opensandbox.base.shell"
local task = require "opensandbox.loop.task"
local temporary_files = require "opensandbox.files.temporary_files"
local tree_count = require "opensandbox.files.tree_count"
local utf8 = require "opensandbox.base.utf8"
local verification = require "opensandbox.files.verification"

local file_transfer = {}

local MAX_CONCURRENT_DOWNLOADS = 8
local MAX_DEPTH = 100000             -- levels of directories
local MAX_ARGUMENTS_SIZE = 16 * 1024 -- bytes of the names of one `touch`
local MAX_RECORD_SIZE = 4096 + 2     -- bytes: the kind of an entry, the target of a symlink, and NUL
local PART_MODE = "0600"             -- of a file during its download

-- Returns the error for a name that needs tar, or nil.
local function name_problem(job, name)
  local problem = not utf8.is_valid(name) and "is not UTF-8"
    or not job.target.literal_paths and paths.expansion(name) and "holds a '$' that execd would expand or drop"
  if not problem then return nil end
  return errors.new { kind = "state", code = "name_refused", op = job.op, sandbox_id = job.target.id,
    message = ("the name %q %s"):format(name, problem),
    hint = "Install tar in the image, because archives hold every name; or leave it out with 'ignore'" }
end

local function mode_text(mode)
  return ("%04o"):format(mode)
end

-- Returns the paths in the sandbox of the entries of one kind.
local function paths_of(job, kind)
  local list = {}
  for _, entry in ipairs(job.entries) do
    if entry.kind == kind then list[#list + 1] = job.to .. "/" .. entry.name end
  end
  return list
end

local function make_directories(job)
  local list = paths_of(job, "directory")
  table.insert(list, 1, job.to)
  return job:call("make_directories", list)
end

local function send_files(job)
  local list, sums = {}, {}
  for _, entry in ipairs(job.entries) do
    if entry.kind == "file" then
      local file = { path = job.to .. "/" .. entry.name, mode = mode_text(entry.mode) }
      file.file = job.from .. "/" .. entry.name
      list[#list + 1] = file
      if job.opts.verify then
        local sum, err = checksum.of_file(job.op, file.file)
        if not sum then return nil, err end
        sums[#sums + 1] = tostring(sum)
      end
    end
  end
  if #list == 0 then return true end
  local total = job.count.bytes
  local ok, err = job:call("upload_files", list, {
    idle_timeout = job:idle_timeout(),
    on_progress = job.opts.on_progress and function(done) job:progress(math.min(done, total), total) end,
  })
  if not ok then return nil, err end
  job:progress(total, total)
  if not job.opts.verify then return true end
  local remote_sums
  remote_sums, err = verification.remote_checksums(job.target, job, paths_of(job, "file"))
  if not remote_sums then return nil, err end
  for i, file in ipairs(list) do
    ok, err = checksum.compare(job.op, file.path, sums[i], remote_sums[i])
    if not ok then return nil, err end
  end
  return true
end

-- A function of the shell. `ln` alone would put the link into a directory of that name.
local LINK_SCRIPT = [[
l() { if [ -d "$2" ] && ! [ -h "$2" ]; then echo "$2: is a directory" >&2; return 1; fi; ln -sfn -- "$1" "$2"; }
]]

local function make_symlinks(job)
  local lines = {}
  for _, entry in ipairs(job.entries) do
    if entry.kind == "symlink" then
      lines[#lines + 1] = ("l %s %s || exit"):format(shell.quote(entry.target),
        helper_commands.quoted_path(job.to .. "/" .. entry.name))
    end
  end
  for _, script in ipairs(helper_commands.join_within_limit(lines, "\n")) do
    local result, err = helper_commands.run(job.target, job, LINK_SCRIPT .. script, "link_failed",
      "a symlink could not be made in the sandbox", { ignores_output = true })
    if not result then return nil, err end
  end
  return true
end

-- Returns commands that set the modification times, each for many files of the same time.
local function touch_lines(job)
  local lines, groups = {}, {}
  local function flush(time)
    lines[#lines + 1] = ("touch -t %s %s"):format(os.date("!%Y%m%d%H%M.%S", time), table.concat(groups[time], " "))
    groups[time] = nil
  end
  for _, entry in ipairs(job.entries) do
    if entry.kind ~= "symlink" then
      local group = groups[entry.mtime] or { size = 0 }
      groups[entry.mtime] = group
      group[#group + 1] = helper_commands.quoted_path(job.to .. "/" .. entry.name)
      group.size = group.size + #group[#group]
      if group.size > MAX_ARGUMENTS_SIZE then flush(entry.mtime) end
    end
  end
  for time in each(groups) do flush(time) end
  return lines
end

-- The exit code is ignored, because files without their times are still right.
local function set_times(job)
  local available, err = helper_commands.available_programs(job.target, job)
  if not available then return nil, err end
  if not available.touch then return true end
  for _, script in ipairs(helper_commands.join_within_limit(touch_lines(job), "\n")) do
    local result
    result, err = helper_commands.run(job.target, job, "export TZ=UTC0\n" .. script .. "\n:", "touch_failed",
      "modification times could not be set", { ignores_output = true })
    if not result then return nil, err end
  end
  return true
end

-- Sets the modes of directories. It comes last, because files could not be created in a directory without write permission. Every
-- directory is named, because execd creates the parents of a file by itself.
local function set_modes(job)
  local modes = {}
  for _, entry in ipairs(job.entries) do
    if entry.kind == "directory" then modes[job.to .. "/" .. entry.name] = { mode = mode_text(entry.mode) } end
  end
  if not next(modes) then return true end
  return job:call("set_permissions", modes)
end

--- Uploads `job.entries` of the local directory `job.from` to `job.to`.
---@param job opensandbox.DirectoryJob
---@return opensandbox.TreeCount? count
---@return opensandbox.Error? err
function file_transfer.upload(job)
  local path_error = name_problem(job, job.to)
  if path_error then return nil, path_error end
  for _, entry in ipairs(job.entries) do
    local err = name_problem(job, entry.name)
    if not err and entry.target and not utf8.is_valid(entry.target) then err = name_problem(job, entry.target) end
    if err then return nil, err end
  end
  for _, step in ipairs { make_directories, send_files, make_symlinks, set_times, set_modes } do
    if job.deadline:has_passed() then return nil, job.deadline:error(job.op) end
    local ok, err = step(job)
    if not ok then return nil, err end
  end
  return job.count
end

-- Lists the entries below a directory. An execd before 1.0.19 has no route for that; then the files are searched.
local function list_remote(job)
  local list, err = job:call("list_directory", job.from, { depth = MAX_DEPTH })
  if not list and err.status == 404 and not errors.is_absence(err) then list, err = job:call("search_files", job.from) end
  return list, err
end

-- Returns the entries that are not ignored, by safe names.
local function select_entries(job, writer, list)
  local root, entries = paths.clean(job.from), {}
  root = root == "/" and root or root .. "/"
  for _, info in ipairs(list) do
    if info.path:sub(1, #root) ~= root then return nil, writer:unsafe(info.path, "is not below the directory") end
    local name, err = writer:safe_name(info.path:sub(#root + 1))
    if not name then return nil, err end
    if name ~= "" and not job.ignored(name, info.type == "directory") then
      err = name_problem(job, name)
      if err then return nil, err end
      entries[#entries + 1] = { name = name, path = info.path, kind = info.type, size = info.size or 0,
        mode = tonumber(info.mode or "0644", 8) or 420, mtime = info.modified_at or 0 }
    end
  end
  return entries
end

local LSTAT_SCRIPT = [[
for f in %s; do
  if [ -h "$f" ]; then printf l; readlink -n "$f" || exit
  elif [ -f "$f" ]; then printf f
  else printf o; fi
  printf '\000'
done >> %s]]

-- Adds the targets of symlinks, and the kinds that an old execd does not report. The sandbox writes them to a file, because targets
-- may be any bytes.
local function resolve_links(job, entries)
  local words, asked = {}, {}
  for _, entry in ipairs(entries) do
    if entry.kind == nil or entry.kind == "symlink" then
      asked[#asked + 1] = entry
      words[#words + 1] = helper_commands.quoted_path(entry.path)
    end
  end
  if #asked == 0 then return true end
  local output = temporary_files.path(job.target, ".links")
  job:defer(function() temporary_files.remove(job.target.client, job.endpoint, { output }) end)
  for _, names in ipairs(helper_commands.join_within_limit(words, " ")) do
    local script = LSTAT_SCRIPT:format(names, helper_commands.quoted_path(output))
    local result, err = helper_commands.run(job.target, job, script, "link_failed",
      "the target of a symlink in the sandbox cannot be read", { ignores_output = true })
    if not result then return nil, err end
  end
  local reader, err = job:call("download_file", output, {
    idle_timeout = job:idle_timeout(), length = #asked * MAX_RECORD_SIZE, -- an honest sandbox sends no more
  })
  if not reader then return nil, err end
  local text
  text, err = reader:read("a")
  if not text then return nil, err end
  local index, at = 0, 1
  local last = text:find("\0", at, true)
  while last do
    index = index + 1
    local entry, kind = asked[index], text:sub(at, at)
    if entry then
      entry.kind = kind == "l" and "symlink" or kind == "f" and "file" or "other"
      entry.target = text:sub(at + 1, last - 1)
    end
    at = last + 1
    last = text:find("\0", at, true)
  end
  if index == #asked then return true end
  return nil, errors.new { kind = "protocol", code = "unexpected_response", op = job.op, sandbox_id = job.target.id,
    message = ("expected %d symlink targets, received %d"):format(#asked, index) }
end

-- Downloads one file to its place.
local function fetch(job, writer, entry, remote_sum, on_bytes)
  local part, err = writer:part_for(entry.name)
  if not part then return nil, err end
  local received = 0
  local ok
  ok, err = job:call("save_file", entry.path, part, {
    mode = PART_MODE, idle_timeout = job:idle_timeout(),
    on_progress = on_bytes and function(done)
      on_bytes(done - received)
      received = done
    end,
  })
  if not ok then return nil, err end
  if remote_sum then
    local sum
    sum, err = checksum.of_file(job.op, part)
    if not sum then return nil, err end
    ok, err = checksum.compare(job.op, entry.path, sum, remote_sum)
    if not ok then return nil, err end
  end
  return writer:commit(part, entry.name, entry.size, entry.mode, entry.mtime)
end

local function fetch_all(job, writer, files, remote_sums)
  local total, done, first_failure = 0, 0, nil
  for _, entry in ipairs(files) do total = total + entry.size end
  local on_bytes = job.opts.on_progress and function(count)
    done = done + count
    job:progress(done, total)
  end
  local results, failures = task.map_for(job.op, files, function(entry, i)
    if first_failure then return true end
    local ok, err = nil, job.deadline:has_passed() and job.deadline:error(job.op) or nil
    if not err then ok, err = fetch(job, writer, entry, remote_sums and remote_sums[i], on_bytes) end
    first_failure = first_failure or err
    return ok, err
  end, MAX_CONCURRENT_DOWNLOADS)
  if not results then return nil, failures end
  if first_failure then return nil, first_failure end
  return true
end

--- Downloads the directory `job.from` of the sandbox into the local directory `job.to`.
---@param job opensandbox.DirectoryJob
---@return opensandbox.TreeCount? count
---@return opensandbox.Error? err
function file_transfer.download(job)
  local path_error = name_problem(job, job.from)
  if path_error then return nil, path_error end
  local list, err = list_remote(job)
  if not list then return nil, err end
  local writer
  writer, err = directory_writer.new(job.op, job.to)
  if not writer then return nil, err end
  job:defer(function() writer:discard() end)
  local entries, ok
  entries, err = select_entries(job, writer, list)
  if not entries then return nil, err end
  ok, err = resolve_links(job, entries)
  if not ok then return nil, err end
  local files, remote = {}, {}
  for _, entry in ipairs(entries) do
    ok = true
    if entry.kind == "file" and job.unchanged[entry.name] then
      ok = true -- the local file is the same
    elseif entry.kind == "file" then
      files[#files + 1], remote[#remote + 1] = entry, entry.path
    elseif entry.kind == "directory" then
      ok, err = writer:directory(entry.name, entry.mode, entry.mtime)
    elseif entry.kind == "symlink" then
      ok, err = writer:symlink(entry.name, entry.target or "", entry.mtime)
    else
      tree_count.add(writer.count, entry.kind)
    end
    if not ok then return nil, err end
  end
  local remote_sums
  if job.opts.verify then
    remote_sums, err = verification.remote_checksums(job.target, job, remote)
    if not remote_sums then return nil, err end
  end
  ok, err = fetch_all(job, writer, files, remote_sums)
  if not ok then return nil, err end
  ok, err = writer:finish()
  if not ok then return nil, err end
  return writer.count
end

return file_transfer
