--- Lines of output are read by a short cut; it must give what the JSON decoder gives.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"

-- Frames that look like a line of output, or nearly.
local frames = {
  [[{"type":"stdout","text":"plain","timestamp":1}]],
  [[{"type":"stderr","text":"plain","timestamp":1795469296015}]],
  [[{"type":"stdout","text":"","timestamp":1}]],
  [[{"type":"stdout","text":"caf\u00e9 \u003ca\u003e","timestamp":1}]],
  [[{"type":"stdout","text":"quote \" and \\","timestamp":1}]],
  [[{"type":"stdout","text":"\n","timestamp":1}]],
  [[{"type":"stdout","text":"raw ü ]] .. "\194\133" .. [[","timestamp":1}]],
  [[{"type":"stdout","timestamp":1,"text":"another order"}]],
  [[{"type":"stdout","text":"no time"}]],
  [[{"type":"stdout","text":"more","timestamp":1,"type":"stderr"}]],
  [[{"type":"stdout","text":"space", "timestamp":1}]],
  [[{"type":"stdout","text":"float","timestamp":1.5}]],
  [[{"type":"stdout","text":"trailing","timestamp":1} ]],
  [[{"type":"stdwhat","text":"x","timestamp":1}]],
  [[{"type":"stdout","text":5,"timestamp":1}]],
  [[{"type":"stdout"}]],
}

-- Events that are not whole: output may be missing, so what they are in is no result.
local torn = {
  [[{"type":"stdout","text":"none","timestamp":}]],
  [[{"type":"stdout","text":"cut","timestamp":1]],
}

describe("the short cut for lines of output", function()
  it("gives the same result as decoding every event", function()
    local server = fault_server.start([[
      local frames = ]] .. ("%q"):format(table.concat(frames, "\1")):gsub("\\\n", "\\n") .. [[

      return function(request, connection)
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        for frame in frames:gmatch("[^\1]+") do connection:chunk(frame .. "\n\n") end
        connection:event { type = "execution_complete", timestamp = 1 }
        connection:finish()
      end
    ]])
    local client = opensandbox.new(server.url, "key")
    local short = assert(client:run_command(server.url, "x"))
    local long = assert(client:run_command(server.url, "x", { on_event = function() end }))
    client:close()
    server:stop()
    assert.equal(long.stdout, short.stdout)
    assert.equal(long.stderr, short.stderr)
    assert.truthy(short.stdout:find('caf\195\169 <a>\nquote " and \\\n\nraw', 1, true))
    assert.truthy(short.stderr:find("more", 1, true), "the last of two equal keys wins, as in JSON decoders")
  end)

  it("takes no event that is torn", function()
    local server = fault_server.start([[
      local frames = ]] .. ("%q"):format(table.concat(torn, "\1")) .. [[

      local list = {}
      for frame in frames:gmatch("[^\1]+") do list[#list + 1] = frame end
      return function(request, connection)
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        connection:chunk(list[tonumber(request.path:match("%d+"))] .. "\n\n")
        connection:event { type = "execution_complete", timestamp = 1 }
        connection:finish()
      end
    ]])
    local client = opensandbox.new(server.url, "key")
    finally(function()
      client:close()
      server:stop()
    end)
    for index = 1, #torn do
      for _, options in ipairs { {}, { on_event = function() end } } do
        local result, err = client:run_command(server.url .. "/" .. index, "x", options)
        assert.is_nil(result)
        assert.same({ "stream", "broken_event", "" }, { err.kind, err.code, err.result.stdout })
      end
    end
  end)

  it("takes lines that need no decoding, and leaves all others", function()
    local server = fault_server.start [[
      return function(request, connection)
        connection:start(200, {})
        connection:chunk('{"type":"stdout","text":"a","timestamp":1}\n\n{"type":"stdout","text":"\\n","timestamp":1}\n\n')
        connection:finish()
      end
    ]]
    local multi = core.multi()
    local transfer = multi:request { method = "GET", url = server.url, max_event = 1048576 }
    local deadline = core.now() + 10
    while not transfer:outcome() and core.now() < deadline do multi:step(1) end
    assert.same({ "stdout", "a" }, { transfer:next_output() })
    assert.same({ nil, [[{"type":"stdout","text":"\n","timestamp":1}]] }, { transfer:next_output() })
    assert.is_nil((transfer:next_output()))
    multi:close()
    server:stop()
  end)
end)
