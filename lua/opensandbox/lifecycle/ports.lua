--- The ports of the services in and beside each sandbox.

return {
  EXECD = 44772,  -- the agent that runs commands and serves files
  EGRESS = 18080, -- the sidecar that keeps network policy and credentials; only of sandboxes created with a policy
}
