--- 1,000 files of 4 KiB up and down in three ways, in a process of its own: directories_work.lua URL KEY DIRECTORY. Prints lines
--- "name=seconds", and "namebytes=kB" for the bodies of the requests and responses.

local core = require "opensandbox.core"
local exchange = require "opensandbox.http.exchange"
local opensandbox = require "opensandbox"

local FILES, SIZE = 1000, 4096

local url, key, directory = arg[1], arg[2], arg[3]
local source = directory .. "/source"
local client = opensandbox.new(url, key)
local trees = 0

local function make_source()
  local bytes = ("0123"):rep(SIZE / 4)
  assert(core.mkdir(source, 448)) -- 0700
  for index = 1, FILES do
    if index % 50 == 1 then assert(core.mkdir(("%s/%02d"):format(source, math.floor((index - 1) / 50)), 448)) end
    local file = assert(io.open(("%s/%02d/%04d"):format(source, math.floor((index - 1) / 50), index), "wb"))
    file:write(bytes)
    file:close()
  end
end

local function change(name)
  local file = assert(io.open(name, "wb"))
  file:write(("4567"):rep(SIZE / 4))
  file:close()
end

-- The names of all files, below `source`.
local function names()
  local list = {}
  for _, below in ipairs(assert(core.list_directory(source))) do
    for _, name in ipairs(assert(core.list_directory(source .. "/" .. below))) do list[#list + 1] = below .. "/" .. name end
  end
  return list
end

-- The bytes of all bodies: those sent are known to the transfers, those received are counted as they are read. A line of output counts as
-- its text and the rest of its event.
local EVENT_SIZE = 60 -- bytes
local transfers, received, start = {}, 0, exchange.start

local counted = {}

function counted.read(transfer, ...)
  local bytes = transfer:read(...)
  received = received + #(bytes or "")
  return bytes
end

function counted.next_output(transfer)
  local stream, text, more = transfer:next_output()
  if text then received = received + #text + EVENT_SIZE end
  return stream, text, more
end

local function watched(transfer)
  return setmetatable({}, { __index = function(_, name)
    local method = counted[name] or transfer[name]
    return function(_, ...) return method(transfer, ...) end
  end })
end

function exchange.start(...)
  local one = start(...)
  transfers[#transfers + 1] = one.transfer
  one.transfer = watched(one.transfer)
  return one
end

local function bytes_so_far()
  local bytes = received
  for _, transfer in ipairs(transfers) do bytes = bytes + select(2, transfer:progress()) end
  return bytes
end

local function say(name, work)
  local began, before = core.now(), bytes_so_far()
  work()
  print(("%s=%.9g"):format(name, core.now() - began))
  print(("%sbytes=%.9g"):format(name, (bytes_so_far() - before) / 1000))
end

-- `tools`: whether its commands find any program.
local function with_sandbox(tools, work)
  local sandbox = assert(client:create { image = "any", entrypoint = { "/usr/bin/tail", "-f", "/dev/null" },
    env = not tools and { PATH = "/none" } or nil })
  assert(sandbox.files:list("/")) -- connected
  work(sandbox.files)
  sandbox:kill()
end

local function target()
  trees = trees + 1
  return directory .. "/target" .. trees
end

make_source()
local list = names()

for _, way in ipairs { { "archive", true }, { "files", false } } do
  with_sandbox(way[2], function(files)
    say(way[1] .. "up", function() assert(assert(files:upload_dir(source, "/work/in")).files == FILES) end)
    say(way[1] .. "down", function() assert(assert(files:download_dir("/work/in", target())).files == FILES) end)
  end)
end

-- Three of the files change. The local directory of the download has all of them from before.
with_sandbox(true, function(files)
  local into, options = target(), { only_changed = true, delete_extra = true }
  assert(files:upload_dir(source, "/work/in"))
  assert(files:download_dir("/work/in", into))
  for index = 1, 3 do change(source .. "/" .. list[index * 300]) end
  say("changedup", function() assert(assert(files:upload_dir(source, "/work/in", options)).files == 3) end)
  say("changeddown", function() assert(assert(files:download_dir("/work/in", into, options)).files == 3) end)
end)

with_sandbox(true, function(files)
  local into = target()
  assert(core.mkdir(into, 448))
  for _, below in ipairs(assert(core.list_directory(source))) do assert(core.mkdir(into .. "/" .. below, 448)) end
  say("singlyup", function()
    for _, name in ipairs(list) do assert(files:upload(source .. "/" .. name, "/work/in/" .. name)) end
  end)
  say("singlydown", function()
    for _, name in ipairs(list) do assert(files:download("/work/in/" .. name, into .. "/" .. name)) end
  end)
end)

client:close()
