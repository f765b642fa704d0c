-- A CI matrix: runs one command on one project in several images at once, with the output of each as it comes.
--
--     lua5.4 examples/matrix.lua DIRECTORY IMAGE... -- COMMAND ARGUMENT...
--     lua5.4 examples/matrix.lua . python:3.11 python:3.12 -- python3 -m pytest -q
--
-- The directory is uploaded without what its .gitignore files name. Exits with 0 when the command succeeded in all images.

local opensandbox = require "opensandbox"

local TIME_LIMIT = os.getenv("TIME_LIMIT") or "10m" -- for the command
local JOB = ("matrix-%d"):format(os.time())

local arguments, command = {}, {}
local wanted = arguments
for _, argument in ipairs(arg) do
  if argument == "--" and wanted == arguments then wanted = command else wanted[#wanted + 1] = argument end
end
local directory = table.remove(arguments, 1)
if #arguments == 0 or #command == 0 then
  io.stderr:write("usage: matrix.lua DIRECTORY IMAGE... -- COMMAND ARGUMENT...\n")
  os.exit(2)
end

local client = opensandbox.new()

-- Returns a function that writes text with a label before each line. A line is written when it is complete.
local function labelled(label)
  local rest = ""
  return function(text)
    rest = rest .. text
    rest = rest:gsub("([^\n]*)\n", function(line)
      print(("%-16s | %s"):format(label, line))
      return ""
    end)
  end
end

local function run(image)
  local sandbox, err = client:create { image = image, timeout = "30m", metadata = { job = JOB }, env = { CI = "true" } }
  if not sandbox then return nil, err end
  local count, result
  count, err = sandbox.files:upload_dir(directory, "/work/project", { gitignore = true })
  if count then
    local write = labelled(image)
    result, err = sandbox:run(command, { cwd = "/work/project", timeout = TIME_LIMIT, on_stdout = write, on_stderr = write,
      max_output = 0 })
  end
  sandbox:kill()
  return result, err
end

local results, errors = opensandbox.map(arguments, run)

local failed = 0
print()
for i, image in ipairs(arguments) do
  local result = results[i]
  local outcome
  if not result then
    outcome = "not run: " .. tostring(errors[i])
  elseif result.timed_out then
    outcome = "stopped after " .. TIME_LIMIT
  else
    outcome = result.exit_code == 0 and "passed" or "failed with " .. (result.signal or result.exit_code)
  end
  if outcome ~= "passed" then failed = failed + 1 end
  print(("%-16s %7.1f s  %s"):format(image, result and result.duration or 0, outcome))
end

client:close()
os.exit(failed == 0 and 0 or 1)
