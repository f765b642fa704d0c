/*
 * A byte queue: bytes are appended at the end and consumed from the front. It keeps them in one contiguous block, so that a parser
 * can read them without a copy.
 *
 * A block can be held: its bytes then stay where they are, even if the buffer is changed or freed. A caller holds the block while it
 * passes queued bytes to code that may change or free the buffer.
 */
#ifndef OSB_BUFFER_H
#define OSB_BUFFER_H

#include <stddef.h>

typedef struct osb_block {
    size_t references;
    size_t capacity; /* of `bytes` */
    char bytes[];
} osb_block;

/* A zeroed buffer is an empty one: there is no init function. */
typedef struct osb_buffer {
    osb_block *block;
    size_t start; /* the first byte that is not consumed yet */
    size_t end;   /* one past the last byte */
} osb_buffer;

void osb_buffer_free(osb_buffer *buffer);

/* Appends `length` bytes. Returns 0, or -1 when memory runs out; the buffer is then unchanged. */
int osb_buffer_append(osb_buffer *buffer, const void *bytes, size_t length);

/* Removes the first `length` bytes. There must be as many. */
void osb_buffer_consume(osb_buffer *buffer, size_t length);

/* Holds the buffer's block, and returns it for osb_block_release(). An empty buffer may have none, and returns NULL. */
osb_block *osb_buffer_hold(osb_buffer *buffer);

/* Releases a held block; NULL is ignored. */
void osb_block_release(osb_block *block);

static inline size_t osb_buffer_size(const osb_buffer *buffer)
{
    return buffer->end - buffer->start;
}

static inline const char *osb_buffer_bytes(const osb_buffer *buffer)
{
    return buffer->block ? buffer->block->bytes + buffer->start : "";
}

/* For changing queued bytes in place. The buffer is not empty, and not held. */
static inline char *osb_buffer_writable(osb_buffer *buffer)
{
    return buffer->block->bytes + buffer->start;
}

static inline void osb_buffer_clear(osb_buffer *buffer)
{
    osb_buffer_consume(buffer, osb_buffer_size(buffer));
}

#endif
