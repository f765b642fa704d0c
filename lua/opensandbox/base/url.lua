--- URLs: bases, joining, escaping, and showing them without secrets.

local url = {}

local function escape_byte(c)
  return ("%%%02X"):format(c:byte())
end

--- Escapes a path segment or a query value: everything but the unreserved characters of RFC 3986.
function url.escape(text)
  return (text:gsub("[^A-Za-z0-9%-._~]", escape_byte)) -- %w would depend on the locale
end

local function byte_of(hex)
  return string.char(tonumber(hex, 16))
end

--- The bytes that an escaped text stands for.
function url.unescape(text)
  return (text:gsub("%%(%x%x)", byte_of))
end

--- Writes a query string, "?a=1&b=2" or "". `pairs_list` is an array of { name, value }; a nil value leaves the pair out.
function url.query(pairs_list)
  local parts = {}
  for _, pair in ipairs(pairs_list) do
    if pair[2] ~= nil then parts[#parts + 1] = url.escape(pair[1]) .. "=" .. url.escape(tostring(pair[2])) end
  end
  return #parts > 0 and "?" .. table.concat(parts, "&") or ""
end

--- Splits an absolute http(s) URL.
-- @treturn[1] table scheme, userinfo, host (with brackets for IPv6), port, path
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function url.parse(text)
  if text:find("[%s%c]") then return nil, "it holds white space" end
  local scheme, rest = text:match("^(%a[%w+.-]*)://(.*)$")
  if not scheme then return nil, "it has no scheme" end
  scheme = scheme:lower()
  if scheme ~= "http" and scheme ~= "https" then return nil, "only http and https are known" end
  local authority, path = rest:match("^([^/?#]*)([^?#]*)$")
  if not authority then return nil, "it has a query or a fragment" end
  local userinfo, address = authority:match("^(.*)@(.*)$")
  if userinfo and userinfo:find("@", 1, true) then return nil, "its user or password holds a raw @: write it as %40" end
  address = address or authority
  local host, port = address:match("^(%[[%x:.]+%]):?(%d*)$")
  if not host then host, port = address:match("^([^:%[%]]+):?(%d*)$") end
  if not host then return nil, "its host is not valid" end
  port = tonumber(port) or (scheme == "https" and 443 or 80)
  if port < 1 or port > 65535 then return nil, "its port is not between 1 and 65535" end
  return { scheme = scheme, userinfo = userinfo, host = host, port = port, path = path }
end

--- The base URL of the lifecycle API: "/v1" is appended when the path is empty, and no slash ends it.
-- @tparam string text with or without a scheme
-- @tparam string default_scheme
function url.base(text, default_scheme)
  if not text:find("://", 1, true) then text = default_scheme .. "://" .. text end
  local parsed, problem = url.parse(text)
  if not parsed then return nil, problem end
  text = text:gsub("/+$", "")
  if parsed.path:match("^/*$") then text = text .. "/v1" end
  return text, parsed
end

--- The URL of an endpoint as the lifecycle API gives it: "host:port/path" without a scheme, an IPv6 address perhaps without brackets.
function url.endpoint(text, scheme)
  if not text:find("://", 1, true) then
    local host, rest = text:match("^(%x*:[%x:]*):(%d+.*)$")
    if host and host:find(":", 1, true) then text = "[" .. host .. "]:" .. rest end
    text = scheme .. "://" .. text
  end
  return (text:gsub("/+$", ""))
end

--- A URL as it may be shown: without user, password and query.
function url.shown(text)
  local scheme, rest = text:match("^(%a[%w+.-]*://)(.*)$")
  local authority, path = (rest or text):match("^([^/]*)(.*)$")
  return (scheme or "") .. ((authority:gsub("^.*@", "") .. path):gsub("[?#].*$", ""))
end

return url
