-- :[range]SandboxRun  runs the lines of the range, or the whole buffer, in a new sandbox; the output comes into a scratch buffer
-- :SandboxStop        ends it, as closing that buffer does

-- luacheck: globals vim

local IMAGE = "python:3.12"
local DIRECTORY, FILE = "/tmp", "selection"

local programs = { python = "python3", sh = "sh", bash = "bash" } -- by file type

local client, task, buffer

local function append(text)
  if not vim.api.nvim_buf_is_valid(buffer) then return end
  local last = vim.api.nvim_buf_get_lines(buffer, -2, -1, false)[1]
  vim.api.nvim_buf_set_lines(buffer, -2, -1, false, vim.split(last .. text, "\n"))
  local lines = vim.api.nvim_buf_line_count(buffer)
  for _, window in ipairs(vim.fn.win_findbuf(buffer)) do vim.api.nvim_win_set_cursor(window, { lines, 0 }) end
end

local function stop()
  if task then task:cancel() end
end

local function open_output()
  if buffer and vim.api.nvim_buf_is_valid(buffer) then
    vim.api.nvim_buf_set_lines(buffer, 0, -1, false, {})
    return
  end
  local window = vim.api.nvim_get_current_win()
  vim.cmd "botright 12new"
  buffer = vim.api.nvim_get_current_buf()
  vim.bo[buffer].buftype, vim.bo[buffer].bufhidden, vim.bo[buffer].swapfile = "nofile", "wipe", false
  vim.api.nvim_create_autocmd("BufWipeout", { buffer = buffer, callback = stop })
  vim.api.nvim_set_current_win(window)
end

-- Runs in a task: each call waits, and the editor goes on.
local function run(program, code)
  client = client or require("opensandbox").new()
  local sandbox, err = client:create { image = IMAGE }
  local written, result
  if sandbox then
    written, err = sandbox.files:write(DIRECTORY .. "/" .. FILE, code)
    if written then result, err = sandbox:run({ program, FILE }, { cwd = DIRECTORY, on_stdout = append, on_stderr = append }) end
    sandbox:kill()
  end
  append(result and ("[exit code %d after %.1f s]"):format(result.exit_code, result.duration) or ("[%s]"):format(tostring(err)))
end

vim.api.nvim_create_user_command("SandboxRun", function(command)
  local program = programs[vim.bo.filetype]
  if not program then
    vim.notify(("SandboxRun: no program for the file type %q"):format(vim.bo.filetype), vim.log.levels.ERROR)
    return
  end
  local code = table.concat(vim.api.nvim_buf_get_lines(0, command.line1 - 1, command.line2, false), "\n") .. "\n"
  local before = task
  stop()
  task = require("opensandbox").spawn(function()
    if before then pcall(before.wait, before) end
    open_output()
    run(program, code)
  end)
end, { range = "%", desc = "Run the lines in a sandbox" })

vim.api.nvim_create_user_command("SandboxStop", stop, { desc = "End what runs in the sandbox" })
