#include "lua_core.h"

#include <errno.h>
#include <string.h>

#include "poller.h"

/*
 * core.poller() -> poller, or nil when too many files are open: several multis behind one descriptor, for a host that watches only one.
 * Where multis have no descriptor, the set stays empty and has none itself.
 */

#define POLLER_CLASS "opensandbox.poller"
#define MAX_ALARM 1e8 /* seconds: fits in every time_t */

typedef struct poller_box {
    osb_poller *poller; /* NULL after close */
} poller_box;

static osb_poller *check(lua_State *L)
{
    poller_box *box = luaL_checkudata(L, 1, POLLER_CLASS);

    luaL_argcheck(L, box->poller, 1, "the poller is closed");
    return box->poller;
}

static int new_poller(lua_State *L)
{
    poller_box *box = lua_newuserdata(L, sizeof *box);

    box->poller = NULL;
    osb_set_class(L, POLLER_CLASS);
    box->poller = osb_poller_new();
    if (!box->poller && (errno == EMFILE || errno == ENFILE))
        lua_pushnil(L);
    else if (!box->poller)
        return luaL_error(L, "cannot make a set of descriptors: %s", strerror(errno));
    return 1;
}

static int close_poller(lua_State *L)
{
    poller_box *box = luaL_checkudata(L, 1, POLLER_CLASS);

    osb_poller_free(box->poller);
    box->poller = NULL;
    return 0;
}

/* poller:inherited() -> true when it was made before a fork: it is the parent's then, and nothing can be changed in it */
static int inherited(lua_State *L)
{
    poller_box *box = luaL_checkudata(L, 1, POLLER_CLASS);

    lua_pushboolean(L, box->poller && osb_poller_is_inherited(box->poller));
    return 1;
}

/* poller:watch(descriptor) */
static int watch(lua_State *L)
{
    osb_poller *poller = check(L);

    if (osb_poller_set(poller, (int)luaL_checkinteger(L, 2), OSB_READABLE, 0))
        return luaL_error(L, "cannot watch a descriptor: %s", strerror(errno));
    return 0;
}

/* poller:alarm(seconds | nil) -> true when the descriptor will be readable then, nil where there is no such timer */
static int set_alarm(lua_State *L)
{
    osb_poller *poller = check(L);
    lua_Number seconds = luaL_optnumber(L, 2, -1);

    if (osb_poller_alarm(poller, seconds > MAX_ALARM ? MAX_ALARM : seconds))
        lua_pushnil(L);
    else
        lua_pushboolean(L, 1);
    return 1;
}

/* poller:wait(seconds): until one of the descriptors is readable */
static int wait(lua_State *L)
{
    osb_poller *poller = check(L);
    lua_Number seconds = luaL_checknumber(L, 2);
    osb_ready ready[1];

    osb_poller_wait(poller, seconds > 0 ? seconds : 0, ready, 1);
    return 0;
}

static int pollfd(lua_State *L)
{
    int fd = osb_poller_fd(check(L));

    if (fd < 0)
        lua_pushnil(L);
    else
        lua_pushinteger(L, fd);
    return 1;
}

void osb_open_poller(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "watch", watch }, { "alarm", set_alarm }, { "wait", wait }, { "pollfd", pollfd }, { "inherited", inherited },
        { "close", close_poller }, { NULL, NULL }
    };
    static const luaL_Reg meta[] = { { "__gc", close_poller }, { "__close", close_poller }, { NULL, NULL } };

    osb_new_class(L, POLLER_CLASS, methods, meta);
    lua_pop(L, 1);
    lua_pushcfunction(L, new_poller);
    lua_setfield(L, -2, "poller");
}
