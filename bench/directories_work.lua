--- 1,000 files of 4 KiB up and down in three ways, in a process of its own: directories_work.lua URL KEY DIRECTORY. Prints lines
--- "name=seconds".

local core = require "opensandbox.core"
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

-- The names of all files, below `source`.
local function names()
  local list = {}
  for _, below in ipairs(assert(core.list_directory(source))) do
    for _, name in ipairs(assert(core.list_directory(source .. "/" .. below))) do list[#list + 1] = below .. "/" .. name end
  end
  return list
end

local function say(name, work)
  local began = core.now()
  work()
  print(("%s=%.9g"):format(name, core.now() - began))
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
