/*
 * One source for Lua 5.1 to 5.4 and LuaJIT: the few functions of newer Lua API that we use, for the older ones. Our own names, so
 * that they cannot clash with what LuaJIT and patched interpreters define.
 */
#ifndef OSB_LUA_COMPAT_H
#define OSB_LUA_COMPAT_H

#include <stdint.h>

#include <lauxlib.h>
#include <lua.h>

/* Adds functions to the table on top of the stack. */
static inline void osb_set_functions(lua_State *L, const luaL_Reg *functions)
{
    for (; functions->name; ++functions) {
        lua_pushcfunction(L, functions->func);
        lua_setfield(L, -2, functions->name);
    }
}

/* Pushes a new metatable with `methods` as its __index and `meta` as metamethods, registered under `name`. */
static inline void osb_new_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta)
{
    luaL_newmetatable(L, name);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    osb_set_functions(L, meta);
    lua_newtable(L);
    osb_set_functions(L, methods);
    lua_setfield(L, -2, "__index");
}

static inline void osb_set_class(lua_State *L, const char *name)
{
    luaL_getmetatable(L, name);
    lua_setmetatable(L, -2);
}

static inline size_t osb_rawlen(lua_State *L, int index)
{
#if LUA_VERSION_NUM >= 502
    return lua_rawlen(L, index);
#else
    return lua_objlen(L, index);
#endif
}

/* Pushes a whole number that may be beyond 32 bits: an integer where Lua has integers, else a number. */
static inline void osb_push_int64(lua_State *L, int64_t value)
{
#if LUA_VERSION_NUM >= 503
    lua_pushinteger(L, (lua_Integer)value);
#else
    lua_pushnumber(L, (lua_Number)value);
#endif
}

/* Keeps the table on top of the stack alive as long as the userdata at `index`, and pops it. */
static inline void osb_anchor(lua_State *L, int index)
{
#if LUA_VERSION_NUM >= 502
    lua_setuservalue(L, index);
#else
    lua_setfenv(L, index);
#endif
}

#endif
