--- nginx with its Lua module, for tests: whether it is here, and a server with workers that ends with the test process.
--
-- The configuration is a template; words between @ signs are filled in. nginx lives in a directory of its own, and a shell beside it
-- ends it when standard input ends, so that it never outlives a test run that crashed.

local free_port = require "spec.support.free_port"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local http_client = require "spec.support.http_client"
local uv_loop = require "spec.support.uv_loop"
local process = require "spec.support.process"

local nginx = {
  PACKAGES = "nginx-light, libnginx-mod-http-lua and lua-resty-core (Debian's names), or OpenResty",
  WEBSOCKET_PACKAGE = "lua-nginx-websocket (Debian's name), which is a part of OpenResty",
}

local MODULES = { "ndk_http_module.so", "ngx_http_lua_module.so" }
local TRIES = 3

-- Runs nginx and stands guard over it. Its own output goes where the shell's goes.
local GUARD = [[
"$2" -p "$1" -c "$1/nginx.conf" -e stderr >&2 & pid=$!
trap 'kill -TERM $pid' TERM
( wait_for=$pid; while kill -0 $wait_for 2>/dev/null; do sleep 0.05; done; echo ended ) &
echo $pid
cat >/dev/null
kill -TERM $pid 2>/dev/null
wait $pid
]]

-- Debian keeps it out of the PATH of ordinary users.
local PROGRAMS = { "nginx", "openresty", "/usr/sbin/nginx", "/usr/local/openresty/nginx/sbin/nginx" }

local program

-- Returns the output of `nginx -V`, or nil when there is no nginx.
local function configuration()
  for _, candidate in ipairs(PROGRAMS) do
    local ok, child = pcall(process.start, { argv = { candidate, "-V" } })
    if ok then
      program = candidate
      child:wait(10)
      child:stop()
      return child:stderr_text()
    end
  end
end

-- The directives that load the Lua module; nil when there is none.
local function load_modules()
  local text = configuration()
  if not text then return nil end
  local directory = text:match("%-%-modules%-path=(%S+)")
  local lines = {}
  for _, name in ipairs(MODULES) do
    if directory and uv.fs_stat(directory .. "/" .. name) then
      lines[#lines + 1] = ("load_module %s/%s;\n"):format(directory, name)
    end
  end
  if #lines == #MODULES then return table.concat(lines) end
  return text:find("ngx_lua", 1, true) and "" or nil -- built in, as in OpenResty
end

local loading

--- Returns whether an nginx that runs Lua is installed.
function nginx.installed()
  loading = loading or load_modules()
  return loading ~= nil
end

--- Returns whether nginx's Lua has WebSockets.
function nginx.has_websocket()
  local prefix = (configuration() or ""):match("%-%-prefix=(%S+)") or ""
  for _, path in ipairs { "/usr/share/lua/5.1/nginx/websocket/server.lua", prefix .. "/../lualib/resty/websocket/server.lua" } do
    if uv.fs_stat(path) then return true end
  end
  return false
end

--- Builds the core for LuaJIT if that has not been done. Gives whether it is there.
function nginx.core()
  if uv.fs_stat("build/jit/opensandbox/core.so") then return true end
  local child = process.start { argv = { "make", "-s", "LUA=luajit", "core" } }
  child:wait(120)
  child:stop()
  return uv.fs_stat("build/jit/opensandbox/core.so") ~= nil
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

--- Edits the configuration of examples/openresty: its directories, its port, the modules and the temporary files are those of the test.
function nginx.example_here(text)
  for from, to in pairs {
    ["$prefix/../../"] = "@tree@/", ["$prefix/?"] = "@tree@/examples/openresty/?", ["127.0.0.1:8081"] = "127.0.0.1:@port@",
    ["root .;"] = "root @tree@/examples/openresty;", ["worker_processes auto;"] = "worker_processes 1; @user@ @modules@",
    ["http {"] = "http { " .. [[client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp;
      scgi_temp_path temp;]],
  } do
    local parts, position = {}, 1
    local first, last = text:find(from, 1, true)
    assert(first, from .. " is not in the example")
    while first do
      parts[#parts + 1] = text:sub(position, first - 1) .. to
      position = last + 1
      first, last = text:find(from, position, true)
    end
    text = table.concat(parts) .. text:sub(position)
  end
  return text
end

local Server = {}
Server.__index = Server

--- Sends one request. Returns the response of spec/support/http_client.lua.
function Server:get(path, options)
  options = options or {}
  options.url = self.url .. path
  return http_client.request(options)
end

--- The body of a good answer; raises for any other.
function Server:ask(path, options)
  local response, problem = self:get(path, options)
  if not response then error(("%s: %s\n%s"):format(path, problem, self.child:stderr_text()), 2) end
  if response.status ~= 200 then
    error(("%s: %d %s\n%s"):format(path, response.status, response.body, self.child:stderr_text()), 2)
  end
  return response.body
end

--- Asks the master to end when its requests are done. Gives the seconds that took; nil when it did not within 10.
function Server:quit()
  local began = uv_loop.now()
  uv.kill(self.master, "sigquit")
  local line = self.child:read_line(10)
  return line == "ended" and (uv_loop.now() - began) / 1000 or nil
end

--- What was logged so far.
function Server:log()
  return self.child:stderr_text()
end

function Server:stop()
  self.child:stop()
  temporary.remove(self.prefix)
end

local function start(template, options)
  local prefix = temporary.directory()
  local port = free_port()
  local known = {
    modules = loading, user = uv.getuid() == 0 and "user root;" or "", port = tostring(port), tree = uv.cwd(), workers = "1",
  }
  for name, value in pairs(options.values or {}) do known[name] = tostring(value) end
  write(prefix .. "/nginx.conf", (template:gsub("@(%w+)@", known)))
  local child = process.start { argv = { "sh", "-c", GUARD, "sh", prefix, program }, env = options.env }
  local self = setmetatable({
    child = child, prefix = prefix, url = "http://127.0.0.1:" .. port, master = tonumber(child:read_line() or ""),
  }, Server)
  local deadline = uv_loop.now() + 10000
  while uv_loop.now() < deadline and child.buffer == "" do
    if self:get("/plain", { timeout = 1 }) then return self end
    uv_loop.sleep(0.02)
  end
  local log = child:stderr_text()
  self:stop()
  return nil, log
end

--- Starts a server; raises when it does not start.
---@param path string the configuration
---@param options table values (for the words between @ signs), edit (a function: makes a template of its text), env (changes to the environment)
function nginx.start(path, options)
  assert(nginx.installed(), "nginx with its Lua module is not installed")
  local file = assert(io.open(path))
  local template = file:read("*a")
  file:close()
  if options.edit then template = options.edit(template) end
  local log
  for _ = 1, TRIES do -- another may take the port before nginx does
    local server
    server, log = start(template, options)
    if server then return server end
    if not log:find("Address already in use", 1, true) then break end
  end
  error("nginx did not start:\n" .. log, 2)
end

return nginx
