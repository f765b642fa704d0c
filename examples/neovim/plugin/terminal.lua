-- :SandboxTerminal [command]  opens a terminal in a sandbox, with a shell or the command
-- :[range]SandboxTerminalRun  runs the lines of the range, or the whole buffer, at a terminal in the same sandbox
--
-- A terminal is a buffer: `i` types into it, <C-\><C-n> stops that, and :bwipeout! closes it. Closing the last one deletes the sandbox.

-- luacheck: globals vim

local IMAGE = "python:3.12"
local DIRECTORY, FILE = "/tmp", "selection-%d" -- with the number of the buffer: several programs can run at once
local HEIGHT = 15 -- lines of a new window

local programs = { python = "python3", sh = "sh", bash = "bash" } -- by file type

---@type opensandbox.Client
local client
local creation   -- the task that creates the sandbox, which all terminals share
local views = {} -- by buffer: buffer, channel, task, terminal, input (not sent yet), cols and rows (the size that was sent), sending

-- Waits for the sandbox, and creates it for the first terminal.
local function shared_sandbox()
  local task = creation or require("opensandbox").spawn(function()
    return client:create { image = IMAGE, timeout = "1h", keep_alive = "1h", metadata = { job = "terminal" } }
  end)
  creation = task
  local sandbox, err = task:wait()
  if not sandbox and creation == task and task:done() then creation = nil end -- the next terminal tries again
  return sandbox, err
end

local function delete_sandbox()
  local task = creation
  creation = nil
  if not task then return end
  task:cancel()
  require("opensandbox").spawn(function()
    local sandbox = task:wait()
    if sandbox then sandbox:kill() end
  end)
end

-- Returns the size of a terminal in Neovim: that of the largest window, or nil if no window shows it.
local function size_of(buffer)
  local cols, rows = 0, 0 ---@type number, number
  for _, window in ipairs(vim.fn.win_findbuf(buffer)) do
    local info = vim.fn.getwininfo(window)[1]
    cols, rows = math.max(cols, info.width - info.textoff), math.max(rows, info.height)
  end
  if cols > 0 and rows > 0 then return cols, rows end
end

local function show(view, bytes)
  if views[view.buffer] == view then vim.api.nvim_chan_send(view.channel, bytes) end
end

-- Warns of keys or output that may be lost. The terminal continues then, and this returns true.
local function warn(err)
  if not err.terminal_continues then return false end
  vim.notify(tostring(err), vim.log.levels.WARN)
  return true
end

-- Sends the next thing that the terminal has to receive. Returns false when there is none.
local function send_next(view)
  local cols, rows = size_of(view.buffer)
  local ok, err
  if cols and (cols ~= view.cols or rows ~= view.rows) then
    view.cols, view.rows = cols, rows
    ok, err = view.terminal:resize(cols, rows)
  elseif view.input ~= "" then
    local input = view.input
    view.input = ""
    ok, err = view.terminal:write(input)
  else
    return false
  end
  if not ok then warn(err) end -- other errors are those that `wait` returns, too
  return true
end

-- Sends the size and the input in a task. There is one at a time, so that the input arrives in its order.
local function send(view)
  if view.sending or not view.terminal then return end
  view.sending = true
  require("opensandbox").spawn(function()
    while view.terminal and send_next(view) do end
    view.sending = false
  end)
end

-- Starts a command, or a shell, at the terminal of a view. A command `{ program, code = }` runs the code from a file.
local function start(view, command)
  local sandbox, err = shared_sandbox()
  if not sandbox then return nil, err end
  if command and command.code then
    local file = FILE:format(view.buffer)
    local written
    written, err = sandbox.files:write(DIRECTORY .. "/" .. file, command.code)
    if not written then return nil, err end
    command = { command[1], file }
  end
  return sandbox:terminal { command = command, cwd = DIRECTORY, cols = view.cols, rows = view.rows,
    on_output = function(bytes) show(view, bytes) end }
end

-- A task: runs the command to its end.
local function run(view, command)
  local terminal, err = start(view, command)
  local exit_code
  if terminal then
    view.terminal = terminal
    send(view) -- the keys that were typed before
    repeat exit_code, err = terminal:wait() until exit_code or not warn(err)
    view.terminal = nil
    terminal:close()
  end
  if views[view.buffer] ~= view then return end
  local text = exit_code and "exit code " .. exit_code or tostring(err):gsub("\n", "\r\n")
  show(view, "\r\n[" .. text .. "]")
  vim.fn.chanclose(view.channel) -- so that the buffer can be wiped without "!"
  if vim.api.nvim_get_current_buf() == view.buffer then vim.cmd "stopinsert" end
end

-- Ends the task of a buffer that is unloaded; the task closes the terminal.
local function close(view)
  views[view.buffer] = nil
  view.task:cancel()
  if not next(views) then delete_sandbox() end
end

local function open(title, command)
  client = client or require("opensandbox").new()
  vim.cmd(("botright %dnew"):format(HEIGHT))
  local view = { buffer = vim.api.nvim_get_current_buf(), input = "" }
  vim.api.nvim_buf_set_name(view.buffer, ("sandbox://%d/%s"):format(view.buffer, title))
  view.channel = vim.api.nvim_open_term(view.buffer, { on_input = function(_, _, _, bytes)
    view.input = view.input .. bytes
    send(view)
  end })
  view.cols, view.rows = size_of(view.buffer)
  views[view.buffer] = view
  view.task = require("opensandbox").spawn(function() run(view, command) end)
  vim.api.nvim_create_autocmd("BufUnload", { buffer = view.buffer, once = true, callback = function() close(view) end })
  vim.cmd "startinsert"
end

-- Neovim 0.7 has no WinResized. What its events miss is found when the next key is typed.
local events = { "VimResized", "WinEnter", "BufWinEnter" }
if vim.fn.exists "##WinResized" == 1 then events[#events + 1] = "WinResized" end
vim.api.nvim_create_autocmd(events, { callback = function()
  for _, view in pairs(views) do send(view) end
end })

vim.api.nvim_create_user_command("SandboxTerminal", function(command)
  local given = command.args ~= "" and command.args or nil
  open(given or "shell", given)
end, { nargs = "*", desc = "Open a terminal in a sandbox" })

vim.api.nvim_create_user_command("SandboxTerminalRun", function(command)
  local program = programs[vim.bo.filetype]
  if not program then
    vim.notify(("SandboxTerminalRun: no program for the file type %q"):format(vim.bo.filetype), vim.log.levels.ERROR)
    return
  end
  local code = table.concat(vim.api.nvim_buf_get_lines(0, command.line1 - 1, command.line2, false), "\n") .. "\n"
  open(program, { program, code = code })
end, { range = "%", desc = "Run the lines at a terminal in a sandbox" })
