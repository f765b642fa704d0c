--- A sandbox controls its execd. Whatever that sends, the methods of files and commands return a value or an error: nothing raises,
--- and nothing takes long.

local execution = require "opensandbox.execution.execution"
local fault_server = require "spec.support.fault_server"
local http_client = require "spec.support.http_client"
local opensandbox = require "opensandbox"
local temporary = require "spec.support.temporary"

-- The body that answers every request to execd is set by the test, see `say`.
local SERVER = [==[
  local body, status, headers = "", 200, {}
  return function(request, connection)
    local function send(value) connection:respond(200, { ["Content-Type"] = "application/json" }, json.encode(value)) end
    if request.path:find("/endpoints/", 1, true) then return send { endpoint = request.headers.host .. "/execd" } end
    if request.path:find("^/v1/sandboxes/") then return send { id = "faulty", status = { state = "Running" } } end
    if request.path == "/say" then
      local said = request.headers
      body, status, headers = request.body, tonumber(said["x-status"]), {}
      if said["x-name"] then headers[said["x-name"]] = said["x-value"] end
      return connection:respond(200, {}, "")
    end
    connection:respond(status, headers, body)
  end
]==]

local server, client, sandbox, files, scratch
local grace = execution.SERVER_TIMEOUT_GRACE

-- Sets what the server answers: a body, a status, and perhaps a header { name, value }.
local function say(body, status, header)
  local response = http_client.request({ url = server.url .. "/say", body = body, headers = {
    ["X-Status"] = tostring(status), ["X-Name"] = header[1], ["X-Value"] = header[2],
  } })
  assert.equal(200, response.status)
end

setup(function()
  execution.SERVER_TIMEOUT_GRACE = 0.1 -- 10 seconds: too long for a test
  server = fault_server.start(SERVER)
  client = opensandbox.new(server.url, "key", { retry = false, idle_timeout = 2, transfer_idle_timeout = 2, timeout = 5 })
  sandbox = assert(client:connect("faulty"))
  files = sandbox.files
  scratch = temporary.directory()
end)
teardown(function()
  execution.SERVER_TIMEOUT_GRACE = grace
  client:close()
  server:stop()
  temporary.remove(scratch)
end)

-- Each returns what the method returns.
local calls = {
  stat = function() return files:stat("/a") end,
  stat_literal = function() return files:stat("/a/$b") end,
  exists = function() return files:exists("/a") end,
  list = function() return files:list("/a") end,
  list_literal = function() return files:list("/a/$b") end,
  search = function() return files:search("/a") end,
  search_literal = function() return files:search("/$b", "*") end,
  read = function() return files:read("/a") end,
  read_literal = function() return files:read("/a/$b") end,
  read_range = function() return files:read("/a", { offset = 3, length = 5 }) end,
  read_relative = function() return files:read("~/$b") end,
  download = function() return files:download("/a", scratch .. "/a") end,
  download_verified = function() return files:download("a", scratch .. "/b", { verify = true }) end,
  write = function() return files:write("/a", "x") end,
  write_verified = function() return files:write("~/a", "x", { verify = true }) end,
  write_literal = function() return files:write("/$a", "x") end,
  replace = function() return files:replace("/a", "x", "y") end,
  remove = function() return files:remove { "/a", "/$a" } end,
  rmdir = function() return files:rmdir("~/a") end,
  mkdir = function() return files:mkdir("/$a", { mode = 700 }) end,
  move = function() return files:move("/$a", "/b") end,
  chmod = function() return files:chmod("/$a", 600) end,
  upload_dir = function() return files:upload_dir("spec/support", "~/a") end,
  download_dir = function() return files:download_dir("~/a", scratch .. "/dir") end,
  run = function() return sandbox:run("true") end,
  run_durable = function() return sandbox:run("true", { durable = true, timeout = 0.1 }) end,
  run_exact = function() return sandbox:run("true", { capture = "exact" }) end,
  start = function() return sandbox:start("true") end,
  status = function() return sandbox:command("c"):status() end,
  logs = function() return sandbox:command("c"):logs() end,
  events = function() return sandbox:command("c"):events():next() end,
  session = function() return client:run_in_session(server.url .. "/execd", "s", "true") end,
  code = function() return client:run_code(server.url .. "/execd", "1") end,
  contexts = function() return client:list_code_contexts(server.url .. "/execd") end,
  metrics = function() return sandbox:metrics() end,
}

local function events(...)
  return table.concat({ ... }, "\n\n") .. "\n\n"
end

local INIT = '{"type":"init","text":"c1","timestamp":1}'
local COMPLETE = '{"type":"execution_complete","execution_time":1,"timestamp":2}'

local bodies = {
  nothing = "", word = '"text"', number = "5", null = "null", empty_array = "[]", empty_object = "{}",
  deep = ("["):rep(3000) .. ("]"):rep(3000), garbage = "\0\255{[", nested_null = "[null,[],{}]",
  html = "<html><title>" .. (" "):rep(3000),
  infos = '{"/a":{"path":"/a","size":{},"mode":1.5,"type":[],"owner":5,"group":null,"modified_at":7,"created_at":{}}}',
  infos_large = '{"/a":{"path":"/a","size":1e400,"mode":-7,"type":"file"}}',
  infos_nul = '{"~":{"path":"/a\\u0000b"},".":{"path":"/a\\u0000b"},"/a":{"path":"/a\\u0000b"}}',
  list = '[{"path":"/a/b","size":"x","mode":"y"},{"path":"/a/$b","type":"directory","size":-1,"mode":1e300},{"path":"/a/\\u0000"}]',
  list_dollar = '[{"path":"/$HOME","type":"symlink"},{"path":"/a/../../x","type":"file","size":5,"mode":999}]',
  paths = '[{"path":5},{"path":[]}]', replaced = '{"/a":{"replacedCount":{}}}', replaced_text = '{"/a":"x"}',
  status = '{"id":5,"running":false,"exit_code":{},"error":[],"content":7,"started_at":{},"finished_at":5}',
  status_number = '{"running":false,"exit_code":1.5,"started_at":"9999-99-99T99:99:99Z","finished_at":"0000-00-00T00:00:00Z"}',
  running = '{"running":"yes"}', contexts = '[{"id":5,"language":{}}]',
  types = events('{"type":{},"text":1}', '{"type":"init","text":{}}', '{"type":"stdout","text":{}}', '{"type":"stdout"}', COMPLETE),
  id_number = events('{"type":"init","text":5}', COMPLETE),
  id_dollar = events('{"type":"init","text":"$x/../y"}', '{"type":"stdout"'),
  id_nul = events('{"type":"init","text":"a\\u0000"}'), id_long = events(('{"type":"init","text":"%s"}'):format(("x"):rep(100000))),
  traceback = events(INIT, '{"type":"error","error":{"ename":{},"evalue":"boom","traceback":[{},[],null,5]}}'),
  traceback_code = events(INIT, '{"type":"error","error":{"ename":1,"evalue":"-1","traceback":[{}]}}'),
  evalue = events(INIT, '{"type":"error","error":{"evalue":{}}}'), evalue_long = events(INIT,
    ('{"type":"error","error":{"evalue":"%s"}}'):format(("9"):rep(100000))),
  error_text = events(INIT, '{"type":"error","error":"text"}'),
  time = events(INIT, '{"type":"execution_complete","execution_time":{}}'),
  time_large = events(INIT, '{"type":"execution_complete","execution_time":1e308,"timestamp":{}}'),
  results = events(INIT, '{"type":"result","results":["a",{"b":1}]}', '{"type":"result","results":{"image/png":{},"text":5}}',
    '{"type":"execution_count","execution_count":{}}', COMPLETE),
  failure = events(INIT) .. '{"code":"X","message":{}}', failure_number = events(INIT) .. '{"code":"X","message":5}',
  sums = ("1"):rep(200000) .. "\n" .. ("1 "):rep(100000), log = ("x"):rep(20000),
  exact = events(INIT, '{"type":"stdout","text":"/$HOME"}', COMPLETE), exact_nul = events(INIT,
    '{"type":"stdout","text":"/a\\u0000"}', COMPLETE), exact_long = events(INIT,
    ('{"type":"stdout","text":"/%s"}'):format(("x"):rep(100000)), COMPLETE),
  programs = events(INIT, '{"type":"stdout","text":"tar cksum touch readlink ln"}', COMPLETE),
}

local CURSOR = "EXECD-COMMANDS-TAIL-CURSOR"
local heads = {
  plain = {}, cursor = { CURSOR, "1e5" }, cursor_float = { CURSOR, "100000.5" }, cursor_large = { CURSOR, ("9"):rep(400) },
  range = { "Content-Range", "bytes 99999999999999999999-1/x" },
  range_large = { "Content-Range", "bytes 0-1/" .. ("9"):rep(400) },
}

local MUCH = 50000 -- bytes, which take time

describe("a hostile execd", function()
  for name, body in pairs(bodies) do
    it("that answers everything with " .. name .. " makes nothing raise", function()
      for head, headers in pairs(name == "log" and heads or { plain = {} }) do
        for _, status in ipairs(#body < MUCH and { 200, 206, 404, 500 } or { 200, 404 }) do
          say(body, status, headers)
          for method, call in pairs(calls) do
            local before = opensandbox.now()
            local ok, value, err = pcall(call)
            local where = ("%s, %s, %d: %s"):format(method, head, status, tostring(value))
            assert.is_true(ok, where)
            if value == nil and method ~= "events" then assert.is_true(opensandbox.is_error(err), where) end
            assert.is_true(opensandbox.now() - before < 8, where)
          end
        end
      end
    end)
  end
end)
