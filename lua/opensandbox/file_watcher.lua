--- The changes in a directory of a sandbox, one by one: `sandbox.files:watch()`.
--
-- execd does not report changes, so they are polled: one command each time lists the existing files, and sends the list only if its
-- checksum has changed. Two lists that differ are the changes. A file that is created and deleted between two polls is not seen, nor is a
-- change that keeps size, mode and modification time. Nothing runs between two polls, so nothing has to be stopped when the iteration is
-- left early.

local class = require "opensandbox.base.class"
local deadline = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local helper_commands = require "opensandbox.files.helper_commands"
local limited_target = require "opensandbox.files.limited_target"
local options = require "opensandbox.base.options"
local remote_paths = require "opensandbox.files.remote_paths"
local task = require "opensandbox.loop.task"
local time = require "opensandbox.base.time"

local OP = "files:watch"
local DEFAULT_INTERVAL = 1 -- seconds
local NO_LIST = "none"     -- in the place of the checksum of the last list

-- The first line is the checksum of the list. A file that disappears while it is listed is omitted. Names that hold a newline
-- are omitted too, because each entry is one line.
local LIST_SCRIPT = [[
p=%s
odd='*
*'
list=$([ -e "$p" ] || [ -h "$p" ] && find "$p" -name "$odd" -prune -o -exec stat -c '%%f %%s %%y %%n' {} + 2>/dev/null)
sum=$(printf '%%s' "$list" | cksum) || exit
[ "$sum" = %s ] || printf '%%s\n%%s\n' "$sum" "$list"
:]]

local NEEDED = { "find", "stat", "cksum" }

--- One change that a watch has seen.
--- ```lua
--- for change in sandbox.files:watch("/work") do
---   print(change.type, change.path, change.kind, change.size, change.modified_at)
--- end
--- ```
---@class opensandbox.FileChange
---@field type string "created", "modified" or "deleted"
---@field path string absolute
---@field kind string "file", "directory", "symlink" or "other"
---@field size? integer bytes of a file; of a deleted one the last known
---@field modified_at? number Unix seconds; of a deleted one the last known

-- By the type bits of the mode, in hexadecimal.
local kinds = { ["8"] = "file", ["4"] = "directory", a = "symlink" }

-- Reads a list. An entry has not changed while its `state` is the same. That of a directory is its mode alone, because its size and its time
-- change with the entries in it, which are reported themselves.
local function parse(text)
  local entries, names = {}, {}
  for line in text:gmatch("[^\n]+") do -- line by line, so that the time is linear whatever the sandbox prints
    local mode, size, date, path = line:match("^(%x+) (%d+) (%d%d%d%d%-%d%d%-%d%d [%d:.]+ [+-]%d%d%d%d) (%./.*)$")
    if mode then
      local kind = kinds[#mode == 4 and mode:sub(1, 1) or ""] or "other"
      path = "/" .. path:gsub("^[./]*/", "")
      if not entries[path] then names[#names + 1] = path end
      entries[path] = { kind = kind, size = kind == "file" and tonumber(size) or nil,
        modified_at = time.parse((date:gsub(" ([+-])", "%1"))),
        state = kind == "directory" and mode or table.concat({ mode, size, date }, " ") }
    end
  end
  table.sort(names)
  return { entries = entries, names = names }
end

--- The changes of a file or a directory: `sandbox.files:watch`.
--- ```lua
--- for change in sandbox.files:watch("/work", { timeout = "1h" }) do print(change.path) end
--- ```
---@class opensandbox.FileWatcher
local Watcher = {}
Watcher.__index = Watcher
Watcher.__name = "opensandbox.FileWatcher"

local file_watcher = {}

-- Lists the existing files. Returns nil without an error if nothing has changed.
local function list(self)
  local target = self._target
  local script = LIST_SCRIPT:format(self._word, helper_commands.quoted(self._sum))
  local result, err = helper_commands.run(target, helper_commands.plain_job(target, OP), script, "watch_failed",
    "the files in the sandbox could not be listed")
  if not result then return nil, err end
  if result.stdout_dropped > 0 then
    return nil, errors.new { kind = "state", code = "list_too_long", op = OP, sandbox_id = target.id,
      message = "the list of the files in the sandbox is longer than the client's option max_output",
      hint = "Raise it, or watch a directory with fewer files" }
  end
  local sum, text = result.stdout:match("^([^\n]+)\n(.*)$")
  if not sum then return nil end
  self._sum = sum
  return parse(text)
end

local function add(changes, change, path, entry)
  changes[#changes + 1] = { type = change, path = path, kind = entry.kind, size = entry.size, modified_at = entry.modified_at }
end

-- Returns the changes between two lists: the deleted entries, the deepest first, then the others, each directory before its entries.
local function difference(before, after)
  local changes = {}
  for i = #before.names, 1, -1 do
    local path = before.names[i]
    if not after.entries[path] then add(changes, "deleted", path, before.entries[path]) end
  end
  for _, path in ipairs(after.names) do
    local old, new = before.entries[path], after.entries[path]
    if not old then
      add(changes, "created", path, new)
    elseif old.state ~= new.state then
      add(changes, "modified", path, new)
    end
  end
  return changes
end

local function timeout_error(self, cause)
  return errors.timeout { op = OP, code = "watch_timeout", text = "the watch is over", option = "timeout",
    seconds = self._limit.seconds, sandbox_id = self._target.id, cause = cause }
end

-- Lists in a task of its own, which `close` cancels, because the sandbox may not answer for long.
local function list_in_task(self)
  local current, err
  self._listing = task.spawn(function() current, err = list(self) end)
  local _, interruption = self._listing:join_own(OP)
  self._listing = nil
  return current, interruption or err
end

-- Polls once. Returns an error, or nothing.
local function poll(self)
  local current, err = list_in_task(self)
  if err then return err.kind == "timeout" and self._limit:has_passed() and timeout_error(self, err) or err end
  if not current then return nil end
  self._changes, self._next = difference(self._list, current), 1
  self._list = current
end

--- Waits for the next change and returns it. After an error it can be called again.
--- ```lua
--- local watcher = sandbox.files:watch("/work")
--- local change, err = watcher:next()
--- ```
---@return opensandbox.FileChange? change
---@return opensandbox.Error? err kind `timeout`, code `watch_timeout` when the time is over
function Watcher:next()
  while true do
    if self._closed then
      return nil, errors.new { kind = "closed", code = "closed", op = OP, sandbox_id = self._target.id,
        message = "the watcher is closed" }
    end
    local err = self._first_error
    self._first_error = nil
    if err then return nil, err end
    local change = self._changes[self._next]
    if change then
      self._next = self._next + 1
      return change
    end
    if self._limit:has_passed() then return nil, timeout_error(self) end
    err = self._target.client.http:sleep(OP, self._limit:clamp(self._interval), false, self)
    if not err and not self._closed then err = poll(self) end
    if err and not self._closed then return nil, err end
  end
end

-- For `for change in files:watch(path) do`. An error is raised, because a loop would hide it.
function Watcher:__call()
  local change, err = self:next()
  if err then error(err, 0) end
  return change
end

--- Ends the watch. A call of `next` that waits in another task returns an error.
--- ```lua
--- watcher:close()
--- ```
---@return true
function Watcher:close()
  self._closed = true
  self._target.client.http:wake(self)
  if self._listing then self._listing:cancel() end
  return true
end

Watcher.__close = Watcher.close

--- How often a watch polls, and how long.
--- ```lua
--- local watcher = sandbox.files:watch("/work", { interval = "500ms", timeout = "10m" })
--- ```
---@class opensandbox.WatchOpts
---@field interval? opensandbox.Duration between two polls, default 1
---@field timeout? opensandbox.Duration for the whole watch; default: none

local watch_options = { interval = "seconds", timeout = "seconds" }

-- Finds the path and its present files.
local function start(self, path)
  local available, err = helper_commands.available_programs(self._target, helper_commands.plain_job(self._target, OP))
  if not available then return err end
  for _, name in ipairs(NEEDED) do
    if not available[name] then
      return errors.new { kind = "state", code = "watch_unavailable", op = OP, sandbox_id = self._target.id,
        message = ("the sandbox has no program %s, which a watch needs"):format(name),
        hint = "Install findutils and coreutils, or busybox, in the image" }
    end
  end
  local absolute
  absolute, err = remote_paths.absolute(self._target, OP, path)
  if not absolute then return err end
  self._word = helper_commands.quoted_path(absolute)
  local first
  first, err = list(self)
  self._list = first or self._list
  return err
end

--- Starts to watch a file or a directory, with everything in it.
---@param target opensandbox.FileTarget
---@param path string it need not exist
---@param opts? opensandbox.WatchOpts
---@return opensandbox.FileWatcher
function file_watcher.new(target, path, opts)
  opts = options.check(OP, opts, watch_options)
  local limit = deadline.new(opts.timeout)
  local self = setmetatable({
    _target = limited_target(target, limit), _limit = limit, _interval = opts.interval or DEFAULT_INTERVAL,
    _word = nil,                           -- the path as a word of a command
    _sum = NO_LIST,                        -- of the last list
    _list = { entries = {}, names = {} },  -- the last one
    _changes = {}, _next = 1, _closed = false,
  }, Watcher)
  local err = start(self, path)
  if err and err.kind == "timeout" and limit:has_passed() then err = timeout_error(self, err) end
  self._first_error = err
  return self
end

class.check_colon(Watcher, "watcher")

return file_watcher
