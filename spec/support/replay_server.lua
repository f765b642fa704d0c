--- Serves the recorded exchanges of spec/recordings.
--
--     local server = replay_server.start { chunking = "bytes", timing = "none" }
--     local base = server:base("execd/command-echo")    -- http://127.0.0.1:PORT/execd/command-echo
--
-- A client with that base URL that makes the recorded request gets the recorded answer; any other request gets a 599
-- which names the expected request and the received one. Several recordings can share a base, separated by "+"
-- (`execd/command-background+status-unknown`): the first one that matches answers.

local server_process = require "spec.support.server_process"
local json = require "opensandbox.base.json"

local replay_server = {}

--- Starts a server.
-- @param options
-- `chunking`: how the body is cut into chunks: "recorded" (default), "bytes", "whole" or a number, the seed of random
-- sizes; only the cuts differ, never the bytes.
-- `timing`: "recorded" sends each byte and the end when they were recorded, "none" (default) sends all at once.
-- `loose`: set of recordings whose request body is not compared ({["execd/upload-two-files"] = true}); the request
-- header `X-Replay-Loose: 1` has the same effect.
-- @return `url`, `port`, `base(self, name)`, and the methods of server_process.lua: `requests`, `connections`, `stop`
function replay_server.start(options)
  options = options or {}
  local loose = json.array {}
  for name, wanted in pairs(options.loose or {}) do
    if wanted then loose[#loose + 1] = name end
  end
  local server = server_process.start(server_process.path("replay_server_main.lua"), {
    chunking = options.chunking or "recorded", timing = options.timing or "none", loose = loose,
  })
  function server.base(self, name) return self.url .. "/" .. name end
  return server
end

return replay_server
