--- OpenSandbox for Lua: create a sandbox, run commands in it, move files in and out, throw it away.
--
--     local opensandbox = require "opensandbox"
--     local client = opensandbox.new()
--     local sandbox <close> = assert(client:create { image = "python:3.12" })
--     print(assert(sandbox:run("python3 --version")).stdout)

local clients = require "opensandbox.client"
local core = require "opensandbox.core"
local errors = require "opensandbox.errors"
local sandboxes = require "opensandbox.sandbox"
local shell = require "opensandbox.shell"

clients.Client.create = sandboxes.create
clients.Client.connect = sandboxes.connect

return {
  _VERSION = require "opensandbox.version",
  EXECD_PORT = 44772,
  EGRESS_PORT = 18080,
  new = clients.new,
  is_error = errors.is,
  quote = shell.quote,
  now = core.now, -- seconds on the monotonic clock, for measuring
}
