/* How a transfer ends. */
#ifndef OSB_OUTCOME_H
#define OSB_OUTCOME_H

#include "curl_api.h"

/* Lua receives the names in outcome.c. */
typedef enum osb_outcome {
    OSB_RUNNING = 0,
    OSB_COMPLETE,        /* the whole response has arrived, whatever its status; a WebSocket was closed by a close frame */
    OSB_RESOLVE_FAILED,
    OSB_PROXY_FAILED,    /* the proxy cannot be reached, or refuses to connect */
    OSB_CONNECT_FAILED,
    OSB_TLS_FAILED,
    OSB_CONNECT_TIMEOUT, /* the three clocks: see osb_request */
    OSB_TIMEOUT,
    OSB_IDLE_TIMEOUT,
    OSB_SEND_FAILED,
    OSB_RECEIVE_FAILED,  /* the connection was cut or reset, nothing came at all, or a WebSocket ended without a close frame */
    OSB_BAD_RESPONSE,    /* the response is not HTTP, or not as this client can accept it */
    OSB_WEBSOCKET_VIOLATION, /* the server violated the protocol of WebSocket, in the handshake or after it */
    OSB_MESSAGE_TOO_LARGE,   /* a WebSocket's message is longer than the limit */
    OSB_BODY_FAILED,     /* the request's body could not be read */
    OSB_SINK_FAILED,     /* the response could not be written to its file */
    OSB_CLOSED,
    OSB_FORKED,
    OSB_NO_MEMORY,
    OSB_NO_DESCRIPTORS,  /* this process, or the system, has too many files open */
    OSB_FAILED_OTHERWISE
} osb_outcome;

const char *osb_outcome_name(osb_outcome outcome);

/* Returns a message for an outcome that libcurl has none for. */
const char *osb_outcome_message(osb_outcome outcome);

/* Returns the outcome that a result of libcurl's means. */
osb_outcome osb_outcome_of(CURLcode code);

/* Returns 1 for the outcome of a failure before the request was sent. */
int osb_outcome_is_before_sending(osb_outcome outcome);

#endif
