--- POST /execute?language=python3: runs the posted code in a sandbox of its own and streams its output as server-sent events.
--
--     event: stdout          data: "text\n"                         as it comes
--     event: stderr          data: "text\n"
--     event: exit            data: {"code":0,"seconds":0.1}         "timed_out":true when the time limit ended it
--     event: failure         data: "why there is no exit code"
--
-- The sandbox is killed at the end, also after an error. It is killed at once when the client closes the connection.

local cjson = require "cjson"
local opensandbox = require "opensandbox"

local ngx = rawget(_G, "ngx")

local TIME_LIMIT = tonumber(os.getenv("TIME_LIMIT")) or 10 -- seconds for the code
local LIFETIME = 60   -- seconds after which the server ends the sandbox, should this worker die

local DIRECTORY = "/tmp" -- of the code
local languages = {
  python3 = { file = "code.py", command = { "python3", "-u", "code.py" } },
  sh = { file = "code.sh", command = { "sh", "code.sh" } },
}

local client -- one for each worker: its connections are kept

local function refuse(status, text)
  ngx.status = status
  ngx.say(text)
  return ngx.exit(status)
end

local function send(event, value)
  ngx.print("event: ", event, "\ndata: ", cjson.encode(value), "\n\n")
  ngx.flush(true) -- waits while the client is slow, and the sandbox with it
end

---@param sandbox opensandbox.Sandbox
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
local function run(sandbox, language, code)
  local written, err = sandbox.files:write(DIRECTORY .. "/" .. language.file, code)
  if not written then return nil, err end
  return sandbox:run(language.command, {
    cwd = DIRECTORY, timeout = TIME_LIMIT, max_output = 0, -- nothing is kept: it has been sent
    on_stdout = function(text) send("stdout", text) end,
    on_stderr = function(text) send("stderr", text) end,
  })
end

return function()
  if ngx.req.get_method() ~= "POST" then return refuse(405, "POST the code") end
  local language = languages[ngx.var.arg_language or "python3"]
  if not language then return refuse(400, "the language must be python3 or sh") end
  ngx.req.read_body()
  local code = ngx.req.get_body_data()
  if not code then return refuse(400, "there is no code") end

  local sandbox, err
  ngx.on_abort(function()
    if sandbox then sandbox:kill() end
    ngx.exit(499)
  end)

  client = client or opensandbox.new()
  sandbox, err = client:create { image = "python:3.12", timeout = LIFETIME }
  if not sandbox then
    ngx.log(ngx.ERR, tostring(err))
    return refuse(502, "there is no sandbox")
  end

  ngx.header["Content-Type"] = "text/event-stream"
  ngx.header["Cache-Control"] = "no-store"
  local ok, result, problem = pcall(run, sandbox, language, code)
  sandbox:kill()
  if ok and result then
    send("exit", { code = result.exit_code, seconds = result.duration, timed_out = result.timed_out })
  else
    ngx.log(ngx.ERR, tostring(problem or result))
    send("failure", "the code could not be run to its end")
  end
end
