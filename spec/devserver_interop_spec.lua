--- What the official SDKs rely on and no recording shows.

local opensandbox = require "opensandbox"
local process = require "spec.support.process"

for _, isolation in ipairs { "auto", "none" } do
  describe("the development server for the official SDKs, with isolation " .. isolation .. ",", function()
    local server, sandbox
    setup(function()
      server = process.devserver { grace = 0.05, args = { "--isolation", isolation } }
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
  end)
end
