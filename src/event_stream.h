/*
 * The event-stream decoder: feed bytes, take events. A pure parser in the shape of hiredis' reader; it knows neither libcurl nor
 * Lua, and any chunking of the same bytes results in the same events.
 *
 * An event is
 *   - a line that begins with '{': a bare JSON object, as execd sends them (separated by blank lines on command streams, by
 *     single newlines on /metrics/watch);
 *   - the `data:` lines up to a blank line, joined by newlines, as standard event streams send them;
 *   - at the end of the stream, a last line or a last block of either kind that was not terminated.
 * Comments, `event:`, `id:`, `retry:` and lines of no known field are ignored. Lines end at LF or CRLF, never at anything else,
 * because execd sends U+0085 and its kin raw inside a line.
 */
#ifndef OSB_EVENT_STREAM_H
#define OSB_EVENT_STREAM_H

#include "buffer.h"

typedef enum osb_event_status {
    OSB_EVENT_NONE = 0,      /* more bytes are needed, or the stream has ended */
    OSB_EVENT_READY = 1,
    OSB_EVENT_TOO_LARGE = 2, /* an event is longer than the limit: the decoder stays in this state */
    OSB_EVENT_NO_MEMORY = 3
} osb_event_status;

typedef struct osb_event {
    const char *data;
    size_t length;
    osb_buffer *buffer; /* where `data` is: valid until this changes */
} osb_event;

typedef struct osb_event_stream {
    osb_buffer input;    /* bytes as they came, from the first that belongs to no event yet */
    osb_buffer block;    /* `data:` lines of a block that is not complete */
    size_t scanned;      /* bytes of the input that are known to hold no line end */
    size_t limit;        /* the longest event in bytes */
    size_t line_length;  /* of the event at the start of the input, without its line end */
    size_t line_size;    /* the same with its line end; 0: there is no such event */
    int has_block;       /* a block has begun */
    int block_is_ready;  /* the block is the next event */
    int started;         /* a byte order mark can only come first */
    int ended;
    int has_line;        /* a line end has been fed since the last OSB_EVENT_NONE */
    osb_event_status failure;
    unsigned long removals; /* of events and of unread bytes: by it a reader detects that another one was faster */
} osb_event_stream;

/* `limit`: the longest event that is accepted, in bytes. */
void osb_event_stream_init(osb_event_stream *stream, size_t limit);
void osb_event_stream_free(osb_event_stream *stream);

/* Appends bytes of the stream. Returns 0, or -1 when memory runs out. */
int osb_event_stream_feed(osb_event_stream *stream, const char *bytes, size_t length);

/* Tells the decoder that no more bytes come. */
void osb_event_stream_end(osb_event_stream *stream);

/* Finds the next event, which stays the next one until it is removed. */
osb_event_status osb_event_stream_next(osb_event_stream *stream, osb_event *event);

/* Removes the event that was found. */
void osb_event_stream_remove(osb_event_stream *stream);

/* Removes bytes of the input unread. The state that was derived from them is dropped, too. */
void osb_event_stream_skip(osb_event_stream *stream, size_t length);

/* Returns 1 while another event may be found without feeding more bytes. An event that is too large counts. */
int osb_event_stream_is_decodable(const osb_event_stream *stream);

#endif
