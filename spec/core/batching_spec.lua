--- Batching: a thick stream of small pieces is read after a short wait, and nothing else waits.

local core = require "opensandbox.core"
local driving = require "spec.support.transfers"
local uv = require "luv"
local uv_loop = require "spec.support.uv_loop"

local HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
local PIECE = "hello"
local WAIT = 500e-6 -- seconds, of batching.h
local ROW = 16 -- reads before the first wait

describe("batching", function()
  local server, peer, multi

  before_each(function()
    server, peer, multi = uv.new_tcp(), nil, core.multi()
    assert(server:bind("127.0.0.1", 0))
    server:listen(8, function()
      peer = uv.new_tcp()
      server:accept(peer)
    end)
  end)

  after_each(function()
    multi:close()
    if peer then uv_loop.close(peer) end
    uv_loop.close(server)
  end)

  -- Starts a request whose stream the test writes itself.
  local function open_stream()
    local transfer = driving.get(multi, ("http://127.0.0.1:%d/"):format(server:getsockname().port))
    driving.step_until(multi, function()
      uv.run("nowait")
      return peer
    end)
    peer:try_write(HEAD)
    driving.step_until(multi, function() return transfer:head() end)
    return transfer
  end

  -- Writes bytes, and returns the seconds until the step that reads them has returned.
  local function read_piece(transfer, bytes)
    local began = core.now()
    peer:try_write(bytes)
    driving.step_until(multi, function() return transfer:read(1e6) end)
    return core.now() - began
  end

  -- Reads many pieces. `plan(index)` returns the bytes of a piece, and the milliseconds to wait before it. Returns the seconds of the first
  -- reads, and of those that batching may delay, both sorted.
  local function read_pieces(transfer, plan)
    local first, later = {}, {}
    for index = 1, 6 * ROW do
      local bytes, pause = plan(index)
      if pause then uv.sleep(pause) end
      table.insert(index < ROW and first or later, read_piece(transfer, bytes))
    end
    table.sort(first)
    table.sort(later)
    return first, later
  end

  it("waits before it reads a piece that follows many others at once", function()
    local first, later = read_pieces(open_stream(), function() return PIECE end)
    assert.is_true(first[1] < WAIT)
    assert.is_true(later[2 * ROW] >= WAIT, "most of the later reads wait")
  end)

  it("goes on waiting after a pause now and then", function()
    local _, later = read_pieces(open_stream(), function(index) return PIECE, index > 2 * ROW and index % ROW == 0 and 1 or nil end)
    assert.is_true(later[3 * ROW] >= WAIT, "most of the later reads wait")
  end)

  it("reads the pieces of a quiet stream at once", function()
    local _, later = read_pieces(open_stream(), function() return PIECE, 1 end)
    assert.is_true(later[2 * ROW] < WAIT)
  end)

  it("reads the pieces of a stream that becomes quiet at once", function()
    local _, later = read_pieces(open_stream(), function(index) return PIECE, index > 2 * ROW and 1 or nil end)
    assert.is_true(later[2 * ROW] < WAIT)
  end)

  it("reads at once what fills the buffer", function()
    local transfer, large, fastest = open_stream(), ("x"):rep(70000), math.huge
    for _ = 1, 2 * ROW do read_piece(transfer, PIECE) end
    for _ = 1, 6 do fastest = math.min(fastest, read_piece(transfer, large)) end -- the first one waits: it follows a small piece
    assert.is_true(fastest < WAIT)
  end)

  it("does not wait while requests are answered one after the other", function()
    local seconds, requests = {}, 0
    local server_url = ("http://127.0.0.1:%d/"):format(server:getsockname().port)
    for index = 1, 4 * ROW do
      local began = core.now()
      local transfer = driving.get(multi, server_url)
      local is_reading
      driving.step_until(multi, function()
        uv.run("nowait")
        -- What is written before the request makes newer versions of libcurl give the connection up.
        if peer and not is_reading then
          is_reading = true
          peer:read_start(function(_, data)
            if not data then return end
            requests = requests + 1
            peer:read_stop()
            peer:try_write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
          end)
        end
        return transfer:outcome()
      end)
      seconds[index] = core.now() - began
    end
    assert.equal(4 * ROW, requests)
    table.sort(seconds)
    assert.is_true(seconds[2 * ROW] < WAIT)
  end)
end)
