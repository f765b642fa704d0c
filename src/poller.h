/*
 * A set of descriptors to wait for. Two implementations, chosen when compiling: epoll on Linux, whose set is itself a descriptor
 * that a host's event loop can watch, and poll() elsewhere (or with OSB_USE_POLL, so that tests cover it on Linux too).
 */
#ifndef OSB_POLLER_H
#define OSB_POLLER_H

#if defined(__linux__) && !defined(OSB_USE_POLL)
#define OSB_POLLER_IS_EPOLL 1
#else
#define OSB_POLLER_IS_EPOLL 0
#endif

enum { OSB_READABLE = 1, OSB_WRITABLE = 2, OSB_FAILED = 4 };

typedef struct osb_ready {
    int fd;
    int events;
    unsigned tag;
} osb_ready;

typedef struct osb_poller osb_poller;

/* Returns NULL when memory or descriptors run out (errno says which). */
osb_poller *osb_poller_new(void);
void osb_poller_free(osb_poller *poller);

/* Returns 1 when the set was made by a parent process, which still uses it. Nothing can be changed in it then. */
int osb_poller_is_inherited(const osb_poller *poller);

/* Returns the descriptor that is readable while one of the set is ready, or -1 where there is none. */
int osb_poller_fd(const osb_poller *poller);

/*
 * Watches `fd` for `events` (OSB_READABLE, OSB_WRITABLE); 0 stops watching it. The caller finds its `tag` in osb_ready. Returns 0, or -1
 * with errno.
 */
int osb_poller_set(osb_poller *poller, int fd, int events, unsigned tag);

/*
 * Makes the set's own descriptor readable after `seconds` too, until the next call; -1: never. It is for hosts that can watch
 * descriptors and have no timers. Returns 0, or -1 where there is no such timer.
 */
int osb_poller_alarm(osb_poller *poller, double seconds);

/* Waits until a descriptor is ready or `seconds` have passed. Returns the number of entries of `ready` that were filled; 0 on a signal. */
int osb_poller_wait(osb_poller *poller, double seconds, osb_ready *ready, int most);

#endif
