--- One measurement of the library, in a process of its own: work.lua WORK URL [argument ...]. Prints lines "name=value".

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local statistics = require "bench.statistics"

local MIB = 1024 * 1024

local work = {}

local function say(name, value)
  print(("%s=%.9g"):format(name, value))
end

local function peak_memory()
  local file = io.open("/proc/self/status")
  if not file then return 0 end
  local text = file:read("*a")
  file:close()
  return tonumber(text:match("VmHWM:%s*(%d+)")) / 1024
end

-- Does `transfer(bytes)` once small, to have everything loaded, and once in full. Says seconds, processor seconds, and by how many
-- MiB the peak of memory grew.
local function measure(transfer, size)
  transfer(MIB)
  local peak, processor, began = peak_memory(), os.clock(), core.now()
  transfer(size)
  say("seconds", core.now() - began)
  say("processor", os.clock() - processor)
  say("growth", peak_memory() - peak)
end

-- `count` commands, one after the other: "after" is from the terminal event to the return, "whole" the whole call.
function work.latency(client, url, count)
  local after, whole = {}, {}
  local ended
  local options = { on_event = function(event) ended = event.monotonic or ended end }
  for index = 1, tonumber(count) do
    local began = core.now()
    assert(client:run_command(url, "true", options))
    local now = core.now()
    after[index], whole[index] = (now - ended) * 1000, (now - began) * 1000
  end
  for name, values in pairs { after = after, whole = whole } do
    say(name .. "median", statistics.median(values))
    say(name .. "high", statistics.quantile(values, 0.99))
  end
end

function work.download(client, url, size)
  measure(function(bytes)
    local reader = assert(client:download_file(url, ("/size/%d"):format(bytes)))
    local got = 0
    while true do
      local piece, err = reader:read()
      if not piece then
        assert(not err, tostring(err))
        break
      end
      got = got + #piece
    end
    assert(got == bytes)
  end, tonumber(size))
end

function work.downloadfile(client, url, size, path)
  local files = require("opensandbox.files").of { id = "bench", client = client, endpoint = function() return url end }
  measure(function(bytes)
    os.remove(path) -- a new file, as for curl: ext4 writes out what replaces an old one by rename
    assert(files:download(("/size/%d"):format(bytes), path))
  end, tonumber(size))
end

local function upload(client, url, file)
  file.path = "/tmp/bench"
  assert(client:upload_files(url, { file }))
end

function work.uploadpath(client, url, size, path, small)
  measure(function(bytes)
    upload(client, url, { file = bytes == MIB and small or path })
  end, tonumber(size))
end

function work.uploadhandle(client, url, size, path, small)
  measure(function(bytes)
    local handle = assert(io.open(bytes == MIB and small or path, "rb"))
    upload(client, url, { content = handle })
    handle:close()
  end, tonumber(size))
end

function work.uploadreader(client, url, size)
  local piece = ("x"):rep(64 * 1024)
  measure(function(bytes)
    local left = bytes / #piece
    upload(client, url, { content = function()
      left = left - 1
      return left >= 0 and piece or nil
    end })
  end, tonumber(size))
end

-- The cost of reading `count` events, in processor time of this process.
function work.events(client, url, count, how)
  local options, seen = {}, 0
  if how == "callback" then options.on_stdout = function() seen = seen + 1 end end
  if how == "small" then options.max_output = 1024 end
  assert(client:run_command(url, "events 1000"))
  local peak, processor, began = peak_memory(), os.clock(), core.now()
  local result = assert(client:run_command(url, ("events %d"):format(count), options))
  say("processor", os.clock() - processor)
  say("seconds", core.now() - began)
  say("growth", peak_memory() - peak)
  local line = #"line 0000001 of the benchmark\n"
  assert(#result.stdout + result.stdout_dropped == count * line)
  assert(how ~= "callback" or seen == tonumber(count))
end

local function stats(client, url)
  return assert(client.http:call_endpoint(url, { op = "stats", method = "GET", path = "/stats",
    decode = function(answer) return answer end }))
end

-- The milliseconds from the terminal event of a thick stream to the return.
function work.terminalevent(client, url, count)
  assert(client:run_command(url, ("events %d"):format(count), { max_output = 1024 }))
  local now = core.now()
  say("after", (now - stats(client, url).ended) * 1000)
end

function work.reuse(client, url, count)
  local observer = opensandbox.new(url)
  local before = stats(observer, url).connections
  local processor, began = os.clock(), core.now()
  for _ = 1, tonumber(count) do assert(client:ping(url)) end
  say("seconds", core.now() - began)
  say("processor", os.clock() - processor)
  say("connections", stats(observer, url).connections - before)
end

local name, url = arg[1], arg[2]
local client = opensandbox.new(url)
work[name](client, url, (table.unpack or unpack)(arg, 3)) -- luacheck: ignore 113 143
client:close()
