#include "response.h"

#include <string.h>

#include "ascii.h"

/* Limits for all heads and trailers of a response. Newer versions of libcurl have the same. */
enum {
    MAX_HEAD_SIZE = 300 * 1024, /* bytes */
    MAX_HEAD_LINES = 5000
};

int osb_response_init(osb_response *response, size_t high_water, size_t max_event, const char *sink_path, int sink_mode)
{
    memset(response, 0, sizeof *response);
    response->high_water = high_water;
    osb_event_stream_init(&response->events, max_event);
    return osb_sink_init(&response->sink, sink_path, sink_mode);
}

void osb_response_free(osb_response *response)
{
    osb_event_stream_free(&response->events);
    osb_buffer_free(&response->head);
    osb_sink_free(&response->sink);
}

/* The status in a status line, "HTTP/1.1 200 OK", or 0. */
static long status_of(const char *head, size_t size)
{
    const char *space = memchr(head, ' ', size);
    long status = 0;
    size_t i;

    if (!space || size - (size_t)(space - head) < sizeof " 200")
        return 0;
    for (i = 1; i <= 3; ++i) {
        if (space[i] < '0' || space[i] > '9')
            return 0;
        status = status * 10 + (space[i] - '0');
    }
    return status;
}

static osb_received refuse(osb_response *response, const char *problem)
{
    response->problem = problem;
    return OSB_RECEIVE_REFUSED;
}

/* Moves `*at` past a text in any case, if that is next. */
static int skip(const char **at, const char *end, const char *text)
{
    size_t length = strlen(text);

    if ((size_t)(end - *at) < length || !osb_ascii_equal(*at, text, length))
        return 0;
    *at += length;
    return 1;
}

/* Returns 1 when the head has a Content-Encoding other than "identity". */
static int is_encoded(const osb_response *response)
{
    const char *at = osb_buffer_bytes(&response->head), *end = at + osb_buffer_size(&response->head);

    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *next = newline ? newline + 1 : end;
        if (skip(&at, next, "content-encoding:")) {
            while (skip(&at, next, " ") || skip(&at, next, "\t"))
                ;
            if (at < next && *at != '\r' && *at != '\n' && !skip(&at, next, "identity"))
                return 1;
        }
        at = next;
    }
    return 0;
}

static osb_received complete_head(osb_response *response)
{
    long status = status_of(osb_buffer_bytes(&response->head), osb_buffer_size(&response->head));

    if (status == 101 && !response->may_switch)
        return refuse(response, "the server switched protocols, which was not asked for");
    if (status < 200 && status != 101)
        return OSB_RECEIVED; /* an interim response: another head follows */
    response->status = status;
    response->encoded = is_encoded(response);
    if (response->sink.path && status >= 200 && status < 300 && osb_sink_open(&response->sink))
        return OSB_RECEIVE_SINK_FAILED;
    return OSB_RECEIVED_HEAD;
}

osb_received osb_response_header(osb_response *response, const char *line, size_t length)
{
    response->head_size += length;
    if (response->head_size > MAX_HEAD_SIZE || ++response->head_lines > MAX_HEAD_LINES)
        return refuse(response, "the head or the trailers of the response are too long");
    if (response->status) /* trailers of a chunked body */
        return OSB_RECEIVED;
    if (length >= 5 && memcmp(line, "HTTP/", 5) == 0)
        osb_buffer_clear(&response->head); /* it may hold an interim response */
    if (osb_buffer_append(&response->head, line, length))
        return OSB_RECEIVE_NO_MEMORY;
    return line[0] == '\r' || line[0] == '\n' ? complete_head(response) : OSB_RECEIVED;
}

/*
 * Returns 1 when the queue holds at least `mark` bytes. An event that is longer than the mark must still arrive: where events are
 * read, only a queue counts that holds a whole line, or the beginning of a line that is too long for any event.
 */
static int is_full(const osb_response *response, size_t mark)
{
    return osb_buffer_size(&response->events.input) >= mark
        && (response->events.limit == 0 || osb_event_stream_is_decodable(&response->events));
}

osb_received osb_response_body(osb_response *response, const char *bytes, size_t length)
{
    if (!response->status)
        return refuse(response, "a body came before the head was complete");
    if (response->discarded)
        return OSB_RECEIVED;
    if (response->encoded && response->status < 300)
        return refuse(response, "the body is compressed, although no compression was asked for");
    if (response->encoded) /* the status describes the failure; an error about the unreadable body would hide it */
        return OSB_RECEIVED;
    if (response->sink.fd >= 0) {
        if (osb_sink_write(&response->sink, bytes, length))
            return OSB_RECEIVE_SINK_FAILED;
    } else if (is_full(response, response->high_water)) {
        response->paused = 1;
        return OSB_RECEIVE_PAUSED;
    } else if (osb_event_stream_feed(&response->events, bytes, length)) {
        return OSB_RECEIVE_NO_MEMORY;
    }
    response->received += (int64_t)length;
    return OSB_RECEIVED;
}

int osb_response_end(osb_response *response)
{
    osb_event_stream_end(&response->events);
    return osb_sink_close(&response->sink);
}

void osb_response_discard(osb_response *response)
{
    response->discarded = 1;
    osb_event_stream_free(&response->events);
}

int osb_response_can_resume(const osb_response *response)
{
    return response->paused && (response->discarded || !is_full(response, (response->high_water + 1) / 2));
}
