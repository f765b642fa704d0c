#include "lua_core.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "clock.h"
#include "random.h"

/* The little of the operating system that Lua's own library lacks. */

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

static int fail(lua_State *L, int code)
{
    lua_pushnil(L);
    lua_pushstring(L, strerror(code));
    return 2;
}

/* core.random(count) -> that many random bytes (at most 256), good enough for keys; nil, message */
static int random_bytes(lua_State *L)
{
    char bytes[256];
    lua_Integer count = luaL_checkinteger(L, 1);

    luaL_argcheck(L, count >= 1 && count <= (lua_Integer)sizeof bytes, 1, "1 to 256 bytes");
    if (osb_random(bytes, (size_t)count))
        return fail(L, errno);
    lua_pushlstring(L, bytes, (size_t)count);
    return 1;
}

/* core.file_kind(path) -> "file", "directory" or "other", size in bytes, permission bits; nil, message when there is none */
static int file_kind(lua_State *L)
{
    struct stat info;

    if (stat(luaL_checkstring(L, 1), &info))
        return fail(L, errno);
    lua_pushstring(L, S_ISREG(info.st_mode) ? "file" : S_ISDIR(info.st_mode) ? "directory" : "other");
    lua_pushinteger(L, (lua_Integer)info.st_size);
    lua_pushinteger(L, (lua_Integer)(info.st_mode & 0777));
    return 3;
}

void osb_open_system(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "now", now }, { "wall_clock", wall_clock }, { "random", random_bytes }, { "file_kind", file_kind }, { NULL, NULL }
    };
    const luaL_Reg *entry;

    for (entry = functions; entry->name; ++entry) {
        lua_pushcfunction(L, entry->func);
        lua_setfield(L, -2, entry->name);
    }
}
