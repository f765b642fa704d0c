#include "lua_core.h"

#include <pthread.h>

/* The CRC of POSIX cksum, eight bytes at a time, by eight tables. */

static uint32_t tables[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT; /* several Lua states of a process may open this module in threads */

static void make_tables(void)
{
    int i, k;

    for (i = 0; i < 256; ++i) {
        uint32_t crc = (uint32_t)i << 24;
        for (k = 0; k < 8; ++k)
            crc = crc & 0x80000000u ? crc << 1 ^ 0x04c11db7u : crc << 1;
        tables[0][i] = crc;
    }
    for (k = 1; k < 8; ++k)
        for (i = 0; i < 256; ++i)
            tables[k][i] = tables[k - 1][i] << 8 ^ tables[0][tables[k - 1][i] >> 24];
}

/* The state of a sum: a result of cksum, or 0. */
static uint32_t check_state(lua_State *L)
{
    lua_Number state = luaL_checknumber(L, 1);

    luaL_argcheck(L, state >= 0 && state <= 4294967295.0, 1, "not a sum's state");
    return (uint32_t)state;
}

/* core.cksum(state, bytes) -> the state after these bytes; the first state is 0 */
static int cksum(lua_State *L)
{
    uint32_t crc = check_state(L);
    size_t length;
    const unsigned char *at = (const unsigned char *)luaL_checklstring(L, 2, &length);

    for (; length >= 8; at += 8, length -= 8) {
        crc ^= (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
        crc = tables[7][crc >> 24] ^ tables[6][crc >> 16 & 255] ^ tables[5][crc >> 8 & 255] ^ tables[4][crc & 255]
            ^ tables[3][at[4]] ^ tables[2][at[5]] ^ tables[1][at[6]] ^ tables[0][at[7]];
    }
    for (; length > 0; ++at, --length)
        crc = crc << 8 ^ tables[0][crc >> 24 ^ *at];
    osb_push_int64(L, (int64_t)crc);
    return 1;
}

/* core.cksum_final(state, size) -> the sum that cksum prints for `size` bytes */
static int cksum_final(lua_State *L)
{
    uint32_t crc = check_state(L);
    lua_Number bytes = luaL_checknumber(L, 2);
    uint64_t size;

    luaL_argcheck(L, bytes >= 0 && bytes < 9007199254740992.0, 2, "not a size");
    for (size = (uint64_t)bytes; size > 0; size >>= 8)
        crc = crc << 8 ^ tables[0][crc >> 24 ^ (size & 255)];
    osb_push_int64(L, (int64_t)(~crc & 0xffffffffu));
    return 1;
}

void osb_open_cksum(lua_State *L)
{
    static const luaL_Reg functions[] = { { "cksum", cksum }, { "cksum_final", cksum_final }, { NULL, NULL } };

    pthread_once(&tables_once, make_tables);
    osb_set_functions(L, functions);
}
