--- TLS in front of a test server, with a certificate of its own.

local process = require "spec.support.process"
local server_process = require "spec.support.server_process"
local temporary = require "spec.support.temporary"

local tls_server = {}

local Relay = {}
Relay.__index = Relay

-- Runs a program to its end; returns its exit code.
local function run(argv)
  local ok, child = pcall(process.start, { argv = argv })
  if not ok then return nil end
  child:close_input()
  return (child:wait(20))
end

--- Starts a relay that takes TLS off for a server on `port`.
-- @return[1] `url`, `ca_file` (the certificate, made for 127.0.0.1), `stop()`
-- @treturn[2] nil where openssl or Python is missing
function tls_server.start(port)
  local directory = temporary.directory()
  local certificate, key = directory .. "/certificate.pem", directory .. "/key.pem"
  local made = run { "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate }
  local child, line
  if made == 0 then
    child = process.start {
      argv = { "python3", server_process.path("tls_relay.py"), certificate, key, tostring(port) },
    }
    line = child:read_line(20)
  end
  if not line then
    if child then child:stop() end
    temporary.remove(directory)
    return nil
  end
  return setmetatable({ url = "https://127.0.0.1:" .. line, ca_file = certificate, child = child, directory = directory }, Relay)
end

function Relay:stop()
  self.child:stop()
  temporary.remove(self.directory)
end

return tls_server
