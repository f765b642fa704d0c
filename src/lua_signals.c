#include "lua_core.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/*
 * Signals of this process, for the program: a handler writes the signal's number to a pipe, whose other end is watched like any other
 * descriptor. The library catches no signals, because they belong to the host.
 */

static const struct {
    const char *name;
    int number;
} signals[] = {
    { "INT", SIGINT }, { "TERM", SIGTERM }, { "HUP", SIGHUP }, { "QUIT", SIGQUIT }, { "USR1", SIGUSR1 }, { "USR2", SIGUSR2 },
    { "ALRM", SIGALRM }, { "VTALRM", SIGVTALRM }, { "PROF", SIGPROF }, { "XCPU", SIGXCPU }, { "XFSZ", SIGXFSZ },
    { "WINCH", SIGWINCH },
};

#define SIGNALS (sizeof signals / sizeof signals[0])

static int ends[2] = { -1, -1 }; /* of the pipe: to read from, to write to */

static void on_signal(int number)
{
    int before = errno;
    unsigned char byte = (unsigned char)number;

    if (write(ends[1], &byte, 1) < 0) {
        /* A full pipe holds enough signals already. */
    }
    errno = before;
}

static int number_of(lua_State *L, int index)
{
    const char *name = luaL_checkstring(L, index);
    size_t i;

    for (i = 0; i < SIGNALS; ++i)
        if (strcmp(signals[i].name, name) == 0)
            return signals[i].number;
    return luaL_argerror(L, index, "the name of a signal that can be caught, such as INT, TERM, HUP or WINCH");
}

static int set_flags(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC) ? -1 : 0;
}

static int open_pipe(void)
{
    if (ends[0] >= 0)
        return 0;
    if (pipe(ends))
        return -1;
    if (set_flags(ends[0]) || set_flags(ends[1])) {
        int problem = errno;

        close(ends[0]);
        close(ends[1]);
        ends[0] = ends[1] = -1;
        errno = problem;
        return -1;
    }
    return 0;
}

static int set_action(int number, void (*handler)(int))
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    return sigaction(number, &action, NULL);
}

/*
 * core.catch_signals(name, ...) -> the descriptor that is readable after one of these signals; nil, message, errno's name. A signal that this
 * process ignores stays ignored, as nohup wants it.
 */
static int catch_signals(lua_State *L)
{
    int count = lua_gettop(L), i;

    for (i = 1; i <= count; ++i)
        number_of(L, i); /* before anything is changed */
    if (open_pipe())
        return osb_push_errno(L, errno);
    for (i = 1; i <= count; ++i) {
        struct sigaction before;
        int number = number_of(L, i);

        if (sigaction(number, NULL, &before))
            return osb_push_errno(L, errno);
        if (before.sa_handler != SIG_IGN && set_action(number, on_signal))
            return osb_push_errno(L, errno);
    }
    lua_pushinteger(L, ends[0]);
    return 1;
}

/* core.next_signal() -> the name of the oldest signal that was caught and not returned yet, or nil */
static int next_signal(lua_State *L)
{
    unsigned char byte;
    ssize_t count = ends[0] < 0 ? 0 : read(ends[0], &byte, 1);
    size_t i;

    for (i = 0; count == 1 && i < SIGNALS; ++i) {
        if (signals[i].number != byte)
            continue;
        lua_pushstring(L, signals[i].name);
        return 1;
    }
    lua_pushnil(L);
    return 1;
}

/* core.default_signal(name): gives a signal its default action, unless this process ignores it. The lua program has an action of its own for
 * SIGINT, which raises an error in whatever code runs. */
static int default_signal(lua_State *L)
{
    int number = number_of(L, 1);
    struct sigaction before;

    if (sigaction(number, NULL, &before) || (before.sa_handler != SIG_IGN && set_action(number, SIG_DFL)))
        return osb_push_errno(L, errno);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.die_by_signal(name): ends this process by the signal, so that its parent sees how it ended. Finalizers do not run. */
static int die_by_signal(lua_State *L)
{
    int number = number_of(L, 1);
    sigset_t set;

    set_action(number, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, number);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
    return 0;
}

void osb_open_signals(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "catch_signals", catch_signals }, { "next_signal", next_signal }, { "default_signal", default_signal },
        { "die_by_signal", die_by_signal }, { NULL, NULL }
    };

    osb_set_functions(L, functions);
}
