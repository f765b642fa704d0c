/*
 * A response, as libcurl would pass it: heads line by line, then the body in pieces of random length, then trailers, while its reader
 * takes what it likes. Nothing may be lost or come twice, and no queue may grow beyond its limit.
 *
 * An input begins with four bytes: the longest event, the high-water mark, the length of pieces, and how the reader behaves.
 */
#include "fuzz.h"
#include "response.h"

typedef struct run {
    osb_response response;
    const unsigned char *bytes; /* that are left of the input */
    size_t left;
    size_t max_event, high_water, max_piece;
    int is_lazy;
    int64_t accepted, read; /* bytes of the body */
    size_t largest;         /* piece */
    int has_failed;         /* the events are too large: nothing more comes out */
} run;

static void fail(const char *text)
{
    fprintf(stderr, "%s\n", text);
    abort();
}

/* Takes bytes or events. */
static void read_some(run *one)
{
    osb_event_stream *events = &one->response.events;
    osb_event event;
    size_t size;

    if (one->max_event == 0) {
        size = osb_buffer_size(&events->input);
        if (size > 0 && one->is_lazy)
            size = 1 + random_number((uint32_t)size);
        osb_event_stream_skip(events, size);
        one->read += (int64_t)size;
        return;
    }
    while (!one->has_failed) {
        osb_event_status status = osb_event_stream_next(events, &event);
        if (status != OSB_EVENT_READY) {
            one->has_failed = status != OSB_EVENT_NONE;
            return;
        }
        if (event.length > one->max_event)
            fail("an event is longer than the limit");
        osb_event_stream_remove(events);
        if (one->is_lazy && random_number(2))
            return;
    }
}

static void check_queue(const run *one)
{
    size_t queued = osb_buffer_size(&one->response.events.input);
    size_t longest = one->max_event > 0 ? one->max_event + 8 : 0; /* line that may still become an event */
    size_t most = (longest > one->high_water ? longest : one->high_water) + one->largest;

    if (queued > most)
        fail("the queue is longer than its limit");
    if (one->max_event == 0 && one->accepted != one->read + (int64_t)queued)
        fail("bytes were lost, or came twice");
    /* The line that made it too large is part of it. */
    if (osb_buffer_size(&one->response.events.block) > one->max_event * (one->has_failed ? 2 : 1) + (one->has_failed ? 8 : 0))
        fail("a block is longer than the limit");
}

/* Passes a line of the input. Returns 0 at the end of a head, or when there is no more. */
static int pass_line(run *one)
{
    const unsigned char *newline = memchr(one->bytes, '\n', one->left);
    size_t length = newline ? (size_t)(newline - one->bytes) + 1 : 0;
    char *line = malloc(length + 1);
    osb_received result;
    int is_last;

    if (!line)
        abort();
    if (length == 0) { /* libcurl passes whole lines only */
        one->left = 0;
        free(line);
        return 0;
    }
    memcpy(line, one->bytes, length);
    is_last = line[0] == '\n' || line[0] == '\r';
    result = osb_response_header(&one->response, line, length);
    if (result == OSB_RECEIVED_HEAD && (one->response.status < 200 || one->response.status > 999))
        fail("a head without a status is complete");
    if (result == OSB_RECEIVE_REFUSED && !one->response.problem)
        fail("nothing says why the response was refused");
    free(line);
    one->bytes += length;
    one->left -= length;
    if (result == OSB_RECEIVE_REFUSED)
        one->left = 0;
    return !is_last && one->left > 0;
}

/* Passes a piece of the body. Returns 0 when the response was refused. */
static int pass_piece(run *one)
{
    size_t length = 1 + random_number((uint32_t)one->max_piece);
    osb_received result;
    char *piece;
    int tries;

    if (length > one->left)
        length = one->left;
    if (length > one->largest)
        one->largest = length;
    piece = malloc(length);
    if (!piece)
        abort();
    memcpy(piece, one->bytes, length);
    for (tries = 0;; ++tries) {
        result = osb_response_body(&one->response, piece, length);
        if (result != OSB_RECEIVE_PAUSED)
            break;
        if (!one->response.paused || osb_response_can_resume(&one->response))
            fail("a full queue is not full");
        if (one->has_failed) /* the reader will not go on either */
            break;
        while (!osb_response_can_resume(&one->response) && !one->has_failed)
            read_some(one);
        one->response.paused = 0;
        if (tries > 100000)
            fail("the queue stays full");
    }
    free(piece);
    if (result != OSB_RECEIVED)
        return 0;
    one->accepted += one->response.encoded ? 0 : (int64_t)length;
    one->bytes += length;
    one->left -= length;
    return 1;
}

static void test(const unsigned char *bytes, size_t length)
{
    run one;

    if (length < 5)
        return;
    memset(&one, 0, sizeof one);
    one.max_event = bytes[0] < 128 ? 0 : (size_t)(bytes[0] - 127) * 8;
    one.high_water = (size_t)bytes[1] * 4 + 1;
    one.max_piece = (size_t)bytes[2] + 1;
    one.is_lazy = bytes[3] & 1;
    one.bytes = bytes + 4;
    one.left = length - 4;
    if (osb_response_init(&one.response, one.high_water, one.max_event, NULL, -1))
        abort();
    while (!one.response.status && one.left > 0)
        pass_line(&one);
    while (one.left > 0 && pass_piece(&one)) {
        check_queue(&one);
        if (!one.is_lazy || random_number(3) == 0)
            read_some(&one);
        check_queue(&one);
        if (bytes[3] & 2 && random_number(30) == 0) { /* a trailer: the rest are no more than headers */
            while (pass_line(&one))
                ;
            break;
        }
    }
    osb_response_end(&one.response);
    if (one.response.received != (one.response.encoded ? 0 : one.accepted))
        fail("the number of received bytes is wrong");
    read_some(&one);
    osb_response_free(&one.response);
}

#ifndef OSB_LIBFUZZER

static size_t make(unsigned char *bytes)
{
    static const char *const parts[] = {
        "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 103 Early Hints\r\n", "HTTP/1.1 101 Switching Protocols\r\n",
        "HTTP/1.1 502 Bad Gateway\r\n", "HTTP/2 204\r\n", "HTTP/1.0 99 x\r\n", "HTTP/1.1\r\n", "HTTP/1.1 2000 x\r\n", "X: y\r\n",
        "Content-Encoding: gzip\r\n", "content-encoding:\tidentity\r\n", "Content-Encoding:\r\n", "CONTENT-ENCODING: \n", "\r\n", "\r\n",
        "\n", "{\"a\":1}\n", "data: x\n", "\n\n", "xxxxxxxxxxxxxxxx", "{", "data:", "\xEF\xBB\xBF"
    };
    size_t length = 4;
    unsigned count = random_number(40);
    int i;

    for (i = 0; i < 4; ++i)
        bytes[i] = (unsigned char)random_number(256);
    while (count-- > 0) {
        const char *part = parts[random_number(sizeof parts / sizeof parts[0])];
        unsigned repeat = random_number(8) == 0 ? random_number(100) : 1;
        while (repeat-- > 0 && length + strlen(part) < LONGEST_STREAM) {
            memcpy(bytes + length, part, strlen(part));
            length += strlen(part);
        }
    }
    return length;
}

#endif

#include "fuzz_main.h"
