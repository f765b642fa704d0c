--- The event-stream decoder: what an event is, and that it makes no difference how the stream was cut.

local core = require "opensandbox.core"

local LIMIT = 1024 * 1024

-- Takes the complete events into `list`; returns the name of a failure.
local function take(decoder, list)
  while true do
    local event, failure = decoder:next()
    if not event then return failure end
    list[#list + 1] = event
  end
end

-- Decodes a stream that comes in pieces, taking events after every piece; `list.failure` is the name of a failure.
local function decode(pieces, limit)
  local decoder, list = core.event_stream(limit or LIMIT), {}
  for _, piece in ipairs(pieces) do
    decoder:feed(piece)
    list.failure = take(decoder, list)
    if list.failure then break end
  end
  decoder:finish()
  list.failure = take(decoder, list)
  return list
end

local function bytes_of(text)
  local pieces = {}
  for position = 1, #text do pieces[position] = text:sub(position, position) end
  return pieces
end

local function flat(list)
  local parts = {}
  for _, event in ipairs(list) do parts[#parts + 1] = ("%d:%s"):format(#event, event) end
  return table.concat(parts, "|") .. (list.failure and "|failure " .. list.failure or "")
end

-- Each: what it shows, the stream, and its events.
local examples = {
  { "bare JSON objects, as execd sends them", '{"a":1}\n\n{"b":2}\n\n', { '{"a":1}', '{"b":2}' } },
  { "metrics, with a single newline after each", '{"a":1}\n{"b":2}\n{"c":3}\n', { '{"a":1}', '{"b":2}', '{"c":3}' } },
  { "no bytes at all", "", {} },
  { "empty lines alone", "\n\n\r\n\n", {} },
  { "data: with a space", "data: x\n\n", { "x" } },
  { "data: without a space", "data:x\n\n", { "x" } },
  { "only one space after the colon is not data", "data:  x \n\n", { " x " } },
  { "a colon in the data", "data: a:b: c\n\n", { "a:b: c" } },
  { "several data lines are one event, joined by newlines", "data: a\ndata: b\ndata:\ndata: c\n\n", { "a\nb\n\nc" } },
  { "data that is JSON", 'data: {"a":1}\n\ndata: {"b":2}\n\n', { '{"a":1}', '{"b":2}' } },
  { "JSON over several data lines", 'data: {\ndata: "a":1}\n\n', { '{\n"a":1}' } },
  { "empty data", "data:\n\ndata: \n\ndata\n\n", { "", "", "" } },
  { "event: and id: are ignored", "event: e\nid: 7\ndata: x\n\ndata: y\n\n", { "x", "y" } },
  { "event: and id: after the data are ignored", "data: x\nid:8\nevent:f\n\n", { "x" } },
  { "event: and id: beside a bare object are ignored", 'event: e\nid: 7\n{"a":1}\n\n{"b":2}\n', { '{"a":1}', '{"b":2}' } },
  { "a block without data is no event", "event: e\nid: 1\n\ndata: x\n\n", { "x" } },
  { "comments and retry:", ": hello\n:\nretry: 10\ndata: x\n: between\nretry\ndata: y\n\n:end\n", { "x\ny" } },
  { "fields nobody knows, and names that only begin alike",
    "datum: a\nDATA: b\n data: c\nevents: d\nidx: e\nnope\n[1]\ndata: x\n\n",
    { "x" } },
  { "CRLF", 'data: x\r\n\r\n{"a":1}\r\n\r\nevent: e\r\ndata: y\r\ndata: z\r\n\r\n', { "x", '{"a":1}', "y\nz" } },
  { "LF and CRLF mixed", 'data: x\r\n\n{"a":1}\n\r\ndata: y\ndata: z\r\n\n', { "x", '{"a":1}', "y\nz" } },
  { "a carriage return that ends no line is data", "data: a\rb\n\ndata: c\r\r\n\n", { "a\rb", "c\r" } },
  { "both kinds in one stream", '{"a":1}\n\ndata: x\n\n{"b":2}\ndata: y\n\n', { '{"a":1}', "x", '{"b":2}', "y" } },
  { "an object inside a block", 'data: x\n{"a":1}\ndata: y\n\n', { '{"a":1}', "x\ny" } },
  { "a byte order mark before an object", '\239\187\191{"a":1}\n\n', { '{"a":1}' } },
  { "a byte order mark before data", "\239\187\191data: x\n\n", { "x" } },
  { "a byte order mark alone", "\239\187\191", {} },
  { "a second byte order mark is no mark", "\239\187\191\239\187\191data: x\n\ndata: y\n\n", { "y" } },
  { "a byte order mark later in the stream", 'data: x\n\n\239\187\191{"a":1}\n\n{"b":2}\n', { "x", '{"b":2}' } },
  { "what only begins like a byte order mark", '\239\187{"a":1}\n{"b":2}\n', { '{"b":2}' } },
  { "U+0085, U+2028 and U+2029 end no line", '{"a":"\194\133 \226\128\168 \226\128\169"}\n\ndata: x\194\133y\226\128\168z\n\n',
    { '{"a":"\194\133 \226\128\168 \226\128\169"}', "x\194\133y\226\128\168z" } },
  { "vertical tab, form feed and separators end no line", '{"a":"\11\12\28\29\30"}\n', { '{"a":"\11\12\28\29\30"}' } },
  { "bytes that are not UTF-8", 'data: \255\254\192\n\n{"a":"\255"}\n', { "\255\254\192", '{"a":"\255"}' } },
  { "NUL bytes", '{"a":"\0"}\n\ndata: \0x\0\n\n\0\ndata: y\n\n', { '{"a":"\0"}', "\0x\0", "y" } },
  { "an object that was not terminated", '{"a":1}\n\n{"code":"RUNTIME_ERROR","message":"m"}',
    { '{"a":1}', '{"code":"RUNTIME_ERROR","message":"m"}' } },
  { "an object with half a line end", '{"a":1}\r', { '{"a":1}' } },
  { "a data line that was not terminated", "data: x", { "x" } },
  { "a block that was not terminated", "event: e\ndata: x\ndata: y\n", { "x\ny" } },
  { "a block whose last line is a field", "data: x\nid: 3", { "x" } },
  { "half an object at the end is returned as it is", '{"a":1}\n{"b":', { '{"a":1}', '{"b":' } },
  { "a comment that was not terminated", "data: x\n\n: bye", { "x" } },
}

describe("the decoder reads", function()
  for _, example in ipairs(examples) do
    local name, stream, expected = example[1], example[2], example[3]
    it(name, function()
      assert.same(expected, decode { stream })
    end)

    it(name .. " (cut in two anywhere, and into bytes)", function()
      local whole = flat(expected)
      for position = 0, #stream do
        assert.equal(whole, flat(decode { stream:sub(1, position), stream:sub(position + 1) }), "cut after " .. position)
      end
      assert.equal(whole, flat(decode(bytes_of(stream))))
    end)
  end

  it("the examples one after the other, cut anywhere", function()
    local streams, expected = {}, {}
    for _, example in ipairs(examples) do
      -- A mark counts only at the start, and every stream is ended here, so that the next one begins a line.
      if not example[2]:find("^\239") then
        streams[#streams + 1] = example[2]:gsub("\r$", "") .. "\n\n"
        for _, event in ipairs(example[3]) do expected[#expected + 1] = event end
      end
    end
    local stream, whole = table.concat(streams), flat(expected)
    for position = 0, #stream do
      assert.equal(whole, flat(decode { stream:sub(1, position), stream:sub(position + 1) }), "cut after " .. position)
    end
  end)
end)

describe("the decoder", function()
  it("returns an event as soon as its line is complete", function()
    local decoder = core.event_stream(LIMIT)
    decoder:feed('{"a":1}')
    assert.is_nil((decoder:next()))
    decoder:feed("\n")
    assert.equal('{"a":1}', (decoder:next()))
    assert.is_nil((decoder:next()))
    decoder:feed("data: x\n")
    assert.is_nil((decoder:next()))
    decoder:feed("\n")
    assert.equal("x", (decoder:next()))
    assert.is_nil((decoder:next()))
  end)

  it("returns data that looks like a field as it is", function()
    local decoder = core.event_stream(LIMIT)
    decoder:feed("data: event: e\n\nid: 5\ndata: id: 6\n\n")
    assert.same({ "event: e" }, { decoder:next() })
    assert.same({ "id: 6" }, { decoder:next() })
  end)

  it("goes on saying that nothing comes after the end", function()
    local decoder = core.event_stream(LIMIT)
    decoder:feed("data: x")
    decoder:finish()
    assert.equal("x", (decoder:next()))
    for _ = 1, 3 do assert.same({ nil, nil }, { decoder:next() }) end
  end)

  it("refuses limits that make no sense", function()
    assert.has_error(function() core.event_stream(0) end)
    assert.has_error(function() core.event_stream(-1) end)
    assert.has_error(function() core.event_stream(0 / 0) end)
  end)
end)

describe("the limit", function()
  local forms = {
    { "an object", function(length) return "{" .. ("x"):rep(length - 1) .. "\n\n" end },
    { "an object with CRLF", function(length) return "{" .. ("x"):rep(length - 1) .. "\r\n\r\n" end },
    { "an object that is not terminated", function(length) return "{" .. ("x"):rep(length - 1) end },
    { "a data line", function(length) return "data: " .. ("x"):rep(length) .. "\n\n" end },
    { "a data line with CRLF", function(length) return "data: " .. ("x"):rep(length) .. "\r\n\r\n" end },
    { "a data line without a space", function(length) return "data:" .. ("x"):rep(length) .. "\n\n" end },
    { "a data line that is not terminated", function(length) return "data: " .. ("x"):rep(length) end },
    { "data lines, with the newlines between them", function(length)
      return "data: a\ndata: b\ndata: " .. ("x"):rep(length - 4) .. "\n\n"
    end },
  }
  for _, form in ipairs(forms) do
    local name, make = form[1], form[2]
    it("is the longest event that passes: " .. name, function()
      for _, limit in ipairs { 5, 100, 1023, 1024, 70000 } do
        local list = decode({ make(limit) }, limit)
        assert.is_nil(list.failure)
        assert.equal(1, #list)
        assert.equal(limit, #list[1])
        list = decode({ make(limit + 1) }, limit)
        assert.same({ 0, "too_large" }, { #list, list.failure })
      end
    end)

    it("is the same however the stream is cut: " .. name, function()
      for _, length in ipairs { 19, 20, 21, 27, 28, 29, 40 } do
        local stream = "data: before\n\n" .. make(length)
        local whole = flat(decode({ stream }, 20))
        assert.equal(whole, flat(decode(bytes_of(stream), 20)))
        for position = 1, #stream do
          assert.equal(whole, flat(decode({ stream:sub(1, position), stream:sub(position + 1) }, 20)))
        end
      end
    end)
  end

  it("cuts off a line that never ends, before it fills the memory", function()
    local decoder = core.event_stream(1000)
    decoder:feed(("x"):rep(2000))
    assert.same({ nil, "too_large" }, { decoder:next() })
  end)

  it("is final: what was fed before and comes after stays hidden", function()
    local decoder = core.event_stream(10)
    decoder:feed('{"a":1}\n{"a":"too long"}\n{"b":2}\n')
    assert.equal('{"a":1}', (decoder:next()))
    for _ = 1, 3 do
      assert.same({ nil, "too_large" }, { decoder:next() })
      decoder:feed('{"c":3}\n\n')
    end
    decoder:finish()
    assert.same({ nil, "too_large" }, { decoder:next() })
  end)

  it("treats a comment, a field or a stray line beyond it alike, however the stream is cut", function()
    for _, line in ipairs { ":" .. ("c"):rep(60), "event: " .. ("e"):rep(60), ("x"):rep(61), "retry: " .. ("1"):rep(60) } do
      for _, ending in ipairs { "\n", "\r\n", "" } do
        local stream = "data: x\n\n" .. line .. ending .. (ending ~= "" and "data: y\n\n" or "")
        local pieces = flat(decode(bytes_of(stream), 20))
        assert.equal(pieces, flat(decode({ stream }, 20)))
        for position = 1, #stream do
          assert.equal(pieces, flat(decode({ stream:sub(1, position), stream:sub(position + 1) }, 20)))
        end
      end
    end
  end)
end)

describe("a long event", function()
  local PIECE = ("x"):rep(16 * 1024)

  -- Processor seconds for an event of so many megabytes that comes in pieces of 16 KiB, with a check for events after each.
  local function seconds(megabytes, first, last)
    local decoder = core.event_stream(64 * 1024 * 1024)
    local began = os.clock()
    decoder:feed(first)
    for _ = 1, megabytes * 64 do
      decoder:feed(PIECE)
      assert(not decoder:next())
    end
    decoder:feed(last)
    local event = decoder:next()
    local taken = os.clock() - began
    assert.is_true(#event >= megabytes * 1024 * 1024)
    return taken
  end

  -- The quickest of several tries is what the code takes; the others are what else the machine did.
  local function best(...)
    local lowest = seconds(...)
    for _ = 1, 4 do lowest = math.min(lowest, (seconds(...))) end
    return lowest
  end

  it("of 30 MB costs about twice as much as one of 15 MB", function()
    for _, kind in ipairs { { '{"a":"', '"}\n\n' }, { "data: ", "\n\n" } } do
      collectgarbage()
      local half, whole = best(15, kind[1], kind[2]), best(30, kind[1], kind[2])
      -- What is this quick the allocator and a busy machine decide; time in the square of the size would be seconds.
      assert.is_true(whole <= math.max(3 * half, 0.25), ("15 MB took %.4f s, 30 MB %.4f s"):format(half, whole))
    end
  end)

  it("that is cut into bytes costs time in proportion, too", function()
    local function cut(count)
      local decoder = core.event_stream(LIMIT)
      local began = os.clock()
      decoder:feed("{")
      for _ = 1, count do
        decoder:feed("x")
        decoder:next()
      end
      return os.clock() - began
    end
    local lowest, highest = math.huge, math.huge
    for _ = 1, 5 do
      lowest, highest = math.min(lowest, cut(100000)), math.min(highest, cut(200000))
    end
    assert.is_true(highest <= math.max(3 * lowest, 0.25), ("%.4f s, then %.4f s"):format(lowest, highest))
  end)

  it("leaves the decoder fit for the next", function()
    local decoder = core.event_stream(64 * 1024 * 1024)
    for _ = 1, 3 do
      decoder:feed("{" .. PIECE:rep(300) .. "\n\ndata: x\n\n")
      assert.equal(#PIECE * 300 + 1, #decoder:next())
      assert.equal("x", (decoder:next()))
    end
  end)
end)
