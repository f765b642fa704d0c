--- Pools of prepared sandboxes on the server: a client method for each route. Only on Kubernetes; other servers answer 501. A create
--- takes a sandbox from one with `extensions = { poolRef = name }`.

local errors = require "opensandbox.base.errors"
local options = require "opensandbox.base.options"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local pools = {}

---@class opensandbox.PoolCapacity
---@field buffer_min integer sandboxes kept ready, at least
---@field buffer_max integer and at most
---@field pool_min integer sandboxes in all, at least
---@field pool_max integer and at most

---@class opensandbox.PoolInfo
---@field name string
---@field capacity opensandbox.PoolCapacity
---@field total? integer sandboxes there are now
---@field allocated? integer
---@field available? integer
---@field revision? string
---@field created_at? number Unix seconds

local known_capacity = { buffer_min = "count", buffer_max = "count", pool_min = "count", pool_max = "count" }

local function pool_info(answer)
  if type(answer) ~= "table" or type(answer.name) ~= "string" then return nil, "pool" end
  local capacity = type(answer.capacitySpec) == "table" and answer.capacitySpec or {}
  local status = type(answer.status) == "table" and answer.status or {}
  return {
    name = answer.name, created_at = time.parse(answer.createdAt),
    capacity = { buffer_min = capacity.bufferMin, buffer_max = capacity.bufferMax, pool_min = capacity.poolMin,
      pool_max = capacity.poolMax },
    total = status.total, allocated = status.allocated, available = status.available, revision = status.revision,
  }
end

local function pool_list(answer)
  if type(answer.items) ~= "table" then return nil, "list of pools" end
  local list = {}
  for i, item in ipairs(answer.items) do
    list[i] = pool_info(item)
    if not list[i] then return nil, "list of pools" end
  end
  return list
end

local function pool_path(op, name)
  return "/pools/" .. url.escape(options.identifier(op, "the name of the pool", name))
end

local function capacity_spec(op, capacity)
  options.argument(op, "the capacity", capacity, "table")
  options.check(op, capacity, known_capacity)
  local spec = { bufferMin = capacity.buffer_min, bufferMax = capacity.buffer_max, poolMin = capacity.pool_min,
    poolMax = capacity.pool_max }
  for name in pairs(known_capacity) do
    if not capacity[name] then options.raise(op, "the capacity needs " .. name) end
  end
  return spec
end

local create_options = { name = "text", template = "table", capacity = "table" }

--- Makes a pool: POST /pools.
---@param self opensandbox.Client
---@param opts table name, template (a Kubernetes PodTemplateSpec, as it is), capacity (opensandbox.PoolCapacity)
---@return opensandbox.PoolInfo? info
---@return opensandbox.Error? err
function pools.create_pool(self, opts)
  local op = self.op or "create_pool"
  options.argument(op, "the options", opts, "table")
  options.check(op, opts, create_options)
  options.identifier(op, "option 'name'", opts.name)
  options.argument(op, "option 'template'", opts.template, "table")
  return self.http:call { op = op, method = "POST", path = "/pools", decode = pool_info,
    json = { name = opts.name, template = opts.template, capacitySpec = capacity_spec(op, opts.capacity) } }
end

--- The pools: GET /pools.
---@param self opensandbox.Client
---@return opensandbox.PoolInfo[]? list
---@return opensandbox.Error? err
function pools.list_pools(self)
  return self.http:call { op = self.op or "list_pools", method = "GET", path = "/pools", decode = pool_list }
end

--- One pool: GET /pools/{name}.
---@param self opensandbox.Client
---@param name string
---@return opensandbox.PoolInfo? info
---@return opensandbox.Error? err
function pools.get_pool(self, name)
  local op = self.op or "get_pool"
  return self.http:call { op = op, method = "GET", path = pool_path(op, name), decode = pool_info }
end

--- Changes the capacity of a pool: PUT /pools/{name}.
---@param self opensandbox.Client
---@param name string
---@param capacity opensandbox.PoolCapacity
---@return opensandbox.PoolInfo? info
---@return opensandbox.Error? err
function pools.update_pool(self, name, capacity)
  local op = self.op or "update_pool"
  return self.http:call { op = op, method = "PUT", path = pool_path(op, name), decode = pool_info,
    json = { capacitySpec = capacity_spec(op, capacity) } }
end

--- Removes a pool: DELETE /pools/{name}. One that is gone already is a success.
---@param self opensandbox.Client
---@param name string
---@return true? ok
---@return opensandbox.Error? err
function pools.delete_pool(self, name)
  local op = self.op or "delete_pool"
  local _, err = self.http:call { op = op, method = "DELETE", path = pool_path(op, name), shielded = true }
  if err and not errors.is_absence(err) then return nil, err end
  return true
end

return pools
