#include "event_stream.h"

#include <string.h>

enum { FIELD_NAME_MARGIN = 8 }; /* bytes of a line beside its value: "data: " and a carriage return, with room */

void osb_event_stream_init(osb_event_stream *stream, size_t limit)
{
    memset(stream, 0, sizeof *stream);
    stream->limit = limit;
}

void osb_event_stream_free(osb_event_stream *stream)
{
    osb_buffer_free(&stream->input);
    osb_buffer_free(&stream->block);
}

int osb_event_stream_feed(osb_event_stream *stream, const char *bytes, size_t length)
{
    if (!stream->has_line && memchr(bytes, '\n', length))
        stream->has_line = 1;
    return osb_buffer_append(&stream->input, bytes, length);
}

void osb_event_stream_end(osb_event_stream *stream)
{
    stream->ended = 1;
    stream->has_line = 1;
}

static osb_event_status fail(osb_event_stream *stream, osb_event_status status)
{
    stream->failure = status;
    return status;
}

/* Returns 1 for a line, or the beginning of one, that is too long for any event. How the stream was cut makes no difference. */
static int is_too_long(const osb_event_stream *stream, size_t length)
{
    return length > stream->limit + FIELD_NAME_MARGIN;
}

/* Skips a UTF-8 byte order mark at the start of the stream. Returns 0 while more bytes are needed to recognize one. */
static int skip_byte_order_mark(osb_event_stream *stream)
{
    static const char mark[] = "\xEF\xBB\xBF";
    size_t size = osb_buffer_size(&stream->input);
    size_t compared = size < 3 ? size : 3;

    if (size == 0)
        return 0;
    if (memcmp(osb_buffer_bytes(&stream->input), mark, compared) == 0) {
        if (compared < 3)
            return stream->ended;
        osb_buffer_consume(&stream->input, 3);
    }
    stream->started = 1;
    return 1;
}

/* Finds the next line. Returns 1 and its length without the line end; `size` is the length with it. */
static int next_line(osb_event_stream *stream, size_t *length, size_t *size)
{
    const char *bytes = osb_buffer_bytes(&stream->input);
    size_t queued = osb_buffer_size(&stream->input);
    const char *newline = queued > stream->scanned ? memchr(bytes + stream->scanned, '\n', queued - stream->scanned) : NULL;

    if (newline) {
        *length = (size_t)(newline - bytes);
        *size = *length + 1;
    } else if (stream->ended && queued > 0) {
        *length = *size = queued;
    } else {
        stream->scanned = queued;
        return 0;
    }
    if (*length > 0 && bytes[*length - 1] == '\r')
        --*length;
    return 1;
}

static void consume(osb_event_stream *stream, size_t size)
{
    osb_buffer_consume(&stream->input, size);
    stream->scanned = 0;
}

/* Appends the value of a line of a standard event stream, "data: value", to the block. Lines of other fields are ignored. */
static int read_field(osb_event_stream *stream, const char *line, size_t length)
{
    size_t skipped = sizeof "data" - 1;

    if (length < skipped || memcmp(line, "data", skipped) != 0 || (length > skipped && line[skipped] != ':'))
        return 0;
    if (stream->has_block && osb_buffer_append(&stream->block, "\n", 1))
        return -1;
    stream->has_block = 1;
    if (skipped < length)
        ++skipped; /* the colon */
    if (skipped < length && line[skipped] == ' ')
        ++skipped; /* one space after it is not part of the value */
    return osb_buffer_append(&stream->block, line + skipped, length - skipped);
}

/* Parses the next line. Returns OSB_EVENT_NONE when it is not the end of an event. */
static osb_event_status read_line(osb_event_stream *stream, size_t length, size_t size)
{
    const char *line = osb_buffer_bytes(&stream->input);
    osb_event_status status = OSB_EVENT_NONE;

    if (is_too_long(stream, size - (line[size - 1] == '\n')))
        return fail(stream, OSB_EVENT_TOO_LARGE);
    if (length > 0 && line[0] == '{') {
        if (length > stream->limit)
            return fail(stream, OSB_EVENT_TOO_LARGE);
        stream->line_length = length;
        stream->line_size = size;
        return OSB_EVENT_READY;
    }
    if (length == 0 && stream->has_block) {
        stream->block_is_ready = 1;
        status = OSB_EVENT_READY;
    } else if (read_field(stream, line, length)) {
        return fail(stream, OSB_EVENT_NO_MEMORY);
    } else if (osb_buffer_size(&stream->block) > stream->limit) {
        return fail(stream, OSB_EVENT_TOO_LARGE);
    }
    consume(stream, size);
    return status;
}

/* Looks for an event where none is ready. */
static osb_event_status find(osb_event_stream *stream)
{
    size_t length, size;

    if (!stream->started && !skip_byte_order_mark(stream))
        return OSB_EVENT_NONE;
    while (next_line(stream, &length, &size)) {
        osb_event_status status = read_line(stream, length, size);
        if (status)
            return status;
    }
    if (is_too_long(stream, osb_buffer_size(&stream->input)))
        return fail(stream, OSB_EVENT_TOO_LARGE);
    if (!stream->ended || !stream->has_block)
        return OSB_EVENT_NONE;
    stream->block_is_ready = 1;
    return OSB_EVENT_READY;
}

osb_event_status osb_event_stream_next(osb_event_stream *stream, osb_event *event)
{
    osb_event_status status = stream->failure;

    if (!status)
        status = stream->line_size > 0 || stream->block_is_ready ? OSB_EVENT_READY : find(stream);
    if (status == OSB_EVENT_NONE)
        stream->has_line = 0;
    if (status != OSB_EVENT_READY)
        return status;
    event->buffer = stream->line_size > 0 ? &stream->input : &stream->block;
    event->data = osb_buffer_bytes(event->buffer);
    event->length = stream->line_size > 0 ? stream->line_length : osb_buffer_size(&stream->block);
    return OSB_EVENT_READY;
}

void osb_event_stream_remove(osb_event_stream *stream)
{
    ++stream->removals;
    if (stream->line_size > 0) {
        consume(stream, stream->line_size);
        stream->line_size = 0;
        return;
    }
    osb_buffer_clear(&stream->block);
    stream->has_block = stream->block_is_ready = 0;
}

void osb_event_stream_skip(osb_event_stream *stream, size_t length)
{
    ++stream->removals;
    consume(stream, length);
    stream->line_size = 0;
}

int osb_event_stream_is_decodable(const osb_event_stream *stream)
{
    return stream->has_line || is_too_long(stream, osb_buffer_size(&stream->input));
}
