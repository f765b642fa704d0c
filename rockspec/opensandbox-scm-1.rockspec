rockspec_format = "3.0"
package = "opensandbox"
version = "scm-1"
source = {
  url = "git+https://github.com/opensandbox-group/opensandbox-lua.git",
  branch = "main",
}
description = {
  summary = "Client for OpenSandbox: create sandboxes, run commands in them, move files in and out",
  detailed = [[
Runs untrusted or throw-away work in OpenSandbox sandboxes from Lua: a C core on libcurl (streamed events, multipart uploads,
back-pressure) with a Lua layer for waiting, retrying and convenience. A development server is included.]],
  license = "MIT",
  labels = { "sandbox", "client", "containers", "libcurl" },
}
dependencies = {
  "lua >= 5.1",
  "lua-cjson >= 2.1.0.10",
}
-- No `header`: LuaRocks does not look in Debian's multiarch include directories, and the compiler says it better.
external_dependencies = {
  CURL = { library = "curl" },
}
build = {
  type = "builtin",
  modules = {
    ["opensandbox.core"] = {
      sources = {
        "src/body.c", "src/buffer.c", "src/frames.c", "src/lua_core.c", "src/lua_frames.c", "src/lua_multi.c",
        "src/lua_system.c", "src/lua_transfer.c", "src/multi.c", "src/output_event.c", "src/poller_epoll.c", "src/poller_poll.c",
        "src/sink.c", "src/transfer.c",
      },
      libraries = { "curl" },
      incdirs = { "$(CURL_INCDIR)" },
      libdirs = { "$(CURL_LIBDIR)" },
    },
    ["opensandbox.call"] = "lua/opensandbox/call.lua",
    ["opensandbox.capture"] = "lua/opensandbox/capture.lua",
    ["opensandbox.client"] = "lua/opensandbox/client.lua",
    ["opensandbox.command"] = "lua/opensandbox/command.lua",
    ["opensandbox.devserver.bubblewrap"] = "lua/opensandbox/devserver/bubblewrap.lua",
    ["opensandbox.devserver.commands"] = "lua/opensandbox/devserver/commands.lua",
    ["opensandbox.devserver.directories"] = "lua/opensandbox/devserver/directories.lua",
    ["opensandbox.devserver.errno"] = "lua/opensandbox/devserver/errno.lua",
    ["opensandbox.devserver.execd"] = "lua/opensandbox/devserver/execd.lua",
    ["opensandbox.devserver.files"] = "lua/opensandbox/devserver/files.lua",
    ["opensandbox.devserver.filesystem"] = "lua/opensandbox/devserver/filesystem.lua",
    ["opensandbox.devserver.frames"] = "lua/opensandbox/devserver/frames.lua",
    ["opensandbox.devserver.glob"] = "lua/opensandbox/devserver/glob.lua",
    ["opensandbox.devserver.guard"] = "lua/opensandbox/devserver/guard.lua",
    ["opensandbox.devserver.http"] = "lua/opensandbox/devserver/http.lua",
    ["opensandbox.devserver"] = "lua/opensandbox/devserver/init.lua",
    ["opensandbox.devserver.isolation"] = "lua/opensandbox/devserver/isolation.lua",
    ["opensandbox.devserver.lifecycle"] = "lua/opensandbox/devserver/lifecycle.lua",
    ["opensandbox.devserver.multipart"] = "lua/opensandbox/devserver/multipart.lua",
    ["opensandbox.devserver.names"] = "lua/opensandbox/devserver/names.lua",
    ["opensandbox.devserver.paths"] = "lua/opensandbox/devserver/paths.lua",
    ["opensandbox.devserver.plain"] = "lua/opensandbox/devserver/plain.lua",
    ["opensandbox.devserver.random"] = "lua/opensandbox/devserver/random.lua",
    ["opensandbox.devserver.response"] = "lua/opensandbox/devserver/response.lua",
    ["opensandbox.devserver.router"] = "lua/opensandbox/devserver/router.lua",
    ["opensandbox.devserver.sandboxes"] = "lua/opensandbox/devserver/sandboxes.lua",
    ["opensandbox.devserver.spawn"] = "lua/opensandbox/devserver/spawn.lua",
    ["opensandbox.devserver.stream"] = "lua/opensandbox/devserver/stream.lua",
    ["opensandbox.devserver.time"] = "lua/opensandbox/devserver/time.lua",
    ["opensandbox.devserver.transfer"] = "lua/opensandbox/devserver/transfer.lua",
    ["opensandbox.devserver.upload"] = "lua/opensandbox/devserver/upload.lua",
    ["opensandbox.devserver.url"] = "lua/opensandbox/devserver/url.lua",
    ["opensandbox.devserver.validation"] = "lua/opensandbox/devserver/validation.lua",
    ["opensandbox.errors"] = "lua/opensandbox/errors.lua",
    ["opensandbox.exchange"] = "lua/opensandbox/exchange.lua",
    ["opensandbox.execd"] = "lua/opensandbox/execd.lua",
    ["opensandbox.files"] = "lua/opensandbox/files.lua",
    ["opensandbox.finalizer"] = "lua/opensandbox/finalizer.lua",
    ["opensandbox"] = "lua/opensandbox/init.lua",
    ["opensandbox.headers"] = "lua/opensandbox/headers.lua",
    ["opensandbox.json"] = "lua/opensandbox/json.lua",
    ["opensandbox.lifecycle"] = "lua/opensandbox/lifecycle.lua",
    ["opensandbox.options"] = "lua/opensandbox/options.lua",
    ["opensandbox.paths"] = "lua/opensandbox/paths.lua",
    ["opensandbox.random"] = "lua/opensandbox/random.lua",
    ["opensandbox.reader"] = "lua/opensandbox/reader.lua",
    ["opensandbox.ready"] = "lua/opensandbox/ready.lua",
    ["opensandbox.response"] = "lua/opensandbox/response.lua",
    ["opensandbox.retry"] = "lua/opensandbox/retry.lua",
    ["opensandbox.sandbox"] = "lua/opensandbox/sandbox.lua",
    ["opensandbox.shell"] = "lua/opensandbox/shell.lua",
    ["opensandbox.time"] = "lua/opensandbox/time.lua",
    ["opensandbox.upload"] = "lua/opensandbox/upload.lua",
    ["opensandbox.url"] = "lua/opensandbox/url.lua",
    ["opensandbox.version"] = "lua/opensandbox/version.lua",
    ["opensandbox.wire"] = "lua/opensandbox/wire.lua",
  },
  install = {
    bin = { "bin/opensandbox-devserver" },
  },
  copy_directories = { "examples" },
}
