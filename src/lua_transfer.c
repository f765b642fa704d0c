#include "lua_core.h"

#include <string.h>

#include "output_event.h"

/*
 * multi:request { ... } -> transfer; lua_request.c reads the table.
 *
 * A push can run a finalizer that closes this very transfer: after one, the transfer is fetched again.
 */

#define TRANSFER_CLASS "opensandbox.transfer"

osb_transfer_box *osb_check_transfer(lua_State *L, int index)
{
    return luaL_checkudata(L, index, TRANSFER_CLASS);
}

static osb_transfer_box *check_box(lua_State *L)
{
    return osb_check_transfer(L, 1);
}

static osb_transfer *check(lua_State *L)
{
    return check_box(L)->transfer;
}

void osb_begin_request(lua_State *L)
{
    osb_check_multi(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    lua_newtable(L); /* for the values to which the request points */
}

int osb_lua_request(lua_State *L)
{
    osb_request request;

    osb_begin_request(L);
    osb_read_request(L, &request);
    return osb_push_transfer(L, &request);
}

int osb_push_transfer(lua_State *L, const osb_request *request)
{
    osb_multi *multi;
    osb_transfer_box *box;

    box = lua_newuserdata(L, sizeof *box);
    memset(box, 0, sizeof *box);
    osb_set_class(L, TRANSFER_CLASS);
    lua_pushvalue(L, 3);
    osb_anchor(L, -2);
    multi = osb_check_multi(L, 1); /* only now: reading the table can have closed it */
    if (!multi)
        return 1; /* a transfer that was closed from the start: its outcome says so, as any other */
    box->transfer = osb_driver_request(multi, request);
    if (!box->transfer)
        return luaL_error(L, "not enough memory");
    return 1;
}

/* transfer:id() -> its number among the transfers of its multi: a result of multi:changed() */
static int id(lua_State *L)
{
    osb_transfer *transfer = check(L);

    if (transfer)
        lua_pushinteger(L, (lua_Integer)transfer->member.id);
    else
        lua_pushnil(L);
    return 1;
}

/* transfer:sent() -> true when bytes of the request may have reached the server by now */
static int sent(lua_State *L)
{
    osb_transfer *transfer = check(L);

    lua_pushboolean(L, transfer && osb_transfer_sent(transfer));
    return 1;
}

/* transfer:head() -> status, header lines; nil until they are complete */
static int head(lua_State *L)
{
    osb_transfer_box *box = check_box(L);
    osb_buffer *lines = box->transfer && box->transfer->response.status ? &box->transfer->response.head : NULL;

    if (!lines) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, (lua_Integer)box->transfer->response.status);
    osb_push_held(L, &box->held, lines, osb_buffer_bytes(lines), osb_buffer_size(lines));
    return 2;
}

/* Returns 1 when nothing was taken from the response since it was at `removals`. */
static int is_unchanged(const osb_transfer_box *box, unsigned long removals)
{
    return box->transfer && box->transfer->response.events.removals == removals;
}

/* transfer:read(most) -> the next bytes of the body, at most `most`; nil when none are queued */
static int read_bytes(lua_State *L)
{
    osb_transfer_box *box = check_box(L);
    lua_Number most = luaL_optnumber(L, 2, 64.0 * 1024);
    unsigned long removals;
    size_t size;

    do { /* a finalizer may read the same bytes while they are pushed */
        osb_buffer *queue = box->transfer ? &box->transfer->response.events.input : NULL;
        size = queue ? osb_buffer_size(queue) : 0;
        lua_settop(L, 1);
        if (size == 0 || !(most >= 1)) {
            lua_pushnil(L);
            return 1;
        }
        if (most < (lua_Number)size)
            size = (size_t)most;
        removals = box->transfer->response.events.removals;
        osb_push_held(L, &box->held, queue, osb_buffer_bytes(queue), size);
    } while (box->transfer && !is_unchanged(box, removals));
    if (box->transfer)
        osb_transfer_consume(box->transfer, size);
    return 1;
}

/* transfer:queued() -> bytes of the body that can be read. Only tests use it. */
static int queued(lua_State *L)
{
    osb_transfer *transfer = check(L);

    osb_push_int64(L, transfer ? (int64_t)osb_buffer_size(&transfer->response.events.input) : 0);
    return 1;
}

/* Finds the next event. */
static osb_event_status find_event(const osb_transfer_box *box, osb_event *event)
{
    return box->transfer ? osb_transfer_next_event(box->transfer, event) : OSB_EVENT_NONE;
}

/* Pushes bytes of an event and removes it. Returns 0 when it must be found again, because a finalizer took it. */
static int take_event(lua_State *L, osb_transfer_box *box, const osb_event *event, const char *bytes, size_t length)
{
    unsigned long removals = box->transfer->response.events.removals;

    osb_push_held(L, &box->held, event->buffer, bytes, length);
    if (box->transfer && !is_unchanged(box, removals))
        return 0;
    if (box->transfer)
        osb_transfer_remove_event(box->transfer);
    return 1;
}

/* transfer:next_event() -> the next event of an event stream; nil when none is complete; nil, "too_large" | "no_memory" */
static int next_event(lua_State *L)
{
    osb_transfer_box *box = check_box(L);
    osb_event event;

    do {
        osb_event_status status = find_event(box, &event);
        lua_settop(L, 1);
        if (status != OSB_EVENT_READY)
            return osb_push_no_event(L, status);
    } while (!take_event(L, box, &event, event.data, event.length));
    return 1;
}

/*
 * transfer:next_output() -> "stdout" or "stderr" and the text, where the next event is a plain line of output; else nil and the results
 * of transfer:next_event()
 */
static int next_output(lua_State *L)
{
    osb_transfer_box *box = check_box(L);
    osb_event event;
    const char *text;
    size_t length;

    do {
        osb_event_status status = find_event(box, &event);
        osb_output output;
        lua_settop(L, 1);
        lua_pushnil(L);
        if (status != OSB_EVENT_READY)
            return 1 + osb_push_no_event(L, status);
        output = osb_output_event(event.data, event.length, &text, &length);
        if (output) {
            lua_pushvalue(L, lua_upvalueindex(output));
            lua_replace(L, -2);
        } else {
            text = event.data;
            length = event.length;
        }
    } while (!take_event(L, box, &event, text, length));
    return 2;
}

/* transfer:outcome() -> nil while it runs; then its name, a message, true when the request may have reached the server */
static int outcome(lua_State *L)
{
    osb_transfer *transfer = check(L);
    char message[sizeof transfer->message];
    int was_sent;

    if (!transfer) {
        lua_pushliteral(L, "closed");
        lua_pushliteral(L, "it was closed");
        return 2;
    }
    if (transfer->outcome == OSB_RUNNING) {
        lua_pushnil(L);
        return 1;
    }
    was_sent = transfer->request_sent;
    memcpy(message, transfer->message, sizeof message);
    lua_pushstring(L, osb_outcome_name(transfer->outcome));
    lua_pushstring(L, message);
    lua_pushboolean(L, was_sent);
    return 3;
}

/* transfer:progress() -> bytes of the body received, bytes of content sent */
static int progress(lua_State *L)
{
    osb_transfer *transfer = check(L);

    osb_push_int64(L, transfer ? transfer->response.received : 0);
    osb_push_int64(L, transfer ? transfer->body.sent : 0);
    return 2;
}

/* transfer:wants() -> the index of the reader part that can take bytes, or nil */
static int wants(lua_State *L)
{
    osb_transfer *transfer = check(L);
    size_t part = transfer ? osb_body_next_reader(&transfer->body) : 0;

    if (part == 0)
        lua_pushnil(L);
    else
        lua_pushinteger(L, (lua_Integer)part);
    return 1;
}

/* transfer:write(part, bytes | nil): nil ends the part -> true; nil when it is not that part's turn */
static int write_bytes(lua_State *L)
{
    lua_Integer part = luaL_checkinteger(L, 2);
    size_t length = 0;
    const char *bytes = luaL_optlstring(L, 3, NULL, &length);
    osb_transfer *transfer = check(L);
    int failed;

    if (!transfer || part < 1) {
        lua_pushnil(L);
        return 1;
    }
    failed = osb_transfer_write(transfer, (size_t)part, bytes, length);
    if (failed == -1)
        return luaL_error(L, "not enough memory");
    if (failed)
        lua_pushnil(L);
    else
        lua_pushboolean(L, 1);
    return 1;
}

static int close_transfer(lua_State *L)
{
    osb_transfer_box *box = check_box(L);
    osb_transfer *transfer = box->transfer;

    box->transfer = NULL;
    osb_transfer_free(transfer);
    return 0;
}

static int collect(lua_State *L)
{
    osb_held_release(&check_box(L)->held, 0);
    return close_transfer(L);
}

/* transfer:detach(seconds, wait_on_close): leaves it to the multi, which discards the rest of the response */
static int detach(lua_State *L)
{
    osb_transfer_box *box = check_box(L);
    lua_Number seconds = luaL_checknumber(L, 2);
    osb_transfer *transfer = box->transfer;

    box->transfer = NULL;
    if (transfer)
        osb_transfer_detach(transfer, seconds, lua_toboolean(L, 3));
    return 0;
}

void osb_open_transfer(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "id", id }, { "sent", sent }, { "head", head }, { "read", read_bytes }, { "queued", queued }, { "next_event", next_event },
        { "outcome", outcome }, { "progress", progress }, { "wants", wants }, { "write", write_bytes }, { "detach", detach },
        { "close", close_transfer }, { NULL, NULL }
    };
    static const luaL_Reg meta[] = { { "__gc", collect }, { "__close", close_transfer }, { NULL, NULL } };

    osb_new_class(L, TRANSFER_CLASS, methods, meta);
    lua_getfield(L, -1, "__index");
    osb_set_functions(L, osb_websocket_methods);
    lua_pushliteral(L, "stdout"); /* the first upvalue: OSB_OUTPUT_STDOUT; the second: OSB_OUTPUT_STDERR */
    lua_pushliteral(L, "stderr");
    lua_pushcclosure(L, next_output, 2);
    lua_setfield(L, -2, "next_output");
    lua_pop(L, 2);
}
