--- Reading a file in which a command's output stands, through connections that may break.

local ATTEMPTS = 4

--- Reads the whole file, beginning again where a connection broke.
---@param client opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param path string
---@param take fun(bytes: string) gets the bytes in order, each once; an error of it passes through
---@return true? ok
---@return opensandbox.Error? err
return function(client, endpoint, path, take)
  local offset, err = 0, nil
  for _ = 1, ATTEMPTS do
    local reader
    reader, err = client:download_file(endpoint, path, { offset = offset > 0 and offset or nil })
    if not reader then
      if err.code == "range" and offset > 0 then return true end -- it broke just after the last byte
      return nil, err
    end
    local bytes
    bytes, err = reader:read()
    while bytes do
      offset = offset + #bytes
      reader.exchange:call_user(take, bytes)
      bytes, err = reader:read()
    end
    if not err then return true end
    reader:close()
    if err.kind ~= "stream" and err.kind ~= "transport" and err.timer ~= "idle_timeout" then break end
  end
  return nil, err
end
