--- Tells whether an error says that memory has run out, in the words of any library that can say it.

-- Messages of Lua, of the library, of libcurl, of the C library, of table.sort of Lua 5.2, of Lua 5.4.4 where its own buffers cannot grow,
-- of libcurl before 8.6, which has one code for no memory and for a long line, and of requests that libcurl has sent without their query,
-- because it ignores that it has no memory for that.
local MESSAGES = {
  "not enough memory", "ut of memory", "annot allocate memory", "stack overflow ()", "got a non-closable value", "error in error",
  "head is too long", "that match the filter", "missing query parameter",
}

--- Returns whether an error, or a cause of it, says that memory has run out. libcurl loses some failures: then a clock ends the call.
---@param err any
---@return boolean
local function is_out_of_memory(err)
  local text = tostring(err)
  for _, words in ipairs(MESSAGES) do
    if text:find(words, 1, true) then return true end
  end
  if type(err) == "table" and err.kind == "timeout" then return true end
  return type(err) == "table" and err.cause ~= nil and is_out_of_memory(err.cause)
end

return is_out_of_memory
