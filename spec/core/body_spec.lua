--- The body of a request: parts from memory, files and readers, and bodies that cannot be read.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local driving = require "spec.support.transfers"
local temporary = require "spec.support.temporary"

local step_until, finish = driving.step_until, driving.finish

describe("a request body", function()
  local server, multi

  setup(function()
    server = fault_server.start [[
      return {
        on_headers = function(request, connection)
          if request.path == "/refuse" then connection:respond(413, {}, "too much") connection:close() end
        end,
        on_request = function(request, connection) connection:respond(200, {}, "") end,
      }
    ]]
    multi = core.multi()
  end)
  teardown(function()
    multi:close()
    server:stop()
  end)

  local function last_request()
    local all = server:requests()
    return all[#all]
  end

  it("in parts is sent in order, with filenames, and with a length when every part has one", function()
    local path = temporary.file("from a file\0")
    local transfer = multi:request { method = "POST", url = server.url .. "/upload", boundary = "xyz", parts = {
      { name = "metadata", filename = "metadata", type = "application/json", data = '{"a":1}' },
      { name = "file", filename = "file", path = path, size = 12 },
    } }
    assert.equal("complete", (finish(multi, transfer)))
    os.remove(path)
    local request = last_request()
    assert.is_string(request.headers["content-length"])
    local first = request.body:find('name="metadata"; filename="metadata"', 1, true)
    local second = request.body:find('name="file"; filename="file"', 1, true)
    assert.is_true(first < second)
    assert.truthy(request.body:find('\r\n\r\n{"a":1}\r\n', 1, true))
  end)

  it("from a file whose size is not given is chunked, and as long as the file is when it is read", function()
    local path = temporary.path()
    local file = assert(io.open(path, "wb"))
    file:write(("x"):rep(3000000))
    file:flush()
    local function upload(size)
      return multi:request { method = "POST", url = server.url .. "/upload", boundary = "xyz", parts = {
        { name = "file", filename = "file", path = path, size = size },
      } }
    end
    local transfer = upload()
    file:write("and more")
    file:close()
    assert.equal("complete", (finish(multi, transfer)))
    local request = last_request()
    assert.equal("chunked", request.headers["transfer-encoding"])
    assert.truthy(request.body:find("xand more\r\n--xyz", 1, true))
    assert.equal("complete", (finish(multi, upload(10))))
    assert.truthy(last_request().body:find("\r\n\r\nxxxxxxxxxx\r\n--xyz", 1, true))
    local outcome, message = finish(multi, upload(4000000))
    assert.equal("body_failed", outcome)
    assert.truthy(message:find("became shorter", 1, true), message)
    os.remove(path)
  end)

  it("from a reader is chunked, and waits for the reader", function()
    local transfer = multi:request { method = "POST", url = server.url .. "/upload", boundary = "xyz", parts = {
      { name = "file", filename = "file", reader = true },
    } }
    step_until(multi, function() return transfer:wants() end)
    assert.equal(1, transfer:wants())
    assert.is_nil(transfer:write(2, "wrong part"))
    assert.is_true(transfer:write(1, "first "))
    multi:step(0.05)
    assert.is_nil(transfer:outcome())
    assert.is_true(transfer:write(1, "second"))
    assert.is_true(transfer:write(1, nil))
    assert.is_nil(transfer:write(1, "after the end"))
    assert.equal("complete", (finish(multi, transfer)))
    local request = last_request()
    assert.equal("chunked", request.headers["transfer-encoding"])
    assert.truthy(request.body:find("\r\n\r\nfirst second\r\n", 1, true))
  end)

  it("that cannot be read is an error that says why", function()
    local function upload(part)
      part.name, part.filename = "file", "file"
      local transfer = multi:request { method = "POST", url = server.url .. "/upload", boundary = "xyz", parts = { part } }
      while not transfer:outcome() do
        if transfer:wants() then
          transfer:write(1, "12345")
          transfer:write(1, nil)
        end
        multi:step(0.1)
      end
      return transfer:outcome()
    end
    local outcome, message = upload { path = "/no/such/file" }
    assert.equal("body_failed", outcome)
    assert.truthy(message:find("/no/such/file: No such file", 1, true))
    outcome, message = upload { path = "/" }
    assert.equal("body_failed", outcome)
    assert.truthy(message:find("is a directory", 1, true))
    outcome, message = upload { reader = true, size = 3 }
    assert.equal("body_failed", outcome)
    assert.truthy(message:find("more bytes", 1, true))
    outcome, message = upload { reader = true, size = 30 }
    assert.equal("body_failed", outcome)
    assert.truthy(message:find("ended before", 1, true))
  end)

  it("asks its reader for no more than 256 KiB ahead, and takes every byte it is given", function()
    local transfer = multi:request { method = "POST", url = server.url .. "/upload", boundary = "xyz", parts = {
      { name = "file", filename = "file", reader = true, size = 40 * 65536 },
    } }
    step_until(multi, function() return transfer:wants() end)
    local pieces, largest = 0, 0
    while pieces < 40 do
      local ahead = 0
      while pieces < 40 and transfer:wants() do
        assert.is_true(transfer:write(1, ("p"):rep(65536)))
        pieces, ahead = pieces + 1, ahead + 65536
      end
      largest = math.max(largest, ahead)
      multi:step(0.1)
    end
    assert.is_true(largest <= 256 * 1024, "it asked for " .. largest)
    transfer:write(1, nil)
    assert.equal("complete", (finish(multi, transfer)))
    assert.equal(40 * 65536, select(2, transfer:progress()))
  end)

  it("may be refused before it was sent, and the answer is still read", function()
    local transfer = multi:request { method = "POST", url = server.url .. "/refuse", boundary = "xyz", parts = {
      { name = "file", filename = "file", data = ("x"):rep(5000000) },
    } }
    finish(multi, transfer)
    assert.equal(413, (transfer:head()))
  end)

  it("refuses headers that would break out of their line", function()
    assert.has_error(function()
      multi:request { method = "GET", url = server.url, headers = { "X: a\r\nY: b" } }
    end)
  end)
end)
