#include "frames.h"

#include <string.h>

enum { LONGEST_FIELD_NAME = 8 }; /* "retry: " and its line end, with room */

void osb_frames_init(osb_frames *frames, size_t limit)
{
    memset(frames, 0, sizeof *frames);
    frames->limit = limit;
}

void osb_frames_free(osb_frames *frames)
{
    osb_buffer_free(&frames->input);
    osb_buffer_free(&frames->data);
    osb_buffer_free(&frames->event);
    osb_buffer_free(&frames->id);
}

int osb_frames_feed(osb_frames *frames, const char *bytes, size_t length)
{
    if (!frames->line_waiting && memchr(bytes, '\n', length))
        frames->line_waiting = 1;
    return osb_buffer_append(&frames->input, bytes, length);
}

void osb_frames_end(osb_frames *frames)
{
    frames->ended = 1;
    frames->line_waiting = 1;
}

static osb_frame_status fail(osb_frames *frames, osb_frame_status status)
{
    frames->failure = status;
    return status;
}

/* Skips a UTF-8 byte order mark at the start of the stream. Returns 0 while it cannot be told whether there is one. */
static int skip_byte_order_mark(osb_frames *frames)
{
    static const char mark[] = "\xEF\xBB\xBF";
    size_t size = osb_buffer_size(&frames->input);
    size_t compared = size < 3 ? size : 3;

    if (size == 0)
        return 0;
    if (memcmp(osb_buffer_bytes(&frames->input), mark, compared) == 0) {
        if (compared < 3)
            return frames->ended;
        osb_buffer_consume(&frames->input, 3);
    }
    frames->started = 1;
    return 1;
}

/*
 * Finds the next line. Returns 1 and its length without the line end; `consumed` is the length with it.
 */
static int next_line(osb_frames *frames, size_t *length, size_t *consumed)
{
    const char *bytes = osb_buffer_bytes(&frames->input);
    size_t size = osb_buffer_size(&frames->input);
    const char *newline = size > frames->scanned ? memchr(bytes + frames->scanned, '\n', size - frames->scanned) : NULL;

    if (newline) {
        *length = (size_t)(newline - bytes);
        *consumed = *length + 1;
    } else if (frames->ended && size > 0) {
        *length = *consumed = size;
    } else {
        frames->scanned = size;
        return 0;
    }
    if (*length > 0 && bytes[*length - 1] == '\r')
        --*length;
    return 1;
}

static int is_field(const char *line, size_t length, const char *name, size_t name_length)
{
    return length >= name_length && memcmp(line, name, name_length) == 0
        && (length == name_length || line[name_length] == ':');
}

/* Appends the value of a field line ("name: value") to `field`. */
static int append_value(osb_buffer *field, const char *line, size_t length, size_t name_length)
{
    size_t skipped = name_length;

    if (skipped < length)
        ++skipped; /* the colon */
    if (skipped < length && line[skipped] == ' ')
        ++skipped; /* one space after it is not part of the value */
    return osb_buffer_append(field, line + skipped, length - skipped);
}

static int append_data(osb_frames *frames, const char *line, size_t length)
{
    if (frames->has_data && osb_buffer_append(&frames->data, "\n", 1))
        return -1;
    frames->has_data = 1;
    return append_value(&frames->data, line, length, 4);
}

static int replace_value(osb_buffer *field, const char *line, size_t length, size_t name_length)
{
    osb_buffer_consume(field, osb_buffer_size(field));
    return append_value(field, line, length, name_length);
}

/* A line of a standard event stream. */
static int read_field(osb_frames *frames, const char *line, size_t length)
{
    if (is_field(line, length, "data", 4))
        return append_data(frames, line, length);
    if (is_field(line, length, "event", 5))
        return replace_value(&frames->event, line, length, 5);
    if (is_field(line, length, "id", 2))
        return replace_value(&frames->id, line, length, 2);
    return 0;
}

static void describe(const osb_frames *frames, osb_frame *frame, const char *data, size_t length)
{
    memset(frame, 0, sizeof *frame);
    frame->data = data;
    frame->length = length;
    if (osb_buffer_size(&frames->event) > 0) {
        frame->event = osb_buffer_bytes(&frames->event);
        frame->event_length = osb_buffer_size(&frames->event);
    }
    if (osb_buffer_size(&frames->id) > 0) {
        frame->id = osb_buffer_bytes(&frames->id);
        frame->id_length = osb_buffer_size(&frames->id);
    }
}

static void clear_block(osb_frames *frames)
{
    osb_buffer_consume(&frames->data, osb_buffer_size(&frames->data));
    osb_buffer_consume(&frames->event, osb_buffer_size(&frames->event));
    osb_buffer_consume(&frames->id, osb_buffer_size(&frames->id));
    frames->has_data = 0;
    frames->delivered = 0;
}

/* Hands out the block of `data:` lines. It stays in memory until the next call. */
static osb_frame_status take_block(osb_frames *frames, osb_frame *frame)
{
    size_t length = osb_buffer_size(&frames->data);

    describe(frames, frame, length ? osb_buffer_bytes(&frames->data) : "", length);
    frames->delivered = 1;
    return OSB_FRAME_READY;
}

osb_frame_status osb_frames_next(osb_frames *frames, osb_frame *frame)
{
    size_t length, consumed;

    if (frames->failure)
        return frames->failure;
    if (frames->delivered)
        clear_block(frames);
    if (!frames->started && !skip_byte_order_mark(frames)) {
        frames->line_waiting = 0;
        return OSB_FRAME_NONE;
    }
    while (next_line(frames, &length, &consumed)) {
        /* Passed bytes stay in place until the next feed, so the line can be read, and handed out, after this. */
        const char *line = osb_buffer_bytes(&frames->input);
        frames->input.start += consumed;
        frames->scanned = 0;

        /* As below for a line that is still coming: what is too long must not depend on how it was cut. */
        if (consumed - (line[consumed - 1] == '\n') > frames->limit + LONGEST_FIELD_NAME)
            return fail(frames, OSB_FRAME_TOO_LARGE);
        if (length == 0) {
            if (frames->has_data)
                return take_block(frames, frame);
            clear_block(frames);
        } else if (line[0] == '{') {
            if (length > frames->limit)
                return fail(frames, OSB_FRAME_TOO_LARGE);
            describe(frames, frame, line, length);
            frames->delivered = !frames->has_data;
            return OSB_FRAME_READY;
        } else {
            if (read_field(frames, line, length))
                return fail(frames, OSB_FRAME_NO_MEMORY);
            if (osb_buffer_size(&frames->data) > frames->limit)
                return fail(frames, OSB_FRAME_TOO_LARGE);
        }
    }
    osb_buffer_consume(&frames->input, 0); /* an emptied block goes back to its start */
    if (osb_buffer_size(&frames->input) > frames->limit + LONGEST_FIELD_NAME)
        return fail(frames, OSB_FRAME_TOO_LARGE);
    if (frames->ended && frames->has_data)
        return take_block(frames, frame);
    frames->line_waiting = 0;
    return OSB_FRAME_NONE;
}
