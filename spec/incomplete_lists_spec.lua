--- What looks like a whole list is one: a list that does not end in time, or is no array, is an error and not a part of the list.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local pagination = require "opensandbox.lifecycle.pagination"

local server, client, execd

setup(function()
  server = fault_server.start [==[
    local count = 0
    return function(request, connection)
      local function send(text) connection:respond(200, { ["Content-Type"] = "application/json" }, text) end
      count = count + 1
      if request.headers["x-endless"] then
        return send(('{"items":[{"id":"s%d"}],"pagination":{"hasNextPage":true}}'):format(count))
      end
      local object = '{"first":{"id":"a","path":"/a","name":"a","templateId":"a","session_id":"a","language":"go","status":"x"}}'
      if request.path:find("/execd/files", 1, true) or request.path:find("/execd/dir", 1, true)
        or request.path:find("/execd/code", 1, true) then return send(object) end
      send(('{"items":%s,"sessions":%s,"credentials":%s,"bindings":%s,"revision":1}'):format(object, object, object, object))
    end
  ]==]
  execd = server.url .. "/execd"
end)
teardown(function() server:stop() end)
after_each(function() client:close() end)

local function connect(headers)
  client = opensandbox.new(server.url, "key", { retry = false, headers = headers })
end

describe("a list of sandboxes whose pages do not end", function()
  local max_pages = pagination.MAX_PAGES
  before_each(function() pagination.MAX_PAGES = 20 end)
  after_each(function() pagination.MAX_PAGES = max_pages end)

  for name, filter in pairs { ["large"] = {}, ["of one"] = { page_size = 1 } } do
    it("is an error after many pages, which are " .. name, function()
      connect { ["X-Endless"] = "1" }
      local list, err = client:list_sandboxes(filter)
      assert.is_nil(list)
      assert.equal("list_sandboxes: the list did not end after 20 pages", tostring(err):match("^(.-) %["))
      assert.equal(filter.page_size and "Use a larger page_size, or a filter" or "Use a filter", err.hint)
    end)
  end
end)

describe("an object in the place of an array is an error of", function()
  local calls = {
    list_sandboxes = function() return client:list_sandboxes() end,
    list_snapshots = function() return client:list_snapshots() end,
    list_templates = function() return client:list_templates() end,
    list_pools = function() return client:list_pools() end,
    list_code_contexts = function() return client:list_code_contexts(execd) end,
    list_isolated_sessions = function() return client:list_isolated_sessions(execd) end,
    list_directory = function() return client:list_directory(execd, "/a") end,
    search_files = function() return client:search_files(execd, "/a") end,
    list_vault_credentials = function() return client:list_vault_credentials(execd) end,
    list_vault_bindings = function() return client:list_vault_bindings(execd) end,
    get_credential_vault = function() return client:get_credential_vault(execd) end,
  }
  for name, call in pairs(calls) do
    it(name, function()
      connect()
      local value, err = call()
      assert.is_nil(value)
      assert.same({ "protocol", "unexpected_response" }, { err.kind, err.code }, tostring(err))
    end)
  end
end)
