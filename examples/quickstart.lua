-- A whole workflow: create a sandbox, watch a command run, upload a program, run it, download its result, delete the sandbox.
--
--     make demo                              (starts the development server if no server is named)
--     OPEN_SANDBOX_DOMAIN=https://sandboxes.example.com OPEN_SANDBOX_API_KEY=... make demo

local opensandbox = require "opensandbox"

local started = opensandbox.now()
local last = started

-- Prints a step with the time it took.
local function step(format, ...)
  local now = opensandbox.now()
  print(("%8.1f ms  %s"):format((now - last) * 1000, format:format(...)))
  last = opensandbox.now()
end

local status = os.execute("test -t 1") -- true, or 0 before Lua 5.2, where the output is a terminal
local is_terminal = status == true or status == 0

-- A progress bar that is redrawn in place. Returns nil where the output is a file, because that would keep each state of the bar.
local function bar(what)
  return is_terminal and function(done, total)
    local share = total and total > 0 and done / total or 1
    local width = math.floor(share * 30 + 0.5)
    io.write(("\r             %s [%s%s] %3d%%"):format(what, ("#"):rep(width), ("."):rep(30 - width), math.floor(share * 100)))
    if done == total then io.write("\n") end
    io.flush()
  end or nil
end

local client = opensandbox.new()
print("server       " .. client.url)

local sandbox = assert(client:create {
  image = os.getenv("OPEN_SANDBOX_IMAGE") or "python:3.12",
  timeout = 300,                         -- seconds; it ends by itself should this script be killed
  metadata = { purpose = "quickstart" },
})
step("created sandbox %s", sandbox.id)

-- Output arrives while the command runs.
local result = assert(sandbox:run("for i in 1 2 3; do echo tick $i; sleep 0.3; done", {
  on_stdout = function(text) io.write("             | ", text) end,
}))
step("ran a command: exit code %d, %.2f s", result.exit_code, result.duration)

-- A program of ours, and 8 MiB of data for it.
local input = os.tmpname()
local file = assert(io.open(input, "wb"))
for i = 1, 8 do file:write((("line %d\n"):format(i)):rep(149797)) end
file:close()

assert(sandbox.files:write("/work/count.sh", [[
set -e
wc -l < input.txt > result.txt
sort -u input.txt | tr '\n' ' ' >> result.txt
]], { mode = "0755" }))
assert(sandbox.files:upload(input, "/work/input.txt", { on_progress = bar "upload  " }))
os.remove(input)
step("uploaded a program and its input")

result = assert(sandbox:run({ "sh", "count.sh" }, { cwd = "/work", timeout = 60 }))
step("ran it: exit code %d%s", result.exit_code, result.stderr ~= "" and ", " .. result.stderr or "")

local output = os.tmpname()
assert(sandbox.files:download("/work/result.txt", output, { on_progress = bar "download" }))
for line in io.lines(output) do print("             | " .. line) end
os.remove(output)
step("downloaded the result")

-- A command that fails is a result, not an error.
result = assert(sandbox:run("ls /no/such/directory"))
step("a failing command: exit code %d, %s", result.exit_code, (result.stderr:gsub("\n.*", "")))

assert(sandbox:kill())
step("killed the sandbox")
client:close()
print(("%8.1f ms  in all"):format((opensandbox.now() - started) * 1000))
