--- The proxy that libcurl uses for a URL. libcurl chooses it by itself; this file repeats its rules, so that an error can name a proxy
--- that the user may not know about.

local url = require "opensandbox.base.url"

local proxy = {}

local DEFAULT_PORT = 1080 -- libcurl's, for a proxy without a port

-- libcurl ignores HTTP_PROXY, because a CGI program would get it from a request's header.
local variables = {
  http = { "http_proxy", "all_proxy", "ALL_PROXY" },
  https = { "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY" },
}

local function from_environment(names)
  for _, name in ipairs(names) do
    local value = os.getenv(name)
    if value and value ~= "" then return value, name end
  end
end

-- Returns whether no_proxy names a host or a domain above it.
local function is_excluded(host)
  local list = from_environment { "no_proxy", "NO_PROXY" }
  for given in (list or ""):gmatch("[^,%s]+") do
    local entry = given:gsub("^%.", ""):lower()
    if entry == "*" or entry == host or host:sub(-#entry - 1) == "." .. entry then return true end
  end
  return false
end

---@class opensandbox.Proxy
---@field url string without user and password
---@field host string
---@field port integer
---@field source string where it was set: "option proxy" or "environment variable http_proxy"
---@field resolves_hosts boolean the names of servers are resolved by it, and only its own name here

--- Returns the proxy for a URL.
---@param target string
---@param option? string the client's option `proxy`; "" means no proxy
---@return opensandbox.Proxy? proxy nil if the connection is direct
function proxy.of(target, option)
  local parsed = url.parse((target:gsub("[?#].*$", "")))
  if not parsed then return nil end
  local value, source = option, "option proxy"
  if value == nil then
    local name
    value, name = from_environment(variables[parsed.scheme])
    if not value or is_excluded(parsed.host:gsub("[%[%]]", ""):lower()) then return nil end
    source = "environment variable " .. name
  elseif value == "" then
    return nil
  end
  local shown = url.redacted(value)
  local host, port = shown:gsub("^%a[%w+.-]*://", ""):match("^%[?(.-)%]?:?(%d*)/*$")
  local scheme = (shown:match("^(%a[%w+.-]*)://") or "http"):lower()
  return { url = shown, host = host or shown, port = tonumber(port) or DEFAULT_PORT, source = source,
    resolves_hosts = scheme ~= "socks4" and scheme ~= "socks5" }
end

return proxy
