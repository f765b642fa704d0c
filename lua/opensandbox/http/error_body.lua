--- What a response says when it says no: the error bodies of the lifecycle server, execd, gateways and proxies.

local json = require "opensandbox.base.json"

local response = {}

local EXCERPT = 300 -- bytes of a body that is not ours to understand

local function excerpt(text)
  text = text:gsub("%s+", " "):gsub("[%z\1-\31\127]", "?")
  return #text > EXCERPT and text:sub(1, EXCERPT) .. "..." or text
end

-- A code is a word for programs; anything else is not taken for one.
local function sound_code(code)
  return type(code) == "string" and code:find("^[%w_:.%-]+$") and code or nil
end

-- Validation errors: [{loc, msg, input}]. `input` repeats the request, secrets included, and is never shown.
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

--- Reads an error body of any shape.
---@param status integer
---@param body string
---@param content_type? string
---@param scrub fun(text: string): string takes secrets out, before anything is shortened
---@return string code
---@return string message
function response.explain(status, body, content_type, scrub)
  local code, message = "HTTP_" .. status, nil
  local decoded = body:find("^%s*{") and json.decode(body) or nil
  if type(decoded) == "table" then
    code = sound_code(decoded.code) or code
    if type(decoded.message) == "string" then
      message = decoded.message
    elseif type(decoded.detail) == "table" then
      local inner = decoded.detail
      code = sound_code(inner.code) or code
      message = type(inner.message) == "string" and inner.message or validation(inner)
      if inner[1] then code = "VALIDATION" end
    elseif type(decoded.detail) == "string" then
      message = decoded.detail
    elseif type(decoded.error) == "string" then
      message = decoded.error
    end
  elseif body:find("^%s*<") or (content_type or ""):find("html", 1, true) then
    local title = body:match("<[tT][iI][tT][lL][eE][^>]*>%s*(.-)%s*</")
    message = "a web page answered" .. (title and title ~= "" and ": " .. title or "")
  elseif body:find("%S") then
    message = body
  end
  if not message or message == "" then message = "the server said no, without a reason" end
  return scrub(code), excerpt(scrub(message))
end

--- Seconds of a Retry-After header; a date is not looked at.
function response.retry_after(headers)
  local seconds = tonumber(headers["retry-after"] or "")
  return seconds and seconds >= 0 and seconds or nil
end

return response
