/*
 * Keeps SIGPIPE away from the host. libcurl suppresses the signal on plain sockets, but OpenSSL writes without that flag, and with
 * CURLOPT_NOSIGNAL libcurl does not change the signal's action, which belongs to the host. So the signal is blocked in this thread
 * around calls that may write, and a signal that came meanwhile is taken.
 */
#ifndef OSB_SIGPIPE_H
#define OSB_SIGPIPE_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

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
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
#ifdef __APPLE__
        {
            int signal;
            sigwait(&pipe, &signal); /* there is no sigtimedwait() */
        }
#else
        {
            /* Without waiting: where the signal was sent to the whole process, another thread may have taken it. */
            const struct timespec at_once = { 0, 0 };
            while (sigtimedwait(&pipe, NULL, &at_once) < 0 && errno == EINTR)
                ;
        }
#endif
    }
    pthread_sigmask(SIG_SETMASK, &guard->before, NULL);
}

#endif
