/* The binding: userdata for the core's objects. Each file opens one class or topic onto the module's table. */
#ifndef OSB_LUA_CORE_H
#define OSB_LUA_CORE_H

#include "lua_compat.h"
#include "multi.h"
#include "transfer.h"
#include "websocket.h"

#define OSB_MULTI_CLASS "opensandbox.multi"
#define OSB_TRANSFER_CLASS "opensandbox.transfer"
#define OSB_FRAMES_CLASS "opensandbox.frames"

/* Each adds its functions to the table on top of the stack. */
void osb_open_multi(lua_State *L);
void osb_open_transfer(lua_State *L);
void osb_open_frames(lua_State *L);
void osb_open_poller(lua_State *L);
void osb_open_notifier(lua_State *L);
void osb_open_system(lua_State *L);
void osb_open_files(lua_State *L);
void osb_open_websocket_codec(lua_State *L);

/* multi:request(table), which lives with the transfers. */
int osb_lua_request(lua_State *L);

/* The multi at `index`, or NULL when it was closed; raises for anything else. */
osb_multi *osb_check_multi(lua_State *L, int index);

/* Pushes what osb_frames_next() gave: data, event, id; nil when there is none yet; nil, "too_large" or "no_memory". */
int osb_push_frame(lua_State *L, const osb_frame *frame, osb_frame_status status);

/* The type of a WebSocket message by its name at `index`, which must be one, and the other way round. */
osb_ws_type osb_check_ws_type(lua_State *L, int index);
const char *osb_ws_type_name(osb_ws_type type);

#endif
