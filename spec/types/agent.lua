-- An agent's tools: a kernel, a shell, files, ports, network policy, a snapshot.
local opensandbox = require "opensandbox"

local sandbox = assert(opensandbox.new():connect("id"))

local python = assert(sandbox:code("python", { cwd = "/work" }))
local cell = assert(python:run("6 * 7", { timeout = 10, on_result = function(result) print(result["text/plain"]) end }))
if cell.error then print(cell.error.name) else print(cell.text, #cell.results) end

local shell = assert(sandbox:session { cwd = "/work" })
print(assert(shell:run("pwd", { timeout = 5 })).stdout)

local isolated = assert(sandbox:isolated { workspace = "/work", mode = "overlay", max_idle = "1h" })
print(assert(isolated:run("ls", { env = { LC_ALL = "C" } })).session_ended)

for _, file in ipairs(assert(sandbox.files:search("/work", "*.py"))) do print(file.path, file.size, file.mode) end
for line in assert(sandbox.files:open("/work/log")):lines() do print(line) end
print(assert(sandbox.files:replace("/work/a", "old", "new")))

assert(sandbox:wait_for_port(8000, { timeout = "1m" }))
print(assert(sandbox:endpoint(8000)).url)
assert(sandbox.egress:allow("github"))
print(assert(sandbox.vault:get()).revision, assert(sandbox:metrics()).memory_used)
local snapshot = assert(sandbox:snapshot("state"))
print(snapshot.id, assert(sandbox:renew("1h")), assert(sandbox:info()).metadata.job)
