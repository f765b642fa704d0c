--- Following a command in the background until it has ended, by its log and its status.

local backoffs = require "opensandbox.loop.backoff"
local loop = require "opensandbox.loop"

local Follow = {}
Follow.__index = Follow

--- What has been written since: text, and the cursor behind it; or nil, nil and the last status, once all was read; or nil, nil, nil and
--- an error, after which it can be called again.
---@return string? text
---@return integer? cursor
---@return opensandbox.CommandStatus? status
---@return opensandbox.Error? err
function Follow:next()
  local backoff = backoffs.new()
  while true do
    local log, err = self.logs(self.cursor)
    if not log then return nil, nil, nil, err end
    self.cursor = log.cursor
    if log.text ~= "" then return log.text, log.cursor end
    -- It had ended before this look, so there will be no more.
    if self.status then return nil, nil, self.status end
    local status
    status, err = self.look()
    if not status then return nil, nil, nil, err end
    if status.running then
      err = loop.sleep(self.op, backoff:next(), nil, self.owner)
      if err then return nil, nil, nil, err end
    else
      self.status = status
    end
  end
end

--- @param source table op; logs(cursor) and look(), as routes.logs and routes.status; cursor: where to begin; owner: see loop.wait
return function(source)
  return setmetatable(source, Follow)
end
