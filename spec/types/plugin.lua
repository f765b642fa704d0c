-- A function of a Neovim plugin: a task, callbacks, a command in the background.
local opensandbox = require "opensandbox"

local M = {}

---@type opensandbox.Client?
local client
---@type opensandbox.Task?
local running

---@param lines string[]
---@param show fun(text: string)
function M.run(lines, show)
  running = opensandbox.spawn(function()
    client = client or opensandbox.new()
    local sandbox = assert(client:create { image = "python:3.12", keep_alive = 300 })
    assert(sandbox.files:write("/tmp/buffer.py", table.concat(lines, "\n")))
    local command = assert(sandbox:start({ "python3", "/tmp/buffer.py" }, { env = { PYTHONUNBUFFERED = "1" } }))
    for event in command:events() do
      if event.type == "output" then show(event.text) else show(("[exit code %d]"):format(event.exit_code)) end
    end
    sandbox:close()
  end)
end

function M.stop()
  if running and not running:done() then running:cancel() end
end

return M
