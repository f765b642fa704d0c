/*
 * A byte queue: bytes are appended at the end and consumed from the front. One contiguous block, so that a parser can look at
 * what is queued without copying it.
 */
#ifndef OSB_BUFFER_H
#define OSB_BUFFER_H

#include <stddef.h>

typedef struct osb_buffer {
    char *data;
    size_t start; /* first byte not consumed yet */
    size_t end;   /* one past the last byte */
    size_t capacity;
} osb_buffer;

/* A zeroed buffer is an empty one: there is no init function. */
void osb_buffer_free(osb_buffer *buffer);

/* Appends `length` bytes. Returns 0, or -1 when memory runs out (the buffer is then unchanged). */
int osb_buffer_append(osb_buffer *buffer, const void *bytes, size_t length);

/* Drops the first `length` bytes, which must be there. */
void osb_buffer_consume(osb_buffer *buffer, size_t length);

static inline size_t osb_buffer_size(const osb_buffer *buffer)
{
    return buffer->end - buffer->start;
}

static inline const char *osb_buffer_bytes(const osb_buffer *buffer)
{
    return buffer->data + buffer->start;
}

#endif
