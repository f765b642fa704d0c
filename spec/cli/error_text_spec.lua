--- Errors of the program: they name its options and its subcommands, and not the library's.

local error_text = require "opensandbox.cli.base.error_text"
local errors = require "opensandbox.base.errors"
local fault_server = require "spec.support.fault_server"
local program = require "spec.support.program"
local sources = require "spec.support.sources"

describe("an error of opensandbox", function()
  -- Runs a subcommand that fails, and returns what it prints.
  local function message(arguments, env)
    local result = program.run(nil, arguments, { env = env })
    assert.same({ "", true }, { result.out, result.code ~= 0 })
    assert.is_nil(result.err:find("opensandbox.new", 1, true), result.err)
    assert.is_nil(result.err:find("_sandbox", 1, true), result.err)
    return result.err
  end

  local function has(text, part) assert.truthy(text:find(part, 1, true), text) end

  it("names the subcommand and --url where no server answers", function()
    local text = message { "ls", "--url", "http://127.0.0.1:9" }
    has(text, "opensandbox: ls: connection refused")
    has(text, "the URL (--url or OPEN_SANDBOX_DOMAIN) is right\n")
    assert.is_nil(text:find("opensandbox dev", 1, true), text)
  end)

  it("names the subcommand and --key where the server does not accept the key", function()
    local server = fault_server.start [[return function(_, connection)
      connection:respond(401, { ["Content-Type"] = "application/json" }, '{"code":"UNAUTHORIZED","message":"no"}')
    end]]
    local text = message { "renew", "some-id", "5m", "--url", server.url }
    server:stop()
    has(text, "opensandbox: renew: no [HTTP 401")
    has(text, "Check the API key (--key or OPEN_SANDBOX_API_KEY)\n")
  end)

  it("names the subcommand where an argument is wrong", function()
    assert.equal("opensandbox: ls: the url \"ftp://x\" is not valid: only http and https are known\n",
      message { "ls", "--url", "ftp://x" })
  end)

  it("has only the id before its text for each of several sandboxes", function()
    has(message { "kill", "some-id", "--url", "http://127.0.0.1:9" }, "opensandbox: some-id: connection refused")
  end)

  it("names the development server where none answers at the default URL", function()
    local refused = errors.new { kind = "transport", code = "connect_failed", op = "sandbox:run", message = "refused",
      url = "GET http://localhost:8080/v1/sandboxes", hint = "the library's" }
    assert.equal("refused [connect_failed, GET http://localhost:8080/v1/sandboxes]. Name a server with --url or "
      .. "OPEN_SANDBOX_DOMAIN, or start a development server here with 'opensandbox dev'", error_text.of(refused))
    refused.url = "GET http://localhost:8081/v1/sandboxes"
    assert.equal("refused [connect_failed, GET http://localhost:8081/v1/sandboxes]. the library's", error_text.of(refused))
    assert.equal("sandbox:run", refused.op)
  end)

  it("replaces phrases that the library uses", function()
    local texts = {}
    for path, text in pairs(sources.read "lua/opensandbox") do
      if not path:find("^lua/opensandbox/cli/") then texts[#texts + 1] = text:gsub("\\\"", "\"") end
    end
    local library = table.concat(texts)
    for _, pair in ipairs(error_text.PHRASES) do
      assert.is_truthy(library:find(pair[1], 1, true), pair[1])
    end
  end)
end)
