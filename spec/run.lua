--- The tests, on the Lua that runs this file: lua spec/run.lua [options] [FILE | DIRECTORY ...]
--
-- One file runs in this process. Several run in processes of their own, those that took longest first. Tests with "#alone" in their names
-- run after the others while no other file does: each holds a bound of milliseconds, which says little on a busy machine. A line is printed
-- for each file that has run, then all the output of those in which something failed, then the totals.
--
--   --jobs=N          how many files run at a time
--   --limit=SECONDS   how long a file may run
--   --retry           run a file in which something failed a second time, alone; what fails twice has failed
--   --noalone         leave out the tests with "#alone"
--   --output=HANDLER  busted's output handler; the output of every file is printed then
--   any other option is busted's

local uv = require "luv"
local unpack = rawget(table, "unpack") or rawget(_G, "unpack")

-- A sanitizer's runtime is for Lua and our core, not for every program that a test starts; process.lua gives it to Lua children.
uv.os_unsetenv("LD_PRELOAD")

local FILES_PER_PROCESSOR = 5 -- most files wait more than they compute
local LIMIT = 180 -- seconds
local SECONDS_FILE = "build/spec-seconds"

local paths, busted_options, own = {}, {}, {}
for _, argument in ipairs(arg) do
  local name, value = argument:match("^%-%-(%l+)=?(.*)$")
  if name == "jobs" or name == "limit" then
    own[name] = tonumber(value) or error(argument .. " is not a number")
  elseif name == "retry" or name == "noalone" then
    own[name] = true
  elseif argument:sub(1, 1) == "-" then
    own.output = own.output or name == "output"
    busted_options[#busted_options + 1] = argument
  else
    paths[#paths + 1] = argument
  end
end

local selection = require "spec.runner.selection"
local temporary = require "spec.support.temporary"
local workspace = require "spec.runner.workspace"
local files = assert(selection.find(#paths > 0 and paths or { "spec" }))

-- The command that started this program, without its arguments: options of the interpreter belong to it.
local function command()
  local list, first = {}, 0
  while arg[first - 1] do first = first - 1 end
  for i = first, 0 do list[#list + 1] = arg[i] end
  list[1] = os.getenv("LUA") or list[1]
  for _, option in ipairs(busted_options) do list[#list + 1] = option end
  return list
end

-- busted itself in this process; its own script starts whichever Lua it was installed for.
local function run_here(file)
  if not own.output then table.insert(busted_options, 1, "--output=utfTerminal") end
  if os.getenv("OPENSANDBOX_TEST_EVENTS") then table.insert(busted_options, 1, "--helper=spec/runner/reporter.lua") end
  local arguments = { unpack(busted_options) }
  arguments[#arguments + 1] = file
  for i, argument in pairs(arg) do
    if i <= 0 then arguments[i] = argument end
  end
  rawset(_G, "arg", arguments)
  require "busted.runner"({ standalone = false })
end

local function print_result(result, is_retry)
  local good = result.failure + result.error == 0
  local note = is_retry and (good and "   passed at the second try" or "   failed twice") or ""
  if own.output and good then io.write("\n", result.output) end
  io.write(("%s %6.1f s %5d  %s%s\n"):format(good and "ok  " or "FAIL", result.seconds,
    result.success + result.failure + result.error, result.run.name, note))
  io.flush()
end

local function plural(count, one, many) return ("%d %s"):format(count, count == 1 and one or many) end

local function print_totals(results, seconds)
  local total = { success = 0, failure = 0, error = 0, pending = 0 }
  for _, result in ipairs(results) do
    for name, count in pairs(total) do total[name] = count + result[name] end
  end
  for _, result in ipairs(results) do
    for _, reason in ipairs(result.reasons) do io.write(("\nPending -> %s\n%s\n"):format(result.run.file, reason)) end
  end
  for _, result in ipairs(results) do
    if result.failure + result.error > 0 then io.write("\n", result.run.name, "\n", result.output) end
  end
  io.write(("\n%s / %s / %s / %d pending : %.1f seconds\n"):format(plural(total.success, "success", "successes"),
    plural(total.failure, "failure", "failures"), plural(total.error, "error", "errors"), total.pending, seconds))
  return total.failure + total.error == 0
end

local function run_suite()
  local seconds = selection.read_seconds(SECONDS_FILE)
  local shared, alone = selection.divide(files, seconds)
  if own.noalone then alone = {} end
  if not own.output then table.insert(busted_options, 1, "--output=plainTerminal") end
  local directory = workspace.make()
  local began = uv.hrtime()
  local results, signal = require("spec.runner.suite").run(shared, alone, {
    command = command(), directory = directory, limit = own.limit or LIMIT, retry = own.retry,
    jobs = own.jobs or FILES_PER_PROCESSOR * #uv.cpu_info(), preload = os.getenv("OPENSANDBOX_TEST_PRELOAD"),
  }, print_result)
  temporary.remove(directory)
  for _, result in ipairs(results) do
    if result.run.file:sub(1, 1) ~= "/" then seconds[result.run.name] = result.seconds end -- of this tree
  end
  selection.write_seconds(SECONDS_FILE, seconds)
  local good = print_totals(results, (uv.hrtime() - began) / 1e9)
  if signal then
    io.stderr:write(("Interrupted by signal %d\n"):format(signal))
    os.exit(128 + signal)
  end
  os.exit(good and 0 or 1)
end

if #files == 1 then run_here(files[1]) else run_suite() end
