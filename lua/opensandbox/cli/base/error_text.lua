--- The text of an error of the library in the program's words: it names the program's options instead of the library's, and no method.

local errors = require "opensandbox.base.errors"

local DEFAULT_SERVER = "^%u+ http://localhost:8080/" -- the request line of a call to the default URL

local NO_SERVER_HINT = "Name a server with --url or OPEN_SANDBOX_DOMAIN, or start a development server here with 'opensandbox dev'"

-- Phrases of the library's hints, and the texts for the user of the program.
local PHRASES = {
  { "OPEN_SANDBOX_DOMAIN, or the first argument of opensandbox.new", "--url or OPEN_SANDBOX_DOMAIN" },
  { "OPEN_SANDBOX_API_KEY, or the second argument of opensandbox.new", "--key or OPEN_SANDBOX_API_KEY" },
  { "use_server_proxy = true", "--use-server-proxy" },
  { "the option use_server_proxy", "--use-server-proxy" },
  { "capture = \"exact\"", "--exact" },
  { "set the option proxy (\"\" for none)", "set NO_PROXY" },
  { "Attach again with its id and takeover = true", "Attach again to take it back" },
  { "the tls options (ca_file, verify)", "CURL_CA_BUNDLE" },
}

local function replace(text, phrase, replacement)
  local pieces, position = {}, 1
  while true do
    local from, to = text:find(phrase, position, true)
    if not from then break end
    pieces[#pieces + 1] = text:sub(position, from - 1) .. replacement
    position = to + 1
  end
  return table.concat(pieces) .. text:sub(position)
end

local error_text = { PHRASES = PHRASES }

--- Returns the text of an error.
---@param err any an error of the library, or any other value
---@return string
function error_text.of(err)
  if not errors.is(err) then return tostring(err) end
  local shown = { op = false }
  if err.code == "connect_failed" and (err.url or ""):find(DEFAULT_SERVER) then shown.hint = NO_SERVER_HINT end
  local text = tostring(setmetatable(shown, { __index = err, __tostring = getmetatable(err).__tostring }))
  for _, pair in ipairs(PHRASES) do text = replace(text, pair[1], pair[2]) end
  return text
end

return error_text
