/*
 * The frames of WebSocket (RFC 6455): a reader that makes messages of the peer's bytes, and a writer. Both are pure: they know
 * neither libcurl nor Lua, and any chunking of the same bytes results in the same messages.
 *
 * The reader joins the fragments of a message, and returns a control frame at once, also between fragments. It refuses every
 * violation of the protocol: reserved bits and opcodes, a wrong mask, fragments out of order, control frames that are long or in
 * fragments, close codes that may not be sent, text that is not UTF-8. No extension is supported, because none is ever offered.
 */
#ifndef OSB_WEBSOCKET_H
#define OSB_WEBSOCKET_H

#include <stdint.h>

#include "buffer.h"
#include "utf8.h"

/* The kinds of messages. The values are the protocol's opcodes. */
typedef enum osb_ws_type {
    OSB_WS_TEXT = 1,
    OSB_WS_BINARY = 2,
    OSB_WS_CLOSE = 8,
    OSB_WS_PING = 9,
    OSB_WS_PONG = 10
} osb_ws_type;

enum {
    OSB_WS_MAX_CONTROL = 125,   /* bytes that a ping, a pong, or a close with its code can carry */
    OSB_WS_MAX_REASON = 123,    /* bytes of the reason of a close */
    OSB_WS_NORMAL_CLOSURE = 1000,
    OSB_WS_NO_CODE = 1005,      /* stands for a close frame without a code, and is never sent */
    OSB_WS_KEY_LENGTH = 24,     /* of a Sec-WebSocket-Key: 16 bytes in base64 */
    OSB_WS_ACCEPT_LENGTH = 28   /* of a Sec-WebSocket-Accept */
};

typedef struct osb_ws_message {
    osb_ws_type type;
    const char *data; /* valid until the next call on the reader; of a close: the reason */
    size_t length;
    int code;         /* of a close: the peer's code, or OSB_WS_NO_CODE */
} osb_ws_message;

typedef enum osb_ws_status {
    OSB_WS_NONE = 0,      /* more bytes are needed, or the peer has closed */
    OSB_WS_READY = 1,     /* a message was taken */
    /* Failures: the reader stays in that state, and `problem` describes the failure. */
    OSB_WS_VIOLATION = 2, /* of the protocol */
    OSB_WS_NOT_UTF8 = 3,
    OSB_WS_TOO_LARGE = 4, /* a message is longer than the limit */
    OSB_WS_NO_MEMORY = 5
} osb_ws_status;

typedef struct osb_ws_reader {
    osb_buffer input;    /* bytes of the peer, from the first frame that was not taken */
    osb_buffer joined;   /* the fragments received so far of a message */
    size_t limit;        /* longest message in bytes */
    int masked;          /* the peer is a client */
    /* The frame at the front of the input, once its header is complete: */
    size_t header;       /* the header's length; 0: it is not complete yet */
    size_t length;       /* of the payload */
    size_t prepared;     /* bytes of the payload that are unmasked and, for a text, checked */
    int opcode;
    int final;
    unsigned char mask[4];
    osb_ws_type type;    /* of the message whose fragments are joined; 0: none */
    osb_utf8 text;       /* the state of the check of the current text */
    int delivered;       /* `joined` was returned by the call before */
    int closed;          /* a close frame was received: bytes after it are ignored */
    osb_ws_status failure;
    const char *problem;
} osb_ws_reader;

/* `limit`: the longest message in bytes. `masked`: the peer is a client, whose frames must be masked; a server's must not be. */
void osb_ws_reader_init(osb_ws_reader *reader, size_t limit, int masked);
void osb_ws_reader_free(osb_ws_reader *reader);

/* Appends bytes of the peer. Returns 0, or -1 when memory runs out. */
int osb_ws_reader_feed(osb_ws_reader *reader, const char *bytes, size_t length);

/* Takes the next message. */
osb_ws_status osb_ws_reader_next(osb_ws_reader *reader, osb_ws_message *message);

/* Returns the close code that reports a failure of the reader to the peer. */
int osb_ws_failure_code(osb_ws_status failure);

/*
 * Appends a whole message in one frame. `mask`: four bytes that nobody can foresee, as a client must choose for each frame; NULL
 * for a server. A control message carries at most OSB_WS_MAX_CONTROL bytes. Returns 0, or -1 when memory runs out (`output` is then
 * unchanged).
 */
int osb_ws_write(osb_buffer *output, osb_ws_type type, const char *bytes, size_t length, const unsigned char *mask);

/*
 * Appends a close frame: a code and a reason of at most OSB_WS_MAX_REASON bytes of UTF-8; OSB_WS_NO_CODE: neither. Returns as
 * above.
 */
int osb_ws_write_close(osb_buffer *output, int code, const char *reason, size_t length, const unsigned char *mask);

/* True for a code that a close frame may carry: those of RFC 6455 and its registry, and 3000 to 4999. */
int osb_ws_code_is_valid(int code);

/* Writes the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key, with a final NUL. */
void osb_ws_accept(const char key[OSB_WS_KEY_LENGTH], char accept[OSB_WS_ACCEPT_LENGTH + 1]);

#endif
