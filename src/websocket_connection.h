/*
 * A WebSocket connection of a client without its transport: the handshake, bounded queues of received messages and of frames to be
 * sent, pings, and the closing handshake. It knows neither libcurl nor Lua. A transfer passes the received bytes to it, and takes
 * the bytes to be sent from it.
 *
 * It answers the pings of the server. After a time of silence it pings the server, and reports a server that then stays silent.
 */
#ifndef OSB_WEBSOCKET_CONNECTION_H
#define OSB_WEBSOCKET_CONNECTION_H

#include "websocket.h"

enum { OSB_WEBSOCKET_MAX_CHANNELS = 8 };

typedef struct osb_websocket_options {
    size_t max_message;        /* the longest message that is accepted, in bytes */
    size_t receive_high_water; /* bytes of messages queued at which receiving pauses, at least 1 */
    size_t send_high_water;    /* bytes of frames queued from which on no more messages are accepted, at least 1 */
    double ping_interval;      /* seconds without a byte of the server after which it is pinged; 0: never */
    double ping_timeout;       /* seconds in which the server must send anything after a ping */
    double close_timeout;      /* seconds that the closing handshake may take */
    /*
     * First bytes of binary messages that continue each other: those that arrive in a row, with the same first byte, become one message
     * with this byte and the rest of all. A peer that sends a stream in small messages costs its reader little more than one in large ones.
     */
    char channels[OSB_WEBSOCKET_MAX_CHANNELS];
    size_t channel_count;
} osb_websocket_options;

typedef struct osb_websocket {
    osb_websocket_options options;
    char key[OSB_WS_KEY_LENGTH + 1]; /* Sec-WebSocket-Key */
    int open;                        /* the server has switched to the protocol */

    osb_ws_reader reader;
    osb_buffer received;    /* messages for the owner, each after its type and length */
    int last_channel;       /* of the last of them; -1: it is not continued */
    size_t last_size;       /* its bytes in the queue */
    int receive_paused;     /* bytes were refused because this queue is full */
    int discarded;          /* received messages are dropped */
    unsigned long removals; /* messages that the owner has removed */

    osb_buffer output;      /* frames to be sent */
    int send_paused;        /* the transport waits for bytes */
    int refused;            /* a message was not accepted because this queue is full */
    char pong[OSB_WS_MAX_CONTROL]; /* the answer to the last ping, kept while the queue is full */
    int pong_length;        /* -1: none is kept */

    int close_sent;         /* a close frame is queued or sent */
    int close_code;         /* of the server's close frame; 0: none was received */
    char close_reason[OSB_WS_MAX_REASON];
    size_t close_reason_length;

    double ping_at;         /* when the next ping is due; -1: never */
    double answer_by;       /* when the server must have sent anything, or its close frame; -1: no such time */

    osb_ws_status failure;  /* a violation by the server, or OSB_WS_NONE */
} osb_websocket;

/* Returns 0, or -1 when the system has no random bytes. */
int osb_websocket_init(osb_websocket *websocket, const osb_websocket_options *options);
void osb_websocket_free(osb_websocket *websocket);

/* Opens the connection with the head of a response of status 101. Returns NULL, or a message when the head is not acceptable. */
const char *osb_websocket_open(osb_websocket *websocket, const char *head, size_t length, double now);

typedef enum osb_websocket_result {
    OSB_WEBSOCKET_OK,
    OSB_WEBSOCKET_NEWS,     /* the bytes were accepted, and the owner has news */
    OSB_WEBSOCKET_FULL,     /* refused, because the queue is full */
    OSB_WEBSOCKET_CLOSING,  /* refused, because the connection is not open, or is being closed */
    OSB_WEBSOCKET_NO_MEMORY /* refused */
} osb_websocket_result;

/* Passes received bytes. After FULL, pass the same bytes again when osb_websocket_can_receive(). */
osb_websocket_result osb_websocket_receive(osb_websocket *websocket, const char *bytes, size_t length, double now);

/*
 * Takes at most `length` bytes to be sent, and returns their number. The transport calls it when it has sent the bytes that it took
 * before; 0 pauses sending. `news` becomes 1 when the owner can send again, or when all is sent.
 */
size_t osb_websocket_take(osb_websocket *websocket, char *into, size_t length, int *news);

/* Queues a message of the owner: a text, which must be UTF-8, or a binary one. */
osb_websocket_result osb_websocket_send(osb_websocket *websocket, osb_ws_type type, const char *bytes, size_t length);

/* Begins the closing handshake; see osb_ws_write_close(). CLOSING also when it has begun. */
osb_websocket_result osb_websocket_close(osb_websocket *websocket, int code, const char *reason, size_t length, double now);

/* Finds the next message for the owner, which stays the next one, and does not grow, until it is removed. Returns 0 when there is none. */
int osb_websocket_next(osb_websocket *websocket, osb_ws_message *message);
void osb_websocket_remove(osb_websocket *websocket);

/* From now on nobody reads messages. */
void osb_websocket_discard(osb_websocket *websocket);

/* Return 1 when the transport has paused, in that direction, and can go on. */
int osb_websocket_can_receive(const osb_websocket *websocket);
int osb_websocket_can_send(const osb_websocket *websocket);

/* Returns 1 when the transport can be closed: the closing handshake is complete, or a violation was reported to the server. */
int osb_websocket_is_over(const osb_websocket *websocket);

/* Returns when osb_websocket_tick() is due; -1: never. */
double osb_websocket_clock(const osb_websocket *websocket);

/* Sends a ping that is due. Returns NULL, or a message when the server has not answered in time. */
const char *osb_websocket_tick(osb_websocket *websocket, double now);

#endif
