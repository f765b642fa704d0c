--- The network policy of one sandbox: `sandbox.egress`.
---
--- The egress sidecar of the sandbox has it. The lifecycle server (from 1.1.1) is asked instead for a sandbox that was made from a template,
--- which has no sidecar, and where the sidecar cannot be reached from here.

local class = require "opensandbox.base.class"
local deadline = require "opensandbox.loop.deadline"
local network_policy = require "opensandbox.lifecycle.network_policy"
local options = require "opensandbox.base.options"
local presets = require "opensandbox.egress.presets"

--- The hosts that a sandbox may reach: `sandbox.egress`. The sandbox must have been created with a `network_policy`.
--- ```lua
--- assert(sandbox.egress:allow("pypi"))
--- ```
---@class opensandbox.Egress
local Egress = {}
Egress.__index = Egress
Egress.__name = "opensandbox.Egress"

local egress = {}

local unpack = table.unpack or unpack -- luacheck: std max

---@param sandbox opensandbox.Sandbox
---@return opensandbox.Egress
function egress.of(sandbox)
  return setmetatable({
    _sandbox = sandbox,
    _uses_server = false, -- the server has answered where the sidecar could not be reached
  }, Egress)
end

-- Returns whether the sidecar cannot be reached, or does not exist. It may have received the request, which can be repeated.
local function is_out_of_reach(err)
  if err.kind == "http" then return err.status == 502 or err.status == 503 or err.status == 504 end
  return err.kind == "transport" or (err.kind == "timeout" and err.not_sent) or err.code == "no_sidecar"
end

-- Returns whether an error of the server is about the request, and so more useful than that of the sidecar.
local function is_about_request(err)
  return err.kind ~= "transport" and err.kind ~= "timeout" and not (err.kind == "http" and (err.status >= 500 or err.status == 404))
end

-- Calls a client method of the sidecar, or the server's method that does the same, within the `timeout` of the options.
local function call(self, op, opts, of_sidecar, of_server, ...)
  local sandbox, limit, sidecar_err = self._sandbox, deadline.new(options.timeout(op, opts)), nil
  if not self._uses_server then
    local value, err = sandbox:call_egress(op, limit, of_sidecar, ...)
    if value or not is_out_of_reach(err) then return value, err end
    sidecar_err = err
  end
  local value, err = sandbox:call_server(op, limit, of_server, ...)
  if value then self._uses_server = true end
  if value or not sidecar_err or sidecar_err.code == "no_sidecar" or is_about_request(err) then return value, err end
  return nil, sidecar_err
end

--- Returns the current policy, in the form that create and replace accept: GET /policy of the egress API, or
--- GET /sandboxes/{id}/networkpolicy, as for all of these methods.
--- ```lua
--- local policy = assert(sandbox.egress:policy())
--- for _, rule in ipairs(policy.egress or {}) do print(rule.action, rule.target) end
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.NetworkPolicy? policy
---@return opensandbox.Error? err
function Egress:policy(opts)
  local status, err = call(self, "egress:policy", opts, "get_egress_policy", "get_network_policy")
  if not status then return nil, err end
  return status.policy
end

-- Returns the hosts among the arguments, and the option table if it is the last argument. A table with a number as its key is a list of
-- hosts.
local function hosts_and_options(op, ...)
  local given, count = { ... }, select("#", ...)
  local last = given[count]
  local has_options = type(last) == "table" and type(next(last)) == "string"
  return presets.hosts(op, unpack(given, 1, has_options and count - 1 or count)), has_options and last or nil
end

local function add_rules(self, op, action, ...)
  local hosts, opts = hosts_and_options(op, ...)
  return call(self, op, opts, "patch_egress_policy", "patch_network_policy", presets.rules(action, hosts))
end

--- Allows hosts: PATCH /policy. New rules come before older ones, but after them for a sandbox that was made from a template.
--- ```lua
--- assert(sandbox.egress:allow("pypi", "my.host.example"))
--- ```
---@param ... string|string[]|{ timeout?: opensandbox.Duration } hosts, `*.suffix`, addresses, CIDRs, and names of presets: "pypi", "npm", "github" ...; the last may be options: timeout in seconds
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:allow(...)
  return add_rules(self, "egress:allow", "allow", ...)
end

--- Denies hosts: PATCH /policy. New rules come before older ones.
--- ```lua
--- assert(sandbox.egress:deny("*.tracker.example"))
--- ```
--- Denies hosts: PATCH /policy. New rules come as for allow.
---@param ... string|string[]|{ timeout?: opensandbox.Duration } as for allow
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:deny(...)
  return add_rules(self, "egress:deny", "deny", ...)
end

--- Removes the rules for hosts, so that other rules and the default action apply to them: DELETE /policy.
--- ```lua
--- assert(sandbox.egress:remove("my.host.example"))
--- ```
---@param ... string|string[]|{ timeout?: opensandbox.Duration } as for allow
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:remove(...)
  local op = "egress:remove"
  local hosts, opts = hosts_and_options(op, ...)
  return call(self, op, opts, "delete_egress_rules", "delete_network_rules", hosts)
end

--- Replaces the whole policy: PUT /policy.
--- ```lua
--- assert(sandbox.egress:replace(opensandbox.egress.only("pypi", "npm")))
--- ```
---@param policy opensandbox.NetworkPolicy for example opensandbox.egress.only("pypi")
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:replace(policy, opts)
  local op = "egress:replace"
  network_policy.check(op, policy)
  return call(self, op, opts, "replace_egress_policy", "replace_network_policy", policy)
end

class.check_colon(Egress, "egress")

return egress
