#include "lua_core.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Local files, for trees that go up and down: what Lua's own library lacks. No function here follows a link in the last name. */

#define DIRECTORY_CLASS "opensandbox.directory"
#define LONGEST_TARGET 4096 /* bytes of a link's target: more than any system's PATH_MAX */

/* The name of an error that our Lua code tells from others, else "E" and its number. */
static void push_name(lua_State *L, int code)
{
    switch (code) {
    case ENOENT: lua_pushliteral(L, "ENOENT"); return;
    case EEXIST: lua_pushliteral(L, "EEXIST"); return;
    case ENOTDIR: lua_pushliteral(L, "ENOTDIR"); return;
    case EISDIR: lua_pushliteral(L, "EISDIR"); return;
    case ELOOP: lua_pushliteral(L, "ELOOP"); return;
    case EACCES: lua_pushliteral(L, "EACCES"); return;
    case EPERM: lua_pushliteral(L, "EPERM"); return;
    case EROFS: lua_pushliteral(L, "EROFS"); return;
    case ENOSPC: lua_pushliteral(L, "ENOSPC"); return;
    case ENAMETOOLONG: lua_pushliteral(L, "ENAMETOOLONG"); return;
    case ENOTEMPTY: lua_pushliteral(L, "ENOTEMPTY"); return;
    default: lua_pushfstring(L, "E%d", code);
    }
}

/* nil, message, name */
static int fail(lua_State *L, int code)
{
    lua_pushnil(L);
    lua_pushstring(L, strerror(code));
    push_name(L, code);
    return 3;
}

static int answer(lua_State *L, int failed)
{
    if (failed)
        return fail(L, errno);
    lua_pushboolean(L, 1);
    return 1;
}

/* A directory that is being read; Lua owns it, for a push may raise. */
static int close_directory(lua_State *L)
{
    DIR **box = luaL_checkudata(L, 1, DIRECTORY_CLASS);

    if (*box)
        closedir(*box);
    *box = NULL;
    return 0;
}

/* core.list_directory(path) -> the names in it, in no order; nil, message, errno's name */
static int list_directory(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    DIR **box = lua_newuserdata(L, sizeof *box);
    struct dirent *entry;
    int count = 0, problem;

    *box = NULL;
    osb_set_class(L, DIRECTORY_CLASS);
    *box = opendir(path);
    if (!*box)
        return fail(L, errno);
    lua_newtable(L);
    while (errno = 0, (entry = readdir(*box)) != NULL) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        lua_pushstring(L, entry->d_name);
        lua_rawseti(L, -2, ++count);
    }
    problem = errno;
    closedir(*box);
    *box = NULL;
    return problem ? fail(L, problem) : 1;
}

/* A whole number that may be beyond 32 bits: an integer where Lua has such, else a number as all are. */
static void push_whole(lua_State *L, int64_t value)
{
#if LUA_VERSION_NUM >= 503
    lua_pushinteger(L, (lua_Integer)value);
#else
    lua_pushnumber(L, (lua_Number)value);
#endif
}

static const char *kind_of(mode_t mode)
{
    return S_ISREG(mode) ? "file" : S_ISDIR(mode) ? "directory" : S_ISLNK(mode) ? "symlink" : "other";
}

/* core.lstat(path) -> "file", "directory", "symlink" or "other", size in bytes, permission bits, Unix seconds of the last change, a
 * link's target; nil, message, errno's name */
static int lstat_path(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    char target[LONGEST_TARGET + 1];
    struct stat info;
    ssize_t length = -1;

    if (lstat(path, &info))
        return fail(L, errno);
    if (S_ISLNK(info.st_mode)) {
        length = readlink(path, target, sizeof target);
        if (length < 0)
            return fail(L, errno);
        if (length == (ssize_t)sizeof target)
            return fail(L, ENAMETOOLONG);
    }
    lua_pushstring(L, kind_of(info.st_mode));
    push_whole(L, (int64_t)info.st_size);
    lua_pushinteger(L, (lua_Integer)(info.st_mode & 0777));
    push_whole(L, (int64_t)info.st_mtime);
    if (length < 0)
        return 4;
    lua_pushlstring(L, target, (size_t)length);
    return 5;
}

/* core.mkdir(path, mode) -> true; nil, message, errno's name */
static int make_directory(lua_State *L)
{
    return answer(L, mkdir(luaL_checkstring(L, 1), (mode_t)luaL_checkinteger(L, 2)));
}

/* core.symlink(target, path) -> true; nil, message, errno's name */
static int make_symlink(lua_State *L)
{
    return answer(L, symlink(luaL_checkstring(L, 1), luaL_checkstring(L, 2)));
}

/* core.create(path): an empty file that only its owner can read -> true; nil, message, errno's name, also when there is something */
static int create_file(lua_State *L)
{
    int fd = open(luaL_checkstring(L, 1), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    return answer(L, fd < 0 || close(fd));
}

/* core.chmod(path, mode), of a file or directory and never through a link -> true; nil, message, errno's name */
static int change_mode(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    mode_t mode = (mode_t)luaL_checkinteger(L, 2);
    struct stat info;

    if (lstat(path, &info))
        return fail(L, errno);
    if (S_ISLNK(info.st_mode))
        return fail(L, ELOOP);
    return answer(L, chmod(path, mode));
}

/* core.utime(path, seconds): the time of the last change, of a link itself too -> true; nil, message, errno's name */
static int change_time(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    lua_Number seconds = luaL_checknumber(L, 2), whole = floor(seconds);
    struct timespec times[2];

    luaL_argcheck(L, fabs(seconds) < 1e15, 2, "not a time");
    times[0].tv_sec = 0;
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_sec = (time_t)whole;
    times[1].tv_nsec = (long)((seconds - whole) * 1e9);
    return answer(L, utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW));
}

/* The CRC of POSIX cksum: eight bytes at a time, by eight tables. */
static uint32_t tables[8][256];

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

/* core.cksum(state, bytes) -> the state after these bytes; it begins with 0 */
static int cksum(lua_State *L)
{
    uint32_t crc = (uint32_t)luaL_checknumber(L, 1);
    size_t length;
    const unsigned char *at = (const unsigned char *)luaL_checklstring(L, 2, &length);

    for (; length >= 8; at += 8, length -= 8) {
        crc ^= (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
        crc = tables[7][crc >> 24] ^ tables[6][crc >> 16 & 255] ^ tables[5][crc >> 8 & 255] ^ tables[4][crc & 255]
            ^ tables[3][at[4]] ^ tables[2][at[5]] ^ tables[1][at[6]] ^ tables[0][at[7]];
    }
    for (; length > 0; ++at, --length)
        crc = crc << 8 ^ tables[0][crc >> 24 ^ *at];
    push_whole(L, (int64_t)crc);
    return 1;
}

/* core.cksum_end(state, size) -> what cksum prints for `size` bytes */
static int cksum_end(lua_State *L)
{
    uint32_t crc = (uint32_t)luaL_checknumber(L, 1);
    uint64_t size = (uint64_t)luaL_checknumber(L, 2);

    for (; size > 0; size >>= 8)
        crc = crc << 8 ^ tables[0][crc >> 24 ^ (size & 255)];
    push_whole(L, (int64_t)(~crc & 0xffffffffu));
    return 1;
}

void osb_open_files(lua_State *L)
{
    static const luaL_Reg methods[] = { { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", close_directory }, { NULL, NULL } };
    static const luaL_Reg functions[] = {
        { "list_directory", list_directory }, { "lstat", lstat_path }, { "mkdir", make_directory }, { "symlink", make_symlink },
        { "create", create_file }, { "chmod", change_mode }, { "utime", change_time }, { "cksum", cksum },
        { "cksum_end", cksum_end }, { NULL, NULL }
    };
    const luaL_Reg *entry;

    make_tables();
    osb_new_class(L, DIRECTORY_CLASS, methods, meta);
    lua_pop(L, 1);
    for (entry = functions; entry->name; ++entry) {
        lua_pushcfunction(L, entry->func);
        lua_setfield(L, -2, entry->name);
    }
}
