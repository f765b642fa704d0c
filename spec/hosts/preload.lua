--- Loads the files that the library loads when they are first used. The heartbeats of the hosts measure waiting, not loading.

for _, name in ipairs {
  "sandbox", "files", "lifecycle.sandbox_routes", "lifecycle.readiness", "execution.run_command", "execution.command_routes",
  "execution.metrics_routes", "files.file_routes", "files.download_routes", "files.upload_routes", "http.call",
  "http.exchange", "http.websocket", "loop.task", "terminal", "command", "execution.pty_routes", "execution.stdin_stream",
} do
  require("opensandbox." .. name)
end
