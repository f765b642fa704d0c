#include "lua_core.h"

/* core.frames(limit) -> decoder: the event-stream decoder by itself, without a transfer. */

static osb_frames *check(lua_State *L)
{
    return luaL_checkudata(L, 1, OSB_FRAMES_CLASS);
}

static int new_frames(lua_State *L)
{
    lua_Number limit = luaL_optnumber(L, 1, 64.0 * 1024 * 1024);
    osb_frames *frames;

    luaL_argcheck(L, limit >= 1 && limit <= 4e9, 1, "a limit in bytes, from 1 to 4e9");
    frames = lua_newuserdata(L, sizeof *frames);
    osb_frames_init(frames, (size_t)limit);
    osb_set_class(L, OSB_FRAMES_CLASS);
    return 1;
}

static int feed(lua_State *L)
{
    osb_frames *frames = check(L);
    size_t length;
    const char *bytes = luaL_checklstring(L, 2, &length);

    if (osb_frames_feed(frames, bytes, length))
        return luaL_error(L, "not enough memory");
    return 0;
}

static int end(lua_State *L)
{
    osb_frames_end(check(L));
    return 0;
}

int osb_push_frame(lua_State *L, const osb_frame *frame, osb_frame_status status)
{
    switch (status) {
    case OSB_FRAME_READY:
        lua_pushlstring(L, frame->data, frame->length);
        if (!frame->event && !frame->id)
            return 1;
        lua_pushlstring(L, frame->event ? frame->event : "", frame->event_length);
        lua_pushlstring(L, frame->id ? frame->id : "", frame->id_length);
        return 3;
    case OSB_FRAME_NONE:
        lua_pushnil(L);
        return 1;
    default:
        lua_pushnil(L);
        lua_pushstring(L, status == OSB_FRAME_TOO_LARGE ? "too_large" : "no_memory");
        return 2;
    }
}

static int next(lua_State *L)
{
    osb_frame frame;
    osb_frame_status status = osb_frames_next(check(L), &frame);

    return osb_push_frame(L, &frame, status);
}

static int collect(lua_State *L)
{
    osb_frames_free(check(L)); /* leaves zeroes: freeing twice is harmless */
    return 0;
}

void osb_open_frames(lua_State *L)
{
    static const luaL_Reg methods[] = { { "feed", feed }, { "finish", end }, { "next", next }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", collect }, { NULL, NULL } };

    osb_new_class(L, OSB_FRAMES_CLASS, methods, meta);
    lua_pop(L, 1);
    lua_pushcfunction(L, new_frames);
    lua_setfield(L, -2, "frames");
}
