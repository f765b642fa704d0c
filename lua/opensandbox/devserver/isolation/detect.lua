--- Chooses how commands are kept apart from this machine, by trying.

local uv = require "luv"
local bubblewrap = require "opensandbox.devserver.isolation.bubblewrap"
local unisolated = require "opensandbox.devserver.isolation.unisolated"

local isolation = {}

local PROBE = "[ -e /.probe ] || { echo 'a command sees the root of this machine'; exit 1; }; kill -9 $$"

local WARNING = "NOT ISOLATED: commands run as plain processes and can see and change everything that you can"

--- Creates the directories of a sandbox that every program expects.
function isolation.make_root(root)
  assert(uv.fs_mkdir(root, 493))   -- 0755
  for _, name in ipairs {
    "data", "dev", "etc", "home", "media", "mnt", "proc", "root", "run", "srv", "tmp", "usr", "var", "work", "workspace",
  } do
    assert(uv.fs_mkdir(root .. "/" .. name, 493))
  end
  for _, name in ipairs { "/var/tmp", "/run/opensandbox" } do assert(uv.fs_mkdir(root .. name, 493)) end
  uv.fs_chmod(root .. "/tmp", 1023)   -- 1777
  uv.fs_chmod(root .. "/var/tmp", 1023)
end

-- Returns nil when a command starts this way, sees its own root and ends as it should; else the reason.
local function try(strategy, directory)
  local root = directory .. "/probe"
  isolation.make_root(root)
  assert(io.open(root .. "/.probe", "w")):close()
  local log = assert(uv.fs_open(directory .. "/probe.log", "a", 384))
  local container, result = { root = root }, nil
  local function finish(outcome)
    strategy:close(container, function() result = result or outcome end)
  end
  local env = strategy:environment(root)
  strategy:open(container, { argv = { "tail", "-f", "/dev/null" }, env = env, log = log }, function(problem)
    if problem then return finish(problem) end
    local started, code = strategy:spawn(container, {
      argv = { strategy.shell, "-c", PROBE }, env = env, cwd = { inside = "/", path = root },
      stdout = log, stderr = log,
      on_exit = function(exit_code, signal)
        local right = signal == 9
        finish(right and "ok" or ("a command ended with %d instead of signal 9"):format(exit_code))
      end,
    })
    if not started then finish(code) end
  end, function() end)
  -- The loop can be run here, because nothing else uses it before the server starts.
  local deadline = uv.hrtime() + 10e9
  while not result and uv.hrtime() < deadline do uv.run("once") end
  local size = uv.fs_fstat(log).size
  uv.fs_close(log)
  if result == "ok" then return nil end
  local text = ""
  if size > 0 then
    local file = io.open(directory .. "/probe.log")
    text = ": " .. file:read("*a"):match("[^\n]*")
    file:close()
  end
  return (result or "it does not answer") .. text
end

local function shell()
  for _, path in ipairs { "/usr/bin/bash", "/bin/bash", "/usr/local/bin/bash" } do
    if uv.fs_access(path, "X") then return path end
  end
  return "/bin/sh"
end

--- Chooses a strategy.
---@param mode "auto"|"bwrap"|"none"
---@param directory string an empty one, for the trial
---@return table? strategy
---@return string notice a text for people; without a strategy why the mode does not work
function isolation.choose(mode, directory)
  if mode == "none" then return unisolated.new(shell()), WARNING .. "." end
  local strategy, problem = bubblewrap.new(shell())
  if strategy then problem = try(strategy, directory) end
  if not problem then
    return strategy, "isolated with bubblewrap: commands see this machine's programs read-only, and its network"
  elseif mode == "bwrap" then
    return nil, "isolation with bubblewrap does not work here: " .. problem
  end
  return unisolated.new(shell()), ("%s (bubblewrap does not work here: %s)."):format(WARNING, problem)
end

return isolation
