/*
 * A multi: libcurl's multi handles with their connection pools, the descriptors that they wait for, their timers, and the set of
 * transfers that run over them. driver.h makes it move.
 *
 * libcurl compares a new request with every connection to the same host, and walks through all of them to remove one. A multi has
 * several handles, shards, each for a bounded number of transfers, so that the cost of a request does not depend on the number of others
 * that wait. Few transfers all run in the first.
 *
 * A multi is reference counted: transfers hold it, so that it may be closed in any order.
 */
#ifndef OSB_MULTI_H
#define OSB_MULTI_H

#include "batching.h"
#include "curl_api.h"
#include "outcome.h"
#include "poller.h"
#include "transfer_set.h"

/* One of libcurl's multi handles. */
typedef struct osb_shard {
    struct osb_multi *multi;
    CURLM *curl;
    size_t index;    /* among the shards of the multi */
    size_t count;    /* of transfers */
    osb_clock timer; /* the time at which libcurl wants to be called */
    osb_node room;   /* set while another transfer can start in it */
    osb_node active; /* set while transfers may have completed in it */
    osb_node failed; /* set once libcurl cannot go on with it */
    CURLMcode failure;
} osb_shard;

typedef struct osb_multi {
    int references;
    int closed;
    unsigned long process; /* see process.h */
    osb_poller *poller;    /* NULL until the first request */
    osb_shard **shards;    /* NULL entries can be used again */
    size_t shard_count;    /* of entries */
    size_t free_places;    /* of all shards */
    osb_node with_room;    /* shards, the last used first: it may have a connection for the next request */
    osb_node active;       /* shards */
    osb_node failed;       /* shards */
    osb_clock_heap timers; /* of the shards */
    double now;            /* read once a step: libcurl's callbacks may come half a million times */
    osb_batching batching;
    int watch_error;       /* errno of the last socket that could not be watched */
    osb_transfer_set set;
} osb_multi;

/* Returns NULL when memory runs out. The caller holds the first reference. */
osb_multi *osb_multi_new(void);
void osb_multi_hold(osb_multi *multi);
void osb_multi_release(osb_multi *multi);

/* Makes the handles ready for a request. Returns OSB_RUNNING, or the outcome of the request. */
osb_outcome osb_multi_open(osb_multi *multi);

/* Returns 1 when the handles are those of the parent process. */
int osb_multi_is_inherited(const osb_multi *multi);

/* Frees the handles and closes all connections, except inherited ones. No transfer runs any more. */
void osb_multi_drop_handles(osb_multi *multi);

/* Starts an easy handle, whose CURLINFO_PRIVATE is its osb_member. Returns its shard, or NULL when memory runs out. */
osb_shard *osb_multi_start(osb_multi *multi, CURL *easy);

/* Frees an easy handle, and closes its connection if that is busy. `shard` is NULL for a handle that was not started. */
void osb_multi_stop(osb_shard *shard, CURL *easy);

/* Starts an easy handle once more, over a fresh connection. */
CURLMcode osb_multi_restart(osb_shard *shard, CURL *easy);

/* Waits at most `seconds` for something to move, and lets libcurl move it. */
void osb_multi_perform(osb_multi *multi, double seconds);

/* Returns 1 while there are shards in which libcurl has failed (their `failure`). Their transfers must be stopped. */
int osb_multi_has_failed(const osb_multi *multi);

/* Frees the failed shards, in which nothing runs any more. */
void osb_multi_drop_failed(osb_multi *multi);

/* Returns the time at which libcurl wants to be called, or -1. */
double osb_multi_timer(const osb_multi *multi);

/* Returns the member of an easy handle that has completed since, and its result; NULL when there is none. */
osb_member *osb_multi_next_completed(osb_multi *multi, CURLcode *code);

#endif
