#include "lua_core.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "process.h"
#include "sigpipe.h"

/* The terminal and the standard streams of this process. The program uses them; the library does not. */

#define RAW_MODE_CLASS "opensandbox.raw_mode"
#define MAX_DESCRIPTORS 16 /* of one wait */
#define MAX_READ 65536     /* bytes of one read */
#define MAX_WAIT 86400.0   /* seconds: in milliseconds it fits into an int */

/*
 * core.open_standard_streams() -> true; nil, message, errno's name. It opens /dev/null for each of the three descriptors that is closed, so
 * that no other file gets its number.
 */
static int open_standard_streams(lua_State *L)
{
    int fd;

    for (fd = 0; fd <= 2; ++fd) {
        int opened;

        if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF)
            continue;
        opened = open("/dev/null", O_RDWR); /* it gets the lowest number, which is this one */
        if (opened < 0)
            return osb_push_errno(L, errno);
    }
    return osb_push_result(L, 0);
}

/* core.is_terminal(fd) -> boolean */
static int is_terminal(lua_State *L)
{
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

/* core.terminal_size(fd) -> columns, rows; nil if it is no terminal, or a terminal that does not know its size */
static int terminal_size(lua_State *L)
{
    struct winsize size = { 0 };

    if (ioctl((int)luaL_checkinteger(L, 1), TIOCGWINSZ, &size) || size.ws_col == 0 || size.ws_row == 0) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, size.ws_col);
    lua_pushinteger(L, size.ws_row);
    return 2;
}

typedef struct raw_mode_box {
    int fd; /* -1 after restore */
    unsigned long process;
    struct termios before;
} raw_mode_box;

/* raw:restore(): puts back the attributes that the terminal had. It may be called again, and the collector calls it. */
static int restore(lua_State *L)
{
    raw_mode_box *box = luaL_checkudata(L, 1, RAW_MODE_CLASS);
    int fd = box->fd;

    box->fd = -1;
    if (fd >= 0 && box->process == osb_process()) /* a forked child leaves the terminal to its parent */
        while (tcsetattr(fd, TCSADRAIN, &box->before) && errno == EINTR)
            ;
    return 0;
}

/*
 * core.raw_mode(fd) -> raw: each key is read at once and as it is, without echo, and no key sends a signal; nil, message, errno's name.
 * It lasts until raw:restore().
 */
static int raw_mode(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, 1);
    raw_mode_box *box = lua_newuserdata(L, sizeof *box);
    struct termios raw;

    box->fd = -1;
    box->process = osb_process();
    osb_set_class(L, RAW_MODE_CLASS);
    if (tcgetattr(fd, &box->before))
        return osb_push_errno(L, errno);
    raw = box->before;
    raw.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | IGNBRK | IGNCR | INLCR | INPCK | ISTRIP | IXON | PARMRK);
    raw.c_oflag &= ~(tcflag_t)OPOST;
    raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    box->fd = fd; /* before the change, so that it is undone whatever happens */
    if (tcsetattr(fd, TCSADRAIN, &raw)) {
        int problem = errno;

        box->fd = -1;
        return osb_push_errno(L, problem);
    }
    return 1;
}

static int milliseconds(double seconds)
{
    if (seconds <= 0)
        return 0;
    return (int)((seconds < MAX_WAIT ? seconds : MAX_WAIT) * 1000 + 0.999);
}

/*
 * core.wait_readable(list, seconds) -> a table with `true` for each descriptor of the list that can be read, or whose other side is closed. It
 * is empty when the time has passed or a signal was received.
 */
static int wait_readable(lua_State *L)
{
    struct pollfd set[MAX_DESCRIPTORS];
    lua_Number seconds = luaL_checknumber(L, 2);
    int count = 0, i, ready;

    luaL_checktype(L, 1, LUA_TTABLE);
    for (;; ++count) {
        lua_rawgeti(L, 1, count + 1);
        if (lua_isnil(L, -1))
            break;
        luaL_argcheck(L, count < MAX_DESCRIPTORS, 1, "too many descriptors");
        set[count].fd = (int)luaL_checkinteger(L, -1);
        set[count].events = POLLIN;
        set[count].revents = 0;
        lua_pop(L, 1);
    }
    ready = poll(set, (nfds_t)count, milliseconds(seconds));
    lua_newtable(L);
    for (i = 0; ready > 0 && i < count; ++i) {
        if (!set[i].revents)
            continue;
        lua_pushboolean(L, 1);
        lua_rawseti(L, -2, set[i].fd);
    }
    return 1;
}

/* core.read(fd) -> the bytes that can be read, "" at the end; nil, message, errno's name. It waits if there are none. */
static int read_bytes(lua_State *L)
{
    char bytes[MAX_READ];
    int fd = (int)luaL_checkinteger(L, 1);
    ssize_t count;

    do
        count = read(fd, bytes, sizeof bytes);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return osb_push_errno(L, errno);
    lua_pushlstring(L, bytes, (size_t)count);
    return 1;
}

/* Writes all bytes. Returns 0, or -1 with errno. */
static int write_all(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t count = write(fd, bytes, size);

        if (count >= 0) {
            bytes += count;
            size -= (size_t)count;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) { /* another process made the stream non-blocking */
            struct pollfd one = { fd, POLLOUT, 0 };

            poll(&one, 1, -1);
        } else if (errno != EINTR) {
            return -1;
        }
    }
    return 0;
}

/* core.write(fd, bytes) -> true; nil, message, errno's name: "EPIPE" if the reader has closed it. It causes no SIGPIPE. */
static int write_bytes(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, 1), failed, problem;
    size_t size;
    const char *bytes = luaL_checklstring(L, 2, &size);
    osb_sigpipe guard;

    osb_sigpipe_block(&guard);
    failed = write_all(fd, bytes, size);
    problem = errno;
    osb_sigpipe_restore(&guard);
    errno = problem;
    return osb_push_result(L, failed);
}

void osb_open_terminal(lua_State *L)
{
    static const luaL_Reg methods[] = { { "restore", restore }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", restore }, { "__close", restore }, { NULL, NULL } };
    static const luaL_Reg functions[] = {
        { "open_standard_streams", open_standard_streams }, { "is_terminal", is_terminal }, { "terminal_size", terminal_size }, { "raw_mode", raw_mode },
        { "wait_readable", wait_readable }, { "read", read_bytes }, { "write", write_bytes }, { NULL, NULL }
    };

    osb_new_class(L, RAW_MODE_CLASS, methods, meta);
    lua_pop(L, 1);
    osb_set_functions(L, functions);
}
