-- A script as people write it for CI: a directory up, a command, artifacts down.
local opensandbox = require "opensandbox"

local client = opensandbox.new(nil, os.getenv("KEY"), { timeout = 60, retry = { max_attempts = 5 } })
local sandbox, err = client:create {
  image = "python:3.12", timeout = "30m", env = { CI = "1" }, metadata = { job = "7" },
  network_policy = opensandbox.egress.only("pypi"),
  on_state = function(info) print(info.state, info.message) end,
}
if not sandbox then
  io.stderr:write("failed: " .. err, "\n")
  os.exit(1)
end

local count = assert(sandbox.files:upload_dir(".", "/work", { gitignore = true, ignore = { "*.o" } }))
print(("%d files, %d bytes"):format(count.files, count.bytes))

local result, problem = sandbox:run("make test", { cwd = "/work", timeout = "10m", on_stdout = io.write })
if result then
  if result.timed_out then print("stopped") end
  assert(sandbox.files:download_dir("/work/out", "out", { verify = true }))
elseif problem and problem.kind == "stream" and problem.result then
  io.write(problem.result.stdout)
end

sandbox:kill()
os.exit(result and result.exit_code or 1)
