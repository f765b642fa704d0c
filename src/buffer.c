#include "buffer.h"

#include <string.h>

#include "alloc.h"

enum { MIN_CAPACITY = 1024, MAX_EMPTY_CAPACITY = 2 * 1024 * 1024 };

osb_block *osb_buffer_hold(osb_buffer *buffer)
{
    if (buffer->block)
        ++buffer->block->references;
    return buffer->block;
}

void osb_block_release(osb_block *block)
{
    if (block && --block->references == 0)
        osb_free(block);
}

static int is_held(const osb_buffer *buffer)
{
    return buffer->block && buffer->block->references > 1;
}

void osb_buffer_free(osb_buffer *buffer)
{
    osb_block_release(buffer->block);
    memset(buffer, 0, sizeof *buffer);
}

/* Moves the queued bytes to a new block of at least `wanted` bytes. */
static int grow(osb_buffer *buffer, size_t wanted)
{
    size_t used = osb_buffer_size(buffer);
    size_t before = buffer->block ? buffer->block->capacity : 0;
    size_t capacity = before ? before : MIN_CAPACITY;
    osb_block *block;

    while (capacity < wanted)
        capacity *= 2;
    if (capacity == before && !is_held(buffer))
        capacity *= 2;
    block = osb_malloc(sizeof *block + capacity);
    if (!block)
        return -1;
    block->references = 1;
    block->capacity = capacity;
    memcpy(block->bytes, osb_buffer_bytes(buffer), used);
    osb_block_release(buffer->block);
    buffer->block = block;
    buffer->start = 0;
    buffer->end = used;
    return 0;
}

/* Makes room for `length` more bytes behind the end. */
static int reserve(osb_buffer *buffer, size_t length)
{
    size_t used = osb_buffer_size(buffer);
    size_t capacity = buffer->block ? buffer->block->capacity : 0;

    if (capacity - buffer->end >= length)
        return 0;
    if (length > (size_t)-1 / 4 - used)
        return -1;
    /* Moving at most half a block keeps the cost of a byte constant, however the queue is filled and drained. */
    if (used + length > capacity || used > capacity / 2 || is_held(buffer))
        return grow(buffer, used + length);
    memmove(buffer->block->bytes, osb_buffer_bytes(buffer), used);
    buffer->start = 0;
    buffer->end = used;
    return 0;
}

int osb_buffer_append(osb_buffer *buffer, const void *bytes, size_t length)
{
    if (length == 0)
        return 0;
    if (reserve(buffer, length))
        return -1;
    memcpy(buffer->block->bytes + buffer->end, bytes, length);
    buffer->end += length;
    return 0;
}

void osb_buffer_consume(osb_buffer *buffer, size_t length)
{
    buffer->start += length;
    if (buffer->start < buffer->end || is_held(buffer))
        return;
    buffer->start = buffer->end = 0;
    /* One line of 30 MB must not keep 30 MB for the rest of the stream. */
    if (buffer->block && buffer->block->capacity > MAX_EMPTY_CAPACITY)
        osb_buffer_free(buffer);
}
