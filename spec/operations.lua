--- Every operation of the OpenSandbox APIs, and the client method that calls it.
--
-- Groups of rows: `source` says where the operations are described (the OpenAPI document of that name, or the first release known to
-- have them), `at` where they are served: "/v1" and "" on the lifecycle server, "endpoint" at an endpoint of a sandbox. A row is
-- { method, path, call }: the path as it is described, and a function of the client and the endpoint that sends the request, with
-- `operations.ID` for whatever is named in braces, `operations.PORT` for ports and `operations.USER` for uid and gid; or
-- { method, path, left = "reason" } for an operation that the client omits on purpose.

local ID = "0b9d5c1e-7a42-4f6b-9d3e-1c5a8e2f4b60"
local PORT = 8080
local USER = 1000

local operations = { ID = ID, PORT = PORT, USER = USER }

local CAPACITY = { buffer_min = 0, buffer_max = 1, pool_min = 0, pool_max = 1 }
local CREDENTIALS = { { name = "token", value = "a secret" } }
local RULES = { { action = "allow", target = "example.com" } }

-- The routes for files are served three times: for the sandbox, as another user, and for each isolated session.
local function file_rows(prefix, within)
  local function row(method, path, call)
    return { method, prefix .. path, function(client, endpoint) call(client, within(client, endpoint)) end }
  end
  return
    row("GET", "/files/info", function(client, execd) client:file_info(execd, "/a") end),
    row("DELETE", "/files", function(client, execd) client:delete_files(execd, "/a") end),
    row("POST", "/files/permissions", function(client, execd) client:set_permissions(execd, { ["/a"] = { mode = "0644" } }) end),
    row("POST", "/files/mv", function(client, execd) client:move_files(execd, { { from = "/a", to = "/b" } }) end),
    row("GET", "/files/search", function(client, execd) client:search_files(execd, "/a", "*") end),
    row("POST", "/files/replace", function(client, execd)
      client:replace_in_files(execd, { ["/a"] = { old = "x", new = "y" } })
    end),
    row("POST", "/files/upload", function(client, execd) client:upload_files(execd, { { path = "/a", content = "x" } }) end),
    row("GET", "/files/download", function(client, execd) client:download_file(execd, "/a") end),
    row("GET", "/directories/list", function(client, execd) client:list_directory(execd, "/a") end),
    row("POST", "/directories", function(client, execd) client:make_directories(execd, "/a") end),
    row("DELETE", "/directories", function(client, execd) client:delete_directories(execd, "/a") end)
end

local function itself(_, endpoint) return endpoint end
local function as_user(client, endpoint) return client:identity_endpoint(endpoint, USER, USER) end
local function isolated(client, endpoint) return client:isolated_endpoint(endpoint, ID) end

local SERVER_ROUTED = "server 1.1.1 does not have it, and its shape was not seen; the same is reached at the sandbox's egress API"
local PROXIED = "get_endpoint gives its URL, for any HTTP client"
local NOT_IMPLEMENTED = "it always answers 503 NOT_SUPPORTED"
local TEXT_ONLY = "text for people, replaced by the diagnostics with a scope"
local UNRELEASED = "in no released execd"

local groups = {
  { source = "sandbox-lifecycle.yml", at = "/v1",
    { "GET", "/sandboxes", function(client) client:list_sandboxes() end },
    { "POST", "/sandboxes", function(client) client:create_sandbox { image = "x" } end },
    { "GET", "/snapshots", function(client) client:list_snapshots() end },
    { "GET", "/snapshots/{snapshotId}", function(client) client:get_snapshot(ID) end },
    { "DELETE", "/snapshots/{snapshotId}", function(client) client:delete_snapshot(ID) end },
    { "GET", "/sandboxes/{sandboxId}", function(client) client:get_sandbox(ID) end },
    { "DELETE", "/sandboxes/{sandboxId}", function(client) client:delete_sandbox(ID) end },
    { "PATCH", "/sandboxes/{sandboxId}/metadata", function(client) client:patch_metadata(ID, { stage = "two" }) end },
    { "POST", "/sandboxes/{sandboxId}/snapshots", function(client) client:create_snapshot(ID) end },
    { "POST", "/sandboxes/{sandboxId}/pause", function(client) client:pause_sandbox(ID) end },
    { "POST", "/sandboxes/{sandboxId}/resume", function(client) client:resume_sandbox(ID) end },
    { "POST", "/sandboxes/{sandboxId}/renew-expiration", function(client) client:renew_sandbox(ID, 600) end },
    { "GET", "/sandboxes/{sandboxId}/endpoints/{port}", function(client) client:get_endpoint(ID, PORT) end },
  },

  { source = "diagnostic-api.yml", at = "/v1",
    { "GET", "/sandboxes/{sandboxId}/diagnostics/logs", function(client) client:get_diagnostic_logs(ID, "all") end },
    { "GET", "/sandboxes/{sandboxId}/diagnostics/events", function(client) client:get_diagnostic_events(ID, "all") end },
  },

  { source = "execd-api.yaml", at = "endpoint",
    { "GET", "/ping", function(client, execd) client:ping(execd) end },
    { "GET", "/code/contexts", function(client, execd) client:list_code_contexts(execd, "python") end },
    { "DELETE", "/code/contexts", function(client, execd) client:delete_code_contexts(execd, "python") end },
    { "GET", "/code/contexts/{context_id}", function(client, execd) client:get_code_context(execd, ID) end },
    { "DELETE", "/code/contexts/{context_id}", function(client, execd) client:delete_code_context(execd, ID) end },
    { "POST", "/code/context", function(client, execd) client:create_code_context(execd, "python") end },
    { "POST", "/code", function(client, execd) client:run_code(execd, "1 + 1", { language = "python" }) end },
    { "DELETE", "/code", function(client, execd) client:interrupt_code(execd, ID) end },
    { "POST", "/session", function(client, execd) client:create_session(execd) end },
    { "POST", "/session/{sessionId}/run", function(client, execd) client:run_in_session(execd, ID, "true") end },
    { "DELETE", "/session/{sessionId}", function(client, execd) client:delete_session(execd, ID) end },
    { "POST", "/command", function(client, execd) client:run_command(execd, "true") end },
    { "DELETE", "/command", function(client, execd) client:interrupt_command(execd, ID) end },
    { "GET", "/command/status/{id}", function(client, execd) client:get_command_status(execd, ID) end },
    { "GET", "/command/{id}/logs", function(client, execd) client:get_command_logs(execd, ID) end },
    { "GET", "/metrics", function(client, execd) client:get_metrics(execd) end },
    { "GET", "/metrics/watch", function(client, execd) client:watch_metrics(execd) end },
    file_rows("", itself),
  },

  { source = "egress-api.yaml", at = "endpoint",
    { "GET", "/policy", function(client, egress) client:get_egress_policy(egress) end },
    { "PATCH", "/policy", function(client, egress) client:patch_egress_policy(egress, RULES) end },
    { "DELETE", "/policy", function(client, egress) client:delete_egress_rules(egress, "example.com") end },
    { "POST", "/credential-vault", function(client, egress)
      client:create_credential_vault(egress, { credentials = CREDENTIALS })
    end },
    { "GET", "/credential-vault", function(client, egress) client:get_credential_vault(egress) end },
    { "PATCH", "/credential-vault", function(client, egress)
      client:patch_credential_vault(egress, { credentials = { add = CREDENTIALS } })
    end },
    { "DELETE", "/credential-vault", function(client, egress) client:delete_credential_vault(egress) end },
    { "GET", "/credential-vault/credentials", function(client, egress) client:list_vault_credentials(egress) end },
    { "GET", "/credential-vault/credentials/{credential_name}", function(client, egress)
      client:get_vault_credential(egress, ID)
    end },
    { "GET", "/credential-vault/bindings", function(client, egress) client:list_vault_bindings(egress) end },
    { "GET", "/credential-vault/bindings/{binding_name}", function(client, egress) client:get_vault_binding(egress, ID) end },
  },

  { source = "server of June 2026", at = "",
    { "GET", "/health", function(client) client:health() end },
    { "ANY", "/sandboxes/{sandboxId}/proxy/{port}", left = PROXIED },
    { "ANY", "/sandboxes/{sandboxId}/proxy/{port}/{path}", left = PROXIED },
    { "GET", "/sandboxes/{sandboxId}/diagnostics/inspect", left = TEXT_ONLY },
    { "GET", "/sandboxes/{sandboxId}/diagnostics/summary", left = TEXT_ONLY },
  },

  { source = "server 0.1.9", at = "/v1",
    { "POST", "/pools", function(client) client:create_pool { name = ID, template = {}, capacity = CAPACITY } end },
    { "GET", "/pools", function(client) client:list_pools() end },
    { "GET", "/pools/{name}", function(client) client:get_pool(ID) end },
    { "PUT", "/pools/{name}", function(client) client:update_pool(ID, CAPACITY) end },
    { "DELETE", "/pools/{name}", function(client) client:delete_pool(ID) end },
  },

  { source = "server 0.2.2", at = "/v1",
    { "POST", "/metrics/events", function(client) client:record_create_event { success = true, duration = 1 } end },
  },

  { source = "server 0.2.3", at = "",
    { "GET", "/version", function(client) client:get_version() end },
  },

  { source = "server 1.1.1", at = "/v1",
    { "POST", "/templates", function(client) client:create_template { image = "x", publish = "s3://b/p" } end },
    { "GET", "/templates", function(client) client:list_templates() end },
    { "GET", "/templates/{templateId}", function(client) client:get_template(ID) end },
    { "DELETE", "/templates/{templateId}", function(client) client:delete_template(ID) end },
    { "GET", "/sandboxes/{sandboxId}/networkpolicy", function(client) client:get_network_policy(ID) end },
    { "PUT", "/sandboxes/{sandboxId}/networkpolicy", function(client) client:replace_network_policy(ID, { egress = RULES }) end },
    { "PATCH", "/sandboxes/{sandboxId}/networkpolicy", function(client) client:patch_network_policy(ID, RULES) end },
    { "DELETE", "/sandboxes/{sandboxId}/networkpolicy", function(client) client:delete_network_rules(ID, "example.com") end },
  },

  { source = "server 1.2.0", at = "/v1",
    { "ANY", "/sandboxes/{sandboxId}/credential-vault", left = SERVER_ROUTED },
  },

  { source = "execd of June 2026", at = "endpoint",
    { "POST", "/pty", function(client, execd) client:create_pty_session(execd, { command = "top" }) end },
    { "GET", "/pty/{sessionId}", function(client, execd) client:get_pty_session(execd, ID) end },
    { "DELETE", "/pty/{sessionId}", function(client, execd) client:delete_pty_session(execd, ID) end },
    { "GET", "/pty/{sessionId}/ws", function(client, execd) client:connect_pty_session(execd, ID) end },
    { "ANY", "/proxy/{port}/{path}", left = PROXIED },
  },

  { source = "execd, proposed", at = "endpoint",
    { "GET", "/command", left = UNRELEASED },
    { "GET", "/command/{id}/resume", left = UNRELEASED },
    { "GET", "/command/operations", left = UNRELEASED },
    { "GET", "/pty/operations", left = UNRELEASED },
    { "GET", "/execution/instance", left = UNRELEASED },
  },

  { source = "execd 1.0.20", at = "endpoint",
    { "GET", "/v1/isolated/capabilities", function(client, execd) client:get_isolation_capabilities(execd) end },
    { "POST", "/v1/isolated/session", function(client, execd)
      client:create_isolated_session(execd, { workspace = { path = "/workspace" } })
    end },
    { "GET", "/v1/isolated/session/{sessionId}", function(client, execd) client:get_isolated_session(execd, ID) end },
    { "DELETE", "/v1/isolated/session/{sessionId}", function(client, execd) client:delete_isolated_session(execd, ID) end },
    { "POST", "/v1/isolated/session/{sessionId}/run", function(client, execd) client:run_isolated(execd, ID, "true") end },
    { "GET", "/v1/isolated/session/{sessionId}/diff", left = NOT_IMPLEMENTED },
    { "POST", "/v1/isolated/session/{sessionId}/commit", left = NOT_IMPLEMENTED },
    file_rows("/v1/isolated/session/{sessionId}", isolated),
  },

  { source = "execd 1.0.21", at = "endpoint",
    { "GET", "/v1/isolated/sessions", function(client, execd) client:list_isolated_sessions(execd) end },
  },

  { source = "execd 1.0.22", at = "endpoint",
    { "POST", "/v1/isolated/session/{sessionId}/run", function(client, execd) client:start_isolated(execd, ID, "true") end },
    { "GET", "/v1/isolated/session/{sessionId}/runs/{runId}", function(client, execd)
      client:get_isolated_run(execd, ID, ID)
    end },
    { "GET", "/v1/isolated/session/{sessionId}/runs/{runId}/logs", function(client, execd)
      client:get_isolated_run_logs(execd, ID, ID)
    end },
  },

  { source = "execd of server 1.1.1", at = "endpoint",
    file_rows("/v1/filesystem/{uid}/{gid}", as_user),
  },

  { source = "egress of June 2026", at = "endpoint",
    { "PUT", "/policy", function(client, egress) client:replace_egress_policy(egress, { egress = RULES }) end },
    { "POST", "/policy", left = "it does the same as PUT, which may be sent again" },
    { "GET", "/healthz", left = "it is for the container's own health check" },
    { "GET", "/credential-vault/_active", left = "it always answers 403" },
  },
}

--- The rows, with their method, path, source and at by name, and either `covered` or `left`.
for _, group in ipairs(groups) do
  for _, row in ipairs(group) do
    operations[#operations + 1] = { method = row[1], path = row[2], source = group.source, at = group.at, covered = row[3],
      left = row.left }
  end
end

return operations
