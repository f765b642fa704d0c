/*
 * SIGPIPE kept away from the host. libcurl asks for no such signal on plain sockets, but OpenSSL writes without that flag, and with
 * CURLOPT_NOSIGNAL libcurl does not touch the signal's action either, which belongs to the host. So the signal is blocked in this
 * thread around calls that may write, and one that came meanwhile is taken.
 */
#ifndef OSB_SIGPIPE_H
#define OSB_SIGPIPE_H

#include <pthread.h>
#include <signal.h>

typedef struct osb_sigpipe {
    sigset_t before;
    int was_pending;
} osb_sigpipe;

static inline int osb_sigpipe_pending(void)
{
    sigset_t pending;
    return sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
}

static inline void osb_sigpipe_block(osb_sigpipe *guard)
{
    sigset_t pipe;

    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    guard->was_pending = osb_sigpipe_pending();
    pthread_sigmask(SIG_BLOCK, &pipe, &guard->before);
}

static inline void osb_sigpipe_restore(const osb_sigpipe *guard)
{
    if (!guard->was_pending && osb_sigpipe_pending()) {
        sigset_t pipe;
        int signal;
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        sigwait(&pipe, &signal);
    }
    pthread_sigmask(SIG_SETMASK, &guard->before, NULL);
}

#endif
