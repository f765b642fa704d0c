--- A headless Chromium, driven by its DevTools protocol.

local find_program = require "spec.support.find_program"
local http_client = require "spec.support.http_client"
local json = require "opensandbox.base.json"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local websocket_client = require "spec.support.websocket_client"

local browser = {}

local STARTUP_TIMEOUT = 60 -- seconds

--- Returns the path of the program, or nil.
function browser.program()
  return find_program("chromium", "chromium-browser", "google-chrome")
end

local Page = {}
Page.__index = Page

-- Sends a command and returns its result.
function Page:call(method, params)
  self.number = self.number + 1
  self.connection:send("text", json.encode { id = self.number, method = method, params = params or {} })
  local answer = self.connection:wait(function(frames)
    for i = #frames, 1, -1 do
      local message = json.decode(frames[i].payload)
      if message and message.id == self.number then return message end
    end
  end)
  assert(answer and answer.result, answer and answer.error and answer.error.message or method .. " is not answered")
  return answer.result
end

--- Runs JavaScript in the page and returns its value.
function Page:evaluate(expression)
  local result = self:call("Runtime.evaluate", { expression = expression, awaitPromise = true, returnByValue = true })
  assert(not result.exceptionDetails, result.exceptionDetails and json.encode(result.exceptionDetails))
  return result.result.value
end

--- Waits until an expression is true in the page, and returns its value.
function Page:wait(expression, seconds)
  local deadline = uv.now() + (seconds or 30) * 1000
  repeat
    local value = self:evaluate(expression)
    if value then return value end
    uv.update_time()
  until uv.now() > deadline
  error("it does not become true: " .. expression .. "\n" .. tostring(self:evaluate("document.body.innerText")), 2)
end

--- Leaves the page for another address.
function Page:go(url)
  local problem = self:call("Page.navigate", { url = url }).errorText
  assert(not problem, problem)
  self:wait(("location.href === %q && document.readyState === 'complete'"):format(url))
end

--- Types a text into the element that has the focus, key by key. "\r" is the Enter key.
function Page:type(text)
  for character in text:gmatch(".") do
    local key = character == "\r" and { key = "Enter", code = "Enter", text = "\r" } or { key = character, text = character }
    key.type = "keyDown"
    self:call("Input.dispatchKeyEvent", key)
    key.type, key.text = "keyUp", nil
    self:call("Input.dispatchKeyEvent", key)
  end
end

--- Returns a picture of the page: the bytes of a PNG file in base64.
function Page:screenshot()
  return self:call("Page.captureScreenshot", { format = "png" }).data
end

function Page:close()
  self.connection:close()
  self.child:stop()
  temporary.remove(self.directory)
end

--- Opens a page in a browser of its own.
---@param url string
---@param width integer
---@param height integer
function browser.open(url, width, height)
  local directory = temporary.directory()
  local child = process.start {
    env = { TMPDIR = directory, HOME = directory },
    argv = { browser.program(), "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
      ("--window-size=%d,%d"):format(width, height), "--hide-scrollbars", "--no-first-run", "--disable-background-networking",
      "--user-data-dir=" .. directory, "about:blank" },
  }
  local deadline = uv.now() + STARTUP_TIMEOUT * 1000
  local port
  repeat
    local file = io.open(directory .. "/DevToolsActivePort", "rb")
    port = file and tonumber(file:read("*l") or "")
    if file then file:close() end
    uv.run("nowait")
    uv.update_time()
  until port or uv.now() > deadline
  assert(port, child:stderr_text())
  local response = assert(http_client.request { url = ("http://127.0.0.1:%d/json/new"):format(port), method = "PUT" })
  local target = assert(json.decode(response.body))
  local path = target.webSocketDebuggerUrl:match("^ws://[^/]+(/.*)$")
  local connection = websocket_client.connect(port, path, { headers = { Host = "127.0.0.1:" .. port } })
  local self = setmetatable({ child = child, directory = directory, connection = connection, number = 0 }, Page)
  local ok, problem = pcall(self.go, self, url)
  if ok then return self end
  self:close()
  error(problem, 0)
end

return browser
