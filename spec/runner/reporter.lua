--- busted's helper in the process of one spec file: it reports events to the runner, one a line.
--
-- The runner names a file in OPENSANDBOX_TEST_EVENTS. Each line is an event and a text: "start NAME", "success SECONDS", "failure SECONDS",
-- "error", "pending REASON", and "end", which is missing when the process ended before its tests did.

local busted = require "busted"
local uv = require "luv"

local path = os.getenv("OPENSANDBOX_TEST_EVENTS")
uv.os_unsetenv("OPENSANDBOX_TEST_EVENTS") -- it is not meant for programs that tests start
local file = assert(uv.fs_open(path, "a", 384)) -- libuv's descriptors are not inherited

local function report(event, text)
  uv.fs_write(file, event .. " " .. tostring(text or ""):gsub("%s+", " ") .. "\n", -1)
end

local function full_name(element)
  local names = {}
  while element and element.descriptor ~= "file" and element.descriptor ~= "suite" do
    table.insert(names, 1, element.name or element.descriptor)
    element = busted.parent(element)
  end
  return table.concat(names, " ")
end

local reasons = {} -- of pending tests, by element

busted.subscribe({ "test", "start" }, function(element)
  report("start", full_name(element))
  return nil, true
end)

busted.subscribe({ "pending" }, function(element, _, message)
  -- busted puts a position before it.
  reasons[element] = type(message) == "string" and message:gsub("^[^\n]-:%d+: ", "") or nil
  return nil, true
end)

busted.subscribe({ "test", "end" }, function(element, _, status)
  if status == "pending" then
    local reason = reasons[element]
    report("pending", full_name(element) .. (reason and ": " .. reason or ""))
  elseif status ~= "error" then -- which has an event of its own
    report(status, ("%.3f"):format(element.duration))
  end
  return nil, true
end)

-- busted counts a failure outside of a test as an error.
busted.subscribe({ "failure" }, function(element)
  if element.descriptor ~= "it" then report "error" end
  return nil, true
end)

busted.subscribe({ "error" }, function()
  report "error"
  return nil, true
end)

busted.subscribe({ "exit" }, function()
  report "end"
  return nil, true
end)
