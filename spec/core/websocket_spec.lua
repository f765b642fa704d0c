--- The WebSocket codec: what is a message, what is refused, and that it does not matter how the bytes were cut.

local core = require "opensandbox.core"
local frames = require "spec.support.websocket_frames"
local recordings = require "spec.support.recordings"
local new_random = require "spec.support.random"

local LIMIT = 2 * 1024 * 1024
local MASK = "\1\128\255\90"

local write, close = frames.write, frames.close

-- Takes the messages there are into `list`; returns false when the reader has failed.
local function take(reader, list)
  while true do
    local kind, bytes, code = reader:next()
    if not kind then
      if bytes then list.problem, list.code = bytes, code end
      return not bytes
    end
    list[#list + 1] = { kind, bytes, code }
  end
end

-- Reads bytes that come in pieces, taking messages after every piece.
local function read(pieces, masked, limit)
  local reader, list = core.websocket_reader(limit or LIMIT, masked), {}
  for _, piece in ipairs(pieces) do
    reader:feed(piece)
    if not take(reader, list) then break end
  end
  return list
end

local function bytes_of(text)
  local pieces = {}
  for position = 1, #text do pieces[position] = text:sub(position, position) end
  return pieces
end

-- Cuts into pieces of 1 to `longest` bytes. The sizes come from a fixed sequence, so that a failure can be repeated.
local function pieces_of(text, longest, seed)
  local pieces, position, random = {}, 1, new_random(seed)
  while position <= #text do
    local size = random(longest)
    pieces[#pieces + 1] = text:sub(position, position + size - 1)
    position = position + size
  end
  return pieces
end

local function same_however_cut(expected, stream, masked, limit)
  assert.same(expected, read({ stream }, masked, limit))
  assert.same(expected, read(bytes_of(stream), masked, limit), "cut into bytes")
  if #stream > 400 then
    for seed = 1, 10 do
      assert.same(expected, read(pieces_of(stream, seed * 30, seed), masked, limit), "cut with seed " .. seed)
    end
    return
  end
  for position = 1, #stream - 1 do
    local halves = { stream:sub(1, position), stream:sub(position + 1) }
    assert.same(expected, read(halves, masked, limit), "cut after " .. position)
  end
end

local function join(...)
  return table.concat({ ... })
end

local MORE = { fin = false }

-- Each: what it shows, the bytes, and the messages.
local examples = {
  { "no bytes at all", "", {} },
  { "a text", write("text", "hello"), { { "text", "hello" } } },
  { "a binary message", write("binary", "\0\1\255"), { { "binary", "\0\1\255" } } },
  { "empty messages", join(write("text", ""), write("binary", "")), { { "text", "" }, { "binary", "" } } },
  { "messages one after the other", join(write("text", "a"), write("binary", "b"), write("text", "c")),
    { { "text", "a" }, { "binary", "b" }, { "text", "c" } } },
  { "fragments as one message", join(write("text", "he", MORE), write("continuation", "l", MORE), write("continuation", "lo")),
    { { "text", "hello" } } },
  { "empty fragments", join(write("binary", "", MORE), write("continuation", "", MORE), write("continuation", "")),
    { { "binary", "" } } },
  { "a message behind one in fragments",
    join(write("binary", "a", MORE), write("continuation", "b"), write("text", "c"), write("text", "d", MORE),
      write("continuation", "")),
    { { "binary", "ab" }, { "text", "c" }, { "text", "d" } } },
  { "control frames between fragments, before the message",
    join(write("text", "a", MORE), write("ping", "p"), write("continuation", "b", MORE), write("pong", ""),
      write("continuation", "c")),
    { { "ping", "p" }, { "pong", "" }, { "text", "abc" } } },
  { "pings and pongs with 0 and with 125 bytes of anything",
    join(write("ping", ""), write("ping", ("\255"):rep(125)), write("pong", ("\0"):rep(125))),
    { { "ping", "" }, { "ping", ("\255"):rep(125) }, { "pong", ("\0"):rep(125) } } },
  { "a close with code and reason", close(1000, "process exited"), { { "close", "process exited", 1000 } } },
  { "a close without a code", write("close", ""), { { "close", "", 1005 } } },
  { "a close with the longest reason", close(4001, ("r"):rep(123)), { { "close", ("r"):rep(123), 4001 } } },
  { "a close between fragments", join(write("text", "a", MORE), close(1001, "")), { { "close", "", 1001 } } },
  { "nothing behind a close", join(write("text", "a"), close(1000, ""), write("text", "b"), "\255\255\255"),
    { { "text", "a" }, { "close", "", 1000 } } },
  { "characters of one to four bytes", write("text", "a\195\164\226\130\172\240\159\152\128"),
    { { "text", "a\195\164\226\130\172\240\159\152\128" } } },
  { "a byte order mark, noncharacters and the last character of all",
    write("text", "\239\187\191\239\191\190\239\191\191\240\159\191\191\244\143\191\191"),
    { { "text", "\239\187\191\239\191\190\239\191\191\240\159\191\191\244\143\191\191" } } },
  { "a character that is cut by fragments",
    join(write("text", "\240\159", MORE), write("ping", ""), write("continuation", "\152", MORE), write("continuation", "\128")),
    { { "ping", "" }, { "text", "\240\159\152\128" } } },
  { "a length in a longer form than it needs",
    join(write("binary", "a", { length_bytes = 2 }), write("binary", "b", { length_bytes = 8 })),
    { { "binary", "a" }, { "binary", "b" } } },
}

describe("the reader takes", function()
  for _, example in ipairs(examples) do
    it(example[1] .. ", however it is cut", function()
      same_however_cut(example[3], example[2])
    end)
  end

  for _, length in ipairs { 124, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536, 65537 } do
    it(("messages of %d bytes"):format(length), function()
      local payload = ("0123456789abcdef"):rep(math.ceil(length / 16)):sub(1, length)
      same_however_cut({ { "text", payload }, { "binary", payload } }, join(write("text", payload), write("binary", payload)))
    end)

    it(("masked messages of %d bytes from a client"):format(length), function()
      local payload = ("0123456789abcdef"):rep(math.ceil(length / 16)):sub(1, length)
      local masked = { mask = MASK }
      same_however_cut({ { "text", payload }, { "ping", "p" }, { "binary", payload } },
        join(write("text", payload, masked), write("ping", "p", { mask = "\0\0\0\0" }), write("binary", payload, masked)), true)
    end)
  end

  for _, code in ipairs { 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4001, 4999 } do
    it("the close code " .. code, function()
      assert.same({ { "close", "", code } }, read { close(code) })
    end)
  end

  it("a message of two thousand fragments", function()
    local stream = { write("text", "x", MORE) }
    for index = 2, 2000 do stream[index] = write("continuation", "x", MORE) end
    stream[2001] = write("continuation", "")
    same_however_cut({ { "text", ("x"):rep(2000) } }, table.concat(stream))
  end)
end)

local VIOLATION, NOT_UTF8, TOO_LARGE = 1002, 1007, 1009

-- Each: what it shows, the bytes, words of the problem, the code to close with, and the frames of the text "before" that comes first.
local refusals = {
  { "a mask of a server", write("text", "hello", { mask = MASK }), "masked", VIOLATION },
  { "a mask of a server with zeroes", write("binary", "", { mask = "\0\0\0\0" }), "masked", VIOLATION },
  { "a continuation of nothing", write("continuation", "a"), "continues no message", VIOLATION },
  { "a continuation of a complete message", write("continuation", "b"), "continues no message", VIOLATION,
    join(write("text", "be", MORE), write("continuation", "fore")) },
  { "a text inside a text", join(write("text", "a", MORE), write("text", "b")), "before the one before it", VIOLATION },
  { "a binary message inside a text", join(write("text", "a", MORE), write("binary", "b", MORE)), "before the one", VIOLATION },
  { "a ping in fragments", write("ping", "a", MORE), "in fragments", VIOLATION },
  { "a pong in fragments", write("pong", "", MORE), "in fragments", VIOLATION },
  { "a close in fragments", write("close", "", MORE), "in fragments", VIOLATION },
  { "a ping of 126 bytes", write("ping", ("x"):rep(126)), "longer than 125", VIOLATION },
  { "a close of 126 bytes", close(1000, ("x"):rep(124)), "longer than 125", VIOLATION },
  { "a control frame with a long form of its length", write("pong", "", { length_bytes = 8 }), "longer than 125", VIOLATION },
  { "a close of one byte", write("close", "\3"), "half a code", VIOLATION },
  { "a length beyond 63 bits", "\130\127\128\0\0\0\0\0\0\0", "highest bit", VIOLATION },
  { "a reason that is not UTF-8", close(1000, "a\255"), "not UTF-8", NOT_UTF8 },
  { "a reason that ends inside a character", close(1000, "\226\130"), "not UTF-8", NOT_UTF8 },
  { "a message whose header says too much", write("binary", "", { length = LIMIT + 1 }), "longer than the limit", TOO_LARGE },
  { "a message of 2^63 - 1 bytes", "\130\127\127\255\255\255\255\255\255\255", "longer than the limit", TOO_LARGE },
}
for bits = 1, 7 do
  refusals[#refusals + 1] = { "the reserved bits " .. bits, write("text", "a", { reserved = bits }), "reserved bits", VIOLATION }
end
for _, opcode in ipairs { 3, 4, 5, 6, 7, 11, 12, 13, 14, 15 } do
  refusals[#refusals + 1] = { "the reserved opcode " .. opcode, write(opcode, "a"), "reserved opcode", VIOLATION }
end
for _, code in ipairs { 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535 } do
  refusals[#refusals + 1] = { "the close code " .. code, close(code, "x"), "may not be sent", VIOLATION }
end
-- Markus Kuhn's "UTF-8 decoder capability and stress test": what no text may hold.
for _, text in ipairs {
  "\128", "\191", "\128\191", "\254", "\255", "\192\128", "\192\175", "\193\191", "\224\128\128", "\224\159\191",
  "\240\128\128\128", "\240\143\191\191", "\248\136\128\128\128", "\252\132\128\128\128\128", "\237\160\128", "\237\191\191",
  "\237\160\128\237\176\128", "\244\144\128\128", "\245\128\128\128", "\195a", "\226\130a", "\240\159\152a", "\195", "\226\130",
  "\240\159\152",
} do
  local shown = text:gsub(".", function(c) return (" %02X"):format(c:byte()) end)
  refusals[#refusals + 1] = { "the text" .. shown, write("text", "good: \226\130\172 " .. text),
    "not UTF-8|ends inside a character", NOT_UTF8 }
end

describe("the reader refuses", function()
  for _, refusal in ipairs(refusals) do
    local name, stream, words, code = refusal[1], refusal[2], refusal[3], refusal[4]
    it(name .. ", however it is cut", function()
      stream = join(refusal[5] or write("text", "before"), stream, write("text", "behind"))
      local list = read { stream }
      assert.same({ { "text", "before" } }, { list[1], list[2] })
      assert.equal(code, list.code)
      local found = false
      for alternative in words:gmatch("[^|]+") do found = found or list.problem:find(alternative, 1, true) ~= nil end
      assert.is_true(found, list.problem)
      same_however_cut(list, stream)
    end)
  end

  it("a client's frame without a mask", function()
    same_however_cut({ problem = "a client's frame is not masked", code = VIOLATION }, write("text", "a"), true)
  end)

  it("a text that cannot become UTF-8 at the byte that makes it so, before its end has come", function()
    local reader = core.websocket_reader(LIMIT)
    reader:feed(write("text", "a\255", { length = 100000 }))
    assert.same({ nil, "a text is not UTF-8", NOT_UTF8 }, { reader:next() })
    reader = core.websocket_reader(LIMIT)
    reader:feed(write("text", "\226", MORE))
    assert.is_nil((reader:next()))
    reader:feed(write("continuation", "a", { length = 100000, fin = false }))
    assert.same({ nil, "a text is not UTF-8", NOT_UTF8 }, { reader:next() })
  end)

  it("to change its mind: after a failure it says nothing else", function()
    local reader = core.websocket_reader(LIMIT)
    reader:feed(write("text", "a", { reserved = 4 }) .. write("text", "b"))
    for _ = 1, 3 do
      assert.same({ nil, "a frame has reserved bits set", VIOLATION }, { reader:next() })
      reader:feed(write("text", "c"))
    end
  end)

  it("limits that make no sense", function()
    for _, limit in ipairs { 0, -1, 0 / 0, 1e10 } do
      assert.has_error(function() core.websocket_reader(limit) end)
    end
  end)
end)

describe("the limit", function()
  for _, limit in ipairs { 1, 125, 126, 65535, 65536, 100000 } do
    it(("of %d bytes passes a message of that size, and none that is longer"):format(limit), function()
      local payload = ("x"):rep(limit)
      assert.same({ { "binary", payload } }, read({ write("binary", payload) }, false, limit))
      assert.equal(TOO_LARGE, read({ write("binary", payload .. "x") }, false, limit).code)
      local first, rest = payload:sub(1, 1), payload:sub(2)
      local fragments = join(write("text", first, MORE), write("continuation", rest, MORE), write("continuation", ""))
      assert.same({ { "text", payload } }, read({ fragments }, false, limit))
      fragments = join(write("text", first, MORE), write("continuation", rest, MORE), write("continuation", "x", MORE))
      assert.equal(TOO_LARGE, read({ fragments }, false, limit).code)
      assert.equal(TOO_LARGE, read(bytes_of(fragments), false, limit).code)
    end)
  end

  it("does not count control frames", function()
    local stream = join(write("text", "abcd", MORE), write("ping", ("p"):rep(125)), write("continuation", "e"))
    same_however_cut({ { "ping", ("p"):rep(125) }, { "text", "abcde" } }, stream, false, 5)
  end)

  it("is known from the header, before the payload fills the memory", function()
    local reader = core.websocket_reader(1000)
    reader:feed(write("binary", "", { length = 1001 }))
    assert.equal(TOO_LARGE, (select(3, reader:next())))
  end)
end)

describe("the writer", function()
  for _, length in ipairs { 0, 1, 7, 8, 9, 125, 126, 127, 65535, 65536, 300001 } do
    it(("masks a message of %d bytes as the standard says"):format(length), function()
      local payload = ("0123456789abcde"):rep(math.ceil(length / 15)):sub(1, length)
      assert.is_true(core.websocket_frame("binary", payload, MASK) == write("binary", payload, { mask = MASK }))
      assert.is_true(core.websocket_frame("text", payload) == write("text", payload))
    end)
  end

  it("writes control frames", function()
    assert.equal(write("ping", "p", { mask = MASK }), core.websocket_frame("ping", "p", MASK))
    assert.equal(write("pong", ("x"):rep(125)), core.websocket_frame("pong", ("x"):rep(125)))
    assert.equal(close(1000, "bye", { mask = MASK }), core.websocket_close_frame(1000, "bye", MASK))
    assert.equal(close(4999, ("r"):rep(123)), core.websocket_close_frame(4999, ("r"):rep(123)))
    assert.equal(write("close", ""), core.websocket_close_frame(1005, ""))
  end)

  it("refuses what may not be sent, and raises for it", function()
    assert.has_error(function() core.websocket_frame("ping", ("x"):rep(126)) end)
    assert.has_error(function() core.websocket_frame("continuation", "x") end)
    assert.has_error(function() core.websocket_frame("text", "x", "123") end)
    assert.has_error(function() core.websocket_close_frame(1000, ("x"):rep(124)) end)
    for _, code in ipairs { 0, 999, 1004, 1006, 1015, 2000, 5000 } do
      assert.has_error(function() core.websocket_close_frame(code, "") end)
    end
  end)
end)

describe("the handshake's answer", function()
  it("is that of the standard's example, and of a real server", function()
    assert.equal("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", core.websocket_accept("dGhlIHNhbXBsZSBub25jZQ=="))
    assert.equal("a2lWcXZ5btUZzwGcJd+JLC1XpTE=", core.websocket_accept("d2lyZS1yZWMtMTZieXRlcw=="))
  end)
end)

describe("a recorded session", function()
  local names = recordings.sessions()

  it("is there", function()
    assert.is_true(#names >= 30)
  end)

  for _, name in ipairs(names) do
    local session = recordings.session(name)
    -- In this recording payloads are shortened, so that characters are cut.
    if name ~= "terminal/replay-overflow" then
      it(("gives its messages in both directions, however it is cut: %s"):format(name), function()
        for _, connection in ipairs(session.connections) do
          for _, side in ipairs { { "recv" }, { "send", MASK } } do
            local direction, mask = side[1], side[2]
            local stream, expected, joined, opcode = {}, {}, {}, nil
            for _, frame in ipairs(connection.frames) do
              if frame.dir == direction and not frame.unmasked then
                stream[#stream + 1] = write(frame.opcode, frame.payload, { fin = frame.fin, mask = mask })
                if frame.opcode == "close" then
                  expected[#expected + 1] = frame.code and { "close", frame.payload:sub(3), frame.code } or { "close", "", 1005 }
                elseif frame.opcode == "ping" or frame.opcode == "pong" then
                  expected[#expected + 1] = { frame.opcode, frame.payload }
                else
                  joined[#joined + 1] = frame.payload
                  opcode = frame.opcode ~= "continuation" and frame.opcode or opcode
                  if frame.fin ~= false then
                    expected[#expected + 1] = { opcode, table.concat(joined) }
                    joined = {}
                  end
                end
              end
            end
            stream = table.concat(stream)
            if #stream < 10000 then
              same_however_cut(expected, stream, mask ~= nil)
            else
              assert.is_true(#expected > 0)
              assert.same(expected, read({ stream }, mask ~= nil))
              for seed = 1, 5 do assert.same(expected, read(pieces_of(stream, 5000, seed), mask ~= nil)) end
            end
          end
        end
      end)
    end

    it("answers the key of its handshake: " .. name, function()
      for _, connection in ipairs(session.connections) do
        local sent, response = connection.handshake.request.headers, connection.handshake.response
        for _, pair in ipairs(response.headers) do
          if pair[1]:lower() == "sec-websocket-accept" then
            assert.equal(pair[2], core.websocket_accept(sent["Sec-WebSocket-Key"]))
          end
        end
      end
    end)
  end
end)

describe("the reader's time", function()
  -- Processor seconds for a message of so many megabytes that comes in pieces of 16 KiB.
  local PIECE = ("x"):rep(16 * 1024)
  local function seconds(megabytes)
    local reader = core.websocket_reader(64 * 1024 * 1024)
    local length = megabytes * 1024 * 1024
    local began = os.clock()
    reader:feed(write("text", "", { length = length, length_bytes = 8 }))
    for _ = 1, megabytes * 64 do
      assert(not reader:next())
      reader:feed(PIECE)
    end
    local kind, bytes = reader:next()
    local taken = os.clock() - began
    assert.same({ "text", length }, { kind, #bytes })
    return taken
  end

  it("grows with the size of a message and not with its square", function()
    local half, whole = math.huge, math.huge
    for _ = 1, 5 do
      half, whole = math.min(half, (seconds(15))), math.min(whole, (seconds(30)))
    end
    assert.is_true(whole <= math.max(3 * half, 0.25), ("15 MB took %.4f s, 30 MB %.4f s"):format(half, whole))
  end)
end)
