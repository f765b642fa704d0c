--- Every operation of the APIs has a client method that sends exactly its request, or a reason for having none.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local operations = require "spec.operations"

-- How many operations the four OpenAPI documents describe.
local DESCRIBED = { ["sandbox-lifecycle.yml"] = 13, ["execd-api.yaml"] = 28, ["egress-api.yaml"] = 11, ["diagnostic-api.yml"] = 2 }

local PREFIX = "/at/44772"

-- Counts rows: all, covered and left, of the documents and of what there is beside them.
local function count()
  local described, beyond = { all = 0, covered = 0 }, { all = 0, covered = 0 }
  local by_source = {}
  for _, row in ipairs(operations) do
    local totals = DESCRIBED[row.source] and described or beyond
    totals.all = totals.all + 1
    if row.covered then totals.covered = totals.covered + 1 end
    by_source[row.source] = (by_source[row.source] or 0) + 1
  end
  return described, beyond, by_source
end

local function path_of(row)
  local path = row.path:gsub("{port}", tostring(operations.PORT)):gsub("{[ug]id}", tostring(operations.USER))
  path = path:gsub("{[%w_]+}", operations.ID)
  return (row.at == "endpoint" and PREFIX or row.at) .. path
end

describe("the table of operations", function()
  local described, beyond, by_source = count()

  it(("names a method for %d of %d operations of the four OpenAPI documents, and %d of %d beyond them"):format(described.covered,
    described.all, beyond.covered, beyond.all), function()
    local seen = {}
    for _, row in ipairs(operations) do
      local name = row.method .. " " .. path_of(row) .. " of " .. row.source
      assert.is_nil(seen[name], name)
      seen[name] = true
      assert.is_true((type(row.covered) == "function") ~= (type(row.left) == "string"), name)
    end
    for source, number in pairs(DESCRIBED) do assert.equal(number, by_source[source], source) end
    assert.equal(54, described.all)
    assert.equal(54, described.covered)
  end)
end)

describe("the client's method for", function()
  local server, client, endpoint

  setup(function()
    server = fault_server.start [[
      return function(_, connection)
        connection:respond(400, { ["Content-Type"] = "application/json" }, '{"code":"NO","message":"whatever it was"}')
      end
    ]]
    client = opensandbox.new(server.url, "", { retry = false, timeout = 10 })
    endpoint = { url = server.url .. PREFIX, headers = {} }
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  -- The client, where a method that is missing says so.
  local function asked(_, name)
    local method = client[name]
    if not method then error("there is no client:" .. name, 0) end
    return function(_, ...) return method(client, ...) end
  end

  for _, row in ipairs(operations) do
    if row.covered then
      it(("%s %s (%s) sends that request"):format(row.method, row.path, row.source), function()
        local before = #server:requests()
        local ok, problem = pcall(row.covered, setmetatable({}, { __index = asked }), endpoint)
        local sent = {}
        for i, request in ipairs(server:requests()) do
          if i > before then sent[#sent + 1] = request.method .. " " .. request.path:gsub("%?.*$", "") end
        end
        local wanted = row.method .. " " .. path_of(row)
        for _, request in ipairs(sent) do
          if request == wanted then return end
        end
        error(("no method covers %s: sent %s%s"):format(wanted, #sent > 0 and table.concat(sent, ", ") or "nothing",
          ok and "" or "; " .. tostring(problem)), 0)
      end)
    end
  end
end)
