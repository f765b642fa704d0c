--- The scenarios that neovim_spec.lua runs in a real Neovim; $SCENARIO names one of them. Each ends with `finish`, which writes its
-- observations as one line of JSON and quits; an error is written instead.

-- luacheck: globals vim

local uv = vim.loop
local root = vim.env.OPENSANDBOX_ROOT
local url, key = vim.env.OPEN_SANDBOX_DOMAIN, vim.env.OPEN_SANDBOX_API_KEY

local STEP_TIME = 15 -- seconds that a step at a terminal may take

-- The library's handles on the loop: uv.walk() does not bear Neovim's own.
local handles = {}
for _, name in ipairs { "new_timer", "new_poll" } do
  local make = uv[name]
  uv[name] = function(...)
    local handle = make(...)
    local from = debug.getinfo(2, "S").source
    if from:find("opensandbox/loop/adapters/uv.lua", 1, true) then handles[#handles + 1] = handle end
    return handle
  end
end

local function say(value)
  io.stdout:write(vim.json.encode(value), "\n")
  io.stdout:flush()
end

local function finish(seen)
  say(seen)
  vim.cmd "qa!"
end

-- Calls `fn`. An error that it raises ends the scenario.
local function try(fn, ...)
  local ok, problem = xpcall(fn, debug.traceback, ...)
  if not ok then finish { problem = problem } end
end

-- How late a timer of the loop is called at worst, in milliseconds: how long the editor was held up.
local function heartbeat()
  dofile(root .. "/spec/hosts/preload.lua")
  local beat = { count = 0, late = 0 }
  local timer, last = uv.new_timer(), uv.hrtime()
  timer:start(10, 10, function()
    local now = uv.hrtime()
    beat.late = math.max(beat.late, (now - last) / 1e6 - 10)
    beat.count, last = beat.count + 1, now
  end)
  function beat.stop()
    timer:close()
    return { count = beat.count, late = beat.late }
  end
  return beat
end

local function create(opensandbox)
  local client = opensandbox.new(url, key)
  return assert(client:create { image = "any" }), client
end

-- Starts a task that ends the scenario when it fails.
local function spawn(opensandbox, fn)
  return opensandbox.spawn(function() try(fn) end)
end

-- Calls back when `done()` is true.
local function once(done, fn)
  vim.defer_fn(function()
    if done() then try(fn) else once(done, fn) end
  end, 10)
end

local scenarios = {}

function scenarios.workflow()
  local opensandbox = require "opensandbox"
  local workflow = dofile(root .. "/spec/hosts/workflow.lua")
  spawn(opensandbox, function()
    local beat = heartbeat()
    local seen = workflow(opensandbox, url, key)
    seen.beat = beat.stop()
    seen.empty_object = require("opensandbox.base.json").encode { a = {} }
    finish(seen)
  end)
end

function scenarios.websocket()
  local opensandbox = require "opensandbox"
  local websocket = dofile(root .. "/spec/hosts/websocket.lua")
  spawn(opensandbox, function()
    local beat = heartbeat()
    local client = opensandbox.new(url, key)
    local seen = websocket.run(opensandbox, client, vim.env.WEBSOCKET_URL)
    client:close()
    seen.beat = beat.stop()
    finish(seen)
  end)
end

function scenarios.quit()
  local opensandbox = require "opensandbox"
  spawn(opensandbox, function()
    local sandbox = create(opensandbox)
    local beat = heartbeat()
    vim.defer_fn(function()
      say { beat = beat.stop(), id = sandbox.id }
      vim.cmd "qa"
    end, 1000)
    sandbox:run "sleep 60"
  end)
end

function scenarios.callbacks()
  local opensandbox = require "opensandbox"
  spawn(opensandbox, function()
    local sandbox = create(opensandbox)
    local fast
    assert(sandbox:run("echo one; echo two >&2; sleep 0.1; echo three", {
      on_stdout = function(text)
        fast = fast or vim.in_fast_event()
        vim.api.nvim_buf_set_lines(0, -1, -1, false, { (text:gsub("\n", "")) })
      end,
      on_stderr = function(text) vim.cmd("let g:stderr = " .. vim.fn.json_encode(text)) end,
    }))
    finish { fast = fast, lines = vim.api.nvim_buf_get_lines(0, 0, -1, false), stderr = vim.g.stderr }
  end)
end

function scenarios.blocking()
  local opensandbox = require "opensandbox"
  local sandbox = create(opensandbox)
  local beat = heartbeat()
  local others = 0
  vim.schedule(function() others = others + 1 end)
  opensandbox.spawn(function() others = others + 1 end)
  local began = opensandbox.now()
  local result = assert(sandbox:run "sleep 0.5; echo done")
  local seen = { seconds = opensandbox.now() - began, stdout = result.stdout, others = others, beat = beat.stop() }
  began = opensandbox.now()
  opensandbox.spawn(function()
    for _ = 1, 20 do assert(sandbox:run "true") end
  end):wait()
  seen.twenty = opensandbox.now() - began
  finish(seen)
end

function scenarios.interrupt()
  local opensandbox = require "opensandbox"
  local sandbox = create(opensandbox)
  spawn(opensandbox, function()
    while not sandbox.files:exists "/tmp/pid" do opensandbox.sleep(0.01) end
    vim.api.nvim_input "<C-c>"
  end)
  local seen = {}
  local began = opensandbox.now()
  local ok, problem = pcall(function()
    seen.line = debug.getinfo(1, "l").currentline + 1
    sandbox:run "echo $$ > tmp/pid; exec sleep 60"
  end)
  seen.seconds = opensandbox.now() - began
  seen.problem_raised = not ok and problem
  local deadline = opensandbox.now() + 5
  repeat
    seen.stopped = assert(sandbox:run "kill -0 $(cat tmp/pid)").exit_code ~= 0
  until seen.stopped or opensandbox.now() > deadline
  finish(seen)
end

-- Everything begins in a fast event here: the modules are loaded in it, and the client is made.
function scenarios.fast()
  local timer = uv.new_timer()
  timer:start(0, 0, function()
    timer:close()
    local seen = { fast = vim.in_fast_event() }
    local ok, problem = pcall(function()
      local opensandbox = require "opensandbox"
      local client = opensandbox.new(url, key)
      seen.raised, seen.text = pcall(function()
        seen.line = debug.getinfo(1, "l").currentline + 1
        client:list_sandboxes()
      end)
      spawn(opensandbox, function()
        local sandbox = create(opensandbox)
        seen.stdout = assert(sandbox:run "echo from a task").stdout
        seen.id = sandbox.id
        finish(seen)
      end)
    end)
    if not ok then vim.schedule(function() finish { problem = problem } end) end
  end)
end

function scenarios.health()
  local began = uv.hrtime()
  vim.cmd "checkhealth opensandbox"
  local seconds = (uv.hrtime() - began) / 1e9
  finish { text = table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), "\n"), seconds = seconds }
end

function scenarios.cjson()
  local cjson = require "cjson"
  local opensandbox = require "opensandbox"
  spawn(opensandbox, function()
    local sandbox = create(opensandbox)
    local result = assert(sandbox:run({ "printf", "%s\n", 'a"é' }, { env = { A = "b" } }))
    local codec = require("opensandbox.base.json_codec").name
    finish { codec = codec, cjson = package.loaded.cjson == cjson and "loaded", stdout = result.stdout }
  end)
end

function scenarios.unheard()
  local opensandbox = require "opensandbox"
  opensandbox.spawn(function() error "oops" end)
  local function messages() return vim.fn.execute "messages" end
  once(function() return messages():find("oops", 1, true) end, function() finish { text = messages() } end)
end

function scenarios.handles()
  local opensandbox = require "opensandbox"
  local function active()
    local count = 0
    for _, handle in ipairs(handles) do
      if not handle:is_closing() and handle:is_active() then count = count + 1 end
    end
    return count
  end
  spawn(opensandbox, function()
    local sandbox, client = create(opensandbox)
    opensandbox.map({ 1, 2, 3, 4, 5 }, function() return sandbox:run "true" end)
    sandbox:kill()
    once(function() return active() == 0 end, function()
      client:close()
      finish { made = #handles }
    end)
  end)
end

function scenarios.example()
  vim.opt.rtp:append(root .. "/examples/neovim")
  vim.cmd "runtime plugin/sandbox.lua"
  vim.bo.filetype = "sh"
  vim.api.nvim_buf_set_lines(0, 0, -1, false, { "echo not this", "echo one; sleep 0.3; echo two >&2", "exit 3" })
  local code = vim.api.nvim_get_current_buf()
  local function output()
    local text
    for _, buffer in ipairs(vim.api.nvim_list_bufs()) do
      if buffer ~= code then text = table.concat(vim.api.nvim_buf_get_lines(buffer, 0, -1, false), "\n") end
    end
    return text or ""
  end
  local function shows(text) return function() return output():find(text, 1, true) end end
  local seen = {}
  vim.cmd "2,3SandboxRun"
  once(shows "one", function()
    seen.first = output()
    once(shows "[", function()
      seen.whole = output()
      vim.api.nvim_buf_set_lines(code, 0, -1, false, { "echo begun; sleep 60" })
      vim.cmd "SandboxRun"
      once(shows "begun", function()
        vim.cmd "SandboxStop"
        once(shows "[", function()
          seen.stopped = output()
          finish(seen)
        end)
      end)
    end)
  end)
end

function scenarios.notebook()
  vim.opt.rtp:append(root .. "/examples/neovim")
  vim.cmd "runtime plugin/notebook.lua"
  vim.api.nvim_buf_set_lines(0, 0, -1, false, {
    "# Notes", "```bash", "number=6", "```", "Then:", "```bash", "echo first; sleep 0.3; echo $((number * 7))", "```",
    "```bash", "echo begun; sleep 60; echo not this", "```", "```text", "no code", "```",
  })
  -- What is shown below the line of a fence, from 0.
  local function shown(line)
    local namespace = vim.api.nvim_get_namespaces()["opensandbox-notebook"]
    local marks = vim.api.nvim_buf_get_extmarks(0, namespace, { line, 0 }, { line, -1 }, { details = true })
    local lines = {}
    for _, one in ipairs(marks[1] and marks[1][4].virt_lines or {}) do lines[#lines + 1] = one[1][1] end
    return table.concat(lines, "\n")
  end
  local function shows(line, text) return function() return shown(line):find(text, 1, true) end end
  local seen = {}
  vim.api.nvim_win_set_cursor(0, { 3, 0 })
  vim.cmd "NotebookRun"
  once(shows(3, "(no output)"), function()
    vim.api.nvim_win_set_cursor(0, { 6, 0 })
    vim.cmd "NotebookRun"
    once(shows(7, "first"), function()
      seen.first = shown(7)
      once(shows(7, "42"), function()
        seen.whole = shown(7)
        vim.api.nvim_win_set_cursor(0, { 10, 0 })
        vim.cmd "NotebookRun"
        once(shows(10, "begun"), function()
          vim.cmd "NotebookInterrupt"
          once(function() return shown(10) ~= "  begun" end, function()
            seen.interrupted = shown(10)
            vim.cmd "NotebookClose"
            finish(seen)
          end)
        end)
      end)
    end)
  end)
end

-- Types keys. A callback of the loop does it, as for a user: Ctrl-C from other code would interrupt the editor.
local function type_keys(keys)
  local timer = uv.new_timer()
  timer:start(0, 0, function()
    timer:close()
    vim.api.nvim_input(keys)
  end)
end

-- Returns the text of the buffer of the current window, without the spaces at the ends of its lines.
local function screen()
  local lines = {}
  for i, line in ipairs(vim.api.nvim_buf_get_lines(0, 0, -1, false)) do lines[i] = line:gsub("%s+$", "") end
  return table.concat(lines, "\n")
end

-- Makes the steps of $STEPS, and says each one that succeeded: `ex` is a command of the editor, `keys` are typed, `shows` is a pattern that
-- the screen must match then, and `sandboxes` is the number of sandboxes that the example must have then. A step that `needs` something
-- which this Neovim has not, as `exists()` names it, is left out.
function scenarios.terminal()
  local opensandbox = require "opensandbox"
  vim.opt.rtp:append(root .. "/examples/neovim")
  vim.cmd "runtime plugin/terminal.lua"
  local client = opensandbox.new(url, key)
  local function succeeds(step)
    if step.shows and not screen():find(step.shows) then return false end
    return not step.sandboxes or #assert(client:list_sandboxes { metadata = { job = "terminal" } }) == step.sandboxes
  end
  local function make(i, step)
    if step.ex then vim.cmd(step.ex) end
    if step.keys then type_keys(step.keys) end
    local deadline = opensandbox.now() + STEP_TIME
    while not succeeds(step) do
      if opensandbox.now() > deadline then
        error(("step %d fails in mode %s. The screen:\n%s"):format(i, vim.api.nvim_get_mode().mode, screen()))
      end
      opensandbox.sleep(0.02)
    end
  end
  spawn(opensandbox, function()
    for i, step in ipairs(vim.json.decode(vim.env.STEPS)) do
      if not step.needs or vim.fn.exists(step.needs) == 1 then make(i, step) end
      say { step = i }
    end
    vim.cmd "qa!"
  end)
end

try(scenarios[vim.env.SCENARIO])
