--- A directory up or down file by file, for a sandbox that has no tar.
--
-- Up, many files go in one request; down, several are fetched at a time. What execd has no route for, symlinks and times, small commands
-- do. Names pass through JSON here: those that execd would not get as they are, are refused.

local errors = require "opensandbox.base.errors"
local inside = require "opensandbox.files.helper_commands"
local paths = require "opensandbox.base.paths"
local shell = require "opensandbox.base.shell"
local task = require "opensandbox.loop.task"
local tree = require "opensandbox.files.directory_walk"
local tree_writer = require "opensandbox.files.directory_writer"
local utf8 = require "opensandbox.base.utf8"
local verify = require "opensandbox.files.checksum"

local by_file = {}

local AT_ONCE = 8            -- downloads
local DEEPEST = 100000       -- levels of directories
local LONGEST_LIST = 16 * 1024 -- bytes of names behind one command
local PRIVATE = 384          -- 0600: of a file on its way

-- The error for a name that cannot be sent without tar, or nil.
local function name_problem(job, name)
  local what = not utf8.is_valid(name) and "is not UTF-8" or paths.expansion(name) and "holds a '$' that execd would expand or drop"
  if not what then return nil end
  return errors.new { kind = "state", code = "name_refused", op = job.op, sandbox_id = job.target.id,
    message = ("the name %q %s"):format(name, what),
    hint = "Install tar in the image: archives hold every name; or leave it out with 'ignore'" }
end

local function mode_text(mode)
  return ("%04o"):format(mode)
end

-- The paths of one kind of entries in the sandbox.
local function places(job, kind)
  local list = {}
  for _, entry in ipairs(job.entries) do
    if entry.kind == kind then list[#list + 1] = job.to .. "/" .. entry.name end
  end
  return list
end

local function make_directories(job)
  local list = places(job, "directory")
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
        local sum, err = verify.file(job.op, file.file)
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
  local there
  there, err = verify.remote(job.target, job, places(job, "file"))
  if not there then return nil, err end
  for i, file in ipairs(list) do
    ok, err = verify.compare(job, file.path, sums[i], there[i])
    if not ok then return nil, err end
  end
  return true
end

-- `ln` would put a link into a directory that stands at its place.
local LINK = 'l() { if [ -d "$2" ] && ! [ -h "$2" ]; then echo "$2: is a directory" >&2; return 1; fi; ln -sfn -- "$1" "$2"; }\n'

local function make_symlinks(job)
  local lines = {}
  for _, entry in ipairs(job.entries) do
    if entry.kind == "symlink" then
      lines[#lines + 1] = ("l %s %s || exit"):format(shell.quote(entry.target), inside.word(job.to .. "/" .. entry.name))
    end
  end
  for _, script in ipairs(inside.batches(lines, "\n")) do
    local result, err = inside.run(job.target, job, LINK .. script, "link_failed", "a symlink could not be made in the sandbox")
    if not result then return nil, err end
  end
  return true
end

-- Names by their time, with one `touch` for many of them.
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
      group[#group + 1] = inside.word(job.to .. "/" .. entry.name)
      group.size = group.size + #group[#group]
      if group.size > LONGEST_LIST then flush(entry.mtime) end
    end
  end
  for time in pairs(groups) do flush(time) end
  return lines
end

-- Times are not worth a failure: without them the files are as good.
local function set_times(job)
  local tools, err = inside.tools(job.target, job)
  if not tools then return nil, err end
  if not tools.touch then return true end
  for _, script in ipairs(inside.batches(touch_lines(job), "\n")) do
    local result
    result, err = inside.run(job.target, job, "export TZ=UTC0\n" .. script .. "\n:", "touch_failed", "times could not be set")
    if not result then return nil, err end
  end
  return true
end

-- At the end: who makes a file in a directory must be allowed to. Every directory is named, for execd makes those above one by itself.
local function set_modes(job)
  local modes = {}
  for _, entry in ipairs(job.entries) do
    if entry.kind == "directory" then modes[job.to .. "/" .. entry.name] = { mode = mode_text(entry.mode) } end
  end
  if not next(modes) then return true end
  return job:call("set_permissions", modes)
end

--- Sends `job.entries` of the local directory `job.from` to `job.to`.
---@return opensandbox.TreeCount? count
---@return opensandbox.Error? err
function by_file.upload(job)
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

-- What is below a directory, from the route that lists, or from the one that searches where execd is too old for that.
local function list_there(job)
  local list, err = job:call("list_directory", job.from, { depth = DEEPEST })
  if not list and err.status == 404 and not errors.is_absence(err) then list, err = job:call("search_files", job.from) end
  return list, err
end

-- The path without ".", ".." and double slashes, as execd shows it.
local function lexical(path)
  local steps = {}
  for step in path:gmatch("[^/]+") do
    if step == ".." then steps[#steps] = nil elseif step ~= "." then steps[#steps + 1] = step end
  end
  return "/" .. table.concat(steps, "/")
end

-- The entries that are wanted, by names that are safe.
local function wanted_of(job, writer, list)
  local root, entries = lexical(job.from), {}
  root = root == "/" and root or root .. "/"
  for _, info in ipairs(list) do
    if info.path:sub(1, #root) ~= root then return nil, writer:unsafe(info.path, "is not below what was asked for") end
    local name, err = writer:clean(info.path:sub(#root + 1))
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

local LOOK = [[
for f in %s; do
  if [ -h "$f" ]; then printf l; readlink -n "$f" || exit
  elif [ -f "$f" ]; then printf f
  else printf o; fi
  printf '\000'
done >> %s]]

-- Asks for the targets of symlinks, and for the kinds that an old execd does not tell. Targets may be any bytes: they come in a file.
local function look_closer(job, entries)
  local words, asked = {}, {}
  for _, entry in ipairs(entries) do
    if entry.kind == nil or entry.kind == "symlink" then
      asked[#asked + 1] = entry
      words[#words + 1] = inside.word(entry.path)
    end
  end
  if #asked == 0 then return true end
  local answer = inside.temporary(".links")
  job:at_end(function() inside.forget(job.target, job.execd, answer) end)
  for _, names in ipairs(inside.batches(words, " ")) do
    local result, err = inside.run(job.target, job, LOOK:format(names, inside.word(answer)), "link_failed",
      "the target of a symlink in the sandbox cannot be told")
    if not result then return nil, err end
  end
  local reader, err = job:call("download_file", answer, { idle_timeout = job:idle_timeout() })
  if not reader then return nil, err end
  local text
  text, err = reader:read("a")
  if not text then return nil, err end
  local index = 0
  for kind, target in text:gmatch("(%a)([^%z]*)%z") do
    index = index + 1
    local entry = asked[index]
    if entry then
      entry.kind = kind == "l" and "symlink" or kind == "f" and "file" or "other"
      entry.target = target
    end
  end
  if index == #asked then return true end
  return nil, errors.new { kind = "protocol", code = "unexpected_response", op = job.op,
    message = ("the sandbox told of %d symlinks instead of %d"):format(index, #asked) }
end

-- One file, from the sandbox to its place.
local function fetch(job, writer, entry, sum_there, on_bytes)
  local part, err = writer:place(entry.name)
  if not part then return nil, err end
  local got = 0
  local ok
  ok, err = job:call("save_file", entry.path, part, {
    mode = PRIVATE, idle_timeout = job:idle_timeout(),
    on_progress = on_bytes and function(done)
      on_bytes(done - got)
      got = done
    end,
  })
  if not ok then return nil, err end
  if sum_there then
    local sum
    sum, err = verify.file(job.op, part)
    if not sum then return nil, err end
    ok, err = verify.compare(job, entry.path, sum, sum_there)
    if not ok then return nil, err end
  end
  return writer:commit(part, entry.name, entry.size, entry.mode, entry.mtime)
end

local function fetch_all(job, writer, files, sums)
  local total, done, first = 0, 0, nil
  for _, entry in ipairs(files) do total = total + entry.size end
  local on_bytes = job.opts.on_progress and function(more)
    done = done + more
    job:progress(done, total)
  end
  local results, failures = task.map(files, function(entry, i)
    if first then return true end -- one has failed: the rest is not wanted
    local ok, err = nil, job.deadline:has_passed() and job.deadline:error(job.op) or nil
    if not err then ok, err = fetch(job, writer, entry, sums and sums[i], on_bytes) end
    first = first or err
    return ok, err
  end, { concurrency = AT_ONCE })
  if not results then return nil, failures end
  if first then return nil, first end
  return true
end

--- Fetches the directory `job.from` of the sandbox into the local directory `job.to`.
---@return opensandbox.TreeCount? count
---@return opensandbox.Error? err
function by_file.download(job)
  local list, err = list_there(job)
  if not list then return nil, err end
  local writer
  writer, err = tree_writer.new(job.op, job.to)
  if not writer then return nil, err end
  job:at_end(function() writer:discard() end)
  local entries, ok
  entries, err = wanted_of(job, writer, list)
  if not entries then return nil, err end
  ok, err = look_closer(job, entries)
  if not ok then return nil, err end
  local files, remote = {}, {}
  for _, entry in ipairs(entries) do
    ok = true
    if entry.kind == "file" then
      files[#files + 1], remote[#remote + 1] = entry, entry.path
    elseif entry.kind == "directory" then
      ok, err = writer:directory(entry.name, entry.mode, entry.mtime)
    elseif entry.kind == "symlink" then
      ok, err = writer:symlink(entry.name, entry.target or "", entry.mtime)
    else
      tree.add(writer.count, entry.kind)
    end
    if not ok then return nil, err end
  end
  local sums
  if job.opts.verify then
    sums, err = verify.remote(job.target, job, remote)
    if not sums then return nil, err end
  end
  ok, err = fetch_all(job, writer, files, sums)
  if not ok then return nil, err end
  ok, err = writer:finish()
  if not ok then return nil, err end
  return writer.count
end

return by_file
