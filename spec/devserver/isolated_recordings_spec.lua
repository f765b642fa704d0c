--- Isolated sessions of the development server answer as those of the execd of August 2026 did when its answers were recorded.

local uv = require "luv"
local execd_client = require "spec.support.execd_client"
local json = require "opensandbox.base.json"
local process = require "spec.support.process"
local recorded_client = require "spec.support.recorded_client"
local recordings = require "spec.support.recordings"

local unpack = table.unpack or unpack -- luacheck: std max

local SESSIONS = "/v1/isolated/session"
local ALLOWED = { extensions = { ["bootstrap.execd.isolation"] = "enable" } }
local server, reason, sandbox, client

setup(function()
  server, reason = process.isolated_devserver { grace = 0.05, args = { "--collect-interval", "0.2" } }
  if not server then return end
  sandbox = execd_client.sandbox(server, ALLOWED)
  client = recorded_client.new("isolated", "http://" .. sandbox.endpoint.endpoint, sandbox.endpoint.headers)
end)
teardown(function()
  if server then server:stop() end
end)

-- Runs a command in the sandbox, outside of all sessions.
local function command(text)
  sandbox:stream("/command", { command = text })
end

-- The files that the recorded sandbox had.
local FILES = [[
  umask 022; rm -rf /workspace/* /data/* /tmp/wire-rec; cd /workspace; mkdir rw ov ro alt made; echo x > file
  for name in rw ov ro; do
    cd /workspace/$name; echo lower > lower.txt; mkdir sub; echo deep > sub/deep.txt
    ln -s /etc/passwd link; ln -s lower.txt inner-link; ln -s sub dirlink
  done
]]

-- Returns a step that opens a session, which stands for the one that a recording's request names.
local function opened(name, mode, changes)
  return function()
    local body = { workspace = { path = "/workspace/" .. (mode == "overlay" and "ov" or mode), mode = mode } }
    for key, value in pairs(changes or {}) do body[key] = value end
    local answer = sandbox:send("POST", SESSIONS, body)
    assert.equal(201, answer.status, answer.body)
    local recorded = recordings.load("isolated/" .. name).request.path:match("^" .. SESSIONS .. "/([%x-]+)")
    client.ids[recorded] = json.decode(answer.body).session_id
  end
end

-- How execd reports the end of a shell is a race between two messages.
local function ended(expected, actual)
  for _, one in ipairs { expected, actual } do
    for _, event in ipairs(type(one.body) == "table" and one.body.events or {}) do
      local text = event.type == "error" and event.text or ""
      if text:find("^session process exited without") or text:find("^read stdout: .*closed") then
        event.text, event.error.evalue = "<ended>", "<ended>"
      end
    end
  end
end

-- Changes the output of both answers.
local function output(change)
  return function(...)
    for _, one in ipairs { ... } do
      if one.body and one.body.stdout then one.body.stdout = change(one.body.stdout) end
    end
  end
end

-- The quotes of messages depend on the locale.
local quotes = output(function(text)
  return (text:gsub("\226\128[\152\153]", "'"))
end)

-- Leaves out of a long listing the number of links, sizes and times.
local listing = output(function(text)
  return (text:gsub("([%w-]+) +%d+ (%w+) (%w+) +%d+ %a+ +%d+ [%d:]+ ", "%1 %2 %3 "))
end)

-- Leaves out what depends on the image, and the times of files.
local view = output(function(text)
  return (text:gsub("(HOME=[^\n]*).-(touch: cannot touch '/etc/x')", "%1\n%2"):gsub("BASH=%S+", "BASH=<version>")
    :gsub("<id>%.stderr\n<id>%.stdout\n", "")
    :gsub("\n%d\nshell=", "\n<n>\nshell=")) -- the number of processes, one of which may just be ending
end)

local times = output(function(text)
  -- The size of a directory depends on the file system.
  return (text:gsub("%a+ +%d+ %d+:%d+ ", "<time> "):gsub("total %d+", "total <n>")
    :gsub("(d[rwxtsS%-]+ +%d+ +%S+ +%S+ +)%d+", "%1<n>"))
end)

-- Leaves out the name of the user 1000, who may have one.
local function account(...)
  times(...)
  output(function(text)
    return (text:gsub("^.-\n(uid=1000)[^\n]*", "%1"))
  end)(...)
end

local scenarios = {}

-- Defines a test. It begins without sessions.
local function scenario(title, steps, needs_root)
  scenarios[#scenarios + 1] = steps
  it(title, function()
    if not server then return pending(reason) end
    if needs_root and uv.getuid() ~= 0 then return pending("only root can start processes of another user") end
    for _, session in ipairs(json.decode(sandbox:send("GET", "/v1/isolated/sessions").body).sessions) do
      sandbox:send("DELETE", SESSIONS .. "/" .. session.session_id)
    end
    command(FILES)
    assert.equal("", client:differences(steps))
  end)
end

local function names(prefix, list)
  local full = {}
  for word in list:gmatch("%S+") do full[#full + 1] = prefix .. word end
  return full
end

-- One list of all steps, each a name, a table, a function, or a list of names.
local function concat(...)
  local all = {}
  for _, list in ipairs { ... } do
    for _, step in ipairs(list) do all[#all + 1] = step end
  end
  return all
end

describe("isolated sessions", function()
  scenario("are created and described like the recordings", {
    { "capabilities", change = function(expected, actual)
      expected.body.version, actual.body.version = "<version>", actual.body.version and "<version>"
    end },
    "list-empty", opened("info-rw", "rw"), opened("info-overlay", "overlay"), opened("info-ro", "ro"),
    opened("run-exit", "rw", { idle_timeout_seconds = 300 }), "info-rw", "info-overlay", "info-ro",
    "create-rw", "create-overlay", "create-ro", "create-defaults", "info-defaults", "create-strict",
    "create-overlays-field", "info-overlays-field", "create-workspace-missing",
    "create-workspace-outside-allowlist", "create-workspace-relative", "create-idle-negative",
    "create-private-net-ok", "info-private-net-ok",
    { "view-private-net-ok", change = times },
    "delete-private-net-ok",
    { "list", change = function(expected, actual)
      local function rank(session) return session.idle_remaining_seconds and 0 or 1 end
      for _, answer in ipairs { expected, actual } do -- their order is chance, and one of them has an idle timeout
        table.sort(answer.body.sessions, function(a, b) return rank(a) < rank(b) end)
        answer.headers["transfer-encoding"] = nil -- and so is their number
        for index = 3, #answer.body.sessions do answer.body.sessions[index] = nil end
      end
    end },
    "delete-overlay", "delete-again", "delete-ro",
  })

  scenario("cannot be created with the requests that the recordings refuse", names("create-", [[
    bad-env-mode bad-json bad-mode bad-profile bad-types bad-uid bad-uid-mode bind-dest-missing bind-missing bind-no-source
    bind-not-allowed bind-relative empty-body extra-writable-missing extra-writable-not-allowed idle-fraction no-workspace userns
    workspace-empty-path workspace-is-file workspace-string
  ]]))

  scenario("that do not exist are unknown to every route", names("unknown-", [[
    commit delete diff directories-list files-delete files-download files-info files-mv files-permissions files-replace
    files-search files-upload id-shape info mkdir rmdir route run run-background run-logs run-status
  ]]))

  scenario("see the file system as recorded", {
    opened("view-rw", "rw"), opened("view-overlay", "overlay"), opened("view-ro", "ro"), "create-workspace-outside-allowlist",
    { "view-rw", change = view }, { "view-overlay", change = view }, { "view-ro", change = view },
    { "view-workspace-outside-allowlist", change = view },
  })

  scenario("have the options that they were created with as recorded", {
    "create-all-options", "info-all-options", { "view-all-options", change = view }, "delete-all-options",
  }, true)

  scenario("run code as recorded", concat(
    { opened("run-echo", "rw") },
    names("run-", [[
      blank-lines cd cd-after cwd-field cd-back echo empty env env-invalid-name env-special exit-3 invalid-utf8 lines-2000 long-line
      no-newline not-found slow stderr stdin-devnull true utf8 command-field heredoc bad-json timeout-fraction timeout-negative
      background-job serialised child-killed
    ]]),
    { "info-after-runs", "diff", "commit", opened("run-env-subshell", "rw"), "run-env-subshell", "run-env-subshell-after" },
    { opened("run-big-code", "rw") },
    names("run-", "big-code marker-in-output nul nul-code subshell-set-e"), { "subshell-set-e-then-run" },
    { "run-braces-devnull", "braces-then-run", "run-background-stdout", { "run-next-gets-late", repeat_until = function(actual)
      return actual.body.stdout:find "late"
    end } },
    { opened("run-long-output", "rw"), "run-long-output" }
  ))

  -- A session that an execution may end, and what answers afterwards.
  local function ending(name, options)
    options = options or {}
    return {
      opened("run-" .. name, "rw", { workspace = { path = "/workspace/alt", mode = "rw" } }),
      function() command("echo lower > /workspace/alt/lower.txt") end,
      { "run-" .. name, change = ended },
      not options.no_info and name .. "-then-info" or nil, ("run-%s-then-run"):format(name),
    }
  end

  local function endings(list)
    local all = {}
    for name in list:gmatch("%S+") do
      all[#all + 1] = ending(name)
      all[#all + 1] = { name .. "-then-files" }
    end
    return concat(unpack(all))
  end

  scenario("end, or do not end, with the code that the recordings end them with", endings [[
    exit kill-shell set-e syntax-error env-exit env-set-e env-syntax-error exec set-e-before
  ]])

  scenario("end with a run whose time is over", concat(
    endings "timeout-int-trapped timeout-int-ignored timeout-python",
    { opened("run-timeout", "rw"), "run-timeout", "info-after-timeout", "run-after-timeout", "delete-rw" },
    { opened("run-unclosed-quote", "rw"), "run-unclosed-quote" }
  ))

  scenario("give the end marker to a command that reads standard input", {
    opened("run-stdin-cat", "rw"), "run-stdin-cat", "run-stdin-cat-then-run", opened("run-read", "rw"),
    "run-read", "read-then-run",
    opened("run-read-env", "rw"), "run-read-env", "read-env-then-run",
  })

  -- Leaves a file of a name that is chance, and its number.
  local function background_files(text)
    return (text:gsub("<uuid>", "<run>"))
  end

  local function finished(actual) return actual.body.running == false end

  -- Returns a step that starts a run, which stands for the one that a recording's request names.
  local function started(name, code)
    return function()
      local path, run = recordings.load("isolated/" .. name).request.path:match("^(.*)/runs/([%x-]+)$")
      local answer = sandbox:send("POST", client:translate(path) .. "/run", { code = code, background = true })
      client.ids[run] = json.decode(answer.body).run_id
    end
  end

  scenario("run code in the background as recorded", {
    opened("background-start", "rw"), "background-start",
    { "background-logs-0", repeat_until = function(actual) return actual.body ~= "" end }, "background-status-running",
    "run-cd-back", { "run-foreground-beside-background", change = output(background_files) },
    { "background-status-finished", repeat_until = finished },
    "background-logs-all", "background-logs-next", "background-logs-past-end", "background-logs-negative",
    "background-logs-text-cursor", "background-logs-unknown", "background-status-unknown", "background-interrupt",
    "background-timeout-ignored", "background-timeout-ignored-status",
    opened("background-overlay", "overlay"), "background-overlay", { "background-overlay-status", repeat_until = finished },
    "background-overlay-logs",
    opened("background-ro", "ro"), "background-ro",
    opened("background-deleted-start", "rw"), "background-deleted-start", { "run-exit-beside-background", change = ended },
    "background-dead-status",
    opened("background-delete-1-start", "rw", { workspace = { path = "/workspace/alt", mode = "rw" } }),
    "background-delete-1-start", "background-delete-2-delete", "background-delete-3-status", "background-delete-4-left",
    opened("background-exit", "rw"), "background-invalid-utf8-start", "background-many",
    started("background-exit", "exit 4"), { "background-exit", repeat_until = finished },
    started("background-killed", "kill -9 $$"), { "background-killed", repeat_until = finished },
  })

  scenario("are collected when nobody has used them for their idle time", {
    "idle-create", "idle-info-0",
    { "idle-info-gone", repeat_until = function(actual) return actual.status == 404 end }, "idle-run-gone",
  })

  -- Begins a recorded run beside the test, and waits for its first event.
  local function begun(name, body)
    local request = recordings.load("isolated/" .. name).request
    local run = sandbox:begin("POST", client:translate(request.path), body or request.body)
    return run, assert(run:read_line(10))
  end

  scenario("end when the client of a run goes away", {
    opened("run-disconnect", "rw"),
    function()
      local run, line = begun "run-disconnect"
      assert.truthy(line:find('"text":"first"', 1, true))
      run:stop()
    end,
    { "run-disconnect-then-info", repeat_until = function(actual) return actual.status == 404 end },
    "run-disconnect-then-run",
  })

  scenario("report their deletion to a run, and serve files meanwhile", {
    opened("run-read", "rw", { workspace = { path = "/workspace/alt", mode = "rw" } }),
    function()
      command("echo lower > /workspace/alt/lower.txt")
      local run = begun("run-read", { code = "echo begun; sleep 30" })
      assert.equal("", client:differences { "files-during-run", "info-during-run" })
      run:stop()
    end,
    opened("run-deleted-meanwhile", "rw"),
    function()
      local recording = recordings.load("isolated/run-deleted-meanwhile")
      local run, line = begun "run-deleted-meanwhile"
      local path = client:translate(recording.request.path):gsub("/run$", "")
      assert.equal(200, sandbox:send("DELETE", path).status)
      run:wait(10)
      local expected, actual = execd_client.events(recording.response.body), execd_client.events(line .. "\n" .. run:output())
      for _, list in ipairs { expected, actual } do
        for _, event in ipairs(list) do event.timestamp = nil end
      end
      assert.same(expected, actual)
    end,
  })

  -- The recorded runs in the background had left their files.
  local LEFT = {
    rw = "cd /workspace/rw; mkdir -p .execd/background-runs; cd .execd/background-runs;"
      .. "a=e11fd5fc-dd86-46e9-a68a-e390bca7cfb1; b=f6eb28ee-f885-46e8-ae34-dc18ccbf8a1c;"
      .. "echo 5 > $a.code; echo 'one two' > $a.log; echo 0 > $b.code; echo late > $b.log; cd /",
    overlay = "cd /workspace/ov; mkdir -p .execd/background-runs; cd .execd/background-runs;"
      .. "a=0217a97b-9aff-47dc-bd69-5a02714b4a3e; echo 0 > $a.code; echo in-overlay > $a.log; cd /",
  }

  local function begins_with_root(expected, actual)
    for _, answer in ipairs { expected, actual } do
      if type(answer.body) == "string" then answer.body = answer.body:match("^root:") or answer.body end
    end
  end

  -- Leaves out the bytes of an archive.
  local function archive(expected, actual)
    for _, answer in ipairs { expected, actual } do
      local body = answer.body
      if type(body) == "string" then answer.body = body:match("^\31\139") or body end
      if body.stdout then body.stdout = body.stdout:match("^H4sI") or body.stdout end
    end
  end

  -- tar may notice that its child has ended before it writes to it.
  local unpiped = output(function(text)
    return (text:gsub("tar: [^\n]*: Broken pipe\n", ""))
  end)

  local function archives(mode)
    local prefix = "tar-" .. mode .. "-"
    return {
      prefix .. "up-1-upload", prefix .. "up-2-unpack", { prefix .. "down-1-pack", change = unpiped },
      { prefix .. "down-2-download", change = archive }, prefix .. "down-3-remove", { prefix .. "down-4-base64", change = archive },
    }
  end

  -- The files API of a session, and what the shell sees of it.
  local function files(mode)
    local prefix = "files-" .. mode .. "-"
    return concat({
      opened(prefix .. "info", mode),
      function()
        local path = recordings.load("isolated/" .. prefix .. "shell-sees").request.path
        sandbox:stream(client:translate(path), { code = "touch /tmp/x; " .. (LEFT[mode] or "") })
      end,
    }, names(prefix, [[
      upload info info-none info-missing info-dotdot info-outside info-inner-link
      list list-dot-depth-2 list-depth-0 list-depth-bad list-file list-missing list-no-path
      search search-default search-sub search-missing search-no-path
      download download-range download-range-past-end download-lines download-missing download-no-path download-dotdot
      download-directory download-inner-link download-below-link
    ]]), { { prefix .. "download-symlink", change = begins_with_root } }, names(prefix, [[
      upload-outside upload-owner upload-bad-mode upload-dotdot upload-symlink upload-empty-path upload-not-multipart
      mkdir mkdir-over-file mv mv-over-file mv-over-directory mv-missing mv-bad-body mv-lower
      permissions permissions-owner permissions-missing
      replace-verbose replace replace-empty-old replace-missing replace-link
    ]]), { { prefix .. "shell-sees", change = listing } }, names(prefix, [[
      delete delete-missing delete-directory delete-none delete-symlink rmdir rmdir-root shell-sees-after
    ]]), { { ("coherence-%s-1-shell-writes"):format(mode), change = quotes } }, names("coherence-" .. mode, [[
      -2-api-reads -3-api-reads-changed -4-api-writes -5-shell-reads -6-api-deletes -7-shell-after-delete
      -8-shell-deletes -9-api-after-delete -9b-api-list -10-tmp-shared
    ]]), archives(mode), mode == "overlay" and {
      "plain-files-beside-overlay", "delete-overlay", "plain-files-after-overlay",
    } or {})
  end

  for _, mode in ipairs { "rw", "overlay", "ro" } do
    scenario("serve the files of a workspace in mode " .. mode .. " as recorded", files(mode))
  end

  for _, mode in ipairs { "rw", "overlay" } do
    local prefix, path = "cache-" .. mode, "/workspace/c/" .. (mode == "overlay" and "ov" or mode)
    scenario("show changes of one side to the other as recorded, in mode " .. mode, concat({
      function() command(("mkdir -p %s; echo lower1 > %s/lower.txt"):format(path, path)) end,
      opened(prefix .. "-1-shell-misses", mode, { workspace = { path = path, mode = mode } }),
    }, names(prefix, [[
      -1-shell-misses -2-api-writes -3-shell-again -4-shell-lists-other-directory -5-api-makes -6-shell-sees-made -7-shell-later
      -8-shell-deletes-lower -9-api-info-deleted -10-api-download-deleted -11-api-list -12-api-search
    ]]), {
      function() command(("cd %s; echo by-plain > plain.txt; echo changed-below > lower.txt"):format(path)) end,
      prefix .. "-13-shell-after-plain", prefix .. "-14-api-after-plain",
    }))
  end

  scenario("run as another user as recorded", {
    function() command("mkdir /workspace/u; chown 1000 /workspace/u") end,
    opened("uid-shell", "rw", { workspace = { path = "/workspace/u", mode = "rw" }, uid = 1000, gid = 1000 }),
    "uid-upload", { "uid-shell", change = account }, "uid-info",
  }, true)

  it("has recordings that are all compared, or excused", function()
    local python = "what it prints depends on the version of Python"
    local user_namespaces = "the development server has no user namespaces for sessions"
    assert.same({}, recorded_client.missing("isolated", scenarios, {
      ["run-python-stdin"] = python, ["python-stdin-then-run"] = python,
      ["create-userns-ok"] = user_namespaces, ["info-userns-ok"] = user_namespaces, ["view-userns-ok"] = user_namespaces,
      ["delete-userns-ok"] = user_namespaces,
      ["create-private-net"] = "the development server has the right",
      ["idle-info-overdue"] = "the time between two collections is shorter here; see isolated_spec.lua",
      ["files-during-run"] = "compared by a function", ["info-during-run"] = "compared by a function",
      ["run-disconnect"] = "compared by a function", ["run-deleted-meanwhile"] = "compared by a function",
    }))
  end)
end)
