--- A file as the standard input of a command, or uploaded: stdin_work.lua "stdin"|"three"|"unread"|"upload" URL KEY PATH. Prints lines "name=value".

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local procfs = require "spec.support.procfs"

local work, url, key, path = arg[1], arg[2], arg[3], arg[4]

local works = {}

function works.stdin(sandbox)
  assert(assert(sandbox:run("cat > /dev/null", { stdin = { path = path } })).exit_code == 0)
end

function works.unread(sandbox)
  assert(assert(sandbox:run("true", { stdin = { path = path } })).exit_code == 0)
end

function works.upload(sandbox)
  assert(sandbox.files:upload(path, "/tmp/input"))
end

function works.three(sandbox)
  works.upload(sandbox)
  assert(assert(sandbox:run("cat > /dev/null < /tmp/input")).exit_code == 0)
  assert(sandbox.files:remove("/tmp/input"))
end

local client = opensandbox.new(url, key)
local sandbox = assert(client:create { image = "any" })
assert(sandbox:run("true")) -- the connection is open, and every file of the library that both need is loaded
local peak, began = procfs.rss().peak, core.now()
works[work](sandbox)
print(("seconds=%.9g"):format(core.now() - began))
print(("growth=%.9g"):format((procfs.rss().peak - peak) / 1024))
client:close()
