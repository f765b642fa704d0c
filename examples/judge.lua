-- Judges programs by their input and output: each case NAME.in is the standard input, and NAME.out the expected output.
--
--     lua5.4 examples/judge.lua CASES PROGRAM... [-- COMMAND ARGUMENT...]
--     lua5.4 examples/judge.lua sorting/cases submissions/*.py -- python3
--
-- The program's path in the sandbox is the last argument of the command. Prints a line for each program with its points. A program runs in
-- a sandbox of its own, without a network, and all its cases there, one after the other.

local opensandbox = require "opensandbox"

local IMAGE = os.getenv("IMAGE") or "python:3.12"
local TIME_LIMIT = tonumber(os.getenv("TIME_LIMIT")) or 2 -- seconds for a case
local CONCURRENCY = 4            -- sandboxes
local MAX_OUTPUT = 1024 * 1024   -- bytes of an output

local arguments, command = {}, { "python3" }
local wanted = arguments
for _, argument in ipairs(arg) do
  if argument == "--" and wanted == arguments then
    command = {}
    wanted = command
  else
    wanted[#wanted + 1] = argument
  end
end
local directory = table.remove(arguments, 1)
if #arguments == 0 or #command == 0 then
  io.stderr:write("usage: judge.lua CASES PROGRAM... [-- COMMAND ARGUMENT...]\n")
  os.exit(2)
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

-- The cases: { name, input (a path), expected }.
local cases = {}
local listing = assert(io.popen("ls " .. opensandbox.quote(directory)))
for file in listing:read("*a"):gmatch("[^\n]+") do
  local name = file:match("^(.*)%.in$")
  if name then
    local path = directory .. "/" .. name
    cases[#cases + 1] = { name = name, input = path .. ".in", expected = read(path .. ".out") }
  end
end
listing:close()
assert(#cases > 0, "there is no case: a file NAME.in, and NAME.out beside it")

local client = opensandbox.new()

-- Returns the problem of a result, or nil.
local function fault(result, expected)
  if result.timed_out then return ("no end in %g s"):format(TIME_LIMIT) end
  if result.exit_code ~= 0 then return "failed with " .. (result.signal or result.exit_code) end
  if result.stdout ~= expected then return "wrong output" end
end

local function judge(program)
  local name = program:match("[^/]+$")
  local sandbox, err = client:create { image = IMAGE, timeout = "10m", metadata = { job = "judge" },
    network_policy = opensandbox.egress.none() }
  if not sandbox then return nil, err end
  local argv = {}
  for i, argument in ipairs(command) do argv[i] = argument end
  argv[#argv + 1] = "./" .. name
  local verdict = { points = 0, faults = {} }
  local ok
  ok, err = sandbox.files:upload(program, "/work/" .. name)
  for _, case in ipairs(cases) do
    local result
    if ok then
      result, err = sandbox:run(argv, { cwd = "/work", stdin = { path = case.input }, timeout = TIME_LIMIT, capture = "exact",
        max_output = MAX_OUTPUT })
    end
    if not result then
      sandbox:kill()
      return nil, err
    end
    local problem = fault(result, case.expected)
    if problem then verdict.faults[#verdict.faults + 1] = case.name .. ": " .. problem else verdict.points = verdict.points + 1 end
  end
  sandbox:kill()
  return verdict
end

local verdicts, errors = opensandbox.map(arguments, judge, { concurrency = CONCURRENCY })

local best = true
for i, program in ipairs(arguments) do
  local verdict = verdicts[i]
  if verdict then
    print(("%-30s %d/%d  %s"):format(program, verdict.points, #cases, table.concat(verdict.faults, ", ")))
  else
    print(("%-30s not judged: %s"):format(program, tostring(errors[i])))
  end
  best = best and verdict and verdict.points == #cases
end

client:close()
os.exit(best and 0 or 1)
