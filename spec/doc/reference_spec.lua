--- The reference in doc/ is made from the annotations, and the annotations say everything.

local read_file = require "spec.support.read_file"
local reference = require "spec.support.reference"
local sources = require "spec.support.sources"
local uv = require "luv"

local made = reference.make()

-- Returns the problems of the library with one text replaced in one of its files.
local function problems_after(path, old, new)
  local texts = reference.texts()
  local first, last = texts[path]:find(old, 1, true)
  assert(first, path .. " does not hold: " .. old)
  texts[path] = texts[path]:sub(1, first - 1) .. new .. texts[path]:sub(last + 1)
  return table.concat(reference.make(texts).problems, "\n")
end

describe("doc/", function()
  it("is what `make doc` makes", function()
    for path, text in pairs(made.files) do
      assert.is_true(read_file(path) == text, path .. " is not what the annotations say: run `make doc`")
    end
    local names = assert(uv.fs_scandir("doc/reference"))
    local name = uv.fs_scandir_next(names)
    while name do
      assert.truthy(made.files["doc/reference/" .. name], "doc/reference/" .. name .. " is not made any more: run `make doc`")
      name = uv.fs_scandir_next(names)
    end
  end)

  it("has each tag of Vim's help once, and no line that is too wide", function()
    local seen = {}
    for line in made.files["doc/opensandbox.txt"]:gmatch("[^\n]+") do
      for tag in line:gmatch("%*(opensandbox%S*)%*") do
        assert.is_nil(seen[tag], tag)
        seen[tag] = true
      end
    end
    for link in made.files["doc/opensandbox.txt"]:gmatch("|(opensandbox%S-)|") do assert.truthy(seen[link], link) end
    for _, tag in ipairs { "opensandbox", "opensandbox-sandbox:run()", "opensandbox.RunOpts", "opensandbox.new()" } do
      assert.truthy(seen[tag], tag)
    end
  end)
end)

describe("the annotations", function()
  it("document every public function, parameter, option and field, each with an example", function()
    assert.equal("", table.concat(made.problems, "\n"))
  end)

  it("lead to the methods that come from other files, and to no internal one", function()
    local names = {}
    for _, page in ipairs(made.pages) do
      for _, method in ipairs(page.methods) do names[page.prefix .. method.name] = true end
    end
    for _, name in ipairs { "opensandbox.new", "opensandbox.map", "client:create", "client:pool", "client:run_command",
      "sandbox:run", "sandbox:wait_for_port", "sandbox:handle", "sandbox.files:upload_dir", "command:wait", "pool:acquire",
      "task:cancel" } do
      assert.is_true(names[name], name)
    end
    for _, name in ipairs { "client:for_op", "client:delete_session_request", "sandbox:call_execd", "task:join" } do
      assert.is_nil(names[name], name)
    end
  end)

  it("are missed where they are missing", function()
    local sandbox = "lua/opensandbox/sandbox.lua"
    local function missed(expected, ...)
      local problems = problems_after(...)
      assert.truthy(problems:find(expected, 1, true), ("%s: not among: %s"):format(expected, problems))
    end
    missed("sandbox:metrics has no document", sandbox,
      "--- Returns load and memory of the machine it runs on: GET /metrics of execd. This takes a second.", "--- ")
    missed("sandbox:command has no example", sandbox, "local command = sandbox:command(id)", "local command = other")
    missed("sandbox:run: the parameter 'command' has no document", sandbox,
      "---@param command string|string[] a line for the shell, or a program and its arguments\n---@param opts? opensandbox.RunOpts",
      "---@param opts? opensandbox.RunOpts")
    missed("the field uid of opensandbox.RunOpts has no document", sandbox,
      "---@field uid? integer the user to run as; default: execd's", "---@field uid? integer")
    missed("the field durable of opensandbox.RunOpts is not in the example", sandbox, "durable = false, ", "")
    missed("sandbox:added has no document", sandbox, "\nfunction Sandbox:__close()",
      "\nfunction Sandbox:added(x)\nend\n\nfunction Sandbox:__close()")
    missed("is not in opensandbox.wait_for", sandbox, 'wait_for_port = "port"', 'wait_for_port = "harbour"')
    missed("opensandbox.SandboxInfo has no document", "lua/opensandbox/lifecycle/objects.lua",
      "--- The server's facts about a sandbox.\n", "")
    missed('"cut" has no document', "lua/opensandbox/base/errors.lua",
      '"cut" # stream: the response ended before it was complete', '"cut"')
  end)

  it("have examples that every Lua can read", function()
    local load_text = loadstring or load -- luacheck: ignore 113
    local count = 0
    local function check(where, code)
      local chunk, problem = load_text(code, "=" .. where)
      assert.truthy(chunk, problem)
      count = count + 1
    end
    for _, page in ipairs(made.pages) do
      for _, method in ipairs(page.methods) do check(page.prefix .. method.name, method.fn.doc.example) end
      for _, class in ipairs(page.records) do check(class.name, class.doc.example) end
      if page.class then check(page.title, page.class.doc.example) end
    end
    assert.is_true(count > 200)
  end)
end)

describe("the documented", function()
  -- Returns the names that the values of an alias document.
  local function values_of(name)
    local values = {}
    for _, value in ipairs(made.model.aliases[name].values) do values[value.name] = true end
    return values
  end

  local function assert_same_names(expected, actual)
    local wrong = {}
    for name in pairs(expected) do
      if not actual[name] then wrong[#wrong + 1] = name .. " is documented nowhere" end
    end
    for name in pairs(actual) do
      if not expected[name] then wrong[#wrong + 1] = name .. " is documented, but not used any more" end
    end
    table.sort(wrong)
    assert.equal("", table.concat(wrong, "\n"))
  end

  it("error codes are those of the code", function()
    local used = {}
    for path, text in pairs(reference.texts()) do
      local code = sources.code(text, true)
      for value in code:gmatch('[%s{]code = "([%w_:]+)"') do used[value] = true end
      for value in code:gmatch('\n%s*err%.code = "([%w_:]+)"') do used[value] = true end
      for value in code:gmatch('%.code = "[%w_]+", "([%w_]+)"') do used[value] = true end
      if path:find("transfer_error") then
        for value in code:gmatch("\n  ([%w_]+) = { kind") do used[value] = true end
      end
    end
    -- These are made of a state, of a status, or come from execd.
    local made_of = { sandbox_ = true, snapshot_ = true }
    for name in pairs(made_of) do used[name] = nil end
    used.capture_failed = true
    for _, state in ipairs { "failed", "paused", "pausing", "stopping", "terminated" } do used["sandbox_" .. state] = true end
    for _, state in ipairs { "failed", "deleting" } do used["snapshot_" .. state] = true end
    used.HTTP_404, used.SESSION_NOT_FOUND, used.RUNTIME_ERROR = true, true, true
    assert_same_names(used, values_of "opensandbox.ErrorCode")
  end)

  it("kinds of errors are those of the code", function()
    local used = { cancelled = true }
    for _, text in pairs(reference.texts()) do
      for value in sources.code(text, true):gmatch('[%s{.]kind = "(%l+)"') do used[value] = true end
    end
    -- Entries of a directory have kinds, too.
    for _, name in ipairs { "file", "directory", "symlink", "link", "other" } do used[name] = nil end
    assert_same_names(used, values_of "opensandbox.ErrorKind")
  end)

  it("environment variables are those that the code reads", function()
    local used = {}
    for _, directory in ipairs { "lua", "bin" } do
      for path, text in pairs(sources.read(directory)) do
        if path:find("/cli/") then text = "" end -- the program's are in doc/program.md
        local code = sources.code(text, true)
        for name in code:gmatch('getenv%(?%s*"([%w_]+)"') do used[name] = true end
        if code:find("os%.getenv%(name%)") then
          for name in code:gmatch('"([%u_]+)"') do used[name] = true end
          for name in code:gmatch('"([%l_]+_proxy)"') do used[name] = true end
        end
        assert.is_string(path)
      end
    end
    for _, path in ipairs { "src/request.c", "src/notifier.c" } do
      for name in read_file(path):gmatch('[%s(]%l*env%l*%("([%w_]+)"%)') do used[name] = true end
      for name in read_file(path):gmatch('environment%("([%w_]+)"%)') do used[name] = true end
    end
    used.PATH = nil -- of the development server's commands
    assert_same_names(used, values_of "opensandbox.EnvironmentVariable")
  end)
end)
