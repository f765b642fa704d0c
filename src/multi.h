/*
 * A multi: many transfers over one libcurl multi handle and its connection pool, driven by whoever calls osb_multi_step().
 *
 * It is made to be embedded: one descriptor to watch (osb_multi_fd), one time to wake up at (osb_multi_timeout), one function to
 * call then (osb_multi_step). No thread, no callback into the caller: results are left in the transfers' queues.
 *
 * A multi is reference counted: transfers hold it, so it may be closed in any order. After a fork the child drops what it
 * inherited, without touching the parent's connections, and starts anew with its first request.
 */
#ifndef OSB_MULTI_H
#define OSB_MULTI_H

#include <sys/types.h>

#include "curl_api.h"
#include "poller.h"

struct osb_transfer;

typedef struct osb_multi {
    int references;
    int closed;
    pid_t process;
    CURLM *curl; /* NULL until the first request */
    osb_poller *poller;
    double now;       /* read once a step: libcurl's callbacks may come half a million times */
    double timer;     /* when libcurl wants to be called, -1: it does not */
    struct osb_transfer *running; /* doubly linked */
    struct osb_transfer *changed; /* those with news that nobody has taken yet; doubly linked */
    unsigned long last_id;
    unsigned count;   /* of running transfers, those in the background included */
    unsigned background;
} osb_multi;

/* NULL when memory runs out. The caller holds the first reference. */
osb_multi *osb_multi_new(void);
void osb_multi_hold(osb_multi *multi);
void osb_multi_release(osb_multi *multi);

/* Ends every transfer, after giving those that must arrive (osb_transfer_detach) at most `patience` seconds. */
void osb_multi_close(osb_multi *multi, double patience);

/* Makes the handles ready for a request. Returns NULL, or what went wrong. */
const char *osb_multi_open(osb_multi *multi);

/* Moves what can be moved, and waits at most `seconds` for something to move. */
void osb_multi_step(osb_multi *multi, double seconds);

/* Seconds until osb_multi_step() should be called even though the descriptor is quiet; -1: no such need. */
double osb_multi_timeout(osb_multi *multi);

/*
 * The next transfer with news for its owner (a head, bytes, room for bytes, the end), or NULL. Each is given once, until there is
 * more: so that among thousands of waiting transfers the few that moved are found without looking at all.
 */
struct osb_transfer *osb_multi_take_changed(osb_multi *multi);

/* Lets libcurl keep connections beside those that the running transfers use. */
void osb_multi_make_room(osb_multi *multi);

/* The descriptor to watch for reading, or -1 where the platform has none. */
int osb_multi_fd(osb_multi *multi);

#endif
