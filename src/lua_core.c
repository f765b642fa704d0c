#include "lua_core.h"

/* The module `opensandbox.core`. */
int luaopen_opensandbox_core(lua_State *L);

int luaopen_opensandbox_core(lua_State *L)
{
    lua_newtable(L);
    osb_open_multi(L);
    osb_open_transfer(L);
    osb_open_frames(L);
    osb_open_poller(L);
    osb_open_notifier(L);
    osb_open_system(L);
    osb_open_files(L);
    osb_open_websocket_codec(L);
    lua_pushstring(L, curl_version());
    lua_setfield(L, -2, "curl_version");
    lua_pushboolean(L, (curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS) != 0);
    lua_setfield(L, -2, "looks_up_in_background"); /* host names: else a lookup holds everything up */
    return 1;
}
