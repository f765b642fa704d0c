#include "buffer.h"

#include <stdlib.h>
#include <string.h>

enum { SMALLEST_BLOCK = 1024, KEPT_WHEN_EMPTY = 64 * 1024 };

void osb_buffer_free(osb_buffer *buffer)
{
    free(buffer->data);
    memset(buffer, 0, sizeof *buffer);
}

/* Makes room for `length` more bytes behind the end. */
static int reserve(osb_buffer *buffer, size_t length)
{
    size_t used = osb_buffer_size(buffer);
    size_t wanted, capacity;
    char *data;

    if (buffer->capacity - buffer->end >= length)
        return 0;
    if (length > (size_t)-1 / 4 - used)
        return -1;
    wanted = used + length;
    /* Moving at most half a block keeps the cost of a byte constant, however the queue is filled and drained. */
    if (wanted <= buffer->capacity && used <= buffer->capacity / 2) {
        memmove(buffer->data, buffer->data + buffer->start, used);
        buffer->start = 0;
        buffer->end = used;
        return 0;
    }
    capacity = buffer->capacity ? buffer->capacity : SMALLEST_BLOCK;
    while (capacity < wanted)
        capacity *= 2;
    if (capacity == buffer->capacity)
        capacity *= 2;
    data = malloc(capacity);
    if (!data)
        return -1;
    if (used)
        memcpy(data, buffer->data + buffer->start, used);
    free(buffer->data);
    buffer->data = data;
    buffer->start = 0;
    buffer->end = used;
    buffer->capacity = capacity;
    return 0;
}

int osb_buffer_append(osb_buffer *buffer, const void *bytes, size_t length)
{
    if (length == 0)
        return 0;
    if (reserve(buffer, length))
        return -1;
    memcpy(buffer->data + buffer->end, bytes, length);
    buffer->end += length;
    return 0;
}

void osb_buffer_consume(osb_buffer *buffer, size_t length)
{
    buffer->start += length;
    if (buffer->start < buffer->end)
        return;
    buffer->start = buffer->end = 0;
    /* One 30 MB line must not keep 30 MB for the rest of the stream. */
    if (buffer->capacity > KEPT_WHEN_EMPTY * 32) {
        free(buffer->data);
        buffer->data = NULL;
        buffer->capacity = 0;
    }
}
