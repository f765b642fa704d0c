#include "lua_core.h"

#include <string.h>

#include "websocket_transfer.h"

/*
 * multi:websocket { ... } -> transfer: a request that switches to WebSocket. It has the fields of multi:request() except method, body
 * and parts. Its own fields are:
 *   max_message         the longest message that is accepted, in bytes
 *   receive_high_water  bytes of received messages at which receiving pauses
 *   send_high_water     bytes of queued frames from which on send() accepts no more
 *   ping_interval       seconds without a byte of the server after which it is pinged; 0: never
 *   ping_timeout        seconds in which the server must send anything after a ping
 *   close_timeout       seconds that the closing handshake may take
 *   channels            first bytes of binary messages of which several in a row, with the same first byte, are received as one, with the
 *                       byte and the rest of all; default: none
 * `timeout` limits the time until the connection is open; idle_timeout has no effect.
 *
 * The result has the methods of any transfer. Its head has status 101 when the connection is open; any other status is a refusal, whose
 * body can be read. Its outcome is "complete" when the server has sent a close frame. Messages received before can still be taken.
 */
int osb_lua_websocket(lua_State *L)
{
    osb_websocket_options options;
    osb_request request;

    osb_begin_request(L);
    osb_read_request(L, &request);
    osb_read_websocket_options(L, &options);
    request.method = "GET";
    request.body = NULL;
    request.part_count = 0;
    request.sink = NULL;
    request.max_event = 0;
    request.websocket = &options;
    return osb_push_transfer(L, &request);
}

/* transfer:receive() -> "text" | "binary", bytes: the next message; nil when none is complete */
static int receive(lua_State *L)
{
    osb_transfer_box *box = osb_check_transfer(L, 1);
    unsigned long removals;
    osb_ws_message message;

    do { /* a finalizer may take the message while it is pushed */
        lua_settop(L, 1);
        if (!box->transfer || !osb_transfer_next_message(box->transfer, &message)) {
            lua_pushnil(L);
            return 1;
        }
        removals = box->transfer->websocket->removals;
        osb_push_held(L, &box->held, &box->transfer->websocket->received, message.data, message.length);
    } while (box->transfer && box->transfer->websocket->removals != removals);
    if (box->transfer)
        osb_transfer_remove_message(box->transfer);
    lua_pushstring(L, osb_ws_type_name(message.type));
    lua_insert(L, -2);
    return 2;
}

static int push_result(lua_State *L, osb_websocket_result result)
{
    if (result == OSB_WEBSOCKET_NO_MEMORY)
        return luaL_error(L, "not enough memory");
    if (result == OSB_WEBSOCKET_CLOSING)
        lua_pushnil(L);
    else
        lua_pushboolean(L, result == OSB_WEBSOCKET_OK);
    return 1;
}

/*
 * transfer:send(type, bytes) -> true when the message is queued; false while the queue is full, and the transfer has news when it has
 * room; nil when the connection is not open, or is being closed. `type`: "text", which must be UTF-8, or "binary"
 */
static int send_message(lua_State *L)
{
    osb_ws_type type = osb_check_ws_type(L, 2);
    size_t length;
    const char *bytes = luaL_checklstring(L, 3, &length);
    osb_transfer *transfer = osb_check_transfer(L, 1)->transfer;

    luaL_argcheck(L, type == OSB_WS_TEXT || type == OSB_WS_BINARY, 2, "text or binary");
    luaL_argcheck(L, type == OSB_WS_BINARY || osb_utf8_is_valid(bytes, length), 3, "a text must be UTF-8");
    return push_result(L, transfer ? osb_transfer_send(transfer, type, bytes, length) : OSB_WEBSOCKET_CLOSING);
}

/*
 * transfer:send_close(code, reason) -> true when the closing handshake has begun, with whose end the transfer ends; nil when the
 * connection is not open, or is being closed. `reason`: at most 123 bytes of UTF-8, default none
 */
static int send_close(lua_State *L)
{
    lua_Integer code = luaL_checkinteger(L, 2);
    size_t length;
    const char *reason = luaL_optlstring(L, 3, "", &length);
    osb_transfer *transfer = osb_check_transfer(L, 1)->transfer;

    luaL_argcheck(L, code >= 1000 && code <= 4999 && osb_ws_code_is_valid((int)code), 2, "a code that may be sent");
    luaL_argcheck(L, length <= OSB_WS_MAX_REASON && osb_utf8_is_valid(reason, length), 3, "at most 123 bytes of UTF-8");
    return push_result(L, transfer ? osb_transfer_send_close(transfer, (int)code, reason, length) : OSB_WEBSOCKET_CLOSING);
}

/* transfer:close_status() -> code (1005: the frame has none), reason of the server's close frame; nil when none was received */
static int close_status(lua_State *L)
{
    osb_transfer *transfer = osb_check_transfer(L, 1)->transfer;
    const osb_websocket *websocket = transfer ? transfer->websocket : NULL;
    char reason[OSB_WS_MAX_REASON];
    size_t length;

    if (!websocket || !websocket->close_code) {
        lua_pushnil(L);
        return 1;
    }
    length = websocket->close_reason_length;
    memcpy(reason, websocket->close_reason, length); /* pushing it can free the transfer */
    lua_pushinteger(L, websocket->close_code);
    lua_pushlstring(L, reason, length);
    return 2;
}

/* transfer:unsent() -> bytes of frames that libcurl has not taken yet; the transfer has news when none are left */
static int unsent(lua_State *L)
{
    osb_transfer *transfer = osb_check_transfer(L, 1)->transfer;
    const osb_websocket *websocket = transfer ? transfer->websocket : NULL;

    osb_push_int64(L, websocket ? (int64_t)osb_buffer_size(&websocket->output) : 0);
    return 1;
}

const luaL_Reg osb_websocket_methods[] = {
    { "receive", receive }, { "send", send_message }, { "send_close", send_close }, { "close_status", close_status },
    { "unsent", unsent }, { NULL, NULL }
};
