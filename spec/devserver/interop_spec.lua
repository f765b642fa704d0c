--- What the official SDKs do that no recording shows; `make interop` runs them.

local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local http_client = require "spec.support.http_client"
local process = require "spec.support.process"

for _, isolation in ipairs { "auto", "none" } do
  describe("the development server for the official SDKs, with isolation " .. isolation .. ",", function()
    local server, sandbox
    setup(function()
      server = process.devserver { grace = 0.05, isolation = isolation }
      local client = opensandbox.new(server.url, server.key)
      sandbox = assert(client:create { image = "any", env = { FROM = "sandbox", BOTH = "sandbox" } })
    end)
    teardown(function()
      if sandbox then sandbox:kill() end
      server:stop()
    end)

    local function output(command, opts)
      return assert(sandbox:run(command, opts)).stdout
    end

    it("gives later commands the variables that one has written to the file in $EXECD_ENVS", function()
      output([[mkdir -p "$(dirname "$EXECD_ENVS")"; printf '%s\n' "KEPT='\$HOME'" 'BOTH="file \"$FROM\""' > "$EXECD_ENVS"]])
      assert.equal('$HOME file "sandbox"\n', output('echo "$KEPT $BOTH"'))
      assert.equal("request\n", output('echo "$BOTH"', { env = { BOTH = "request" } }))
      output([[rm "$EXECD_ENVS"; mkfifo "$EXECD_ENVS"]])
      assert.equal("sandbox\n", output('echo "$BOTH"'))   -- nobody waits for a pipe
    end)

    it("listens where a code interpreter looks for Jupyter", function()
      -- The very command of the Python SDK.
      assert.equal(0, assert(sandbox:run(
        "bash -c 'exec 3<>/dev/tcp/127.0.0.1/${JUPYTER_PORT:-44771}' && exit 0 || exit 1")).exit_code)
    end)

    it("has an endpoint for the egress port of a sandbox without a policy, which all ask for at once", function()
      local answer = assert(http_client.request {
        url = ("%s/v1/sandboxes/%s/endpoints/18080?use_server_proxy=false"):format(server.url, sandbox.id),
        headers = { ["OPEN-SANDBOX-API-KEY"] = server.key, ["OPEN-SANDBOX-CLIENT-IP"] = "10.0.0.1" },
      })
      assert.equal(200, answer.status, answer.body)
      assert.truthy(json.decode(answer.body).endpoint:find("^127%.0%.0%.1:%d"))
    end)

    it("does not mind the API key and other headers that some send to execd", function()
      local endpoint = assert(sandbox:endpoint(opensandbox.EXECD_PORT))
      local headers = { ["OPEN-SANDBOX-API-KEY"] = server.key, ["OPEN-SANDBOX-CLIENT-IP"] = "10.0.0.1" }
      for name, value in pairs(endpoint.headers) do headers[name] = value end
      assert.equal(200, assert(http_client.request { url = endpoint.url .. "/ping", headers = headers }).status)
    end)
  end)
end
