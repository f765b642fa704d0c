#include "large_files.h"

#include "lua_core.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Local files: the functions that Lua's own library lacks. None but core.stat follows a link in the last name of a path. */

#define DIRECTORY_CLASS "opensandbox.directory"
#define MAX_LINK_TARGET 4096 /* bytes: no system's PATH_MAX is larger */

/* A directory that is being read. Lua owns it, because a push may raise. */
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
        return osb_push_errno(L, errno);
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
    return problem ? osb_push_errno(L, problem) : 1;
}

static const char *kind_of(mode_t mode)
{
    return S_ISREG(mode) ? "file" : S_ISDIR(mode) ? "directory" : S_ISLNK(mode) ? "symlink" : S_ISFIFO(mode) ? "fifo"
        : S_ISSOCK(mode) ? "socket" : S_ISCHR(mode) || S_ISBLK(mode) ? "device" : "other";
}

/* Pushes the kind, the size in bytes, the permission bits and the Unix seconds of the last change. Returns the number of results. */
static int push_stat(lua_State *L, const struct stat *info)
{
    mode_t mode = info->st_mode;

    lua_pushstring(L, kind_of(mode));
    osb_push_int64(L, (int64_t)info->st_size);
    lua_pushinteger(L, (lua_Integer)(mode & 0777));
    osb_push_int64(L, (int64_t)info->st_mtime);
    return 4;
}

/* core.stat(path), which follows links -> "file", "directory", "fifo", "socket", "device" or "other", size in bytes, permission bits, Unix
 * seconds of the last change; nil, message, errno's name */
static int stat_path(lua_State *L)
{
    struct stat info;

    if (stat(luaL_checkstring(L, 1), &info))
        return osb_push_errno(L, errno);
    return push_stat(L, &info);
}

/* core.is_replaceable(path): whether a new file can take the place of a file. It cannot when the file has other names, or another owner
 * -> true or false; nil, message, errno's name */
static int is_replaceable(lua_State *L)
{
    struct stat info;

    if (lstat(luaL_checkstring(L, 1), &info))
        return osb_push_errno(L, errno);
    lua_pushboolean(L, S_ISREG(info.st_mode) && info.st_nlink == 1 && info.st_uid == geteuid());
    return 1;
}

/* core.lstat(path) -> the same as core.stat, but of a link itself: "symlink", and as the last result its target */
static int lstat_path(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    char target[MAX_LINK_TARGET + 1];
    struct stat info;
    ssize_t length = -1;

    if (lstat(path, &info))
        return osb_push_errno(L, errno);
    if (S_ISLNK(info.st_mode)) {
        length = readlink(path, target, sizeof target);
        if (length < 0)
            return osb_push_errno(L, errno);
        if (length == (ssize_t)sizeof target)
            return osb_push_errno(L, ENAMETOOLONG);
    }
    push_stat(L, &info);
    if (length < 0)
        return 4;
    lua_pushlstring(L, target, (size_t)length);
    return 5;
}

/* core.mkdir(path, mode) -> true; nil, message, errno's name */
static int make_directory(lua_State *L)
{
    return osb_push_result(L, mkdir(luaL_checkstring(L, 1), (mode_t)luaL_checkinteger(L, 2)));
}

/* core.symlink(target, path) -> true; nil, message, errno's name */
static int make_symlink(lua_State *L)
{
    return osb_push_result(L, symlink(luaL_checkstring(L, 1), luaL_checkstring(L, 2)));
}

/* core.create(path): an empty file that only its owner can read -> true; nil, message, errno's name, also when the path exists */
static int create_file(lua_State *L)
{
    int fd = open(luaL_checkstring(L, 1), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    return osb_push_result(L, fd < 0 || close(fd));
}

/* core.chmod(path, mode), of a file or directory and never through a link -> true; nil, message, errno's name */
static int change_mode(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    mode_t mode = (mode_t)luaL_checkinteger(L, 2);
    struct stat info;

    if (lstat(path, &info))
        return osb_push_errno(L, errno);
    if (S_ISLNK(info.st_mode))
        return osb_push_errno(L, ELOOP);
    return osb_push_result(L, chmod(path, mode));
}

/* core.utime(path, seconds): the time of the last change, of a link itself too -> true; nil, message, errno's name */
static int change_time(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    lua_Number seconds = luaL_checknumber(L, 2), whole = floor(seconds);
    struct timespec times[2];

    if (!(fabs(seconds) < (sizeof(time_t) >= 8 ? 1e18 : 2147483647.0)))
        return osb_push_errno(L, EINVAL); /* no error of the caller's: the time may come out of a sandbox */
    times[0].tv_sec = 0;
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_sec = (time_t)whole;
    times[1].tv_nsec = (long)((seconds - whole) * 1e9);
    return osb_push_result(L, utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW));
}

void osb_open_files(lua_State *L)
{
    static const luaL_Reg methods[] = { { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", close_directory }, { NULL, NULL } };
    static const luaL_Reg functions[] = {
        { "list_directory", list_directory }, { "stat", stat_path }, { "lstat", lstat_path },
        { "is_replaceable", is_replaceable }, { "mkdir", make_directory },
        { "symlink", make_symlink }, { "create", create_file }, { "chmod", change_mode }, { "utime", change_time }, { NULL, NULL }
    };

    osb_new_class(L, DIRECTORY_CLASS, methods, meta);
    lua_pop(L, 1);
    osb_set_functions(L, functions);
}
