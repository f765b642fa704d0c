--- The processes of a group or of a PID namespace, found in /proc, and signals to them.

local uv = require "luv"
local list_directory = require "opensandbox.devserver.base.list_directory"
local timer = require "opensandbox.devserver.base.timer"

local processes = {}

local MAX_ROUNDS = 20     -- of signals to processes that fork meanwhile
local RETRY_INTERVAL = 10 -- milliseconds

-- Calls `visit(pid, state, parent, group, session)` for each living process.
local function each(visit)
  for _, entry in ipairs(list_directory("/proc") or {}) do
    local pid = tonumber(entry)
    local file = pid and io.open("/proc/" .. entry .. "/stat")
    if file then
      -- The name, in parentheses, may hold anything; then come the state, the parent, the group and the session.
      local state, parent, group, session = (file:read("*a") or ""):match("^.*%) (%S) (%d+) (%d+) (%d+)")
      file:close()
      if state and state ~= "Z" then visit(pid, state, tonumber(parent), tonumber(group), tonumber(session)) end
    end
  end
end

-- Signals the processes that `select` returns, in rounds, each process once. A later round finds the processes that others have started
-- before their signal arrived.
local function signal_all(select, name)
  local reached = {}
  for _ = 1, MAX_ROUNDS do
    local any = false
    for _, pid in ipairs(select()) do
      if not reached[pid] then
        any, reached[pid] = true, true
        uv.kill(pid, name)
      end
    end
    if not any then break end
  end
end

-- Signals the process group that a child of a process leads. The system signals all of it at once, so that no process receives the
-- signal that was started because of it. Returns whether there is such a group.
local function signal_group_of_child(parent, name, alone)
  local leader
  each(function(pid, _, of, group)
    if of == parent and group == pid then leader = pid end
  end)
  return leader ~= nil and uv.kill(alone and leader or -leader, name) ~= nil
end

--- Signals the process group that a child of a process leads, as soon as there is one.
---@param parent integer
---@param name string like "sigterm"
---@param options { alone?: boolean, is_running: (fun(): any), sent?: fun() } alone: only the child; is_running: returns whether the parent
-- runs; sent: called when the signal was sent, or no process is left for it
function processes.signal_child_soon(parent, name, options)
  local function try()
    if not signal_group_of_child(parent, name, options.alone) and options.is_running() then return false end
    if options.sent then options.sent() end
    return true
  end
  if try() then return end
  local retry
  retry = timer.every(RETRY_INTERVAL, function()
    if try() then retry:close() end
  end)
end

--- Signals the processes of a session.
---@param session integer the first process of the session
---@param name string
function processes.signal_session(session, name)
  signal_all(function()
    local list = {}
    each(function(pid, _, _, _, of)
      if of == session then list[#list + 1] = pid end
    end)
    return list
  end, name)
end

-- The processes in the PID namespace of `init`.
local function in_namespace(init, accept)
  local list = {}
  local namespace = uv.fs_readlink(("/proc/%d/ns/pid"):format(init))
  if not namespace then return list end
  each(function(pid, state)
    if uv.fs_readlink(("/proc/%d/ns/pid"):format(pid)) == namespace and accept(pid, state) then list[#list + 1] = pid end
  end)
  return list
end

--- Signals every process of a PID namespace except its first one.
---@param init integer the first process of the namespace
---@param name string
function processes.signal_namespace(init, name)
  signal_all(function()
    return in_namespace(init, function(pid) return pid ~= init end)
  end, name)
end

--- Stops every process of a PID namespace, or continues them.
---@param init integer
---@param frozen boolean
function processes.freeze(init, frozen)
  for _ = 1, MAX_ROUNDS do
    local found = in_namespace(init, function(_, state) return (state == "T") ~= frozen end)
    for _, pid in ipairs(found) do uv.kill(pid, frozen and "sigstop" or "sigcont") end
    if #found == 0 then break end
  end
end

return processes
