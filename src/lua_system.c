#include "lua_core.h"

#include <errno.h>

#include "clock.h"
#include "process.h"
#include "random.h"

/* The functions of the operating system that Lua's own library lacks: clocks, the identity of the process, random bytes. */

/* core.now() -> seconds on the monotonic clock */
static int now(lua_State *L)
{
    lua_pushnumber(L, osb_now());
    return 1;
}

/* core.wall_clock() -> seconds since 1970, with fractions */
static int wall_clock(lua_State *L)
{
    struct timespec time;

    clock_gettime(CLOCK_REALTIME, &time);
    lua_pushnumber(L, (lua_Number)time.tv_sec + (lua_Number)time.tv_nsec * 1e-9);
    return 1;
}

/* core.process() -> a number that differs between a process and its forked children */
static int process(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)osb_process());
    return 1;
}

/* core.random(count) -> that many random bytes (at most 256), good enough for keys; nil, message, errno's name */
static int random_bytes(lua_State *L)
{
    char bytes[256];
    lua_Integer count = luaL_checkinteger(L, 1);

    luaL_argcheck(L, count >= 1 && count <= (lua_Integer)sizeof bytes, 1, "1 to 256 bytes");
    if (osb_random(bytes, (size_t)count))
        return osb_push_errno(L, errno);
    lua_pushlstring(L, bytes, (size_t)count);
    return 1;
}

void osb_open_system(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "now", now }, { "wall_clock", wall_clock }, { "process", process }, { "random", random_bytes },
        { NULL, NULL }
    };

    osb_set_functions(L, functions);
}
