/*
 * The event-stream decoder: feed bytes, take frames. A pure parser in the shape of hiredis' reader; it knows neither libcurl nor
 * Lua, and any chunking of the same bytes gives the same frames.
 *
 * What is a frame:
 *   - a line that begins with '{': a bare JSON object, as execd sends them (separated by blank lines on command streams, by
 *     single newlines on /metrics/watch);
 *   - the `data:` lines up to a blank line, joined by newlines, as standard event streams send them, with the `event:` and `id:`
 *     given beside them;
 *   - at the end of the stream, a last line or a last block of either kind that was not terminated.
 * Comments, `retry:`, and lines of no known field are passed over. Lines end at LF or CRLF, never at anything else: execd sends
 * U+0085 and its kin raw inside a line.
 */
#ifndef OSB_FRAMES_H
#define OSB_FRAMES_H

#include "buffer.h"

typedef struct osb_frame {
    const char *data; /* valid until the next call on the decoder */
    size_t length;
    const char *event; /* NULL where the stream names none */
    size_t event_length;
    const char *id;
    size_t id_length;
} osb_frame;

typedef enum osb_frame_status {
    OSB_FRAME_NONE = 0,      /* more bytes are needed, or the stream has ended */
    OSB_FRAME_READY = 1,     /* a frame was taken */
    OSB_FRAME_TOO_LARGE = 2, /* a frame is longer than the limit: the decoder stays in this state */
    OSB_FRAME_NO_MEMORY = 3
} osb_frame_status;

typedef struct osb_frames {
    osb_buffer input;   /* bytes as they came, from the first that is in no frame yet */
    size_t scanned;     /* bytes of the input known to hold no line end */
    osb_buffer data;    /* `data:` lines of a block that is not complete */
    osb_buffer event;   /* its `event:` */
    osb_buffer id;      /* its `id:` */
    size_t limit;       /* longest frame in bytes */
    int has_data;       /* a block has begun */
    int delivered;      /* the block was handed out by the call before: it goes with the next one */
    int started;        /* a byte order mark can only come first */
    int ended;
    int line_waiting;   /* a line end has been fed since the last OSB_FRAME_NONE */
    osb_frame_status failure;
} osb_frames;

/* `limit`: the longest frame that is taken, in bytes. */
void osb_frames_init(osb_frames *frames, size_t limit);
void osb_frames_free(osb_frames *frames);

/* Appends bytes of the stream. Returns 0, or -1 when memory runs out. */
int osb_frames_feed(osb_frames *frames, const char *bytes, size_t length);

/* Says that no more bytes come. */
void osb_frames_end(osb_frames *frames);

/* Takes the next frame. */
osb_frame_status osb_frames_next(osb_frames *frames, osb_frame *frame);

#endif
