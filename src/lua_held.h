/*
 * Pushing bytes out of a buffer. A push can run a finalizer of the user's, which can do anything, also to the object whose bytes are
 * pushed: close it, read from it, let it receive more. The block is held meanwhile, so that the bytes stay where they are.
 *
 * The holds stand in a userdata that is on the Lua stack. A push that raises leaves its hold there, until the userdata is collected.
 */
#ifndef OSB_LUA_HELD_H
#define OSB_LUA_HELD_H

#include "buffer.h"
#include "lua_compat.h"

enum { OSB_MAX_HELD = 8 }; /* pushes inside each other, and such that raised */

typedef struct osb_held {
    osb_block *blocks[OSB_MAX_HELD];
    int count;
} osb_held;

static inline void osb_held_release(osb_held *held, int count)
{
    while (held->count > count)
        osb_block_release(held->blocks[--held->count]);
}

/* Pushes `length` bytes at `bytes`, which are in `buffer`. */
static inline void osb_push_held(lua_State *L, osb_held *held, osb_buffer *buffer, const char *bytes, size_t length)
{
    int before = held->count;

    if (before == OSB_MAX_HELD)
        luaL_error(L, "not enough memory");
    held->blocks[held->count++] = osb_buffer_hold(buffer);
    lua_pushlstring(L, bytes, length);
    osb_held_release(held, before);
}

#endif
