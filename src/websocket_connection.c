#include "websocket_connection.h"

#include <string.h>

#include "ascii.h"
#include "random.h"
#include "sha1.h"

/* A time limit that is checked later than this proves nothing, because no bytes were moved meanwhile. Seconds. */
#define MAX_DELAY 1.0

/* The header of each message in the queue of received messages. */
typedef struct record {
    osb_ws_type type;
    size_t length;
} record;

int osb_websocket_init(osb_websocket *websocket, const osb_websocket_options *options)
{
    unsigned char random[16];

    memset(websocket, 0, sizeof *websocket);
    websocket->options = *options;
    websocket->pong_length = websocket->last_channel = -1;
    websocket->ping_at = websocket->answer_by = -1;
    osb_ws_reader_init(&websocket->reader, options->max_message, 0);
    if (osb_random(random, sizeof random))
        return -1;
    osb_base64(random, sizeof random, websocket->key);
    return 0;
}

void osb_websocket_free(osb_websocket *websocket)
{
    osb_ws_reader_free(&websocket->reader);
    osb_buffer_free(&websocket->received);
    osb_buffer_free(&websocket->output);
}

/* The handshake. */

/* Finds the next value of a header in a head. The search begins at `*position`, which it moves. Returns NULL when it finds none. */
static const char *next_value(const char *head, size_t length, size_t *position, const char *name, size_t *value_length)
{
    size_t name_length = strlen(name);

    while (*position < length) {
        const char *line = head + *position;
        const char *newline = memchr(line, '\n', length - *position);
        size_t size = newline ? (size_t)(newline - line) : length - *position;

        *position += newline ? size + 1 : size;
        if (size > name_length && line[name_length] == ':' && osb_ascii_equal(line, name, name_length)) {
            const char *value = line + name_length + 1;
            const char *end = line + size;
            while (value < end && (*value == ' ' || *value == '\t'))
                ++value;
            while (value < end && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
                --end;
            *value_length = (size_t)(end - value);
            return value;
        }
    }
    return NULL;
}

/* Returns 1 when a header with a list of words holds `word`. */
static int has_word(const char *head, size_t length, const char *name, const char *word)
{
    size_t position = 0, value_length, word_length = strlen(word);
    const char *value;

    while ((value = next_value(head, length, &position, name, &value_length)) != NULL) {
        const char *end = value + value_length;
        while (value < end) {
            const char *comma = memchr(value, ',', (size_t)(end - value));
            const char *last = comma ? comma : end;
            const char *next = comma ? comma + 1 : end;
            while (value < last && (*value == ' ' || *value == '\t'))
                ++value;
            while (value < last && (last[-1] == ' ' || last[-1] == '\t'))
                --last;
            if ((size_t)(last - value) == word_length && osb_ascii_equal(value, word, word_length))
                return 1;
            value = next;
        }
    }
    return 0;
}

static int has_header(const char *head, size_t length, const char *name)
{
    size_t position = 0, value_length;

    return next_value(head, length, &position, name, &value_length) != NULL;
}

const char *osb_websocket_open(osb_websocket *websocket, const char *head, size_t length, double now)
{
    char accept[OSB_WS_ACCEPT_LENGTH + 1];
    size_t position = 0, value_length;
    const char *value;

    if (!has_word(head, length, "Upgrade", "websocket") || !has_word(head, length, "Connection", "upgrade"))
        return "the server switched to another protocol than WebSocket";
    osb_ws_accept(websocket->key, accept);
    value = next_value(head, length, &position, "Sec-WebSocket-Accept", &value_length);
    if (!value || value_length != OSB_WS_ACCEPT_LENGTH || memcmp(value, accept, value_length) != 0
        || next_value(head, length, &position, "Sec-WebSocket-Accept", &value_length)) /* it may not appear twice */
        return "the server's Sec-WebSocket-Accept does not answer our key";
    if (has_header(head, length, "Sec-WebSocket-Extensions") || has_header(head, length, "Sec-WebSocket-Protocol"))
        return "the server chose an extension or a subprotocol, and none was offered";
    websocket->open = 1;
    if (websocket->options.ping_interval > 0)
        websocket->ping_at = now + websocket->options.ping_interval;
    return NULL;
}

/* Sending. */

static int next_mask(unsigned char mask[4])
{
    return osb_random(mask, 4);
}

static int write_frame(osb_websocket *websocket, osb_ws_type type, const char *bytes, size_t length)
{
    unsigned char mask[4];

    return next_mask(mask) || osb_ws_write(&websocket->output, type, bytes, length, mask) ? -1 : 0;
}

static int is_full(const osb_websocket *websocket)
{
    return osb_buffer_size(&websocket->output) >= websocket->options.send_high_water;
}

/*
 * A server that pings without reading must not fill the memory with answers: while the queue is full, only the last one is kept. To
 * answer the last of several pings is enough.
 */
static int answer_ping(osb_websocket *websocket, const osb_ws_message *ping)
{
    websocket->pong_length = -1;
    if (!is_full(websocket))
        return write_frame(websocket, OSB_WS_PONG, ping->data, ping->length);
    memcpy(websocket->pong, ping->data, ping->length);
    websocket->pong_length = (int)ping->length;
    return 0;
}

static int write_kept_pong(osb_websocket *websocket)
{
    int length = websocket->pong_length;

    if (length < 0 || websocket->close_sent || is_full(websocket))
        return 0;
    websocket->pong_length = -1;
    return write_frame(websocket, OSB_WS_PONG, websocket->pong, (size_t)length);
}

static int write_close(osb_websocket *websocket, int code, const char *reason, size_t length, double now)
{
    unsigned char mask[4];

    if (websocket->close_sent)
        return 0;
    if (next_mask(mask) || osb_ws_write_close(&websocket->output, code, reason, length, mask))
        return -1;
    websocket->close_sent = 1;
    websocket->ping_at = -1;
    websocket->answer_by = now + websocket->options.close_timeout;
    return 0;
}

osb_websocket_result osb_websocket_send(osb_websocket *websocket, osb_ws_type type, const char *bytes, size_t length)
{
    if (!websocket->open || websocket->close_sent)
        return OSB_WEBSOCKET_CLOSING;
    if (is_full(websocket)) {
        websocket->refused = 1;
        return OSB_WEBSOCKET_FULL;
    }
    return write_frame(websocket, type, bytes, length) ? OSB_WEBSOCKET_NO_MEMORY : OSB_WEBSOCKET_OK;
}

osb_websocket_result osb_websocket_close(osb_websocket *websocket, int code, const char *reason, size_t length, double now)
{
    if (!websocket->open || websocket->close_sent)
        return OSB_WEBSOCKET_CLOSING;
    return write_close(websocket, code, reason, length, now) ? OSB_WEBSOCKET_NO_MEMORY : OSB_WEBSOCKET_OK;
}

size_t osb_websocket_take(osb_websocket *websocket, char *into, size_t length, int *news)
{
    size_t size;

    *news = 0;
    websocket->send_paused = 0;
    if (write_kept_pong(websocket))
        websocket->pong_length = -1; /* without memory this pong is lost; the server may ping again */
    size = osb_buffer_size(&websocket->output);
    if (!websocket->open || size == 0) {
        websocket->send_paused = 1;
        return 0;
    }
    if (length > size)
        length = size;
    memcpy(into, osb_buffer_bytes(&websocket->output), length);
    osb_buffer_consume(&websocket->output, length);
    if (size == length || (websocket->refused && size - length <= websocket->options.send_high_water / 2)) {
        websocket->refused = 0;
        *news = 1;
    }
    return length;
}

int osb_websocket_can_send(const osb_websocket *websocket)
{
    return websocket->open && websocket->send_paused && osb_buffer_size(&websocket->output) > 0;
}

/* Receiving. */

/* Returns the channel of a message that may be continued, or -1. */
static int channel_of(const osb_websocket *websocket, const osb_ws_message *message)
{
    const osb_websocket_options *options = &websocket->options;

    if (message->type != OSB_WS_BINARY || message->length == 0)
        return -1;
    return memchr(options->channels, message->data[0], options->channel_count) ? (unsigned char)message->data[0] : -1;
}

/* Adds a message to the last one of the queue. */
static int continue_last(osb_websocket *websocket, const osb_ws_message *message)
{
    record head;
    char *last;

    if (osb_buffer_append(&websocket->received, message->data + 1, message->length - 1))
        return -1;
    websocket->last_size += message->length - 1;
    last = websocket->received.block->bytes + websocket->received.end - websocket->last_size;
    memcpy(&head, last, sizeof head);
    head.length += message->length - 1;
    memcpy(last, &head, sizeof head);
    return 0;
}

/* Queues a message for the owner. */
static int queue_message(osb_websocket *websocket, const osb_ws_message *message)
{
    record head = { message->type, message->length };
    int channel = channel_of(websocket, message);

    if (websocket->discarded)
        return 0;
    if (channel >= 0 && channel == websocket->last_channel)
        return continue_last(websocket, message);
    if (osb_buffer_append(&websocket->received, &head, sizeof head))
        return -1;
    if (osb_buffer_append(&websocket->received, message->data, message->length)) {
        websocket->received.end -= sizeof head;
        return -1;
    }
    websocket->last_channel = channel;
    websocket->last_size = sizeof head + message->length;
    return 0;
}

static int take_close(osb_websocket *websocket, const osb_ws_message *message, double now)
{
    websocket->close_code = message->code;
    websocket->close_reason_length = message->length;
    if (message->length > 0)
        memcpy(websocket->close_reason, message->data, message->length);
    return write_close(websocket, message->code, NULL, 0, now);
}

static int take_message(osb_websocket *websocket, const osb_ws_message *message, double now)
{
    switch (message->type) {
    case OSB_WS_CLOSE:
        return take_close(websocket, message, now);
    case OSB_WS_PING:
        return websocket->close_sent ? 0 : answer_ping(websocket, message);
    case OSB_WS_PONG:
        return 0;
    default:
        return queue_message(websocket, message);
    }
}

static osb_websocket_result fail(osb_websocket *websocket, osb_ws_status failure, double now)
{
    const char *problem = websocket->reader.problem;

    websocket->failure = failure;
    if (write_close(websocket, osb_ws_failure_code(failure), problem, strlen(problem), now))
        return OSB_WEBSOCKET_NO_MEMORY;
    return OSB_WEBSOCKET_NEWS;
}

osb_websocket_result osb_websocket_receive(osb_websocket *websocket, const char *bytes, size_t length, double now)
{
    osb_websocket_result result = OSB_WEBSOCKET_OK;
    osb_ws_message message;
    osb_ws_status status;

    if (osb_buffer_size(&websocket->received) >= websocket->options.receive_high_water) {
        websocket->receive_paused = 1;
        return OSB_WEBSOCKET_FULL;
    }
    if (!websocket->close_sent) {
        websocket->answer_by = -1;
        if (websocket->options.ping_interval > 0)
            websocket->ping_at = now + websocket->options.ping_interval;
    }
    if (osb_ws_reader_feed(&websocket->reader, bytes, length))
        return OSB_WEBSOCKET_NO_MEMORY;
    if (websocket->failure)
        return OSB_WEBSOCKET_OK;
    while ((status = osb_ws_reader_next(&websocket->reader, &message)) == OSB_WS_READY) {
        if (take_message(websocket, &message, now))
            return OSB_WEBSOCKET_NO_MEMORY;
        if (message.type != OSB_WS_PING && message.type != OSB_WS_PONG)
            result = OSB_WEBSOCKET_NEWS;
    }
    if (status == OSB_WS_NO_MEMORY)
        return OSB_WEBSOCKET_NO_MEMORY;
    return status == OSB_WS_NONE ? result : fail(websocket, status, now);
}

int osb_websocket_can_receive(const osb_websocket *websocket)
{
    return websocket->receive_paused && osb_buffer_size(&websocket->received) <= websocket->options.receive_high_water / 2;
}

int osb_websocket_next(osb_websocket *websocket, osb_ws_message *message)
{
    record head;

    if (osb_buffer_size(&websocket->received) == 0)
        return 0;
    memcpy(&head, osb_buffer_bytes(&websocket->received), sizeof head);
    message->type = head.type;
    message->data = osb_buffer_bytes(&websocket->received) + sizeof head;
    message->length = head.length;
    message->code = 0;
    if (sizeof head + head.length == osb_buffer_size(&websocket->received))
        websocket->last_channel = -1;
    return 1;
}

void osb_websocket_remove(osb_websocket *websocket)
{
    osb_ws_message message;

    if (!osb_websocket_next(websocket, &message))
        return;
    osb_buffer_consume(&websocket->received, sizeof(record) + message.length);
    ++websocket->removals;
}

void osb_websocket_discard(osb_websocket *websocket)
{
    websocket->discarded = 1;
    osb_buffer_free(&websocket->received);
    ++websocket->removals;
}

/* Ends and clocks. */

int osb_websocket_is_over(const osb_websocket *websocket)
{
    int all_sent = websocket->close_sent && websocket->send_paused && osb_buffer_size(&websocket->output) == 0;

    return all_sent && (websocket->close_code != 0 || websocket->failure != OSB_WS_NONE);
}

/* While receiving is paused the server cannot answer a ping. Its close frame is expected nevertheless. */
static int owes_answer(const osb_websocket *websocket)
{
    return websocket->answer_by >= 0 && (websocket->close_sent || !websocket->receive_paused);
}

double osb_websocket_clock(const osb_websocket *websocket)
{
    double next = websocket->ping_at;

    if (owes_answer(websocket) && (next < 0 || websocket->answer_by < next))
        next = websocket->answer_by;
    return next;
}

/* While receiving is paused, a pong without a ping shows the server that this side is alive. */
static void send_ping(osb_websocket *websocket, double now)
{
    osb_ws_type type = websocket->receive_paused ? OSB_WS_PONG : OSB_WS_PING;

    websocket->ping_at = now + websocket->options.ping_interval;
    if (!is_full(websocket) && write_frame(websocket, type, NULL, 0))
        return; /* without memory the next one may be sent */
    if (type == OSB_WS_PING && websocket->answer_by < 0)
        websocket->answer_by = now + websocket->options.ping_timeout;
}

const char *osb_websocket_tick(osb_websocket *websocket, double now)
{
    int closing = websocket->close_sent;

    if (owes_answer(websocket) && now >= websocket->answer_by) {
        if (now - websocket->answer_by <= MAX_DELAY)
            return closing ? "the server did not answer the close frame" : "the server did not answer a ping";
        websocket->answer_by = now + (closing ? websocket->options.close_timeout : websocket->options.ping_timeout);
    }
    if (websocket->ping_at >= 0 && now >= websocket->ping_at)
        send_ping(websocket, now);
    return NULL;
}
