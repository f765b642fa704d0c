--- The JSON library of the host: vim.json, lua-cjson or dkjson.
--
-- Neovim's vim.json comes first, because Neovim 0.11 and lua-cjson both export the C functions strbuf_*: a lua-cjson that is loaded into
-- it calls Neovim's and writes garbage. lua-cjson comes before dkjson because it is faster.

---@class opensandbox.JsonCodec
---@field name string
---@field null any the value that represents null
---@field encode fun(value: any): string raises if the value cannot be written
---@field decode fun(text: string): any raises if the text is not JSON

local function vim_codec()
  local vim = rawget(_G, "vim")
  if type(vim) ~= "table" or not vim.json then return nil end
  return { name = "vim.json", null = vim.NIL, encode = vim.json.encode, decode = vim.json.decode }
end

-- lua-cjson reads fractions by the C library, whose decimal separator depends on the locale. A new instance asks for the separator once,
-- so another instance is made whenever the locale has changed. The instance is not the host's, whose settings do not change.
local function cjson_codec()
  local found, cjson = pcall(require, "cjson")
  if not found then return nil end
  local instance, locale
  local function current()
    local now = os.setlocale(nil, "numeric")
    if not instance or now ~= locale then
      instance, locale = cjson.new(), now
      instance.decode_invalid_numbers(false)   -- NaN, Infinity and hexadecimal are not JSON
      instance.encode_keep_buffer(false)       -- one large body must not stay in memory for ever
    end
    return instance
  end
  return {
    name = "lua-cjson", null = cjson.null,
    encode = function(value) return current().encode(value) end,
    decode = function(text) return current().decode(text) end,
  }
end

local function dkjson_codec()
  local found, dkjson = pcall(require, "dkjson")
  if not found then return nil end
  return {
    name = "dkjson", null = dkjson.null,
    encode = function(value) return (dkjson.encode(value)) end,
    decode = function(text)
      local value, after, problem = dkjson.decode(text, 1, dkjson.null, nil, nil) -- without metatables
      if problem then error(problem, 0) end
      if text:find("%S", after) then error("text follows the value, at character " .. after, 0) end
      return value
    end,
  }
end

local codec = vim_codec() or cjson_codec() or dkjson_codec()
if not codec then
  error(("opensandbox needs lua-cjson or dkjson: install one with `%s` (Debian and Ubuntu: lua-cjson)"):format(
    require("opensandbox.base.luarocks").install "lua-cjson"), 0)
end

return codec ---@type opensandbox.JsonCodec
