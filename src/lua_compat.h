/*
 * One source for Lua 5.1 to 5.4 and LuaJIT: the few functions of newer Lua API that we use, for the older ones. Our own names, so
 * that they cannot clash with what LuaJIT and patched interpreters define.
 */
#ifndef OSB_LUA_COMPAT_H
#define OSB_LUA_COMPAT_H

#include <lauxlib.h>
#include <lua.h>

/* Pushes a new metatable with `methods` as its __index and `meta` as metamethods, registered under `name`. */
static inline void osb_new_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta)
{
    luaL_newmetatable(L, name);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    for (; meta->name; ++meta) {
        lua_pushcfunction(L, meta->func);
        lua_setfield(L, -2, meta->name);
    }
    lua_newtable(L);
    for (; methods->name; ++methods) {
        lua_pushcfunction(L, methods->func);
        lua_setfield(L, -2, methods->name);
    }
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
