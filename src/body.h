/*
 * The body of a request: bytes in memory, or the parts of a multipart/form-data body from memory, files and readers, sent in
 * order without ever being put together.
 *
 * Both are a list of segments, which libcurl's read callback walks through. libcurl's own mime API would do, but for readers: a
 * part that pauses right after its headers were sent is never asked again when it is resumed too early (7.88).
 */
#ifndef OSB_BODY_H
#define OSB_BODY_H

#include "buffer.h"
#include "curl_api.h"

typedef enum osb_part_kind {
    OSB_PART_MEMORY, /* `data`, `size` */
    OSB_PART_FILE,   /* `path`: a regular file, read while it is sent */
    OSB_PART_READER  /* osb_body_write() supplies the bytes as the transfer asks for them */
} osb_part_kind;

typedef struct osb_part {
    osb_part_kind kind;
    const char *name;
    const char *filename;
    const char *type; /* NULL: none */
    const char *data;
    const char *path;
    curl_off_t size; /* of memory and readers; -1: a reader that does not know */
} osb_part;

struct osb_segment;

typedef struct osb_body {
    struct osb_segment *segments;
    size_t count, current;
    osb_buffer text;     /* a body in memory, or the boundaries and headers of all parts */
    curl_off_t size;     /* of everything; -1: not known */
    int may_repeat;
    int begun;           /* libcurl has asked for bytes */
    int hungry;          /* it waits for bytes of a reader */
    int touched;         /* it has asked for bytes since this was last cleared */
    double sent;         /* bytes of content handed to it, boundaries and headers not counted */
    char problem[256];   /* why the body could not be read */
} osb_body;

/* Sets up a body in memory on `easy`; the bytes are copied. */
CURLcode osb_body_set(osb_body *body, CURL *easy, const char *bytes, size_t length, int may_repeat);

/*
 * Sets up a body in parts, separated by `boundary`; the request needs a Content-Type header that names it, and when the size is
 * not known "Transfer-Encoding: chunked". The strings of the parts must stay. CURLE_READ_ERROR: `problem` says why.
 */
CURLcode osb_body_set_parts(osb_body *body, CURL *easy, const char *boundary, const osb_part *parts, size_t count, int may_repeat);

void osb_body_free(osb_body *body);

/* The 1-based index of the reader part that can take bytes now, or 0. */
size_t osb_body_wants(const osb_body *body);

/* Queues bytes of a reader part; NULL ends it. Returns 0, -1 when memory runs out, -2 when it is not that part's turn. */
int osb_body_write(osb_body *body, size_t part, const char *bytes, size_t length);

/* True when libcurl waits for bytes and there are some. */
int osb_body_can_resume(const osb_body *body);

#endif
