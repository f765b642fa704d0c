--- Shared pools under kills: pool_kills.lua [acquisitions] [seed]; default 2000 and 1. Eight processes share a pool in a real Redis, then
--- four workers of nginx share one in ngx.shared, and one of them is killed by SIGKILL for
--- every 30 acquisitions. Fails when a promise is broken.

require("opensandbox.loop").use("pool_kills", "plain") -- the helpers load luv

local nginx = require "spec.hosts.nginx"
local pool_kills = require "spec.support.pool_kills"
local redis_server = require "spec.support.redis_server"

local LEASE, MAX_SIZE, MIN_IDLE = 2, 20, 4
local SLACK = 0.25 -- seconds, on a machine that is busy

local FIELDS = {
  "acquisitions", "seconds", "kills", "given_twice", "made", "peak", "taken_over", "longest_lost", "slowest_delete", "left_by_dead",
  "alive", "idle", "busy", "creating",
}

local RUNS = {
  {
    title = "8 processes, Redis", store = "redis", processes = 8,
    possible = redis_server.installed, needs = redis_server.PACKAGES,
  },
  {
    title = "4 workers, ngx.shared", store = "nginx", processes = 4,
    possible = function() return nginx.installed() and nginx.core() end, needs = nginx.PACKAGES,
  },
}

local function broken_promises(report)
  local list = {}
  local function check(kept, text) if not kept then list[#list + 1] = text end end
  check(report.given_twice == 0, "a sandbox was given to two")
  check(report.peak <= MAX_SIZE, "there were more than max_size")
  check(report.left_by_dead == 0 and report.alive == report.idle, "a sandbox was left behind")
  check(report.longest_lost <= LEASE + SLACK, "a sandbox was lost for longer than the lease")
  check(report.busy == 0 and report.creating == 0, "a place was lost")
  check(#report.errors == 0, "acquire failed: " .. tostring(report.errors[1]))
  return list
end

local failed = false
for _, run in ipairs(RUNS) do
  print(("%s: lease %g s, max_size %d, min_idle %d"):format(run.title, LEASE, MAX_SIZE, MIN_IDLE))
  if run.possible() then
    local report = pool_kills.run {
      store = run.store, processes = run.processes, acquisitions = tonumber(arg[1]) or 2000, seed = tonumber(arg[2]) or 1,
      lease = LEASE, max_size = MAX_SIZE, min_idle = MIN_IDLE, kill_every = 30, create_ms = 5,
    }
    for _, name in ipairs(FIELDS) do print(("  %-16s %g"):format(name, report[name])) end
    for _, text in ipairs(broken_promises(report)) do
      failed = true
      print("  BROKEN: " .. text)
    end
  else
    print("  left out: it needs " .. run.needs)
  end
end
os.exit(not failed, true)
