--- Archives as no tar would make them, header by header.

local tarball = {}

local function octal(value, width) return ("%0" .. (width - 1) .. "o\0"):format(value) end

local function field(text, width) return text:sub(1, width) .. ("\0"):rep(width - #text) end

--- One header. `header`: name, type ("0" when left out), size, mode, mtime, target, magic, prefix; a string for size or mtime is the field's bytes.
function tarball.header(header)
  local size = type(header.size) == "string" and header.size or octal(header.size or 0, 12)
  local before = field(header.name, 100) .. octal(header.mode or 420, 8) .. octal(0, 8) .. octal(0, 8) .. size
    .. (type(header.mtime) == "string" and header.mtime or octal(header.mtime or 0, 12))
  local after = (header.type or "0") .. field(header.target or "", 100) .. (header.magic or "ustar\00000") .. ("\0"):rep(80)
    .. field(header.prefix or "", 155) .. ("\0"):rep(12)
  local total = 8 * 32
  for _, text in ipairs { before, after } do
    for i = 1, #text do total = total + text:byte(i) end
  end
  return before .. ("%06o\0 "):format(total) .. after
end

local function padded(content) return content .. ("\0"):rep(-#content % 512) end

--- A header and its content. `content` also sets the size, if that is not given.
function tarball.entry(header, content)
  content = content or ""
  if header.size == nil then header.size = #content end
  return tarball.header(header) .. padded(content)
end

--- A pax record.
function tarball.record(key, value)
  local rest = " " .. key .. "=" .. value .. "\n"
  local length = #rest + 1
  while #tostring(length) + #rest ~= length do length = #tostring(length) + #rest end
  return length .. rest
end

tarball.trailer = ("\0"):rep(1024)

--- Returns a whole archive of the results of `entry` and `header`.
function tarball.archive(...)
  return table.concat { ... } .. tarball.trailer
end

return tarball
