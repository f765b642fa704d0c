--- A progress bar on standard error, if that is a terminal.

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local output = require "opensandbox.cli.base.output"
local printable = require "opensandbox.base.printable"
local show = require "opensandbox.cli.base.show"

local progress = {}

local INTERVAL = 0.1 -- seconds between two changes
local MAX_NAME, BAR = 24, 20 -- characters

local function line(name, done, total, seconds)
  local rate = show.bytes(done / math.max(seconds, 0.001)) .. "/s"
  if not total or total == 0 then return ("%s  %s  %s"):format(name, show.bytes(done), rate) end
  local part = math.min(done / total, 1)
  local filled = math.floor(part * BAR)
  local bar = ("#"):rep(filled) .. (" "):rep(BAR - filled)
  return ("%s [%s] %3d%%  %s  %s"):format(name, bar, math.floor(part * 100), show.bytes(done), rate)
end

--- Does some work, and shows how far it is. The bar is removed when the work has ended or failed.
---@param name string
---@param work fun(on_progress?: fun(done: number, total?: number))
function progress.show(name, work)
  if not output.shows_progress() then return work() end
  local short = printable(name:match("[^/]*/*$"), MAX_NAME)
  local begin, shown = core.now(), 0
  local ok, problem = opensandbox.pcall(work, function(done, total)
    local now = core.now()
    if now - shown < INTERVAL then return end
    shown = now
    output.progress(line(short, done, total, now - begin))
  end)
  output.progress("")
  if not ok then error(problem, 0) end
end

return progress
