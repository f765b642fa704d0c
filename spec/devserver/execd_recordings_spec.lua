--- The execd of the development server answers as the one of August 2026 did when its answers were recorded.

local uv = require "luv"
local execd_client = require "spec.support.execd_client"
local json = require "opensandbox.base.json"
local process = require "spec.support.process"
local recorded_client = require "spec.support.recorded_client"

local server, reason, sandbox, client

setup(function()
  server, reason = process.isolated_devserver { grace = 0.05 }
  if not server then return end
  sandbox = execd_client.sandbox(server)
  client = recorded_client.new("execd-aug", "http://" .. sandbox.endpoint.endpoint, sandbox.endpoint.headers)
end)
teardown(function()
  if server then server:stop() end
end)

local function command(text)
  sandbox:stream("/command", { command = text })
end

-- The files that the recorded sandbox had.
local FILES = [[
  rm -rf /tmp/wire-rec /no; mkdir -p /tmp/wire-rec/sub; cd /tmp/wire-rec; umask 022
  printf 'alpha\nbeta\n' > a.txt; head -c 5000000 /dev/zero > big; : > empty; printf u > 'ünï "q" 1.txt'
  printf b > sub/b.txt; chmod 755 sub/b.txt
  ln -s /tmp/wire-rec/a.txt link; ln -s /tmp/wire-rec/sub dirlink; ln -s /no/such dangling
]]

local scenarios = {}

local function scenario(title, steps, needs_root)
  scenarios[#scenarios + 1] = steps
  it(title, function()
    if not server then return pending(reason) end
    if needs_root and uv.getuid() ~= 0 then return pending("only root can give files to other users") end
    command(FILES)
    assert.equal("", client:differences(steps))
  end)
end

-- The bytes of some files belong to the machine.
local function other_bytes(expected, actual)
  expected.body, actual.body = #expected.body > 0, #actual.body > 0
end

-- The script of a session has a name of its own in each execd.
local function script_names(expected, actual)
  for _, answer in ipairs { expected, actual } do
    answer.body.stdout = answer.body.stdout:gsub("/[%w/_.]+: line %d+:", "<script>: line <n>:")
  end
end

describe("execd", function()
  scenario("answers like the recordings of requests that it does not have", {
    "head-ping", "options", "ready", "version", "filesystem-uid-gid-info", "filesystem-uid-gid-list", "filesystem-uid-gid-mv",
  })

  scenario("has no isolated sessions in a sandbox that was created without them", {
    { "isolated-capabilities", change = function(expected, actual)
      for _, answer in ipairs { expected, actual } do
        answer.body.version, answer.body.message = "<version>", answer.body.message:gsub("%(v%d[%d.]*%)", "(<version>)")
      end
    end },
    "isolated-create", "isolated-list", "isolated-info",
  })

  scenario("runs commands like the recordings", {
    "command-127k", "command-128k", "command-128k-background", "command-background-timeout", "command-child-left",
    "command-child-left-closed", "command-cwd-file", "command-cwd-relative", "command-env-cwd-expand", "command-env-cwd-request",
    "command-stdin", "command-syntax-error", "command-tilde-cwd", "command-timeout-negative", "command-timeout-text",
    "command-timeout-trap", "command-timeout-zero", "command-uid-negative", "command-user-field", "env-big",
    "env-equals-in-name", "env-invalid-names", "env-list", "env-multiline", "env-nul-value", "env-null", "env-number", "env-path",
    { "env-empty-name", change = function(expected, actual)
      expected.body.stdout, actual.body.stdout = "<number>", actual.body.stdout:gsub("%d+", "<number>")
    end },
    "exact-output-file", "exact-output-download", "exact-output-search", "code-contexts-none",
  })

  scenario("keeps sessions like the recordings", {
    function() command("rm -f $EXECD_ENVS") end, "envs-file-2-write", "envs-file-4-request", "envs-file-8-background",
    "envs-file-5-session", "envs-file-6-session-run", "envs-file-7-session-later",
    function() command("rm $EXECD_ENVS") end, "envs-file-10-removed",
    "session-create-cwd-missing", "session-create-bad-json",
    function()
      client.ids["ab7602ca-5374-4eb4-a30a-f27f3be56fd2"] = json.decode(sandbox:send("POST", "/session", "{}").body).session_id
    end,
    "session-big-command", { "session-syntax-error", change = script_names }, "session-after-syntax-error", "session-exit",
    "session-after-exit", "session-set-e", "session-after-set-e", "session-stdin", "session-cwd", "session-cwd-missing",
    "session-empty",
  })

  scenario("serves files like the recordings", {
    "session-create-cwd-missing", -- makes the target of the dangling link
    "info-none", "info-link", "list-depth-0", "list-depth-bad", "list-dirlink", "list-missing", "list-no-path",
    function() command("printf 'bg=one two\n' > /tmp/wire-rec/bg.out") end,
    "list-with-links", "search-bad", "search-braces", "search-case", "search-class", "search-dirlink", "search-double-star",
    "search-double-star-txt", "search-file", "search-no-path", "search-question", "search-slash", "search-star",
    "envs-file-9-background-out",
    "download-bad-range", "download-dangling", "download-dev-null", "download-dev-zero", "download-directory", "download-empty",
    "download-empty-range", "download-gzip", "download-head", "download-if-modified", "download-keep-encoding",
    "download-lines-and-range", "download-lines-past-end", "download-lines-zero", "download-link", "download-multi-range",
    { "download-proc-lines", change = other_bytes }, "download-proc-status", "download-proc-version-range",
    { "download-relative", change = other_bytes }, "download-suffix-range", "download-tilde", "download-unicode",
    function() command("echo > /tmp/wire-rec/ow.txt") end,
    "upload-bad-metadata", "upload-below-file", "upload-empty-file", "upload-mode-setuid", "upload-mode-setuid-info",
    "upload-mode-text", "upload-no-mode", "upload-no-mode-info", "upload-onto-directory", "upload-owner-numeric",
    "upload-owner-unknown", "upload-read-only-place", "upload-relative", "upload-second-fails",
    "upload-second-fails-info", "upload-through-link", "upload-through-link-after",
    "mkdir-bad-mode", "mv-directory", "mkdir-exists", "mkdir-exists-info", "mkdir-over-file", "mv-across", "mv-bad-body",
    "mv-onto-file", "mv-into-missing", "mv-two-second-fails",
    "permissions-bad-mode", "permissions-mode-0", "permissions-owner-unknown",
    "replace-directory", "replace-missing", "replace-none-found", "replace-regex",
    "delete-busy", "delete-link", "delete-none", "rmdir-none", "rmdir-file",
  })

  scenario("gives files to users like the recordings", { "upload-owner", "upload-owner-info", "permissions-owner" }, true)

  scenario("forwards to ports like the recordings", { "proxy-bad-port", "proxy-no-server", "proxy-self" })

  it("has recordings that are all compared, or excused", function()
    local newer = "the development server has what the next execd has"
    local jupyter = "the development server has no Jupyter; code_spec.lua holds its interpreters"
    local june = "the execd of June had no isolated sessions"
    local forwarding = "proxy_spec.lua holds what is forwarded"
    local user = "the user 1000 of a machine may have a primary group; commands as another user are in devserver_spec.lua"
    assert.same({}, recorded_client.missing("execd-aug", scenarios, {
      argv = newer, ["argv-and-command"] = newer, ["envs-file-3-read"] = newer .. ": values in quotes",
      ["envs-file-1-path"] = newer .. ": another path of the file",
      ["code-bash"] = jupyter, ["code-error"] = jupyter, ["code-html"] = jupyter, ["code-languages"] = jupyter,
      ["code-slow"] = jupyter,
      ["june-isolated-capabilities"] = june, ["june-isolated-create"] = june, ["june-isolated-info"] = june,
      ["june-isolated-list"] = june,
      ["proxy-server"] = forwarding, ["proxy-server-404"] = forwarding, ["proxy-server-query"] = forwarding,
      ["command-uid"] = user, ["command-uid-only"] = user,
      ["download-sys"] = "sandboxes of the development server have no /sys",
      ["download-fifo"] = "it has no answer",
      ["pty-create"] = "terminals are in terminal_spec.lua",
    }))
  end)
end)
