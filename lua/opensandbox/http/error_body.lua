--- Reads the bodies of error responses: those of the lifecycle server, execd, gateways and proxies. The bodies can come from a hostile
--- server, so every pattern in this file reads them in linear time.

local json = require "opensandbox.base.json"
local printable = require "opensandbox.base.printable"

local error_body = {}

--- The size up to which a body is read, in bytes. Validation errors repeat the request, and all others are short.
error_body.MAX_SIZE = 1024 * 1024

local MAX_EXCERPT = 300 -- bytes

-- Shortens a text to one line.
local function excerpt(text)
  return printable(text:gsub("%s+", " "):match("^ ?(.-) ?$"), MAX_EXCERPT)
end

-- Returns a code only if it is one word.
local function valid_code(code)
  return type(code) == "string" and code:find("^[%w_:.%-]+$") and code or nil
end

-- Reads validation errors: [{loc, msg, input}]. `input` repeats the request with its secrets, so it is never shown.
local function validation(detail)
  local lines = {}
  for _, item in ipairs(detail) do
    if type(item) == "table" and item.msg then
      local where = {}
      for _, step in ipairs(type(item.loc) == "table" and item.loc or {}) do
        if step ~= "body" then where[#where + 1] = tostring(step) end
      end
      lines[#lines + 1] = (#where > 0 and table.concat(where, ".") .. ": " or "") .. tostring(item.msg)
    end
  end
  return table.concat(lines, "; ")
end

-- The title of an HTML page, or nil.
local function html_title(body)
  local tag = body:lower():find("<title", 1, true)
  local opened = tag and body:find(">", tag, true)
  local closed = opened and body:find("</", opened, true)
  local title = closed and body:sub(opened + 1, closed - 1)
  return title and title:find("%S") and title or nil
end

-- The code and the message of a JSON object; either can be nil.
local function from_json(decoded)
  local code = valid_code(decoded.code)
  if type(decoded.message) == "string" then return code, decoded.message end
  local detail = decoded.detail
  if type(detail) == "table" then
    code = valid_code(detail.code) or code
    if detail[1] then code = "VALIDATION" end
    return code, type(detail.message) == "string" and detail.message or validation(detail)
  end
  if type(detail) == "string" then return code, detail end
  return code, type(decoded.error) == "string" and decoded.error or nil
end

--- Reads an error body of any form.
---@param status integer
---@param body string
---@param content_type? string
---@param redact fun(text: string): string removes secrets, before anything is shortened
---@return string code
---@return string message
function error_body.parse(status, body, content_type, redact)
  local code, message
  local decoded = body:find("^%s*{") and json.decode(body) or nil
  if type(decoded) == "table" then
    code, message = from_json(decoded)
  elseif body:find("^%s*<") or (content_type or ""):find("html", 1, true) then
    local title = html_title(body)
    message = "the response is an HTML page" .. (title and ": " .. excerpt(redact(title)) or "")
  else
    message = body
  end
  if not message or not message:find("%S") then message = "the server returned an error without a message" end
  return redact(code or "HTTP_" .. status), excerpt(redact(message))
end

return error_body
