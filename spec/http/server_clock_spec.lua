--- The expiry of a sandbox is set by the server's clock: a wrong clock here changes nothing.

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local server_clock = require "opensandbox.http.server_clock"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local real_clock = core.wall_clock

-- Sets the clock of this machine, as it looks to the library.
local function set_back(seconds)
  core.wall_clock = function() return real_clock() - seconds end
end

local function http_date(at) return os.date("!%a, %d %b %Y %H:%M:%S GMT", math.floor(at)) end

after_each(function() core.wall_clock = real_clock end)

describe("the clock of a server", function()
  it("is this machine's until a date has come", function()
    local clock = server_clock.new()
    clock:observe(nil)
    clock:observe("yesterday")
    assert.is_true(math.abs(clock:now() - real_clock()) < 1)
  end)

  it("is as far ahead or behind as the best of the dates says", function()
    for _, ahead in ipairs { 600, -600 } do
      local clock = server_clock.new()
      clock:observe(http_date(real_clock() + ahead - 5)) -- one that came late
      clock:observe(http_date(real_clock() + ahead))
      clock:observe(http_date(real_clock() + ahead - 3))
      local error_of = clock:now() - (real_clock() + ahead)
      assert.is_true(error_of > -1.5 and error_of < 0.5, error_of)
    end
  end)

  it("follows when the server's clock is set back", function()
    local clock = server_clock.new()
    clock:observe(http_date(real_clock() + 3600))
    clock:observe(http_date(real_clock()))
    assert.is_true(math.abs(clock:now() - real_clock()) < 1.5)
  end)

  it("does not move when the clock of this machine is set back", function()
    local clock = server_clock.new()
    clock:observe(http_date(real_clock()))
    set_back(600)
    assert.is_true(math.abs(clock:now() - real_clock()) < 1.5)
  end)
end)

describe("the lifetime of a sandbox", function()
  local server, client, sandbox

  setup(function() server = process.devserver { grace = 0.1 } end)
  teardown(function() server:stop() end)
  before_each(function()
    client = opensandbox.new(server.url, server.key)
    sandbox = assert(client:create { image = "any" })
  end)
  after_each(function()
    core.wall_clock = real_clock
    sandbox:kill()
    client:close()
  end)

  local function remaining()
    return assert(client:get_sandbox(sandbox.id)).expires_at - real_clock()
  end

  for _, seconds in ipairs { 600, -600 } do
    local how = seconds > 0 and "behind" or "ahead of"

    it("is renewed by its seconds when this machine's clock is " .. how .. " the server's", function()
      set_back(seconds)
      assert(sandbox:renew(100))
      assert.is_true(math.abs(remaining() - 100) < 3, remaining())
    end)

    it("is so with the first request of a client", function()
      set_back(seconds)
      local posts = 0
      local fresh = opensandbox.new(server.url, server.key, { on_request = function() posts = posts + 1 end })
      assert(fresh:renew_sandbox(sandbox.id, 100))
      assert.equal(2, posts) -- the first response tells the time
      assert(fresh:renew_sandbox(sandbox.id, 100))
      assert.equal(3, posts)
      fresh:close()
      assert.is_true(math.abs(remaining() - 100) < 3, remaining())
    end)
  end

  it("is kept up by keep_alive when this machine's clock is behind", function()
    assert(sandbox:renew(3))
    set_back(600)
    assert.is_true(sandbox:keep_alive(3))
    assert(sandbox:run("for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.5; done")) -- each line is a reason to look
    assert.is_true(remaining() > 0)
  end)
end)
