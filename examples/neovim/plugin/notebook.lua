-- A notebook in any buffer with fenced blocks of code (```python, ```bash), as in Markdown:
--
-- :NotebookRun        runs the block under the cursor in the kernel of the buffer, and shows its output below it as it comes
-- :NotebookRunAll     runs all blocks, from the first to the last
-- :NotebookInterrupt  interrupts the block that runs, as Ctrl-C does; the kernel keeps its variables
-- :NotebookClose      deletes the sandbox of the buffer, as wiping the buffer does
--
-- A buffer has one sandbox, and in it one kernel for each language, so variables stay from block to block.

-- luacheck: globals vim

local IMAGE = "opensandbox/code-interpreter:latest" -- an image with kernels
local MAX_LINES = 200 -- of an output that are shown

local languages = { python = "python", py = "python", bash = "bash", sh = "bash" }
local namespace = vim.api.nvim_create_namespace "opensandbox-notebook"

local client
local notebooks = {} -- by buffer: sandbox, kernels (by language), task (runs blocks), running (the kernel that runs one)

-- Returns the blocks of a buffer: { language, first, last (lines of the fences, from 0), code }.
local function blocks_of(buffer)
  local blocks, block = {}, nil
  for number, line in ipairs(vim.api.nvim_buf_get_lines(buffer, 0, -1, false)) do
    local opening = line:match "^```(%w+)"
    if block and line:find "^```%s*$" then
      block.last, block.code = number - 1, table.concat(block.lines, "\n")
      blocks[#blocks + 1], block = block, nil
    elseif block then
      table.insert(block.lines, line)
    elseif opening and languages[opening] then
      block = { language = languages[opening], first = number - 1, lines = {} }
    end
  end
  return blocks
end

-- Shows a text below a block, and replaces the earlier one.
local function show(buffer, mark, text, highlight)
  if not vim.api.nvim_buf_is_valid(buffer) then return end
  local position = vim.api.nvim_buf_get_extmark_by_id(buffer, namespace, mark, {})
  if not position[1] then return end
  local lines = {}
  for _, line in ipairs(vim.split(text:gsub("\n$", ""), "\n")) do lines[#lines + 1] = { { "  " .. line, highlight } } end
  while #lines > MAX_LINES do table.remove(lines, 1) end
  vim.api.nvim_buf_set_extmark(buffer, namespace, position[1], 0, { id = mark, virt_lines = lines })
end

-- Returns the kernel for a language, and makes it with the first block that needs it.
local function kernel_of(notebook, language)
  if notebook.kernels[language] then return notebook.kernels[language] end
  local err
  if not notebook.sandbox then
    client = client or require("opensandbox").new()
    notebook.sandbox, err = client:create { image = IMAGE, timeout = "1h", keep_alive = "1h", metadata = { job = "notebook" } }
    if not notebook.sandbox then return nil, err end
  end
  notebook.kernels[language], err = notebook.sandbox:code(language)
  return notebook.kernels[language], err
end

-- Runs one block. Returns true if the next one may run.
local function run(buffer, notebook, block, mark)
  show(buffer, mark, "...", "Comment")
  local kernel, err = kernel_of(notebook, block.language)
  if not kernel then
    show(buffer, mark, tostring(err), "ErrorMsg")
    return false
  end
  local text = ""
  local function append(more)
    text = text .. more
    show(buffer, mark, text, "Comment")
  end
  notebook.running = kernel
  local result
  result, err = kernel:run(block.code, { on_stdout = append, on_stderr = append })
  notebook.running = nil
  if result and result.text then text = text .. result.text end
  if result and result.error then text = text .. result.error.name .. ": " .. result.error.value end
  if not result then text = text .. tostring(err) end
  local failed = not result or result.error ~= nil
  show(buffer, mark, text == "" and "(no output)" or text, failed and "ErrorMsg" or "Comment")
  return not failed
end

local function close(buffer)
  local notebook = notebooks[buffer]
  notebooks[buffer] = nil
  if not notebook then return end
  if notebook.task then notebook.task:cancel() end
  if notebook.sandbox then
    local sandbox = notebook.sandbox
    require("opensandbox").spawn(function() sandbox:kill() end)
  end
end

-- Runs blocks one after the other, after those that run already.
local function start(buffer, blocks)
  local notebook = notebooks[buffer]
  if not notebook then
    notebook = { kernels = {} }
    notebooks[buffer] = notebook
    vim.api.nvim_create_autocmd({ "BufWipeout", "BufUnload" }, { buffer = buffer, callback = function() close(buffer) end })
  end
  local marks = {}
  for i, block in ipairs(blocks) do
    for _, old in ipairs(vim.api.nvim_buf_get_extmarks(buffer, namespace, { block.first, 0 }, { block.last, -1 }, {})) do
      vim.api.nvim_buf_del_extmark(buffer, namespace, old[1])
    end
    marks[i] = vim.api.nvim_buf_set_extmark(buffer, namespace, block.last, 0, {})
  end
  local before = notebook.task
  notebook.task = require("opensandbox").spawn(function()
    if before then pcall(before.wait, before) end
    for i, block in ipairs(blocks) do
      if not run(buffer, notebook, block, marks[i]) then return end
    end
  end)
end

vim.api.nvim_create_user_command("NotebookRun", function()
  local buffer, line = vim.api.nvim_get_current_buf(), vim.api.nvim_win_get_cursor(0)[1] - 1
  for _, block in ipairs(blocks_of(buffer)) do
    if block.first <= line and line <= block.last then return start(buffer, { block }) end
  end
  vim.notify("NotebookRun: the cursor is in no block of code", vim.log.levels.ERROR)
end, { desc = "Run the block of code under the cursor" })

vim.api.nvim_create_user_command("NotebookRunAll", function()
  local buffer = vim.api.nvim_get_current_buf()
  start(buffer, blocks_of(buffer))
end, { desc = "Run all blocks of code of the buffer" })

vim.api.nvim_create_user_command("NotebookInterrupt", function()
  local notebook = notebooks[vim.api.nvim_get_current_buf()]
  local kernel = notebook and notebook.running
  if kernel then require("opensandbox").spawn(function() kernel:interrupt() end) end
end, { desc = "Interrupt the block of code that runs" })

vim.api.nvim_create_user_command("NotebookClose", function() close(vim.api.nvim_get_current_buf()) end,
  { desc = "Delete the sandbox of the buffer" })
