/*
 * The body of a request: bytes in memory, or the parts of a multipart/form-data body from memory, files and readers, sent in order
 * without ever being put together.
 *
 * Both are a list of segments, through which osb_body_read() walks. It knows nothing of libcurl, whose read callback calls it.
 * libcurl's own mime API would do, except for readers: a part that pauses right after its headers were sent is never asked again
 * when it is resumed too early (7.88).
 */
#ifndef OSB_BODY_H
#define OSB_BODY_H

#include <stdint.h>

#include "buffer.h"

typedef enum osb_part_kind {
    OSB_PART_MEMORY, /* `data`, `size` */
    OSB_PART_FILE,   /* `path`: a regular file, read while it is sent, to its end or to `size` */
    OSB_PART_READER  /* osb_body_write() supplies the bytes as the transfer asks for them */
} osb_part_kind;

typedef struct osb_part {
    osb_part_kind kind;
    const char *name;
    const char *filename;
    const char *type; /* NULL: none */
    const char *data;
    const char *path;
    int64_t size; /* -1: a reader or a file whose size is not known. stat() may report another size of a file than reading it returns */
} osb_part;

struct osb_segment;

typedef struct osb_body {
    struct osb_segment *segments;
    size_t count, current;
    osb_buffer text;      /* a body in memory, or the boundaries and headers of all parts */
    int64_t size;         /* of everything; -1: not known */
    int may_repeat;
    int begun;            /* bytes have been asked for */
    int waiting_for_data; /* the last read found no bytes of a reader */
    int64_t sent;         /* bytes of content that were read, without boundaries and headers */
    char problem[256];    /* why the body could not be read */
} osb_body;

/* What osb_body_read() returns besides a number of bytes. */
enum { OSB_BODY_AGAIN = -1, OSB_BODY_ERROR = -2 };

/* Makes a body of bytes, which are copied. Returns 0, or -1 when memory runs out. */
int osb_body_set(osb_body *body, const char *bytes, size_t length, int may_repeat);

/*
 * Makes a body in parts, separated by `boundary`. The strings of the parts must stay. Returns 0, -1 when memory runs out, or -2 when
 * a file cannot be read (`problem` says why).
 */
int osb_body_set_parts(osb_body *body, const char *boundary, const osb_part *parts, size_t count, int may_repeat);

void osb_body_free(osb_body *body);

/*
 * Reads at most `room` bytes. Returns their number, 0 at the end of the body; OSB_BODY_AGAIN when a reader has to supply bytes first;
 * OSB_BODY_ERROR (`problem` says why).
 */
long osb_body_read(osb_body *body, char *into, size_t room);

/* Goes back to the beginning. Returns 0, or -1 when the body must not be sent twice or cannot be. */
int osb_body_rewind(osb_body *body);

/* Returns the 1-based index of the reader part that can take bytes now, or 0. */
size_t osb_body_next_reader(const osb_body *body);

/* Queues bytes of a reader part; NULL ends it. Returns 0, -1 when memory runs out, -2 when it is not that part's turn. */
int osb_body_write(osb_body *body, size_t part, const char *bytes, size_t length);

/* Returns 1 when the last read found no bytes and there are some now. */
int osb_body_can_resume(const osb_body *body);

#endif
