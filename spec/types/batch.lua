-- Many sandboxes at once, the routes below the objects, and handles between processes.
local opensandbox = require "opensandbox"

local client = opensandbox.new("http://localhost:8080", "key", { use_server_proxy = true })

local results, errors = opensandbox.map({ "3.11", "3.12" }, function(version, index)
  local sandbox = assert(client:create { image = "python:" .. version, metadata = { number = tostring(index) } })
  local same = assert(client:connect(assert(sandbox:handle()), { wait = false }))
  local result = assert(same:run("python3 --version"))
  sandbox:kill { timeout = 5 }
  return result
end, { concurrency = 8 })
print(results and #results, errors)

for _, info in ipairs(assert(client:list_sandboxes { states = { "Running" }, page_size = 50 })) do
  local execd, err = client:discover_execd(info.id)
  if execd then
    print(info.image, info.expires_at, assert(client:get_command_status(execd, "id")).running)
    print(assert(client:get_metrics(execd)).cpu_count)
  else
    print(err)
  end
end
for sandbox, info in client:sandboxes { metadata = { job = "7" } } do print(sandbox.id, info and info.state) end
print(assert(client:kill_all { metadata = { job = "7" } }) + 1)
client:close()
