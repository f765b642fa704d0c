--- A command whose stream breaks: the right result all the same, or an error that carries what arrived; never a wrong result.

local broken_stream_server = require "spec.support.broken_stream_server"
local new_random = require "spec.support.random"
local opensandbox = require "opensandbox"
local recordings = require "spec.support.recordings"

local server, client, number

local function body_of(name) return recordings.load("execd/" .. name).response.body end

-- Runs the command of a recording with a fault, and gives the result or the error, and what the callbacks got.
local function run(name, fault, position, output_files, options, callbacks)
  number = number + 1
  local url = ("%s/%s/%s/%d/%s/%d"):format(server.url, name, fault, position, output_files or "kept", number)
  -- Only silence has to be waited for. On a busy machine the other faults take their time.
  local told, opts = { stdout = {}, stderr = {} }, { idle_timeout = fault == "silence" and 1 or 10 }
  for option, value in pairs(options or {}) do opts[option] = value end
  if callbacks then
    for _, stream in ipairs { "stdout", "stderr" } do
      opts["on_" .. stream] = function(text) table.insert(told[stream], text) end
    end
  end
  local result, err = client:run_command(url, "x", opts)
  return result, err, { stdout = table.concat(told.stdout), stderr = table.concat(told.stderr) }
end

-- What the uncut stream gives: all that can be compared.
local expected_results = {}
local function expected_of(name)
  if not expected_results[name] then expected_results[name] = assert(run(name, "whole", 0)) end
  return expected_results[name]
end

local function describe_run(name, fault, position, output_files)
  return ("%s, %s at %d, files %s"):format(name, fault, position, output_files or "kept")
end

-- Where the events of a recorded body end, the last byte of their JSON; and the first, which is the init.
local function event_ends(name)
  local ends, body = {}, body_of(name)
  for position in body:gmatch("}()\n\n") do ends[#ends + 1] = position - 1 end
  return ends, body
end

local function check(name, fault, position, output_files, callbacks)
  local what = describe_run(name, fault, position, output_files)
  local expected = expected_of(name)
  local ends = event_ends(name)
  local anew = fault == "repeat" or fault == "restart" -- what follows is glued to the last event, unless that had ended
  local has_id = position >= ends[1] + (anew and 2 or 0)
  local whole = fault ~= "restart" and position >= ends[#ends]
  local result, err, told = run(name, fault, position, output_files, nil, callbacks)
  if result then
    for _, field in ipairs { "exit_code", "signal", "stdout", "stderr" } do
      assert.equal(expected[field], result[field], what .. ": " .. field)
    end
    assert.same(expected.error, result.error, what)
    -- Bytes that are repeated may happen to complete the terminal event.
    if not anew then assert.same({ expected.id, not whole or nil }, { result.id, result.recovered }, what) end
    if callbacks then assert.same({ expected.stdout, expected.stderr }, { told.stdout, told.stderr }, what) end
    return true
  end
  assert.is_false(whole, what .. ": " .. tostring(err))
  assert.is_true(err.kind == "stream" or err.kind == "timeout" or err.kind == "transport", what .. ": " .. tostring(err))
  assert.is_false(err.retryable, what)
  if has_id then assert.equal(expected.id, err.command_id, what .. ": " .. tostring(err)) end
  if not anew then
    for _, stream in ipairs { "stdout", "stderr" } do
      assert.equal(expected[stream]:sub(1, #err.result[stream]), err.result[stream], what)
      if callbacks and output_files == "gone" then assert.equal(err.result[stream], told[stream], what) end
    end
  end
  if has_id and output_files == "gone" then
    assert.same({ "stream", "output_lost" }, { err.kind, err.code }, what .. ": " .. tostring(err))
    assert.equal(expected.exit_code, err.result.exit_code, what)
  end
  return false, has_id, err
end

setup(function()
  server, number = broken_stream_server.start(), 0
  client = opensandbox.new("http://127.0.0.1:1", "", { retry = { base_delay = 0.01 } })
end)
teardown(function()
  client:close()
  server:stop()
end)

describe("a command whose stream is cut before, inside and after each event", function()
  for _, fault in ipairs { "chunk", "eof", "reset", "repeat", "restart" } do
    it(("still gives its result, found out by status and files (%s)"):format(fault), function()
      for _, name in ipairs { "command-exit-3", "command-carriage-returns", "command-killed" } do
        expected_of(name)
        local ends = event_ends(name)
        local positions, before = { 0 }, 0
        for _, last in ipairs(ends) do
          for _, position in ipairs { before + 1, math.floor((before + last) / 2), last - 1, last, last + 1 } do
            positions[#positions + 1] = position
          end
          before = last + 2
        end
        opensandbox.map(positions, function(position, index)
          local settled, has_id, err = check(name, fault, position, "kept", index % 2 == 0)
          -- Where callbacks were told the same twice, the whole cannot be told any more.
          local told_twice = err and err.cause and err.cause.code == "output_differs" and fault == "repeat"
          assert.is_true(settled or not has_id or told_twice, describe_run(name, fault, position, "kept") .. ": " .. tostring(err))
        end)
      end
    end)
  end

  it("and whose peer goes silent still gives its result", function()
    local ends = event_ends("command-stderr")
    expected_of "command-stderr"
    local positions = { ends[1] - 1, ends[1], ends[2], ends[3] + 5, ends[4] }
    opensandbox.map(positions, function(position) check("command-stderr", "silence", position, "kept", true) end)
  end)

  it("is an error with its exit code and what arrived where execd keeps no output", function()
    for _, name in ipairs { "command-exit-3", "command-lines" } do
      local ends = event_ends(name)
      for index, last in ipairs(ends) do
        local settled = check(name, "chunk", last - 1, "gone", index % 2 == 1)
        assert.is_false(settled)
      end
    end
  end)
end)

describe("the output of a command whose stream broke", function()
  it("is fetched through connections that break, each byte once", function()
    for name in pairs(broken_stream_server.commands) do
      local ends = event_ends(name)
      for _, output_files in ipairs { "broken", "ignores_range" } do
        local settled, _, err = check(name, "chunk", ends[1] + 2, output_files, true)
        -- Four connections of a few more bytes each are enough for the short outputs only.
        local command = broken_stream_server.commands[name]
        local short = #command.stdout <= 12 and #command.stderr <= 12
        if short then assert.is_true(settled, ("%s: %s"):format(name, tostring(err))) end
      end
    end
  end)

  it("is kept within max_output like any other, and callbacks get all of it", function()
    local name = "command-carriage-returns"
    local all = expected_of(name).stdout
    local result, _, told = run(name, "chunk", event_ends(name)[4], "kept", { max_output = 6 }, true)
    assert.equal(all:sub(1, 3) .. all:sub(-3), result.stdout)
    assert.equal(#all - 6, result.stdout_dropped)
    assert.equal(all, told.stdout)
  end)

  it("passes the error of a callback through", function()
    local ok, problem = pcall(run, "command-echo", "chunk", event_ends("command-echo")[2], "kept", {
      on_stdout = function() error("mine", 0) end,
    })
    assert.same({ false, "mine" }, { ok, problem })
    assert.equal(0, client:step(0))
  end)
end)

describe("of a thousand random breaks,", function()
  it("none gives a wrong result", function()
    local random = new_random(20261125)
    local names = {}
    for name in pairs(broken_stream_server.commands) do names[#names + 1] = name end
    table.sort(names)
    local kinds = { "chunk", "eof", "reset", "repeat", "restart" }
    local plans = {}
    for round = 1, 1000 do
      local name = names[random(#names)]
      plans[round] = {
        name = name, fault = round % 40 == 0 and "silence" or kinds[random(#kinds)], position = random(#body_of(name)) - 1,
        output_files = ({ "kept", "kept", "gone", "broken", "ignores_range" })[random(5)], callbacks = random(2) == 1,
      }
    end
    for _, name in ipairs(names) do expected_of(name) end
    local settled, lost = 0, 0
    opensandbox.map(plans, function(plan)
      if check(plan.name, plan.fault, plan.position, plan.output_files, plan.callbacks) then
        settled = settled + 1
      else
        lost = lost + 1
      end
    end, { concurrency = 16 })
    assert.is_true(settled > 400 and lost > 100, ("%d settled, %d lost"):format(settled, lost))
  end)
end)
