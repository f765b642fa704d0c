--- `:checkhealth opensandbox` in Neovim: checks that all parts are installed, and that the server responds.

local health = {}

local TIMEOUT = 3 -- seconds for the server's response

-- Returns Neovim's functions by the names of 0.10. Older versions call them report_start and so on, and have them in a module.
local function reporter()
  local vim = rawget(_G, "vim")
  local given = vim.health or require "health"
  local report = {}
  for _, name in ipairs { "start", "ok", "info", "warn", "error" } do report[name] = given[name] or given["report_" .. name] end
  return report
end

local function check_parts(report)
  local found, core_path = pcall(require, "opensandbox.intree")
  if not found then
    report.error(tostring(core_path))
    return false
  end
  local core = require "opensandbox.core"
  report.ok("C core: " .. tostring(core_path))
  report.info("libcurl: " .. core.curl_version)
  if core.async_dns then
    report.ok("libcurl looks up host names in the background")
  else
    report.warn("this libcurl blocks while it looks up a host name", { "Install one with c-ares or the threaded resolver" })
  end
  local has_json, json = pcall(require, "opensandbox.base.json")
  if not has_json then
    report.error(tostring(json))
    return false
  end
  report.ok("JSON: " .. json.codec_name)
  report.ok("event loop: " .. require("opensandbox.loop").name())
  return true
end

local function is_set(name)
  local value = os.getenv(name)
  return value ~= nil and value ~= ""
end

local function check_server(report)
  if not is_set("OPEN_SANDBOX_DOMAIN") then report.info("OPEN_SANDBOX_DOMAIN is not set") end
  report.info("OPEN_SANDBOX_API_KEY is " .. (is_set("OPEN_SANDBOX_API_KEY") and "set" or "not set"))
  local ok, client = pcall(require("opensandbox").new, nil, nil, { timeout = TIMEOUT, connect_timeout = TIMEOUT, retry = false })
  if not ok then return report.error(tostring(client)) end
  local list, err = client:list_sandboxes { page = 1, page_size = 1 }
  client:close()
  if list then return report.ok("the server responds: " .. client.url) end
  -- A plugin can use another server than the environment names.
  report.warn(tostring(err), { "For another server than " .. client.url .. " set OPEN_SANDBOX_DOMAIN and OPEN_SANDBOX_API_KEY" })
end

--- Runs the checks. `:checkhealth opensandbox` calls this.
function health.check()
  local report = reporter()
  report.start("opensandbox")
  if not check_parts(report) then return end
  report.start("opensandbox: server")
  check_server(report)
end

return health
