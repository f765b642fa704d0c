#!/bin/sh
# Runs quickstart.lua against the server of OPEN_SANDBOX_DOMAIN, or against a development server that lives as long as the demo.
set -eu
LUA=${LUA:-lua5.4}

if [ -n "${OPEN_SANDBOX_DOMAIN:-}" ]; then
  exec "$LUA" examples/quickstart.lua
fi

directory=$(mktemp -d)
cleanup() {
  [ -z "${server:-}" ] || kill "$server" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$directory"
}
trap cleanup EXIT INT TERM

: > "$directory/exports" # because the shell in the background may open it after it is first read
"$LUA" bin/opensandbox-devserver --port 0 > "$directory/exports" &
server=$!
# The server writes its exports once it listens; it has ended if it cannot.
until [ "$(wc -l < "$directory/exports")" -ge 2 ]; do
  kill -0 "$server" 2>/dev/null || { echo "the development server did not start" >&2; exit 1; }
  sleep 0.05
done
. "$directory/exports"
"$LUA" examples/quickstart.lua
