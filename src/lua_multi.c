#include "lua_core.h"

/*
 * core.multi() -> multi. The methods pollfd, events, timeout and step are the contract for event loops (cqueues' names); getfd
 * and dirty are what luasocket's select() asks for.
 */

#define MULTI_CLASS "opensandbox.multi"

enum { CLOSE_TIMEOUT = 2 }; /* seconds for the requests that closing waits for, above all the deletes that a finalizer has queued */

typedef struct multi_box {
    osb_multi *multi;
} multi_box;

osb_multi *osb_check_multi(lua_State *L, int index)
{
    multi_box *box = luaL_checkudata(L, index, MULTI_CLASS);
    return box->multi;
}

static int new_multi(lua_State *L)
{
    multi_box *box = lua_newuserdata(L, sizeof *box);

    box->multi = NULL;
    osb_set_class(L, MULTI_CLASS);
    box->multi = osb_multi_new();
    if (!box->multi)
        return luaL_error(L, "not enough memory");
    return 1;
}

static int close_within(lua_State *L, double seconds)
{
    multi_box *box = luaL_checkudata(L, 1, MULTI_CLASS);
    osb_multi *multi = box->multi;

    if (multi) {
        box->multi = NULL;
        osb_driver_close(multi, seconds);
        osb_multi_release(multi);
    }
    return 0;
}

/* Also __gc and __close, whose second argument is no number of ours. */
static int finalize(lua_State *L)
{
    return close_within(L, CLOSE_TIMEOUT);
}

/* multi:close(seconds): waits so long, at most, for requests whose responses it must see */
static int close_multi(lua_State *L)
{
    return close_within(L, luaL_optnumber(L, 2, CLOSE_TIMEOUT));
}

static int step(lua_State *L)
{
    osb_multi *multi = osb_check_multi(L, 1);
    lua_Number seconds = luaL_optnumber(L, 2, 0);

    if (multi)
        osb_driver_step(multi, seconds > 0 ? seconds : 0);
    lua_pushinteger(L, multi ? (lua_Integer)multi->set.count : 0);
    return 1;
}

static int pollfd(lua_State *L)
{
    osb_multi *multi = osb_check_multi(L, 1);
    int fd = multi ? osb_driver_fd(multi) : -1;

    if (fd < 0)
        lua_pushnil(L);
    else
        lua_pushinteger(L, fd);
    return 1;
}

static int events(lua_State *L)
{
    osb_check_multi(L, 1);
    lua_pushliteral(L, "r"); /* the set is readable when any of its sockets is ready for anything */
    return 1;
}

static int timeout(lua_State *L)
{
    osb_multi *multi = osb_check_multi(L, 1);
    double seconds = multi ? osb_driver_timeout(multi) : -1;

    if (seconds < 0)
        lua_pushnil(L);
    else
        lua_pushnumber(L, seconds);
    return 1;
}

static int dirty(lua_State *L)
{
    osb_multi *multi = osb_check_multi(L, 1);
    lua_pushboolean(L, multi && osb_driver_timeout(multi) == 0);
    return 1;
}

/* multi:inflight() -> transfers that run, the detached ones included */
static int inflight(lua_State *L)
{
    osb_multi *multi = osb_check_multi(L, 1);

    lua_pushinteger(L, multi ? (lua_Integer)multi->set.count : 0);
    return 1;
}

/* multi:changed() -> the id of a transfer with news since it was last returned, or nil when there is none */
static int changed(lua_State *L)
{
    osb_multi *multi = osb_check_multi(L, 1);
    osb_transfer *transfer = multi ? osb_driver_next_changed(multi) : NULL;

    if (transfer)
        lua_pushinteger(L, (lua_Integer)transfer->member.id);
    else
        lua_pushnil(L);
    return 1;
}

void osb_open_multi(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "request", osb_lua_request }, { "websocket", osb_lua_websocket }, { "step", step }, { "pollfd", pollfd }, { "getfd", pollfd },
        { "events", events }, { "timeout", timeout }, { "dirty", dirty }, { "inflight", inflight }, { "changed", changed },
        { "close", close_multi }, { NULL, NULL }
    };
    static const luaL_Reg meta[] = { { "__gc", finalize }, { "__close", finalize }, { NULL, NULL } };

    osb_new_class(L, MULTI_CLASS, methods, meta);
    lua_pop(L, 1);
    lua_pushcfunction(L, new_multi);
    lua_setfield(L, -2, "multi");
}
