/*
 * A transfer: one HTTP request and its response.
 *
 * libcurl's callbacks only move bytes between it and the queues here; nothing else happens inside them. The queue of the response is
 * bounded: when its reader is slow the transfer pauses, and osb_driver_step() resumes it once there is room.
 */
#ifndef OSB_TRANSFER_H
#define OSB_TRANSFER_H

#include "body.h"
#include "connection.h"
#include "curl_api.h"
#include "multi.h"
#include "outcome.h"
#include "request.h"
#include "response.h"

typedef struct osb_transfer {
    osb_member member; /* its place in the set of its multi. Must be first: OSB_TRANSFER() */
    osb_multi *multi;
    CURL *easy;       /* NULL once it has ended */
    osb_shard *shard; /* NULL until it has started */
    struct curl_slist *headers;
    osb_connection connection;
    osb_body body;
    osb_response response;
    osb_websocket *websocket; /* NULL: an ordinary request */
    int has_parts;

    double deadline;      /* the time at which all must be done; -1: none */
    double idle_timeout;  /* seconds; 0: none */
    double last_activity; /* the time of the last byte in either direction */

    osb_outcome outcome;
    osb_outcome failure; /* why a callback of ours made libcurl fail */
    const char *failure_message; /* NULL: libcurl's, or that of the body or the sink */
    int request_sent;    /* once it has ended: bytes of the request may have reached the server */
    char message[CURL_ERROR_SIZE];
} osb_transfer;

#define OSB_TRANSFER(set_member) ((osb_transfer *)(void *)(set_member))

/*
 * Starts a request. Returns NULL when memory runs out; any other failure is the transfer's outcome. The strings of osb_request are
 * copied, except the strings of parts, which must stay until the transfer is freed.
 */
osb_transfer *osb_transfer_start(osb_multi *multi, const osb_request *request);

/* Closes the connection of a transfer that still runs, and frees it. */
void osb_transfer_free(osb_transfer *transfer);

/*
 * Leaves the transfer to the multi, which discards its response and frees it when it ends or after `seconds`; its connection can then
 * be used again. An open WebSocket is closed in the ordinary way meanwhile. With `wait_on_close`, closing the multi waits for the
 * transfer. The caller's pointer is no longer valid.
 */
void osb_transfer_detach(osb_transfer *transfer, double seconds, int wait_on_close);

/* Returns 1 when bytes of the request may have reached the server by now. */
int osb_transfer_sent(const osb_transfer *transfer);

/* Removes bytes of the response's body from its queue. */
void osb_transfer_consume(osb_transfer *transfer, size_t length);

/* Finds the next event of the response, which stays the next one until it is removed. */
osb_event_status osb_transfer_next_event(osb_transfer *transfer, osb_event *event);
void osb_transfer_remove_event(osb_transfer *transfer);

/* Queues bytes of a reader part: see osb_body_write(). */
int osb_transfer_write(osb_transfer *transfer, size_t part, const char *bytes, size_t length);

#endif
