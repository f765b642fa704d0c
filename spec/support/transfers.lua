--- Driving transfers of the core from a synchronous test.

local core = require "opensandbox.core"

local transfers = {}

--- Steps until `done()` is true; fails after 10 seconds.
function transfers.step_until(multi, done)
  local deadline = core.now() + 10
  while not done() do
    assert(core.now() < deadline, "nothing happened for 10 s")
    multi:step(1)
  end
end

--- Steps until a transfer has ended, and returns its outcome.
function transfers.finish(multi, transfer)
  transfers.step_until(multi, function() return transfer:outcome() end)
  return transfer:outcome()
end

--- Starts a GET request; `fields` are more fields of it.
function transfers.get(multi, url, fields)
  local request = { method = "GET", url = url, may_repeat = true }
  for name, value in pairs(fields or {}) do request[name] = value end
  return multi:request(request)
end

--- Reads the bytes of the body that are queued.
function transfers.drain(transfer)
  local pieces = {}
  local bytes = transfer:read(1e6)
  while bytes do
    pieces[#pieces + 1] = bytes
    bytes = transfer:read(1e6)
  end
  return table.concat(pieces)
end

return transfers
