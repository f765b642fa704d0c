--- A TLS server with a certificate of its own, for tests: it answers every request with a page of OpenSSL's.

local process = require "spec.support.process"
local uv = require "luv"

local openssl_server = {}

local Server = {}
Server.__index = Server

-- Ends with its standard input, so that it does not outlive a test run that crashed.
local SCRIPT = [[
cd "$1" || exit
openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost 2>log || exit
openssl s_server -accept 127.0.0.1:0 -cert certificate -key key -www 2>>log &
read -r line
kill $!
]]

--- Starts a server.
-- @return `port`, `url` (with the host name localhost), `ca_file` (its certificate) and the method `stop`; nil where there is no
-- openssl program
function openssl_server.start()
  local directory = assert(uv.fs_mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/opensandbox-test-XXXXXX"))
  local child = process.start { argv = { "sh", "-c", SCRIPT, "sh", directory } }
  local line = child:read_line(20)
  while line and not line:find("^ACCEPT") do line = child:read_line(20) end
  local port = line and line:match(":(%d+)$")
  local server = setmetatable({ child = child, directory = directory, port = tonumber(port) }, Server)
  server.url, server.ca_file = "https://localhost:" .. tostring(port), directory .. "/certificate"
  if port then return server end
  server:stop()
  return nil
end

function Server:stop()
  self.child:stop()
  for _, name in ipairs { "key", "certificate", "log" } do os.remove(self.directory .. "/" .. name) end
  os.remove(self.directory)
end

return openssl_server
