#define _GNU_SOURCE /* ptsname */

#include "lua_core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* Pseudo-terminals. The development server uses them; the client does not. */

#define MAX_SIZE 65535 /* of columns and rows: the kernel has 16 bits for each */

/* Opens the other side of a pseudo-terminal. Linux does it without a path, which may lead into another namespace. */
static int open_slave(int master)
{
    const int flags = O_RDWR | O_NOCTTY | O_CLOEXEC;
#if defined TIOCGPTPEER && defined TIOCSPTLCK
    int locked = 0;

    return ioctl(master, TIOCSPTLCK, &locked) ? -1 : ioctl(master, TIOCGPTPEER, flags);
#else
    const char *path = grantpt(master) || unlockpt(master) ? NULL : ptsname(master);

    return path ? open(path, flags) : -1;
#endif
}

/*
 * core.open_pty(path) -> the descriptors of the server's side and of the program's side of a new pseudo-terminal; nil, message,
 * errno's name. `path` is that of the multiplexer, "/dev/ptmx" outside of namespaces. The caller closes both.
 */
static int open_pty(lua_State *L)
{
    int master = open(luaL_checkstring(L, 1), O_RDWR | O_NOCTTY | O_CLOEXEC), slave, problem;

    if (master < 0)
        return osb_push_errno(L, errno);
    slave = open_slave(master);
    if (slave < 0) {
        problem = errno;
        close(master);
        return osb_push_errno(L, problem);
    }
    lua_pushinteger(L, master);
    lua_pushinteger(L, slave);
    return 2;
}

/* core.resize_pty(fd, columns, rows) -> true; nil, message, errno's name. The program's foreground process group receives SIGWINCH. */
static int resize_pty(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, 1);
    lua_Integer columns = luaL_checkinteger(L, 2), rows = luaL_checkinteger(L, 3);
    struct winsize size = { 0 };

    luaL_argcheck(L, columns >= 1 && columns <= MAX_SIZE, 2, "a number of columns, from 1 to 65535");
    luaL_argcheck(L, rows >= 1 && rows <= MAX_SIZE, 3, "a number of rows, from 1 to 65535");
    size.ws_col = (unsigned short)columns;
    size.ws_row = (unsigned short)rows;
    return osb_push_result(L, ioctl(fd, TIOCSWINSZ, &size));
}

void osb_open_pty(lua_State *L)
{
    static const luaL_Reg functions[] = { { "open_pty", open_pty }, { "resize_pty", resize_pty }, { NULL, NULL } };

    osb_set_functions(L, functions);
}
