/*
 * A multi: libcurl's multi handle with its connection pool, the descriptors that it waits for, its timer, and the set of transfers
 * that run over it. driver.h makes it move.
 *
 * A multi is reference counted: transfers hold it, so that it may be closed in any order.
 */
#ifndef OSB_MULTI_H
#define OSB_MULTI_H

#include "curl_api.h"
#include "poller.h"
#include "transfer_set.h"

typedef struct osb_multi {
    int references;
    int closed;
    unsigned long process; /* see process.h */
    CURLM *curl;           /* NULL until the first request */
    osb_poller *poller;
    double now;            /* read once a step: libcurl's callbacks may come half a million times */
    double timer;          /* when libcurl wants to be called; -1: it does not */
    osb_transfer_set set;
} osb_multi;

/* Returns NULL when memory runs out. The caller holds the first reference. */
osb_multi *osb_multi_new(void);
void osb_multi_hold(osb_multi *multi);
void osb_multi_release(osb_multi *multi);

/* Makes the handles ready for a request. Returns NULL, or a message. */
const char *osb_multi_open(osb_multi *multi);

/* Frees the handles, which closes all connections. No transfer runs any more. */
void osb_multi_drop_handles(osb_multi *multi);

/* Returns 1 when the handles are those of the parent process. */
int osb_multi_is_inherited(const osb_multi *multi);

/* Gives up inherited handles without a trace in the parent process. Their memory is lost. */
void osb_multi_disown_handles(osb_multi *multi);

/* Starts and stops an easy handle, whose CURLINFO_PRIVATE is its osb_member. Stopping frees it, and closes its connection if it is busy. */
CURLMcode osb_multi_start(osb_multi *multi, CURL *easy);
void osb_multi_stop(osb_multi *multi, CURL *easy);

/* Waits at most `seconds` for something to move, and lets libcurl move it. */
void osb_multi_perform(osb_multi *multi, double seconds);

/* Returns the member of an easy handle that has completed since, and its result; NULL when there is none. */
osb_member *osb_multi_next_completed(osb_multi *multi, CURLcode *code);

#endif
