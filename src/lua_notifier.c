#include "lua_core.h"

#include <string.h>

#include "notifier.h"

/* core.notifier() -> notifier: the scheduler's descriptor, for a host that can only read from connections that it made itself. */

#define NOTIFIER_CLASS "opensandbox.notifier"

typedef struct notifier_box {
    osb_notifier *notifier; /* NULL after close */
} notifier_box;

static osb_notifier *check(lua_State *L)
{
    notifier_box *box = luaL_checkudata(L, 1, NOTIFIER_CLASS);

    luaL_argcheck(L, box->notifier, 1, "the notifier is closed");
    return box->notifier;
}

/* core.notifier() -> notifier; nil, message, errno's name where there is none */
static int new_notifier(lua_State *L)
{
    notifier_box *box = lua_newuserdata(L, sizeof *box);

    box->notifier = NULL;
    osb_set_class(L, NOTIFIER_CLASS);
    box->notifier = osb_notifier_new();
    return box->notifier ? 1 : osb_push_result(L, 1);
}

/* notifier:path() -> the unix-domain socket to connect to */
static int get_path(lua_State *L)
{
    char path[OSB_NOTIFIER_PATH_SIZE]; /* a copy: a push can run a finalizer that closes the notifier */

    strcpy(path, osb_notifier_path(check(L)));
    lua_pushstring(L, path);
    return 1;
}

/* notifier:accept(), after connecting -> true; nil, message, errno's name */
static int accept_connection(lua_State *L)
{
    return osb_push_result(L, osb_notifier_accept(check(L)));
}

/* notifier:arm(descriptor): one byte will arrive once it is readable -> true; nil, message, errno's name */
static int arm(lua_State *L)
{
    osb_notifier *notifier = check(L);

    return osb_push_result(L, osb_notifier_arm(notifier, (int)luaL_checkinteger(L, 2)));
}

static int close_notifier(lua_State *L)
{
    notifier_box *box = luaL_checkudata(L, 1, NOTIFIER_CLASS);

    osb_notifier_free(box->notifier);
    box->notifier = NULL;
    return 0;
}

void osb_open_notifier(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "path", get_path }, { "accept", accept_connection }, { "arm", arm }, { "close", close_notifier }, { NULL, NULL }
    };
    static const luaL_Reg meta[] = { { "__gc", close_notifier }, { "__close", close_notifier }, { NULL, NULL } };

    osb_new_class(L, NOTIFIER_CLASS, methods, meta);
    lua_pop(L, 1);
    lua_pushcfunction(L, new_notifier);
    lua_setfield(L, -2, "notifier");
}
