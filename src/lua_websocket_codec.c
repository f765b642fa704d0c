#include "lua_core.h"

#include <string.h>

#include "websocket.h"

/* The WebSocket codec by itself, without a transfer: for servers and for tests. */

#define READER_CLASS "opensandbox.websocket_reader"
#define OUTPUT_CLASS "opensandbox.websocket_output"

typedef struct reader_box {
    osb_ws_reader reader;
    int busy; /* its memory is in use: pushing a string can run a finalizer, which must not move it */
} reader_box;

static const struct {
    const char *name;
    osb_ws_type type;
} types[] = {
    { "text", OSB_WS_TEXT }, { "binary", OSB_WS_BINARY }, { "close", OSB_WS_CLOSE }, { "ping", OSB_WS_PING },
    { "pong", OSB_WS_PONG }
};

enum { TYPE_COUNT = sizeof types / sizeof types[0] };

const char *osb_ws_type_name(osb_ws_type type)
{
    size_t i = 0;

    while (types[i].type != type)
        ++i;
    return types[i].name;
}

osb_ws_type osb_check_ws_type(lua_State *L, int index)
{
    const char *name = luaL_checkstring(L, index);
    size_t i;

    for (i = 0; i < TYPE_COUNT; ++i) {
        if (strcmp(types[i].name, name) == 0)
            return types[i].type;
    }
    luaL_argerror(L, index, "the type of a message: text, binary, close, ping or pong");
    return OSB_WS_CLOSE; /* never reached */
}

static reader_box *check(lua_State *L)
{
    reader_box *box = luaL_checkudata(L, 1, READER_CLASS);

    luaL_argcheck(L, !box->busy, 1, "the reader is in use");
    return box;
}

/* core.websocket_reader(limit, masked) -> reader. `limit`: the longest message in bytes; `masked`: the peer is a client */
static int new_reader(lua_State *L)
{
    lua_Number limit = luaL_checknumber(L, 1);
    int masked = lua_toboolean(L, 2);
    reader_box *box;

    luaL_argcheck(L, limit >= 1 && limit <= OSB_MAX_BYTES, 1, "a limit in bytes, from 1 to 4e9");
    box = lua_newuserdata(L, sizeof *box);
    box->busy = 0;
    osb_ws_reader_init(&box->reader, (size_t)limit, masked);
    osb_set_class(L, READER_CLASS);
    return 1;
}

/* reader:feed(bytes) */
static int feed(lua_State *L)
{
    reader_box *box = check(L);
    size_t length;
    const char *bytes = luaL_checklstring(L, 2, &length);

    if (osb_ws_reader_feed(&box->reader, bytes, length))
        return luaL_error(L, "not enough memory");
    return 0;
}

/*
 * reader:next() -> type, bytes; "close", reason, code (1005: the frame has none); nil when no message is complete; nil, message,
 * code to close with once the peer has violated the protocol
 */
static int next(lua_State *L)
{
    reader_box *box = check(L);
    osb_ws_message message;
    osb_ws_status status = osb_ws_reader_next(&box->reader, &message);

    if (status == OSB_WS_NONE) {
        lua_pushnil(L);
        return 1;
    }
    if (status != OSB_WS_READY) {
        lua_pushnil(L);
        lua_pushstring(L, box->reader.problem);
        lua_pushinteger(L, osb_ws_failure_code(status));
        return 3;
    }
    box->busy = 1;
    lua_pushstring(L, osb_ws_type_name(message.type));
    lua_pushlstring(L, message.data, message.length);
    box->busy = 0;
    if (message.type != OSB_WS_CLOSE)
        return 2;
    lua_pushinteger(L, message.code);
    return 3;
}

static int collect(lua_State *L)
{
    reader_box *box = luaL_checkudata(L, 1, READER_CLASS);

    osb_ws_reader_free(&box->reader); /* leaves its buffers empty: freeing twice is harmless */
    return 0;
}

static const unsigned char *check_mask(lua_State *L, int index)
{
    size_t length;
    const char *mask = luaL_optlstring(L, index, NULL, &length);

    luaL_argcheck(L, !mask || length == 4, index, "a mask has four bytes");
    return (const unsigned char *)mask;
}

/* Pushes a buffer for a frame. The collector frees it after an error. */
static osb_buffer *push_buffer(lua_State *L)
{
    osb_buffer *output = lua_newuserdata(L, sizeof *output);

    memset(output, 0, sizeof *output);
    osb_set_class(L, OUTPUT_CLASS);
    return output;
}

/* Pushes the bytes of a buffer, and frees it. */
static int push_output(lua_State *L, osb_buffer *output, int failed)
{
    if (failed)
        return luaL_error(L, "not enough memory");
    lua_pushlstring(L, osb_buffer_bytes(output), osb_buffer_size(output));
    osb_buffer_free(output);
    return 1;
}

static int collect_output(lua_State *L)
{
    osb_buffer_free(luaL_checkudata(L, 1, OUTPUT_CLASS));
    return 0;
}

/* core.websocket_frame(type, bytes [, mask]) -> the frame of a whole message; `mask` has four bytes */
static int write_frame(lua_State *L)
{
    osb_ws_type type = osb_check_ws_type(L, 1);
    size_t length;
    const char *bytes = luaL_checklstring(L, 2, &length);
    const unsigned char *mask = check_mask(L, 3);
    osb_buffer *output;

    luaL_argcheck(L, type == OSB_WS_TEXT || type == OSB_WS_BINARY || length <= OSB_WS_MAX_CONTROL, 2, "at most 125 bytes");
    output = push_buffer(L);
    return push_output(L, output, osb_ws_write(output, type, bytes, length, mask));
}

/* core.websocket_close_frame(code, reason [, mask]) -> the frame of a close; code 1005: without one */
static int write_close_frame(lua_State *L)
{
    int code = (int)luaL_checkinteger(L, 1);
    size_t length;
    const char *reason = luaL_checklstring(L, 2, &length);
    const unsigned char *mask = check_mask(L, 3);
    osb_buffer *output;

    luaL_argcheck(L, code == OSB_WS_NO_CODE || osb_ws_code_is_valid(code), 1, "a code that may be sent");
    luaL_argcheck(L, length <= OSB_WS_MAX_REASON, 2, "at most 123 bytes");
    output = push_buffer(L);
    return push_output(L, output, osb_ws_write_close(output, code, reason, length, mask));
}

/* core.websocket_accept(key) -> the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key */
static int write_accept(lua_State *L)
{
    size_t length;
    const char *key = luaL_checklstring(L, 1, &length);
    char accept[OSB_WS_ACCEPT_LENGTH + 1];

    luaL_argcheck(L, length == OSB_WS_KEY_LENGTH, 1, "a key has 24 characters");
    osb_ws_accept(key, accept);
    lua_pushstring(L, accept);
    return 1;
}

void osb_open_websocket_codec(lua_State *L)
{
    static const luaL_Reg methods[] = { { "feed", feed }, { "next", next }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", collect }, { NULL, NULL } };
    static const luaL_Reg no_methods[] = { { NULL, NULL } };
    static const luaL_Reg output_meta[] = { { "__gc", collect_output }, { NULL, NULL } };

    osb_new_class(L, READER_CLASS, methods, meta);
    osb_new_class(L, OUTPUT_CLASS, no_methods, output_meta);
    lua_pop(L, 2);
    lua_pushcfunction(L, new_reader);
    lua_setfield(L, -2, "websocket_reader");
    lua_pushcfunction(L, write_frame);
    lua_setfield(L, -2, "websocket_frame");
    lua_pushcfunction(L, write_close_frame);
    lua_setfield(L, -2, "websocket_close_frame");
    lua_pushcfunction(L, write_accept);
    lua_setfield(L, -2, "websocket_accept");
}
