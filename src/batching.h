/*
 * Batching: while a stream brings few bytes at a time in quick succession, the driver waits a little before it reads, so that one read
 * finds many of them. execd writes each event by itself: without batching, each would cost a wake-up and all system calls of a step.
 *
 * The wait is at most OSB_BATCHING_WAIT. It never delays the first events of a stream, events that come one by one, or an exchange in
 * which the peer waits for bytes of ours.
 */
#ifndef OSB_BATCHING_H
#define OSB_BATCHING_H

#include <stddef.h>

#define OSB_BATCHING_WAIT 500e-6 /* seconds */

typedef struct osb_batching {
    unsigned row;    /* reads that followed each other at once and brought few bytes; each pause halves it */
    size_t received; /* bytes since the last read began */
    double read_at;  /* the time at which the last read ended */
} osb_batching;

/* Bytes were received. */
void osb_batching_received(osb_batching *batching, size_t length);

/* Bytes were sent: their answer must not wait. */
void osb_batching_sent(osb_batching *batching);

/* Called at `now`, when there is something to read. Waits if that pays. Returns 1 when it has waited. */
int osb_batching_wait(osb_batching *batching, double now);

/* Called at `now`, when everything has been read. */
void osb_batching_read(osb_batching *batching, double now);

#endif
