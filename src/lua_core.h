/* The binding: userdata for the core's objects. Each file opens one class or topic onto the module's table. */
#ifndef OSB_LUA_CORE_H
#define OSB_LUA_CORE_H

#include "driver.h"
#include "lua_compat.h"
#include "lua_held.h"
#include "websocket.h"

#define OSB_MAX_BYTES 4e9 /* the largest limit in bytes that can be asked for: it fits in 32 bits */

/* Each adds its functions to the table on top of the stack. */
void osb_open_multi(lua_State *L);
void osb_open_transfer(lua_State *L);
void osb_open_event_stream(lua_State *L);
void osb_open_poller(lua_State *L);
void osb_open_notifier(lua_State *L);
void osb_open_system(lua_State *L);
void osb_open_files(lua_State *L);
void osb_open_cksum(lua_State *L);
void osb_open_websocket_codec(lua_State *L);
void osb_open_pty(lua_State *L);
void osb_open_terminal(lua_State *L);
void osb_open_signals(lua_State *L);

/* multi:request(table) and multi:websocket(table), which are in the files of the transfers. */
int osb_lua_request(lua_State *L);
int osb_lua_websocket(lua_State *L);

/* Checks the arguments of such a call, and prepares the stack for the functions below. */
void osb_begin_request(lua_State *L);

/* Reads the request table at index 2. The table at index 3 receives the values to which the request points, and keeps them alive. */
void osb_read_request(lua_State *L, osb_request *request);
void osb_read_websocket_options(lua_State *L, osb_websocket_options *options);

/* Starts a transfer of the multi at index 1, and pushes it. Returns the number of results. */
int osb_push_transfer(lua_State *L, const osb_request *request);

/* The contents of a transfer's userdata. */
typedef struct osb_transfer_box {
    osb_transfer *transfer; /* NULL after close or detach */
    osb_held held;
} osb_transfer_box;

/* Returns the transfer's box at `index`; raises for anything else. */
osb_transfer_box *osb_check_transfer(lua_State *L, int index);

/* The methods of a transfer that is a WebSocket. For any other transfer they return the same as for a closed one. */
extern const luaL_Reg osb_websocket_methods[];

/* Returns the multi at `index`, or NULL when it was closed; raises for anything else. */
osb_multi *osb_check_multi(lua_State *L, int index);

/* Pushes nil and, for a stream that has failed, "too_large" or "no_memory". Returns the number of results. */
int osb_push_no_event(lua_State *L, osb_event_status status);

/* Pushes true, or nil, the message and the name of the error in errno. Returns the number of results. */
int osb_push_result(lua_State *L, int failed);

/* Pushes nil, the message and the name of an error. Returns the number of results. */
int osb_push_errno(lua_State *L, int code);

/* The type of a WebSocket message by its name at `index`, which must be one, and the other way round. */
osb_ws_type osb_check_ws_type(lua_State *L, int index);
const char *osb_ws_type_name(osb_ws_type type);

#endif
