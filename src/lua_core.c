#include "lua_core.h"

#include <errno.h>
#include <string.h>

/* The name of an error that our Lua code distinguishes, else "E" and its number. */
static void push_name(lua_State *L, int code)
{
    switch (code) {
    case ENOENT: lua_pushliteral(L, "ENOENT"); return;
    case EEXIST: lua_pushliteral(L, "EEXIST"); return;
    case ENOTDIR: lua_pushliteral(L, "ENOTDIR"); return;
    case EISDIR: lua_pushliteral(L, "EISDIR"); return;
    case ELOOP: lua_pushliteral(L, "ELOOP"); return;
    case EACCES: lua_pushliteral(L, "EACCES"); return;
    case EPERM: lua_pushliteral(L, "EPERM"); return;
    case EROFS: lua_pushliteral(L, "EROFS"); return;
    case ENOSPC: lua_pushliteral(L, "ENOSPC"); return;
    case ENAMETOOLONG: lua_pushliteral(L, "ENAMETOOLONG"); return;
    case EPIPE: lua_pushliteral(L, "EPIPE"); return;
    case ENOTEMPTY: lua_pushliteral(L, "ENOTEMPTY"); return;
    default: lua_pushfstring(L, "E%d", code);
    }
}

int osb_push_errno(lua_State *L, int code)
{
    lua_pushnil(L);
    lua_pushstring(L, strerror(code));
    push_name(L, code);
    return 3;
}

int osb_push_result(lua_State *L, int failed)
{
    if (failed)
        return osb_push_errno(L, errno);
    lua_pushboolean(L, 1);
    return 1;
}

/* The module `opensandbox.core`. */
int luaopen_opensandbox_core(lua_State *L);

int luaopen_opensandbox_core(lua_State *L)
{
    lua_newtable(L);
    osb_open_multi(L);
    osb_open_transfer(L);
    osb_open_event_stream(L);
    osb_open_poller(L);
    osb_open_notifier(L);
    osb_open_system(L);
    osb_open_files(L);
    osb_open_cksum(L);
    osb_open_websocket_codec(L);
    osb_open_pty(L);
    osb_open_terminal(L);
    osb_open_signals(L);
    lua_pushstring(L, curl_version());
    lua_setfield(L, -2, "curl_version");
    /* Where this is false, a lookup of a host name holds everything up. */
    lua_pushboolean(L, (curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS) != 0);
    lua_setfield(L, -2, "async_dns");
    return 1;
}
