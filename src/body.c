#include "large_files.h"

#include "body.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc.h"

enum { READ_AHEAD = 256 * 1024 }; /* bytes of a reader that may be queued */

typedef struct osb_segment {
    osb_part_kind kind;
    size_t part;       /* 1-based index of the part whose content this is; 0: boundaries and headers, or a plain body */
    const char *data;  /* memory; for text of our own NULL until all of it is there */
    const char *label; /* for messages */
    int64_t size;      /* -1: not known */
    int64_t offset;
    int fd;
    osb_buffer queue;
    int ended;
} osb_segment;

static int fail(osb_body *body, const char *what, const char *why)
{
    snprintf(body->problem, sizeof body->problem, "%s: %s", what, why);
    return OSB_BODY_ERROR;
}

static long read_file(osb_body *body, osb_segment *segment, char *into, size_t length)
{
    ssize_t got;

    do
        got = read(segment->fd, into, length);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return fail(body, segment->label, strerror(errno));
    if (got == 0 && segment->size >= 0)
        return fail(body, segment->label, "the file became shorter while it was sent");
    return (long)got;
}

static long read_queue(osb_body *body, osb_segment *segment, char *into, size_t length)
{
    size_t queued = osb_buffer_size(&segment->queue);

    if (queued == 0 && segment->ended)
        return segment->offset >= segment->size ? 0 : fail(body, segment->label, "the reader ended before its size was reached");
    if (queued == 0)
        return OSB_BODY_AGAIN; /* also at its declared size: there must not be more */
    if (segment->size >= 0 && segment->offset + (int64_t)queued > segment->size)
        return fail(body, segment->label, "the reader supplied more bytes than its size");
    if (length > queued)
        length = queued;
    memcpy(into, osb_buffer_bytes(&segment->queue), length);
    osb_buffer_consume(&segment->queue, length);
    return (long)length;
}

/* Reads the next bytes of a segment; returns 0 when it is complete. */
static long read_segment(osb_body *body, osb_segment *segment, char *into, size_t length)
{
    int64_t left = segment->size - segment->offset;

    if (segment->kind == OSB_PART_READER)
        return read_queue(body, segment, into, length);
    if (segment->kind == OSB_PART_FILE && segment->size < 0)
        return read_file(body, segment, into, length); /* to its end, wherever that is */
    if (left == 0)
        return 0;
    if ((int64_t)length > left)
        length = (size_t)left;
    if (segment->kind == OSB_PART_FILE)
        return read_file(body, segment, into, length);
    memcpy(into, segment->data + segment->offset, length);
    return (long)length;
}

/* Fills the room across segments. */
long osb_body_read(osb_body *body, char *into, size_t room)
{
    size_t filled = 0;

    body->begun = 1;
    body->waiting_for_data = 0;
    while (filled < room && body->current < body->count) {
        osb_segment *segment = &body->segments[body->current];
        long got = read_segment(body, segment, into + filled, room - filled);

        if (got == OSB_BODY_ERROR)
            return OSB_BODY_ERROR;
        if (got == OSB_BODY_AGAIN) {
            if (filled > 0)
                break; /* the bytes so far go out first */
            body->waiting_for_data = 1;
            return OSB_BODY_AGAIN;
        }
        if (got == 0) {
            ++body->current;
            continue;
        }
        segment->offset += got;
        filled += (size_t)got;
        if (segment->part > 0)
            body->sent += got;
    }
    return (long)filled;
}

int osb_body_rewind(osb_body *body)
{
    size_t i;

    if (!body->begun)
        return 0;
    if (!body->may_repeat)
        return -1;
    for (i = 0; i < body->count; ++i) {
        osb_segment *segment = &body->segments[i];
        if (segment->offset == 0)
            continue;
        if (segment->kind == OSB_PART_READER || (segment->kind == OSB_PART_FILE && lseek(segment->fd, 0, SEEK_SET) < 0))
            return -1;
        segment->offset = 0;
    }
    body->current = 0;
    body->sent = 0;
    return 0;
}

/* Building. */

/* Adds text to the last segment, or to a new one where that is not text. */
static int add_text(osb_body *body, const char *text, size_t length)
{
    osb_segment *segment = body->count > 0 ? &body->segments[body->count - 1] : NULL;

    if (!segment || segment->part > 0) {
        segment = &body->segments[body->count++];
        memset(segment, 0, sizeof *segment);
        segment->kind = OSB_PART_MEMORY;
        segment->fd = -1;
    }
    segment->size += (int64_t)length;
    return osb_buffer_append(&body->text, text, length);
}

static int add_string(osb_body *body, const char *text)
{
    return add_text(body, text, strlen(text));
}

/* Adds a part's headers. The caller chooses names and types without quotes and line ends. */
static int add_headers(osb_body *body, const char *boundary, const osb_part *part, int first)
{
    return add_string(body, first ? "--" : "\r\n--") || add_string(body, boundary)
        || add_string(body, "\r\nContent-Disposition: form-data; name=\"") || add_string(body, part->name)
        || add_string(body, "\"; filename=\"") || add_string(body, part->filename) || add_string(body, "\"\r\n")
        || (part->type && (add_string(body, "Content-Type: ") || add_string(body, part->type) || add_string(body, "\r\n")))
        || add_string(body, "\r\n");
}

static int open_file(osb_body *body, osb_segment *segment, const char *path)
{
    struct stat info;

    segment->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO without a writer must not block us */
    if (segment->fd < 0 || fstat(segment->fd, &info))
        return fail(body, path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return fail(body, path, S_ISDIR(info.st_mode) ? "is a directory" : "is not a regular file");
    return 0;
}

static int add_content(osb_body *body, const osb_part *part, size_t index)
{
    osb_segment *segment = &body->segments[body->count++];

    memset(segment, 0, sizeof *segment);
    segment->kind = part->kind;
    segment->part = index;
    segment->data = part->data;
    segment->label = part->kind == OSB_PART_FILE ? part->path : part->filename;
    segment->size = part->size;
    segment->fd = -1;
    return part->kind == OSB_PART_FILE ? open_file(body, segment, part->path) : 0;
}

/* The address of the text is known only when all of it has been added. */
static void place_text(osb_body *body)
{
    const char *next = osb_buffer_bytes(&body->text);
    size_t i;

    for (i = 0; i < body->count; ++i) {
        osb_segment *segment = &body->segments[i];
        if (segment->part == 0) {
            segment->data = next;
            next += segment->size;
        }
        if (segment->size < 0)
            body->size = -1;
        else if (body->size >= 0)
            body->size += segment->size;
    }
}

int osb_body_set(osb_body *body, const char *bytes, size_t length, int may_repeat)
{
    body->may_repeat = may_repeat;
    body->segments = osb_calloc(1, sizeof *body->segments);
    if (!body->segments || add_text(body, bytes, length))
        return -1;
    place_text(body);
    return 0;
}

int osb_body_set_parts(osb_body *body, const char *boundary, const osb_part *parts, size_t count, int may_repeat)
{
    size_t i;

    body->may_repeat = may_repeat;
    body->segments = osb_calloc(count * 2 + 1, sizeof *body->segments);
    if (!body->segments)
        return -1;
    for (i = 0; i < count; ++i) {
        if (add_headers(body, boundary, &parts[i], i == 0))
            return -1;
        if (add_content(body, &parts[i], i + 1))
            return -2;
    }
    if (add_string(body, "\r\n--") || add_string(body, boundary) || add_string(body, "--\r\n"))
        return -1;
    place_text(body);
    return 0;
}

void osb_body_free(osb_body *body)
{
    size_t i;

    for (i = 0; i < body->count; ++i) {
        if (body->segments[i].fd >= 0)
            close(body->segments[i].fd);
        osb_buffer_free(&body->segments[i].queue);
    }
    osb_free(body->segments);
    osb_buffer_free(&body->text);
    body->segments = NULL;
    body->count = body->current = 0;
    body->waiting_for_data = 0;
}

/* Readers. */

/* The reader whose turn it is, once reading has reached it. */
static osb_segment *current_reader(const osb_body *body)
{
    osb_segment *segment = body->begun && body->current < body->count ? &body->segments[body->current] : NULL;
    return segment && segment->kind == OSB_PART_READER && !segment->ended ? segment : NULL;
}

size_t osb_body_next_reader(const osb_body *body)
{
    const osb_segment *segment = current_reader(body);
    return segment && osb_buffer_size(&segment->queue) < READ_AHEAD ? segment->part : 0;
}

int osb_body_write(osb_body *body, size_t part, const char *bytes, size_t length)
{
    osb_segment *segment = current_reader(body);

    if (!segment || segment->part != part)
        return -2;
    if (bytes)
        return osb_buffer_append(&segment->queue, bytes, length);
    segment->ended = 1;
    return 0;
}

int osb_body_can_resume(const osb_body *body)
{
    const osb_segment *segment;

    if (!body->waiting_for_data || body->current >= body->count)
        return 0;
    segment = &body->segments[body->current];
    return segment->ended || osb_buffer_size(&segment->queue) > 0;
}
