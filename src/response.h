/*
 * The response of a transfer: its head, and its body in a bounded queue or in a file. It knows nothing of libcurl, whose callbacks
 * pass it the header lines and the body's bytes as they arrive.
 */
#ifndef OSB_RESPONSE_H
#define OSB_RESPONSE_H

#include <stdint.h>

#include "buffer.h"
#include "event_stream.h"
#include "sink.h"

typedef struct osb_response {
    osb_buffer head;         /* status line and headers of the final response */
    size_t head_size;        /* bytes of all heads and trailers so far */
    size_t head_lines;
    long status;             /* 0 until the head is complete */
    int may_switch;          /* a status of 101 is final: the following bytes are of another protocol */
    osb_event_stream events; /* its input is the queue of the body's bytes */
    size_t high_water;       /* bytes queued at which the body pauses */
    int paused;              /* a piece of the body was refused because the queue is full */
    int discarded;           /* the body is received, and not kept */
    int encoded;             /* the body is compressed, although no compression was asked for */
    int64_t received;        /* bytes of the body */
    osb_sink sink;           /* where the body goes, if not into the queue */
    const char *problem;     /* why the response was refused */
} osb_response;

/* The fate of bytes that were passed to a response. */
typedef enum osb_received {
    OSB_RECEIVED,
    OSB_RECEIVED_HEAD,  /* the head is complete with these */
    OSB_RECEIVE_PAUSED, /* they were not accepted: pass them again when osb_response_can_resume() */
    OSB_RECEIVE_REFUSED, /* `problem` says why */
    OSB_RECEIVE_NO_MEMORY,
    OSB_RECEIVE_SINK_FAILED /* the sink's `problem` says why */
} osb_received;

/*
 * `max_event`: the longest event in bytes where the body is read by events, else 0. `sink_path`: the file to be created, or NULL.
 * Returns 0, or -1 when memory runs out.
 */
int osb_response_init(osb_response *response, size_t high_water, size_t max_event, const char *sink_path, int sink_mode);
void osb_response_free(osb_response *response);

/* A line of a head or of the trailers, with its line end. */
osb_received osb_response_header(osb_response *response, const char *line, size_t length);
osb_received osb_response_body(osb_response *response, const char *bytes, size_t length);

/* No more bytes come. Returns 0, or -1 when the sink could not be completed. */
int osb_response_end(osb_response *response);

/* Discards the body, also the queued bytes. */
void osb_response_discard(osb_response *response);

/* Returns 1 when the body is paused and the queue has room again. */
int osb_response_can_resume(const osb_response *response);

#endif
