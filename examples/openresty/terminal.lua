--- GET /terminal?cols=80&rows=24: a shell in a sandbox of its own, whose output is streamed as server-sent events.
--
--     event: open            data: {"id":"..."}      the name for the input
--     event: output          data: "aGVsbG8="        bytes of the terminal, in base64
--     event: exit            data: {"code":0}
--     event: failure         data: "why there is no terminal"
--
-- POST /terminal/input?id=...: the body is what was typed. The sandbox is killed when the shell ends or the client hangs up. A terminal lives in
-- one worker, so its input must reach the same one: the example has one worker.

local cjson = require "cjson"
local opensandbox = require "opensandbox"

local ngx = rawget(_G, "ngx")

local LIFETIME = 600 -- seconds, after which the server ends the sandbox, should this worker die

local client
local terminals = {} -- by id

local function send(event, value)
  ngx.print("event: ", event, "\ndata: ", cjson.encode(value), "\n\n")
  ngx.flush(true)
end

local function size(name, default)
  local value = tonumber(ngx.var["arg_" .. name])
  return value and math.min(math.max(math.floor(value), 1), 500) or default
end

-- Copies the output until the shell ends.
---@param terminal opensandbox.Terminal
local function copy(terminal)
  local bytes, err = terminal:read()
  while bytes or (err and err.terminal_continues) do
    if bytes then send("output", ngx.encode_base64(bytes)) else ngx.log(ngx.WARN, tostring(err)) end
    bytes, err = terminal:read()
  end
  if err then return send("failure", "the terminal has broken") end
  local code = terminal:wait()
  send("exit", { code = code or -1 })
end

local terminal_of = {}

function terminal_of.open()
  client = client or opensandbox.new()
  local sandbox, err = client:create { image = "python:3.12", timeout = LIFETIME }
  ngx.header["Content-Type"] = "text/event-stream"
  ngx.header["Cache-Control"] = "no-store"
  if not sandbox then
    ngx.log(ngx.ERR, tostring(err))
    return send("failure", "there is no sandbox")
  end
  local id = ngx.var.request_id
  ngx.on_abort(function()
    terminals[id] = nil
    sandbox:kill()
    ngx.exit(499)
  end)
  local terminal
  terminal, err = sandbox:terminal { term = "dumb", cols = size("cols", 80), rows = size("rows", 24) } -- the page knows no escapes
  if terminal then
    terminals[id] = terminal
    send("open", { id = id })
    pcall(copy, terminal) -- raises when the client has hung up
    terminals[id] = nil
  else
    ngx.log(ngx.ERR, tostring(err))
    send("failure", "there is no terminal")
  end
  sandbox:kill()
end

function terminal_of.input()
  ngx.req.read_body()
  local terminal, typed = terminals[ngx.var.arg_id or ""], ngx.req.get_body_data()
  if not terminal then return ngx.exit(404) end
  local ok, err = true, nil
  if typed then ok, err = terminal:write(typed, { timeout = 10 }) end
  if not ok then
    ngx.log(ngx.ERR, tostring(err))
    return ngx.exit(502)
  end
  return ngx.exit(204)
end

return terminal_of
