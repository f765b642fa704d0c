--- Templates: what sandboxes of a fast runtime start from. Nothing is built here; a template only takes its time.

local clock = require "opensandbox.devserver.base.clock"
local each = require "opensandbox.base.each"
local images = require "opensandbox.devserver.lifecycle.images"
local random = require "opensandbox.base.random"
local timer = require "opensandbox.devserver.base.timer"

local PHASE_TIME = 100 -- milliseconds that a template is Pending, and then Building

local Templates = {}
Templates.__index = Templates

--- Creates a store.
local function new()
  return setmetatable({ by_id = {}, count = 0 }, Templates)
end

function Templates:get(id)
  return self.by_id[id]
end

--- Returns all templates, the newest first.
function Templates:list()
  local list = {}
  for _, template in each(self.by_id) do list[#list + 1] = template end
  table.sort(list, function(a, b) return a.number > b.number end)
  return list
end

local function set_phase(template, phase, facts)
  template.phase, template.updated = phase, clock.now()
  for name, value in each(facts or {}) do template[name] = value end
end

-- Ends a build.
local function finish(template)
  local problem = images.pull_problem(template.spec.image)
  if problem then return set_phase(template, "Failed", { message = problem }) end
  set_phase(template, "Succeeded", { manifest_ref = ("%s/%s/manifest.json"):format(template.spec.publish, template.id) })
end

--- Begins to build a template.
---@param spec table the body of POST /templates
---@return table template
function Templates:create(spec)
  self.count = self.count + 1
  local now = clock.now()
  local template = { id = "tpl-" .. random.uuid(), number = self.count, spec = spec, created = now, updated = now,
    phase = "Pending" }
  self.by_id[template.id] = template
  template.timer = timer.after(PHASE_TIME, function()
    set_phase(template, "Building")
    template.timer = timer.after(PHASE_TIME, function() finish(template) end)
  end)
  return template
end

function Templates:remove(template)
  self.by_id[template.id] = nil
  template.timer:close()
end

--- Removes all of them.
function Templates:close()
  for _, template in ipairs(self:list()) do self:remove(template) end
end

return { new = new }
