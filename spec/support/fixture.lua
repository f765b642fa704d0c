--- A development server, a client of it and a sandbox: the set-up of most specs of the objects.

local opensandbox = require "opensandbox"
local process = require "spec.support.process"

local Fixture = {}
Fixture.__index = Fixture

--- The options of a create: these over an image's name.
local function create_options(changes)
  local options = { image = "python:3.12" }
  for name, value in pairs(changes or {}) do options[name] = value end
  return options
end

--- Sets it up.
-- @param changes to the options of the sandbox's create
-- @return `server`, `client`, `sandbox`, `root` (the sandbox's "/" as its commands see it), `unisolated` (why there are no isolated
-- sessions; nil where bubblewrap works) and the methods below
local function new(changes)
  local self = setmetatable({ clients = {} }, Fixture)
  self.server = process.devserver { grace = 0.2 }
  self.client = self:another_client()
  self.sandbox = self:create(changes)
  self.root = self.sandbox:run("pwd").stdout:gsub("/*\n$", "")
  self.unisolated = self.root ~= "" and "isolated sessions need bubblewrap" or nil
  return self
end

function Fixture:another_client(options)
  local client = opensandbox.new(self.server.url, self.server.key, options)
  self.clients[#self.clients + 1] = client
  return client
end

function Fixture:create(changes)
  return assert(self.client:create(create_options(changes)))
end

--- The exchanges with a sandbox's execd, which the API's objects have for themselves.
function Fixture:execd(options)
  return assert(self.client:discover_execd(self.sandbox.id, options))
end

function Fixture:close()
  for _, client in ipairs(self.clients) do client:close() end
  self.server:stop()
end

return { new = new, create_options = create_options }
