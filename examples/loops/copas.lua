--- copas: a server that runs each line it is sent in a sandbox, for many connections at once. Try it with `nc 127.0.0.1 7070`.

local copas = require "copas"
local opensandbox = require "opensandbox"
local socket = require "socket"

local client = opensandbox.new(nil, nil, { loop = "copas" }) -- so that handlers may call it, not only tasks
local sandbox = opensandbox.assert(client:create { image = "python:3.12" })

copas.addserver(assert(socket.bind("127.0.0.1", 7070)), function(connection)
  local line = copas.receive(connection)
  while line do
    local result, err = sandbox:run(line, { timeout = 30 })
    copas.send(connection, result and result.stdout .. result.stderr or tostring(err) .. "\n")
    line = copas.receive(connection)
  end
end)

copas.loop()
