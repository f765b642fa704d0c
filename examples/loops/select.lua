--- luasocket: a loop of your own around select(). The client stands in it like a socket.

local opensandbox = require "opensandbox"
local socket = require "socket"

local client = opensandbox.new()
local listener = assert(socket.bind("127.0.0.1", 0)) -- stands for what else your program does

local task = opensandbox.spawn(function()
  local sandbox = opensandbox.assert(client:create { image = "python:3.12" })
  local result = opensandbox.assert(sandbox:run("sleep 2; echo done", { timeout = 30 }))
  print(result.exit_code, result.stdout)
  sandbox:kill()
end)

while not task:done() do
  local readable = socket.select({ client, listener }, nil, client:timeout())
  if readable[listener] then listener:accept():close() end
  client:step(0) -- also when nothing is readable: its time may have come
end
listener:close()
client:close()
task:wait() -- raises the error that the task raised
