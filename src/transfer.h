/*
 * A transfer: one HTTP request and its response.
 *
 * libcurl's callbacks only move bytes between it and the queues here; nothing else happens inside them. The response queue is
 * bounded: when its reader is slow the transfer pauses, and osb_multi_step() resumes it once there is room.
 */
#ifndef OSB_TRANSFER_H
#define OSB_TRANSFER_H

#include "body.h"
#include "buffer.h"
#include "curl_api.h"
#include "frames.h"
#include "multi.h"
#include "sink.h"

/* How a transfer ended. The names in transfer.c are what Lua sees. */
typedef enum osb_outcome {
    OSB_RUNNING = 0,
    OSB_COMPLETE,        /* the whole response has arrived, whatever its status */
    OSB_RESOLVE_FAILED,
    OSB_CONNECT_FAILED,
    OSB_TLS_FAILED,
    OSB_CONNECT_TIMEOUT, /* the clocks: see osb_request */
    OSB_TIMEOUT,
    OSB_IDLE_TIMEOUT,
    OSB_SEND_FAILED,
    OSB_RECEIVE_FAILED,  /* cut, reset, or no answer at all */
    OSB_BAD_RESPONSE,    /* not HTTP */
    OSB_BODY_FAILED,     /* the request's body could not be read */
    OSB_SINK_FAILED,     /* the response could not be written to its file */
    OSB_CLOSED,
    OSB_FORKED,
    OSB_NO_MEMORY,
    OSB_FAILED_OTHERWISE
} osb_outcome;

typedef struct osb_request {
    const char *method;
    const char *url;
    const char *const *headers; /* "Name: value" */
    size_t header_count;
    const char *body; /* copied; NULL: none */
    size_t body_length;
    const osb_part *parts; /* multipart/form-data instead of `body` */
    const char *boundary;  /* between the parts: letters, digits and dashes that stand in none of them */
    size_t part_count;
    int may_repeat;      /* it does no harm when the server gets this request twice */
    int framed;          /* the response will be read by frames */
    size_t frame_limit;  /* bytes */
    const char *sink;    /* a file to be made for the body of a good response, instead of the queue; NULL: none */
    int sink_mode;       /* its permission bits; -1: as usual */
    size_t high_water;   /* bytes queued at which the transfer pauses */
    long receive_buffer; /* libcurl's, in bytes */
    double connect_timeout; /* seconds to resolve, connect and shake hands; 0: no limit, as for the next two */
    double timeout;         /* seconds for everything */
    double idle_timeout;    /* seconds without a byte in either direction, not counting pauses for a slow reader */
    const char *ca_file;
    const char *ca_directory;
    const char *certificate;
    const char *key;
    const char *key_password;
    int insecure;      /* no verification of the peer */
    const char *proxy; /* NULL: as the environment says; "": none */
} osb_request;

typedef struct osb_transfer {
    osb_multi *multi;
    struct osb_transfer *previous, *next;
    struct osb_transfer *changed_previous, *changed_next;
    int changed;         /* stands in the multi's list of those with news */
    unsigned long id;    /* among the transfers of its multi; never used again */
    CURL *easy;
    struct curl_slist *headers;
    osb_body body;

    osb_frames response; /* its input is the queue of response bytes */
    osb_buffer head;     /* status line and headers of the final response */
    long status;         /* 0 until the head is complete */
    int head_complete;
    int framed;
    size_t high_water;
    double received;     /* bytes of the response's body */
    osb_sink sink;       /* where they go, if not into the queue */

    double started, last_activity, timeout, idle_timeout;
    int receive_paused;
    int has_parts;
    int in_background;  /* belongs to the multi; its response is discarded */
    int must_arrive;    /* closing the multi waits for it */

    osb_outcome outcome;
    int request_sent;   /* bytes of the request may have reached the server */
    int reused;         /* over a connection that had served before */
    CURLcode code;
    char message[CURL_ERROR_SIZE];
} osb_transfer;

/*
 * Starts a request. Returns NULL when memory runs out; any other failure is the transfer's outcome. What osb_request points to
 * is copied, except the strings of parts, which must stay until the transfer is freed.
 */
osb_transfer *osb_transfer_start(osb_multi *multi, const osb_request *request);

/* Ends the transfer if it still runs, closing its connection, and frees it. */
void osb_transfer_free(osb_transfer *transfer);

/*
 * Leaves the transfer to the multi, which discards its response and frees it when it ends or after `seconds`; the connection can
 * then be used again. With `must_arrive`, closing the multi waits for it. The caller's pointer is no longer valid.
 */
void osb_transfer_detach(osb_transfer *transfer, double seconds, int must_arrive);

/* Whether bytes of the request may have reached the server by now. */
int osb_transfer_sent(const osb_transfer *transfer);

/* The name of an outcome, for messages and for Lua. */
const char *osb_outcome_name(osb_outcome outcome);

/* For the multi. */
void osb_transfer_end(osb_transfer *transfer, osb_outcome outcome, CURLcode code);
void osb_transfer_complete(osb_transfer *transfer, CURLcode code);
void osb_transfer_abandon(osb_transfer *transfer);
int osb_transfer_can_resume(const osb_transfer *transfer);
void osb_transfer_resume(osb_transfer *transfer);
void osb_transfer_forget_change(osb_transfer *transfer);
double osb_transfer_next_clock(const osb_transfer *transfer);
void osb_transfer_check_clocks(osb_transfer *transfer);

#endif
