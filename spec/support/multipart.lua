--- Reads a multipart/form-data body, strictly enough to notice a wrong one.

local multipart = {}

local function parameter(header, name)
  return header:match("[;%s]" .. name .. '="([^"]*)"') or header:match("[;%s]" .. name .. "=([^;%s]+)")
end

--- The parts of a body.
-- @tparam string body
-- @tparam string content_type with the boundary
-- @treturn[1] {table,...} with `name`, `filename`, `headers` (text) and `body`
-- @treturn[2] nil
-- @treturn[2] string its problem
function multipart.parse(body, content_type)
  local boundary = parameter(content_type, "boundary")
  if not boundary then return nil, "no boundary" end
  local parts, position = {}, #boundary + 3
  if body:sub(1, #boundary + 2) ~= "--" .. boundary then return nil, "the body does not begin with the boundary" end
  while body:sub(position, position + 1) ~= "--" do
    if body:sub(position, position + 1) ~= "\r\n" then return nil, "no line end after the boundary" end
    local head_end, content = body:find("\r\n\r\n", position, true)
    local next_boundary, after = body:find("\r\n--" .. boundary, position + 2, true)
    if not head_end or not next_boundary or head_end > next_boundary then return nil, "a part has no end" end
    local headers = body:sub(position + 2, head_end - 1)
    local disposition = (" " .. headers):match("[%s][Cc]ontent%-[Dd]isposition:([^\r\n]*)") or ""
    parts[#parts + 1] = {
      headers = headers, body = body:sub(content + 1, next_boundary - 1), filename = parameter(disposition, "filename"),
      name = parameter(disposition, "name") or "",
    }
    position = after + 1
  end
  return parts
end

return multipart
