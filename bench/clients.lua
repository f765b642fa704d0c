--- The library beside what people would use instead: the official Python and JavaScript SDKs and curl. Each work is a process of its own;
-- the clients take turns, on the same development server.

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local chart = require "bench.chart"
local process = require "spec.support.process"
local programs = require "bench.programs"
local scratch = require "bench.scratch"
local statistics = require "bench.statistics"

local shown = statistics.shown

local EXECD_PORT = 44772
local ROUNDS = 3
local SIZE = 256 * 1024 * 1024 -- bytes of a file
local CHART = "build/bench.svg"

local CLIENTS = {
  { name = "opensandbox (Lua)", argv = { process.lua(), "bench/clients/work.lua" } },
  { name = "Python SDK 1.1.1", argv = { "build/python-1.1/bin/python", "bench/clients/work.py" },
    installed = "build/python-1.1/installed" },
  { name = "JavaScript SDK 0.1.11", argv = { "node", "bench/clients/work.mjs" }, installed = "build/js/installed" },
  { name = "curl", is_curl = true },
}

-- The works, and the figure of each that is compared. The server shares the processors with its clients: the seconds of a work with much
-- output are above all its own.
local WORKS = {
  { name = "start", title = "start of a program", figure = "start", unit = "ms" },
  { name = "roundtrip", title = "round trip of a command", figure = "median", unit = "ms" },
  { name = "lines", title = "200,000 lines of output", figure = "processor", unit = "s of processor" },
  { name = "lines", title = "200,000 lines of output", figure = "peak", unit = "MiB" },
  { name = "upload", title = "256 MiB up", figure = "seconds", unit = "s" },
  { name = "upload", title = "256 MiB up", figure = "peak", unit = "MiB" },
  { name = "download", title = "256 MiB down", figure = "seconds", unit = "s" },
  { name = "download", title = "256 MiB down", figure = "peak", unit = "MiB" },
  { name = "many", title = "100 commands of 0.5 s at once", figure = "seconds", unit = "s" },
  { name = "sandboxes", title = "200 sandboxes, 32 at a time", figure = "seconds", unit = "s" },
  { name = "sandboxes", title = "200 sandboxes, 32 at a time", figure = "processor", unit = "s of processor" },
}

local function exists(path)
  local file = io.open(path)
  return file and file:close()
end

-- curl alone, at execd's own routes. Returns the figures, or nil for a work that curl cannot do by itself.
local curl_works = {}

function curl_works.start()
  local _, seconds = programs.run { "curl", "--version" }
  return { start = seconds * 1000 }
end

-- A call of curl with the headers of an endpoint.
local function curl(endpoint, ...)
  local argv = { "curl", "-sS", "--fail", "-o", "/dev/null" }
  for name, value in pairs(endpoint.headers) do
    argv[#argv + 1] = "-H"
    argv[#argv + 1] = name .. ": " .. value
  end
  for _, argument in ipairs { ... } do argv[#argv + 1] = argument end
  return argv
end

local function post(endpoint, command)
  return curl(endpoint, "-N", "-H", "Content-Type: application/json", "-d", ('{"command":"%s"}'):format(command),
    endpoint.url .. "/command")
end

function curl_works.roundtrip(endpoint)
  local _, seconds = programs.run(post(endpoint, "true"))
  return { median = seconds * 1000 }
end

function curl_works.lines(endpoint)
  return { processor = programs.processor(post(endpoint, "seq 200000")) }
end

function curl_works.upload(endpoint, path)
  local metadata = 'metadata={"path":"/tmp/big"};filename=metadata;type=application/json'
  local _, seconds = programs.run(curl(endpoint, "-F", metadata, "-F", "file=@" .. path, endpoint.url .. "/files/upload"))
  return { seconds = seconds }
end

function curl_works.download(endpoint, path)
  local _, seconds = programs.run(curl(endpoint, "-o", path .. ".down", endpoint.url .. "/files/download?path=/tmp/big"))
  os.remove(path .. ".down")
  return { seconds = seconds }
end

-- Does a work with curl, in a sandbox that our client makes.
local function with_curl(_, work, server, path)
  local run = curl_works[work]
  if not run then return {} end
  local client = opensandbox.new(server.url, server.key)
  local sandbox = assert(client:create { image = "any" })
  if work == "download" then assert(sandbox:run(("head -c %d /dev/zero > /tmp/big"):format(SIZE))) end
  local figures = run(assert(sandbox:endpoint(EXECD_PORT)), path)
  assert(sandbox:kill())
  client:close()
  return figures
end

local function with_client(client, work, server, path)
  local argv = { client.argv[1], client.argv[2], work, server.url, server.key, path }
  local began = core.now()
  local figures = programs.figures(argv)
  figures.start = (core.now() - began) * 1000
  return figures
end

-- The figures of a work by client: the best of the rounds.
local function measure(work, clients, server, path)
  local best = {}
  for _ = 1, ROUNDS do
    for _, client in ipairs(clients) do
      local measure_one = client.is_curl and with_curl or with_client
      local figures = measure_one(client, work, server, path)
      best[client] = best[client] or {}
      for name, value in pairs(figures) do best[client][name] = math.min(best[client][name] or math.huge, value) end
    end
  end
  return best
end

local function print_row(...)
  print((("%-48s %12s" .. (" %22s"):rep(3)):format(...):gsub("%s+$", "")))
end

-- Measures, prints a row for each work, and draws the picture.
local function measure_all(report, clients, names, path)
  local server = process.devserver { grace = 1 }
  local ok, problem = pcall(function()
    local measured, rows = {}, {}
    for _, work in ipairs(WORKS) do
      measured[work.name] = measured[work.name] or measure(work.name, clients, server, path)
      local values = {}
      for index, client in ipairs(clients) do values[index] = measured[work.name][client][work.figure] end
      rows[#rows + 1] = { title = work.title, unit = work.unit, values = values }
      print_row(("  %s, %s"):format(work.title, work.unit), shown(values[1]), shown(values[2]), shown(values[3]), shown(values[4]))
      io.stdout:flush()
    end
    chart.write(CHART, names, rows)
    report:note("picture: " .. CHART)
  end)
  server:stop()
  if not ok then error(problem, 0) end
end

return function(report)
  local clients = {}
  for _, client in ipairs(CLIENTS) do
    if client.installed and not exists(client.installed) then
      report:note(("%s is not measured: it is not installed (make sdks does that)"):format(client.name))
    else
      clients[#clients + 1] = client
    end
  end
  local names = {}
  for index = 1, 4 do names[index] = clients[index] and clients[index].name or "" end
  print("")
  print_row("CLIENTS  best of " .. ROUNDS, names[1]:match("%S+"), names[2], names[3], names[4])
  scratch.with(function(files)
    measure_all(report, clients, names, files:sparse("big", SIZE))
  end)
end
