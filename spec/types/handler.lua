-- A handler of a web server: a pool, one sandbox for each request, standard input from the request.
local opensandbox = require "opensandbox"

local pool = opensandbox.new():pool { image = "python:3.12", min_idle = 4, max_size = 16, warm_up = function(sandbox)
  return sandbox:run("pip install numpy", { timeout = "2m" })
end }

---@param code string
---@param input string
---@param send fun(text: string)
---@return integer status
return function(code, input, send)
  local sandbox, err = pool:acquire { timeout = 5 }
  if not sandbox then
    send(err and err.code == "pool_exhausted" and "busy" or tostring(err))
    return 503
  end
  assert(sandbox.files:write("/work/answer.py", code, { mode = "0600" }))
  local result, problem = sandbox:run({ "python3", "/work/answer.py" }, { stdin = input, timeout = 10, max_output = 65536 })
  pool:release(sandbox)
  send(result and result.stdout or tostring(problem))
  print(pool:stats().idle)
  return result and 200 or 500
end
