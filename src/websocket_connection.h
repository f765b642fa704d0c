/*
 * A WebSocket connection of a client, apart from its transport: the handshake, the messages that have come and the frames to be sent
 * in bounded queues, pings, and the closing handshake. It knows neither libcurl nor Lua. A transfer passes it what arrives, and takes
 * from it what is to be sent.
 *
 * Pings of the server are answered here. The server is pinged when nothing has come for a while, and given up when nothing comes then.
 */
#ifndef OSB_WEBSOCKET_CONNECTION_H
#define OSB_WEBSOCKET_CONNECTION_H

#include "websocket.h"

typedef struct osb_websocket_options {
    size_t max_message;        /* the longest message that may come, in bytes */
    size_t receive_high_water; /* bytes of messages queued at which receiving pauses, at least 1 */
    size_t send_high_water;    /* bytes of frames queued from which on no more messages are accepted, at least 1 */
    double ping_interval;      /* seconds without a byte of the server after which it is pinged; 0: it never is */
    double ping_timeout;       /* seconds in which something must come after a ping */
    double close_timeout;      /* seconds that the closing handshake may take */
} osb_websocket_options;

typedef struct osb_websocket {
    osb_websocket_options options;
    char key[OSB_WS_KEY_LENGTH + 1]; /* Sec-WebSocket-Key */
    int open;                        /* the server has switched to the protocol */

    osb_ws_reader reader;
    osb_buffer received;    /* messages for the owner, each behind its type and length */
    int receive_paused;     /* bytes were refused because this queue is full */
    int discarded;          /* nobody reads messages */
    unsigned long removals; /* messages that the owner has taken */

    osb_buffer output;      /* frames to be sent */
    int send_paused;        /* the transport waits for bytes */
    int refused;            /* a message was not accepted because this queue is full */
    char pong[OSB_WS_MAX_CONTROL]; /* the answer to the last ping, while the queue is full */
    int pong_length;        /* -1: there is none */

    int close_sent;         /* a close frame is queued or sent */
    int close_code;         /* of the server's close frame; 0: none has come */
    char close_reason[OSB_WS_MAX_REASON];
    size_t close_reason_length;

    double ping_at;         /* when the next ping is due; -1: never */
    double answer_by;       /* when the server must have sent something, or have closed; -1: it need not */

    osb_ws_status failure;  /* what the server violated; OSB_WS_NONE: nothing */
} osb_websocket;

/* Returns 0, or -1 when the system has no random bytes. */
int osb_websocket_init(osb_websocket *websocket, const osb_websocket_options *options);
void osb_websocket_free(osb_websocket *websocket);

/* Opens the connection with the head of a response of status 101. Returns NULL, or a message: the head answers another handshake. */
const char *osb_websocket_open(osb_websocket *websocket, const char *head, size_t length, double now);

typedef enum osb_websocket_result {
    OSB_WEBSOCKET_OK,
    OSB_WEBSOCKET_NEWS,     /* and there is news for the owner */
    OSB_WEBSOCKET_FULL,     /* nothing was accepted, because the queue is full */
    OSB_WEBSOCKET_CLOSING,  /* nothing was accepted, because the connection is not open, or is being closed */
    OSB_WEBSOCKET_NO_MEMORY /* nothing was accepted */
} osb_websocket_result;

/* Passes bytes that have arrived. FULL: pass them again when osb_websocket_can_resume(). */
osb_websocket_result osb_websocket_receive(osb_websocket *websocket, const char *bytes, size_t length, double now);

/*
 * Takes bytes to be sent. Returns how many; 0: there are none, and the transport has sent all that it took before. `news` becomes 1
 * when the owner can send again, or all is sent.
 */
size_t osb_websocket_take(osb_websocket *websocket, char *into, size_t length, int *news);

/* Queues a message of the owner: a text, which must be UTF-8, or a binary one. */
osb_websocket_result osb_websocket_send(osb_websocket *websocket, osb_ws_type type, const char *bytes, size_t length);

/* Begins the closing handshake; see osb_ws_write_close(). CLOSING also when it has begun. */
osb_websocket_result osb_websocket_close(osb_websocket *websocket, int code, const char *reason, size_t length, double now);

/* Finds the next message for the owner, which stays the next one until it is removed. Returns 0 when there is none. */
int osb_websocket_next(osb_websocket *websocket, osb_ws_message *message);
void osb_websocket_remove(osb_websocket *websocket);

/* From now on nobody reads messages. */
void osb_websocket_discard(osb_websocket *websocket);

/* Return 1 when the transport has paused, in that direction, and can go on. */
int osb_websocket_can_receive(const osb_websocket *websocket);
int osb_websocket_can_send(const osb_websocket *websocket);

/* Returns 1 when the connection can be cut: the closing handshake is complete, or the server was told its violation. */
int osb_websocket_is_over(const osb_websocket *websocket);

/* Returns when osb_websocket_tick() is due; -1: never. */
double osb_websocket_clock(const osb_websocket *websocket);

/* Does what is due. Returns NULL, or why the server is given up. */
const char *osb_websocket_tick(osb_websocket *websocket, double now);

#endif
