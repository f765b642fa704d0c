#include "lua_core.h"

/*
 * core.multi() -> multi. The methods pollfd, events, timeout and step are the contract for event loops (cqueues' names); getfd
 * and dirty are what luasocket's select() asks for.
 */

enum { CLOSE_PATIENCE = 2 }; /* seconds for requests that must arrive, above all the deletes a finalizer has queued */

typedef struct multi_box {
    osb_multi *multi;
} multi_box;

osb_multi *osb_check_multi(lua_State *L, int index)
{
    multi_box *box = luaL_checkudata(L, index, OSB_MULTI_CLASS);
    return box->multi;
}

static int new_multi(lua_State *L)
{
    multi_box *box = lua_newuserdata(L, sizeof *box);

    box->multi = NULL;
    osb_set_class(L, OSB_MULTI_CLASS);
    box->multi = osb_multi_new();
    if (!box->multi)
        return luaL_error(L, "not enough memory");
    return 1;
}

static int close_within(lua_State *L, double seconds)
{
    multi_box *box = luaL_checkudata(L, 1, OSB_MULTI_CLASS);
    osb_multi *multi = box->multi;

    if (multi) {
        box->multi = NULL;
        osb_multi_close(multi, seconds);
        osb_multi_release(multi);
    }
    return 0;
}

/* Also __gc and __close, whose second argument is no number of ours. */
static int finalize(lua_State *L)
{
    return close_within(L, CLOSE_PATIENCE);
}

/* multi:close(seconds): waits so long, at most, for requests that must arrive */
static int close_multi(lua_State *L)
{
    return close_within(L, luaL_optnumber(L, 2, CLOSE_PATIENCE));
}

static int step(lua_State *L)
{
    osb_multi *multi = osb_check_multi(L, 1);
    lua_Number seconds = luaL_optnumber(L, 2, 0);

    if (multi)
        osb_multi_step(multi, seconds > 0 ? seconds : 0);
    lua_pushinteger(L, multi ? (lua_Integer)multi->count : 0);
    return 1;
}

static int pollfd(lua_State *L)
{
    osb_multi *multi = osb_check_multi(L, 1);
    int fd = multi ? osb_multi_fd(multi) : -1;

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
    double seconds = multi ? osb_multi_timeout(multi) : -1;

    if (seconds < 0)
        lua_pushnil(L);
    else
        lua_pushnumber(L, seconds);
    return 1;
}

static int dirty(lua_State *L)
{
    osb_multi *multi = osb_check_multi(L, 1);
    lua_pushboolean(L, multi && osb_multi_timeout(multi) == 0);
    return 1;
}

/* multi:inflight() -> transfers that run, and how many of them run in the background */
static int inflight(lua_State *L)
{
    osb_multi *multi = osb_check_multi(L, 1);

    lua_pushinteger(L, multi ? (lua_Integer)multi->count : 0);
    lua_pushinteger(L, multi ? (lua_Integer)multi->background : 0);
    return 2;
}

/* multi:changed() -> the id of a transfer with news since it was last given, or nil when there is none */
static int changed(lua_State *L)
{
    osb_multi *multi = osb_check_multi(L, 1);
    osb_transfer *transfer = multi ? osb_multi_take_changed(multi) : NULL;

    if (transfer)
        lua_pushinteger(L, (lua_Integer)transfer->id);
    else
        lua_pushnil(L);
    return 1;
}

void osb_open_multi(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "request", osb_lua_request }, { "step", step }, { "pollfd", pollfd }, { "getfd", pollfd }, { "events", events },
        { "timeout", timeout }, { "dirty", dirty }, { "inflight", inflight }, { "changed", changed }, { "close", close_multi }, { NULL, NULL }
    };
    static const luaL_Reg meta[] = { { "__gc", finalize }, { "__close", finalize }, { NULL, NULL } };

    osb_new_class(L, OSB_MULTI_CLASS, methods, meta);
    lua_pop(L, 1);
    lua_pushcfunction(L, new_multi);
    lua_setfield(L, -2, "multi");
}
