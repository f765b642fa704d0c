--- `opensandbox doctor`: shows the installed parts, the server that answers, and the rights of the key. It changes nothing.

local core = require "opensandbox.core"
local error_text = require "opensandbox.cli.base.error_text"
local failure = require "opensandbox.cli.base.failure"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local output = require "opensandbox.cli.base.output"

local doctor = { example = "opensandbox doctor" }

local COLORS = { ok = "green", missing = "yellow", unusable = "yellow", failed = "red" } -- only the last is a failure of the program
local COLUMNS = {
  { title = "CHECK" }, { title = "RESULT", color = function(state) return COLORS[state] end },
  { title = "DETAILS", may_cut = true },
}

function doctor.declare() end

local function is_installed(name)
  for template in (package.path .. ";" .. package.cpath):gmatch("[^;]+") do
    local file = io.open((template:gsub("%?", (name:gsub("%.", "/")))))
    if file then
      file:close()
      return true
    end
  end
  return false
end

-- Checks the development server. Its own trial decides whether bubblewrap works here, because an installed one often does not, in
-- containers above all.
local function check_devserver(add)
  if not is_installed "luv" then return add("development server", "missing", "needs the Lua module luv") end
  add("development server", "ok", "luv")
  local ok, strategy, notice = pcall(function() return require("opensandbox.devserver").try_isolation("bwrap") end)
  add("its isolation", ok and strategy and "ok" or "unusable", tostring(ok and notice or strategy))
end

-- Checks this machine.
local function check_installation(add)
  add("opensandbox", "ok", opensandbox._VERSION)
  add("Lua", "ok", rawget(_G, "jit") and rawget(_G, "jit").version or _VERSION)
  add("libcurl", "ok", core.curl_version)
  if not core.async_dns then add("name lookups", "missing", "this libcurl blocks during lookups of host names") end
  add("JSON", "ok", json.codec_name)
  check_devserver(add)
end

-- Checks the server without a key, then the rights of the key. The routes only read.
local function check_server(add, client)
  add("server", "ok", client.url)
  local healthy, err = client:health()
  add("health", healthy and "ok" or "failed", err and error_text.of(err) or "healthy")
  if err and err.kind ~= "http" then return end
  local server_version, problem = client:get_version()
  add("version", server_version and "ok" or "missing", server_version or ("unknown: " .. problem.message))
  local reads = {
    { "list sandboxes", function() return client:list_sandboxes { page = 1, page_size = 1 } end },
    { "list snapshots", function() return client:list_snapshots { page = 1, page_size = 1 } end },
    { "list pools", function() return client:list_pools() end },
  }
  for index, read in ipairs(reads) do
    local list, refused = read[2]()
    -- Not every server has snapshots and pools.
    local state = list and "ok" or (index > 1 and (refused.status == 404 or refused.status == 501) and "missing") or "failed"
    add(read[1], state, refused and error_text.of(refused) or nil)
  end
end

function doctor.run(context)
  local rows, list, failed = {}, json.array {}, false
  local function add(name, state, details)
    rows[#rows + 1] = { name, state, details or "" }
    list[#list + 1] = { check = name, result = state, details = details }
    failed = failed or state == "failed"
  end
  check_installation(add)
  check_server(add, context:client())
  if context:wants_json() then output.json(list) else output.table(COLUMNS, rows) end
  return failed and failure.EXIT.FAILED or 0
end

return doctor
