--- The files of a sandbox as another user: `sandbox.files:as(uid, gid)`. execd (from 1.1.1) repeats its file routes below
--- /v1/filesystem/{uid}/{gid}, where it has the rights of that user. Helper commands run as that user, too.

local capabilities = require "opensandbox.http.capabilities"
local errors = require "opensandbox.base.errors"
local http_client = require "opensandbox.http.http_client"
local options = require "opensandbox.base.options"
local tables = require "opensandbox.base.tables"

local identity = {}

local FEATURE = "files as a user"
local MAX_ID = 2 ^ 32 - 2 -- the greatest id of Linux; the next one means "do not change"

-- The client methods whose first argument is the endpoint of files.
local FILE_METHODS = {}
for _, name in ipairs {
  "list_directory", "search_files", "file_info", "make_directories", "move_files", "set_permissions", "replace_in_files",
  "delete_files", "delete_directories", "download_file", "save_file", "upload_files",
} do
  FILE_METHODS[name] = true
end

local function unsupported(op, endpoint, err)
  return errors.new { kind = "state", code = "unsupported", op = op, status = err and err.status, url = err and err.url,
    cause = err, sandbox_id = endpoint.sandbox_id,
    message = "this execd has no files as another user: that needs execd 1.1.1 or newer",
    hint = "Run commands as that user instead: sandbox:run(command, { uid = uid, gid = gid })" }
end

-- Adds the meaning to an error of execd.
local function explain(client, op, endpoint, err)
  if errors.is_unknown_route(err) then
    capabilities.set(client, endpoint, FEATURE, false)
    return unsupported(op, endpoint, err)
  elseif err.code == "FILESYSTEM_IDENTITY_UNAVAILABLE" then
    err.hint = "This execd has no right to act as another user: it must run as root"
  end
  return err
end

-- Makes a view of a client whose file methods explain their errors.
local function view(client)
  return setmetatable({}, { __index = function(_, name)
    if not FILE_METHODS[name] then return client[name] end
    return function(self, endpoint, ...)
      local value, err = client[name](self, endpoint, ...)
      if value == nil and err then return nil, explain(client, self.op, endpoint, err) end
      return value, err
    end
  end })
end

local function check_id(op, what, id)
  options.argument(op, what, id, "natural")
  if id > MAX_ID then options.raise(op, ("%s must be %.0f at most"):format(what, MAX_ID)) end
end

-- Checks the ids, and returns the beginning of the routes' paths.
local function prefix_of(op, uid, gid)
  check_id(op, "the uid", uid)
  check_id(op, "the gid", gid)
  return ("/v1/filesystem/%.0f/%.0f"):format(uid, gid)
end

--- Returns the endpoint of the files as a user, with which every file method of the client works. Nothing is sent. `sandbox.files:as` also
--- explains the errors, and runs helper commands as the user.
--- ```lua
--- local theirs = client:identity_endpoint(execd, 1000, 1000)
--- assert(client:make_directories(theirs, "/home/user/new"))
--- ```
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param uid integer 0 to 4294967294
---@param gid integer 0 to 4294967294
---@return opensandbox.Endpoint
function identity.identity_endpoint(self, execd, uid, gid)
  local op = self.op or "identity_endpoint"
  local prefix = prefix_of(op, uid, gid)
  execd = http_client.check_endpoint(op, execd)
  return tables.merge(execd, { url = execd.url .. prefix })
end

--- Returns the files of the sandbox as another user sees them: GET, POST and DELETE /v1/filesystem/{uid}/{gid}/... of execd. New files
--- belong to that user, and an operation that it may not do is an error. Nothing is sent. An execd before 1.1.1 has no such routes: the
--- first call that needs one returns an error of kind `state` with the code `unsupported`.
--- ```lua
--- assert(sandbox.files:as(1000, 1000):write("/home/user/a.txt", "some bytes"))
--- ```
---@param self opensandbox.Files
---@param uid integer 0 to 4294967294
---@param gid integer 0 to 4294967294
---@return opensandbox.Files
function identity.as(self, uid, gid)
  local op, base = "files:as", self.target.base or self.target
  prefix_of(op, uid, gid)
  if not base.has_users then
    options.raise(op, "the files of an isolated session belong to its user: give sandbox:isolated the options 'uid' and 'gid'")
  end
  local endpoints = setmetatable({}, { __mode = "k" }) -- by the endpoint of execd
  local target = tables.merge(base, { base = base, client = view(base.client) })
  function target.endpoint(given_op, limit)
    local execd, err = base.endpoint(given_op, limit)
    if not execd then return nil, err end
    local endpoint = endpoints[execd] or base.client:identity_endpoint(execd, uid, gid)
    endpoints[execd] = endpoint
    if capabilities.get(base.client, endpoint, FEATURE) == false then return nil, unsupported(given_op, endpoint) end
    return endpoint
  end
  function target.run(given_op, script, opts, ...)
    return base.run(given_op, script, tables.merge(opts, { uid = uid, gid = gid }), ...)
  end
  return setmetatable({ target = target }, getmetatable(self))
end

return identity
