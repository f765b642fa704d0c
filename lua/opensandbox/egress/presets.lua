--- `opensandbox.egress`: presets, which are names for hosts that programs in a sandbox often need, and policies made of them.
--
--     network_policy = opensandbox.egress.only("pypi", "github", "internal.example.com")
--     network_policy = opensandbox.egress.none()

local each = require "opensandbox.base.each"
local network_policy = require "opensandbox.lifecycle.network_policy"
local options = require "opensandbox.base.options"

local presets = {}

--- Ready-made network policies: `opensandbox.egress`.
--- ```lua
--- local some = opensandbox.egress.only("pypi", "github", "internal.example.com")
--- local no_host = opensandbox.egress.none()
--- opensandbox.egress.presets.mine = { "one.example.com", "two.example.com" }
--- local mine = opensandbox.egress.only("mine")
--- ```
---@class opensandbox.EgressPolicies
---@field presets table<string, string[]> the hosts of each preset, by its name: "pypi", "npm", "github", "debian" ...
---@field only fun(...: string|string[]): opensandbox.NetworkPolicy makes a policy that allows only these hosts, which may be names of presets
---@field none fun(): opensandbox.NetworkPolicy makes a policy that allows no host

--- The hosts of each preset. `*.suffix` does not match the suffix itself. Add your own: `opensandbox.egress.presets.mine = { ... }`.
---@type table<string, string[]>
presets.known = {
  pypi = { "pypi.org", "files.pythonhosted.org" },
  npm = { "registry.npmjs.org" },
  github = { "github.com", "api.github.com", "codeload.github.com", "raw.githubusercontent.com", "objects.githubusercontent.com",
    "release-assets.githubusercontent.com", "media.githubusercontent.com" },
  debian = { "deb.debian.org", "security.debian.org" },
  ubuntu = { "archive.ubuntu.com", "*.archive.ubuntu.com", "security.ubuntu.com", "ports.ubuntu.com" },
  crates = { "crates.io", "index.crates.io", "static.crates.io" },
  golang = { "proxy.golang.org", "sum.golang.org", "go.dev", "dl.google.com" },
  luarocks = { "luarocks.org" },
  rubygems = { "rubygems.org", "index.rubygems.org" },
  maven = { "repo.maven.apache.org", "repo1.maven.org" },
}

local function add(op, hosts, name)
  options.argument(op, "each host or preset", name, "nonempty string")
  local preset = presets.known[name]
  -- A name without a dot is a misspelt preset far more often than a host.
  if not preset and not name:find("[.:]") then
    local known = {}
    for preset_name in each(presets.known) do known[#known + 1] = preset_name end
    table.sort(known)
    options.raise(op, ("%q is neither a host with a dot nor a preset; the presets are %s"):format(name, table.concat(known, ", ")))
  end
  for _, host in ipairs(preset or { name }) do
    network_policy.check_target(op, "a host", host)
    hosts[#hosts + 1] = host
  end
end

--- Resolves presets to hosts.
---@param op string
---@param ... string|string[] hosts, and names of presets
---@return string[] hosts
function presets.hosts(op, ...)
  local hosts = {}
  for i = 1, select("#", ...) do
    local given = (select(i, ...))
    if type(given) == "table" then
      for _, name in ipairs(given) do add(op, hosts, name) end
    else
      add(op, hosts, given)
    end
  end
  if #hosts == 0 then options.raise(op, "a host or a preset is needed") end
  return hosts
end

--- Makes one rule for each host.
---@param action string "allow" or "deny"
---@param hosts string[]
---@return opensandbox.EgressRule[]
function presets.rules(action, hosts)
  local rules = {}
  for i, host in ipairs(hosts) do rules[i] = { action = action, target = host } end
  return rules
end

--- Makes a policy that allows only these hosts.
---@param ... string|string[] hosts, and names of presets
---@return opensandbox.NetworkPolicy
function presets.only(...)
  return { default_action = "deny", egress = presets.rules("allow", presets.hosts("egress.only", ...)) }
end

--- Makes a policy that allows no host.
---@return opensandbox.NetworkPolicy
function presets.none()
  return { default_action = "deny", egress = {} }
end

return presets
