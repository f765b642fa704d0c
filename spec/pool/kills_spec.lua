--- Processes that share a pool are killed at random. `make pool-kills` does the same for longer.

local nginx = require "spec.hosts.nginx"
local pool_kills = require "spec.support.pool_kills"
local redis_server = require "spec.support.redis_server"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local LEASE, MAX_SIZE, MIN_IDLE = 2, 12, 3
local SLACK = 3 -- seconds: the next pass of another process, on a machine that is busy

local MAX_QUIT = 5 -- seconds

local function keeps_its_promises(store, processes)
  local report = pool_kills.run {
    store = store, processes = processes, acquisitions = 150, kill_every = 15, seed = 3, lease = LEASE, max_size = MAX_SIZE,
    min_idle = MIN_IDLE, create_ms = 5,
  }
  assert.same({}, report.errors)
  assert.is_true(report.kills > 4 and report.taken_over > 0)
  assert.equal(0, report.given_twice)
  assert.is_true(report.peak <= MAX_SIZE, report.peak .. " sandboxes at a time")
  assert.is_true(report.longest_lost <= LEASE + SLACK, ("%g s until a takeover"):format(report.longest_lost))
  assert.is_true(store == "redis" or report.quit_seconds < MAX_QUIT, "nginx does not quit while it has a pool")
  assert.same({ 0, MIN_IDLE, 0, 0 }, { report.left_by_dead, report.alive, report.busy, report.creating })
end

describe("A shared pool whose processes are killed at random", function()
  it("gives no sandbox to two, loses none, and has never more than max_size, over Redis", function()
    if not redis_server.installed() then return pending("Redis is not installed: " .. redis_server.PACKAGES) end
    keeps_its_promises("redis", 4)
  end)

  if not rawget(_G, "jit") then return end -- nginx's Lua is LuaJIT

  it("gives no sandbox to two, loses none, and has never more than max_size, in nginx, over ngx.shared and over Redis", function()
    if not nginx.installed() then return pending("nginx with its Lua module is not installed: " .. nginx.PACKAGES) end
    if not nginx.core() then return pending "the core for LuaJIT cannot be built: see `make LUA=luajit core`" end
    keeps_its_promises("nginx", 3)
    if not redis_server.installed() then return pending("Redis is not installed: " .. redis_server.PACKAGES) end
    keeps_its_promises("redis in nginx", 3)
  end)
end)
