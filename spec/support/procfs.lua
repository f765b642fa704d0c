--- The kernel's facts about a process: open descriptors, children, memory. Linux only; nil elsewhere.

local uv = require "luv"
local names = require "opensandbox.devserver.base.list_directory"
local read_file = require "spec.support.read_file"

local procfs = {}

--- The open file descriptors of a process (default: this one).
-- @treturn number how many
-- @treturn {string,...} one text for each, like "5 -> socket:[1234]", ordered by number
function procfs.descriptors(pid)
  local directory = ("/proc/%s/fd"):format(pid or "self")
  local list = names(directory)
  if not list then return nil end
  table.sort(list, function(a, b) return tonumber(a) < tonumber(b) end)
  local open = {}
  for _, name in ipairs(list) do
    -- The descriptor that read the directory is in the list too, but is closed by now.
    local target = uv.fs_readlink(directory .. "/" .. name)
    if target then open[#open + 1] = name .. " -> " .. target end
  end
  return #open, open
end

--- The direct children of a process (default: this one).
-- @treturn {number,...} pids of the living ones
-- @treturn {number,...} pids of those that have exited but were not waited for
function procfs.children(pid)
  local parent = pid or uv.os_getpid()
  local list = names("/proc")
  if not list then return nil end
  local living, zombies = {}, {}
  for _, name in ipairs(list) do
    local stat = name:find("^%d+$") and read_file("/proc/" .. name .. "/stat")
    -- The command's name, in parentheses, may itself hold spaces and parentheses.
    local state, ppid = (stat or ""):match("^.*%) (%S) (%d+)")
    if tonumber(ppid) == parent then
      local kind = (state == "Z" or state == "X") and zombies or living
      kind[#kind + 1] = tonumber(name)
    end
  end
  return living, zombies
end

--- The living processes of this machine whose command line is `argv`, joined by spaces.
-- @treturn {number,...} pids
function procfs.running(argv)
  local found = {}
  for _, name in ipairs(names("/proc") or {}) do
    local line = name:find("^%d+$") and read_file("/proc/" .. name .. "/cmdline")
    if line and line:gsub("%z", " ") == argv .. " " then found[#found + 1] = tonumber(name) end
  end
  return found
end

--- Resident memory of a process (default: this one), in KiB; nil where it is not known: without /proc, or under a sanitizer,
-- which keeps freed memory for a while.
-- @treturn table `current` and `peak`
function procfs.rss(pid)
  if os.getenv("OPENSANDBOX_TEST_PRELOAD") then return nil end
  local status = read_file(("/proc/%s/status"):format(pid or "self"))
  if not status then return nil end
  return { current = tonumber(status:match("VmRSS:%s*(%d+)")), peak = tonumber(status:match("VmHWM:%s*(%d+)")) }
end

return procfs
