#include "lua_core.h"
#include "lua_held.h"

/* core.event_stream(limit) -> decoder: the event-stream decoder by itself, without a transfer. Only tests use it. */

#define EVENT_STREAM_CLASS "opensandbox.event_stream"

typedef struct stream_box {
    osb_event_stream stream;
    osb_held held;
} stream_box;

static stream_box *check(lua_State *L)
{
    return luaL_checkudata(L, 1, EVENT_STREAM_CLASS);
}

static int new_event_stream(lua_State *L)
{
    lua_Number limit = luaL_checknumber(L, 1);
    stream_box *box;

    luaL_argcheck(L, limit >= 1 && limit <= OSB_MAX_BYTES, 1, "a limit in bytes, from 1 to 4e9");
    box = lua_newuserdata(L, sizeof *box);
    osb_event_stream_init(&box->stream, (size_t)limit);
    box->held.count = 0;
    osb_set_class(L, EVENT_STREAM_CLASS);
    return 1;
}

static int feed(lua_State *L)
{
    stream_box *box = check(L);
    size_t length;
    const char *bytes = luaL_checklstring(L, 2, &length);

    if (osb_event_stream_feed(&box->stream, bytes, length))
        return luaL_error(L, "not enough memory");
    return 0;
}

static int finish(lua_State *L)
{
    osb_event_stream_end(&check(L)->stream);
    return 0;
}

int osb_push_no_event(lua_State *L, osb_event_status status)
{
    lua_pushnil(L);
    if (status == OSB_EVENT_NONE)
        return 1;
    lua_pushstring(L, status == OSB_EVENT_TOO_LARGE ? "too_large" : "no_memory");
    return 2;
}

static int next(lua_State *L)
{
    stream_box *box = check(L);
    unsigned long before;

    do { /* a finalizer may take the event while it is pushed */
        osb_event event;
        osb_event_status status = osb_event_stream_next(&box->stream, &event);
        if (status != OSB_EVENT_READY)
            return osb_push_no_event(L, status);
        before = box->stream.removals;
        lua_settop(L, 1);
        osb_push_held(L, &box->held, event.buffer, event.data, event.length);
    } while (box->stream.removals != before);
    osb_event_stream_remove(&box->stream);
    return 1;
}

static int collect(lua_State *L)
{
    stream_box *box = check(L);

    osb_held_release(&box->held, 0);
    osb_event_stream_free(&box->stream);
    return 0;
}

void osb_open_event_stream(lua_State *L)
{
    static const luaL_Reg methods[] = { { "feed", feed }, { "finish", finish }, { "next", next }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", collect }, { NULL, NULL } };

    osb_new_class(L, EVENT_STREAM_CLASS, methods, meta);
    lua_pop(L, 1);
    lua_pushcfunction(L, new_event_stream);
    lua_setfield(L, -2, "event_stream");
}
