--- Reads the file of a command's output through connections that may break.

local MAX_ATTEMPTS = 4

--- Reads a whole file. After a connection broke, it continues at the same byte.
---@param client opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param path string
---@param take fun(bytes: string) receives the bytes in order, each once; an error that it raises is passed on
---@return true? ok
---@return opensandbox.Error? err
return function(client, endpoint, path, take)
  local offset, err = 0, nil
  for _ = 1, MAX_ATTEMPTS do
    local reader
    reader, err = client:download_file(endpoint, path, { offset = offset > 0 and offset or nil })
    if not reader then
      if err.code == "range_not_satisfiable" and offset > 0 then return true end -- the connection broke behind the last byte
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
