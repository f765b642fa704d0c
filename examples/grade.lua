-- Grades submissions: each directory is uploaded into a sandbox of its own, where a check runs with a time limit, several at once.
--
--     lua5.4 examples/grade.lua submissions/* [-- check command]
--
-- Prints a line for each, then the output of the failed checks. Exits with 0 when all passed.

local opensandbox = require "opensandbox"

local IMAGE = os.getenv("IMAGE") or "python:3.12"
local TIME_LIMIT = tonumber(os.getenv("TIME_LIMIT")) or 20 -- seconds for a check
local CONCURRENCY = 4          -- sandboxes
local SHOWN = 2000             -- bytes of a failed check's output

local submissions, check = {}, { "python3", "-m", "unittest", "-v" }
local wanted = submissions
for _, argument in ipairs(arg) do
  if argument == "--" then
    check = {}
    wanted = check
  else
    wanted[#wanted + 1] = argument
  end
end
if #submissions == 0 or #check == 0 then
  io.stderr:write("usage: grade.lua DIRECTORY... [-- CHECK ARGUMENT...]\n")
  os.exit(2)
end

local client = opensandbox.new()

local function grade(directory)
  local sandbox, err = client:create { image = IMAGE, timeout = 300, metadata = { job = "grade" } }
  if not sandbox then return nil, err end
  local ok, result
  ok, err = sandbox.files:upload_dir(directory, "/work/submission")
  if ok then
    result, err = sandbox:run(check, { cwd = "/work/submission", timeout = TIME_LIMIT, max_output = SHOWN })
  end
  sandbox:kill()
  return result, err
end

local results, errors = opensandbox.map(submissions, grade, { concurrency = CONCURRENCY })

local passed = 0
for i, directory in ipairs(submissions) do
  local result = results[i]
  local verdict
  if not result then
    verdict = "not graded: " .. tostring(errors[i])
  elseif result.exit_code == 0 then
    verdict, passed = "passed", passed + 1
  elseif result.timed_out then
    verdict = ("did not end in %g s"):format(TIME_LIMIT)
  else
    verdict = "failed with " .. (result.signal or result.exit_code)
  end
  print(("%-30s %6.2f s  %s"):format(directory, result and result.duration or 0, verdict))
end
for i, directory in ipairs(submissions) do
  local result = results[i]
  if result and result.exit_code ~= 0 then print(("\n== %s\n%s%s"):format(directory, result.stdout, result.stderr)) end
end

client:close()
os.exit(passed == #submissions and 0 or 1)
