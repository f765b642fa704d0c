--- Pools of prepared sandboxes on the server: a client method for each route. Only servers on Kubernetes have them; others return 501. A
--- create with `extensions = { poolRef = name }` uses a sandbox of such a pool.

local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local fields = require "opensandbox.base.fields"
local options = require "opensandbox.base.options"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

---@class (partial) opensandbox.Client
local server_pool_routes = {}

--- How many sandboxes a pool of the server has.
--- ```lua
--- local capacity = { buffer_min = 2, buffer_max = 4, pool_min = 2, pool_max = 16 }
--- ```
---@class opensandbox.PoolCapacity
---@field buffer_min integer least number of sandboxes that are kept ready
---@field buffer_max integer greatest number of sandboxes that are kept ready
---@field pool_min integer least number of sandboxes in all
---@field pool_max integer greatest number of sandboxes in all

--- A pool of the server.
--- ```lua
--- local info = assert(client:get_pool("python"))
--- print(info.name, info.capacity.pool_max, info.total, info.allocated, info.available, info.revision, info.created_at)
--- ```
---@class opensandbox.PoolInfo
---@field name string its name
---@field capacity opensandbox.PoolCapacity how many sandboxes it may have
---@field total? integer existing sandboxes
---@field allocated? integer sandboxes in use
---@field available? integer sandboxes that are ready
---@field revision? string of its template
---@field created_at? number Unix seconds

local known_capacity = { buffer_min = "natural", buffer_max = "natural", pool_min = "natural", pool_max = "natural" }

local function pool_info(object)
  if type(object) ~= "table" or not url.is_segment(object.name) then return nil, "pool" end
  local capacity, status = fields.object(object.capacitySpec) or {}, fields.object(object.status) or {}
  return {
    name = object.name, created_at = time.parse(object.createdAt),
    capacity = { buffer_min = fields.natural(capacity.bufferMin), buffer_max = fields.natural(capacity.bufferMax),
      pool_min = fields.natural(capacity.poolMin), pool_max = fields.natural(capacity.poolMax) },
    total = fields.natural(status.total), allocated = fields.natural(status.allocated),
    available = fields.natural(status.available), revision = fields.text(status.revision),
  }
end

local function pool_list(object)
  return fields.decode_list(object.items, pool_info), "list of pools"
end

local function pool_path(op, name)
  return "/pools/" .. url.escape(options.path_segment(op, "the name of the pool", name))
end

local function capacity_spec(op, capacity)
  options.argument(op, "the capacity", capacity, "table")
  options.check(op, capacity, known_capacity)
  for name in each(known_capacity) do
    if not capacity[name] then options.raise(op, "the capacity needs " .. name) end
  end
  return { bufferMin = capacity.buffer_min, bufferMax = capacity.buffer_max, poolMin = capacity.pool_min,
    poolMax = capacity.pool_max }
end

--- The options of `client:create_pool`.
--- ```lua
--- local capacity = { buffer_min = 2, buffer_max = 4, pool_min = 2, pool_max = 16 }
--- assert(client:create_pool { name = "python", template = pod_template, capacity = capacity, timeout = 30 })
--- ```
---@class opensandbox.ServerPoolOpts
---@field name string its name, for `extensions = { poolRef = name }` of a create
---@field template table a Kubernetes PodTemplateSpec, sent unchanged
---@field capacity opensandbox.PoolCapacity how many sandboxes it has
---@field timeout? opensandbox.Duration for the whole call; default: the client's `timeout`

local create_options = { name = "nonempty string", template = "table", capacity = "table", timeout = "seconds" }
local call_options = { timeout = "seconds" }

--- Creates a pool: POST /pools.
--- ```lua
--- local capacity = { buffer_min = 2, buffer_max = 4, pool_min = 2, pool_max = 16 }
--- assert(client:create_pool { name = "python", template = pod_template, capacity = capacity })
--- ```
---@param opts opensandbox.ServerPoolOpts
---@return opensandbox.PoolInfo? info
---@return opensandbox.Error? err
function server_pool_routes:create_pool(opts)
  local op = self.op or "create_pool"
  options.argument(op, "the options", opts, "table")
  options.check(op, opts, create_options)
  options.path_segment(op, "option 'name'", opts.name)
  options.argument(op, "option 'template'", opts.template, "table")
  return self.http:call { op = op, method = "POST", path = "/pools", timeout = opts.timeout, decode = pool_info,
    json = { name = opts.name, template = opts.template, capacitySpec = capacity_spec(op, opts.capacity) } }
end

--- Returns the pools: GET /pools.
--- ```lua
--- for _, info in ipairs(assert(client:list_pools())) do print(info.name, info.total) end
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.PoolInfo[]? list
---@return opensandbox.Error? err
function server_pool_routes:list_pools(opts)
  local op = self.op or "list_pools"
  opts = options.check(op, opts, call_options)
  return self.http:call { op = op, method = "GET", path = "/pools", timeout = opts.timeout, decode = pool_list }
end

--- Returns one pool: GET /pools/{name}.
--- ```lua
--- print(assert(client:get_pool("python")).available)
--- ```
---@param name string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.PoolInfo? info
---@return opensandbox.Error? err
function server_pool_routes:get_pool(name, opts)
  local op = self.op or "get_pool"
  opts = options.check(op, opts, call_options)
  return self.http:call { op = op, method = "GET", path = pool_path(op, name), timeout = opts.timeout, decode = pool_info }
end

--- Changes the capacity of a pool: PUT /pools/{name}.
--- ```lua
--- assert(client:update_pool("python", { buffer_min = 4, buffer_max = 8, pool_min = 4, pool_max = 32 }))
--- ```
---@param name string
---@param capacity opensandbox.PoolCapacity
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.PoolInfo? info
---@return opensandbox.Error? err
function server_pool_routes:update_pool(name, capacity, opts)
  local op = self.op or "update_pool"
  opts = options.check(op, opts, call_options)
  return self.http:call { op = op, method = "PUT", path = pool_path(op, name), timeout = opts.timeout, decode = pool_info,
    json = { capacitySpec = capacity_spec(op, capacity) } }
end

--- Deletes a pool: DELETE /pools/{name}. The call succeeds for a pool that does not exist any more.
--- ```lua
--- assert(client:delete_pool("python"))
--- ```
---@param name string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function server_pool_routes:delete_pool(name, opts)
  local op = self.op or "delete_pool"
  opts = options.check(op, opts, call_options)
  return errors.ignore_absence(self.http:call { op = op, method = "DELETE", path = pool_path(op, name), timeout = opts.timeout,
    shielded = true })
end

return server_pool_routes
