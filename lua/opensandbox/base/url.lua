--- URLs: parsing, escaping, normalizing, and redacting secrets.

local numbers = require "opensandbox.base.numbers"

local url = {}

local function escape_byte(c)
  return ("%%%02X"):format(c:byte())
end

--- Escapes a path segment or a query value: every byte except the unreserved characters of RFC 3986.
---@param text string
---@return string
function url.escape(text)
  return (text:gsub("[^A-Za-z0-9%-._~]", escape_byte)) -- %w would depend on the locale
end

--- Returns whether a value can be one segment of a path, escaped or not. An id in an answer is checked by this, because the id becomes a
--- part of later paths, some of them in the background. "." and ".." are removed from a path, even if they are escaped.
---@param value any
---@return boolean
function url.is_segment(value)
  return type(value) == "string" and value ~= "" and value ~= "." and value ~= ".."
end

local function byte_of(hex)
  return string.char(tonumber(hex, 16))
end

--- Decodes an escaped text.
---@param text string
---@return string bytes
function url.unescape(text)
  return (text:gsub("%%(%x%x)", byte_of))
end

local function value_text(value)
  return type(value) == "number" and numbers.format(value) or tostring(value)
end

--- Writes a query string: "?a=1&b=2" or "".
---@param pairs_list table[] { name, value }; a pair whose value is nil is left out
---@return string
function url.query(pairs_list)
  local parts = {}
  for _, pair in ipairs(pairs_list) do
    if pair[2] ~= nil then parts[#parts + 1] = url.escape(pair[1]) .. "=" .. url.escape(value_text(pair[2])) end
  end
  return #parts > 0 and "?" .. table.concat(parts, "&") or ""
end

--- Splits an absolute http(s) URL.
---@param text string
---@return table? parsed scheme, userinfo, host (with brackets for IPv6), port, path
---@return string? problem
function url.parse(text)
  if text:find("[%s%c]") then return nil, "it contains white space" end
  local scheme, rest = text:match("^(%a[%w+.-]*)://(.*)$")
  if not scheme then return nil, "it has no scheme" end
  scheme = scheme:lower()
  if scheme ~= "http" and scheme ~= "https" then return nil, "only http and https are known" end
  local authority, path = rest:match("^([^/?#]*)([^?#]*)$")
  if not authority then return nil, "it has a query or a fragment" end
  local userinfo, address = authority:match("^(.*)@(.*)$")
  if userinfo and userinfo:find("@", 1, true) then return nil, "its user or password contains a raw @: write it as %40" end
  address = address or authority
  local host, port = address:match("^(%[[%x:.]+%]):?(%d*)$")
  if not host then host, port = address:match("^([^:%[%]]+):?(%d*)$") end
  if not host then return nil, "its host is not valid" end
  port = tonumber(port) or (scheme == "https" and 443 or 80)
  if port < 1 or port > 65535 then return nil, "its port is not between 1 and 65535" end
  return { scheme = scheme, userinfo = userinfo, host = host, port = port, path = path }
end

--- Returns a text without the slashes at its end. The pattern is linear in the length, unlike "/+$", because a server can send any number.
---@param text string
---@return string
function url.trim_slashes(text)
  return text:match("^(.*[^/])/*$") or ""
end

--- Returns the base URL of the lifecycle API: "/v1" is appended unless the path ends in it, and trailing slashes are removed.
---@param text string with or without a scheme
---@param default_scheme string
---@return string? base
---@return table|string parsed of url.parse, or the problem
function url.normalize_base(text, default_scheme)
  if not text:find("://", 1, true) then text = default_scheme .. "://" .. text end
  local parsed, problem = url.parse(text)
  if not parsed then return nil, problem end
  text = url.trim_slashes(text)
  if not parsed.path:find("/v1/*$") then text = text .. "/v1" end
  return text, parsed
end

--- Returns the URL of an endpoint of the lifecycle API.
---@param text string "host:port/path", perhaps without a scheme, or with an IPv6 address without brackets
---@param scheme string the scheme to add
---@return string
function url.endpoint(text, scheme)
  if not text:find("://", 1, true) then
    local host, rest = text:match("^(%x*:[%x:]*):(%d+.*)$")
    if host and host:find(":", 1, true) then text = "[" .. host .. "]:" .. rest end
    text = scheme .. "://" .. text
  end
  return url.trim_slashes(text)
end

--- Returns whether a text is a host as URLs have it: a name, an IPv4 address, or an IPv6 address in brackets.
---@param text string
---@return boolean
function url.is_host(text)
  local parsed = url.parse("http://" .. text)
  return parsed ~= nil and parsed.host == text
end

--- Returns a URL with another host. Its user and its port stay.
---@param text string an absolute URL
---@param host string
---@return string
function url.with_host(text, host)
  local scheme, authority, path = text:match("^(%a[%w+.-]*://)([^/?#]*)(.*)$")
  local userinfo, address = authority:match("^(.*@)(.*)$")
  return scheme .. (userinfo or "") .. host .. ((address or authority):match(":%d*$") or "") .. path
end

--- Returns a URL without its user, password, query and fragment, so that it can be shown.
---@param text string
---@return string
function url.redacted(text)
  local scheme, rest = text:match("^(%a[%w+.-]*://)(.*)$")
  local authority, path = (rest or text):match("^([^/]*)(.*)$")
  return (scheme or "") .. ((authority:gsub("^.*@", "") .. path):gsub("[?#].*$", ""))
end

return url
