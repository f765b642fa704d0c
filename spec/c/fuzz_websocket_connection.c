/*
 * A WebSocket connection between a model of its owner and a model of its server, in random steps: bytes of the server in random
 * pieces, messages both ways, pings, closes, pauses, a clock that jumps, and memory that runs out now and then.
 *
 * Messages must come out in the order in which they went in, each once and unchanged, those of a channel perhaps joined; the queues
 * must keep their limits; every ping must be answered, but for those that a later one has overtaken. To be run under the sanitizers.
 *
 *     fuzz-websocket-connection [rounds [seed]]
 */
#include "alloc.h"
#include "fuzz.h"
#include "websocket_connection.h"

enum { STEPS = 300, MAX_MESSAGE = 600, HIGH_WATER = 2000, LONGEST_PIECE = 700 };

static int may_fail; /* allocations fail now and then */

static int fails(void)
{
    return may_fail && random_number(100) == 0;
}

static void *failing_malloc(size_t size)
{
    return fails() ? NULL : malloc(size);
}

static void *failing_calloc(size_t count, size_t size)
{
    return fails() ? NULL : calloc(count, size);
}

static void *failing_realloc(void *block, size_t size)
{
    return fails() ? NULL : realloc(block, size);
}

static const osb_allocator failing = { failing_malloc, failing_calloc, failing_realloc, free };

#define CHECK(condition, text)                                          \
    do {                                                                \
        if (!(condition)) {                                             \
            fprintf(stderr, "%s (line %d)\n", text, __LINE__);          \
            abort();                                                    \
        }                                                               \
    } while (0)

/* A round: the connection, the server's frames on their way to it, and what must come out at either end. */
typedef struct round {
    osb_websocket websocket;
    osb_buffer wire;         /* bytes of the server that have not been passed on yet */
    osb_ws_reader server;    /* what the server reads */
    unsigned sent, received; /* messages of the owner: accepted, and read by the server */
    unsigned written, taken; /* messages of the server: written, and taken by the owner */
    unsigned pings, answered; /* pings of the server, and the last one that was answered */
    int server_closed;       /* the server has written its close frame */
    int closed;              /* the server has read one */
    int code;                /* that the owner has sent; 0: none */
    int cut;                 /* memory ran out: the transport would end the connection */
    double now;
} round_state;

/*
 * The message with a number: its length and its bytes follow from it, so that neither end has to remember it. Several in a row begin with
 * the same byte.
 */
static size_t message(unsigned number, char *bytes)
{
    size_t length = 5 + number * 37 % (MAX_MESSAGE - 5), i;

    bytes[0] = (char)(number / 5 % 4);
    memcpy(bytes + 1, &number, 4);
    for (i = 5; i < length; ++i)
        bytes[i] = (char)(number + i);
    return length;
}

static void check_message(unsigned number, const char *bytes, size_t length)
{
    char expected[MAX_MESSAGE];

    CHECK(length == message(number, expected) && memcmp(bytes, expected, length) == 0, "a message was lost, doubled or altered");
}

/* Checks one or, on a channel, several messages that were joined. Returns their number. */
static unsigned check_messages(unsigned number, const char *bytes, size_t length)
{
    char expected[MAX_MESSAGE];
    size_t size = message(number, expected);
    unsigned count = 1;

    CHECK(length >= size && memcmp(bytes, expected, size) == 0, "a message was lost, doubled or altered");
    while (size < length) {
        size_t more = message(number + count, expected);
        CHECK(bytes[0] == 1 || bytes[0] == 2, "messages were joined that are not of a channel");
        CHECK(expected[0] == bytes[0], "messages of two channels were joined");
        CHECK(length - size >= more - 1 && memcmp(bytes + size, expected + 1, more - 1) == 0, "a message was joined wrongly");
        size += more - 1;
        ++count;
    }
    return count;
}

/* The server's own memory never runs out. */
static void write_wire(round_state *state, osb_ws_type type, const char *bytes, size_t length)
{
    int failing_before = may_fail;

    may_fail = 0;
    if (osb_ws_write(&state->wire, type, bytes, length, NULL))
        abort();
    may_fail = failing_before;
}

/* A message of the server's, now and then in fragments with a ping between them. */
static void serve_message(round_state *state)
{
    char bytes[MAX_MESSAGE];
    size_t length = message(state->written, bytes), first = length / 2, start;

    if (state->server_closed)
        return;
    ++state->written;
    if (random_number(3)) {
        write_wire(state, OSB_WS_BINARY, bytes, length);
        return;
    }
    start = osb_buffer_size(&state->wire);
    write_wire(state, OSB_WS_BINARY, bytes, first);
    osb_buffer_writable(&state->wire)[start] &= 0x7F; /* it is not the final fragment */
    if (random_number(2)) {
        ++state->pings;
        write_wire(state, OSB_WS_PING, (const char *)&state->pings, sizeof state->pings);
    }
    start = osb_buffer_size(&state->wire);
    write_wire(state, OSB_WS_BINARY, bytes + first, length - first);
    osb_buffer_writable(&state->wire)[start] &= 0xF0; /* a continuation */
}

static void serve_ping(round_state *state)
{
    if (state->server_closed)
        return;
    ++state->pings;
    write_wire(state, OSB_WS_PING, (const char *)&state->pings, sizeof state->pings);
}

static void serve_close(round_state *state)
{
    int failing_before = may_fail;

    if (state->server_closed)
        return;
    state->server_closed = 1;
    may_fail = 0;
    if (osb_ws_write_close(&state->wire, 4000, "bye", 3, NULL))
        abort();
    may_fail = failing_before;
}

/* Passes some bytes of the server on, as a transport does. */
static void receive(round_state *state)
{
    size_t length = random_number(LONGEST_PIECE) + 1, queued = osb_buffer_size(&state->websocket.received);
    osb_websocket_result result;

    if (state->websocket.receive_paused) {
        if (!osb_websocket_can_receive(&state->websocket))
            return;
        state->websocket.receive_paused = 0;
    }
    if (length > osb_buffer_size(&state->wire))
        length = osb_buffer_size(&state->wire);
    if (length == 0)
        return;
    result = osb_websocket_receive(&state->websocket, osb_buffer_bytes(&state->wire), length, state->now);
    if (result == OSB_WEBSOCKET_NO_MEMORY) {
        CHECK(may_fail, "memory ran out by itself");
        state->cut = 1;
        return;
    }
    CHECK((result == OSB_WEBSOCKET_FULL) == (queued >= HIGH_WATER), "receiving did not pause at the mark");
    if (result != OSB_WEBSOCKET_FULL)
        osb_buffer_consume(&state->wire, length);
    /* A piece adds its own bytes, a small record before each message, and the end of a message that began earlier. */
    CHECK(osb_buffer_size(&state->websocket.received) <= HIGH_WATER + MAX_MESSAGE + LONGEST_PIECE * 10,
          "the queue grew beyond its limit");
}

/* Takes bytes for the server, and lets it read them. */
static void take(round_state *state)
{
    char bytes[LONGEST_PIECE];
    osb_ws_message frame;
    osb_ws_status status;
    int news, failing_before = may_fail;
    size_t length = osb_websocket_take(&state->websocket, bytes, 1 + random_number(LONGEST_PIECE), &news);

    may_fail = 0;
    if (osb_ws_reader_feed(&state->server, bytes, length))
        abort();
    while ((status = osb_ws_reader_next(&state->server, &frame)) == OSB_WS_READY) {
        unsigned number;
        switch (frame.type) {
        case OSB_WS_BINARY:
            check_message(state->received++, frame.data, frame.length);
            break;
        case OSB_WS_PONG:
            if (frame.length == 0)
                break; /* one that nobody asked for */
            memcpy(&number, frame.data, sizeof number);
            CHECK(number > state->answered && number <= state->pings, "a ping was answered twice or out of order");
            state->answered = number;
            break;
        case OSB_WS_CLOSE:
            state->closed = 1;
            CHECK(frame.code == (state->code ? state->code : 4000), "another close code was sent");
            break;
        default:
            break;
        }
    }
    CHECK(status == OSB_WS_NONE, "the frames that were sent violate the protocol");
    may_fail = failing_before;
}

static void send(round_state *state)
{
    char bytes[MAX_MESSAGE];
    size_t length = message(state->sent, bytes), queued = osb_buffer_size(&state->websocket.output);
    int closing = state->websocket.close_sent;
    osb_websocket_result result = osb_websocket_send(&state->websocket, OSB_WS_BINARY, bytes, length);

    if (result == OSB_WEBSOCKET_OK)
        ++state->sent;
    CHECK(result != OSB_WEBSOCKET_NO_MEMORY || may_fail, "memory ran out by itself");
    CHECK((result == OSB_WEBSOCKET_CLOSING) == closing, "sending and closing disagree");
    CHECK(closing || (result == OSB_WEBSOCKET_FULL) == (queued >= HIGH_WATER), "the queue did not keep its limit");
}

static void own_close(round_state *state)
{
    if (osb_websocket_close(&state->websocket, 1001, "enough", 6, state->now) == OSB_WEBSOCKET_OK)
        state->code = 1001;
}

static void take_message(round_state *state)
{
    osb_ws_message next, again;

    if (!osb_websocket_next(&state->websocket, &next))
        return;
    if (!state->cut && random_number(4) == 0) { /* more arrives while it is taken */
        again = next;
        receive(state);
        CHECK(osb_websocket_next(&state->websocket, &next) && next.length == again.length, "a message grew while it was taken");
    }
    state->taken += check_messages(state->taken, next.data, next.length);
    osb_websocket_remove(&state->websocket);
}

static void tick(round_state *state)
{
    double clock = osb_websocket_clock(&state->websocket);

    state->now += random_number(4) ? random_number(20) : 0.3;
    osb_websocket_tick(&state->websocket, state->now);
    clock = osb_websocket_clock(&state->websocket);
    CHECK(clock < 0 || clock > state->now || state->websocket.answer_by >= 0, "a clock that is over stays set");
}

static void open_connection(round_state *state)
{
    static const osb_websocket_options options = { MAX_MESSAGE, HIGH_WATER, HIGH_WATER, 40, 20, 5, "\1\2", 2 };
    char accept[OSB_WS_ACCEPT_LENGTH + 1], head[300];

    memset(state, 0, sizeof *state);
    state->now = 1000;
    osb_ws_reader_init(&state->server, MAX_MESSAGE, 1);
    if (osb_websocket_init(&state->websocket, &options))
        abort();
    osb_ws_accept(state->websocket.key, accept);
    snprintf(head, sizeof head,
             "HTTP/1.1 101 x\r\nupgrade: WebSocket\r\nCONNECTION: keep-alive,Upgrade\r\nSec-WebSocket-Accept:\t%s \r\n\r\n", accept);
    CHECK(osb_websocket_open(&state->websocket, head, strlen(head), state->now) == NULL, "the handshake failed");
}

/* Lets all that is under way arrive, and checks that it did. */
static void finish(round_state *state)
{
    int i, over = 0;

    may_fail = 0;
    serve_close(state);
    for (i = 0; i < 10000 && !state->cut && !over; ++i) {
        over = osb_buffer_size(&state->wire) == 0 && osb_websocket_is_over(&state->websocket);
        receive(state);
        take(state);
        take_message(state);
    }
    while (osb_buffer_size(&state->websocket.received) > 0)
        take_message(state);
    if (state->cut)
        return;
    CHECK(osb_websocket_is_over(&state->websocket), "the closing handshake did not end");
    CHECK(state->closed && state->websocket.close_code == 4000, "a close frame was lost");
    CHECK(state->taken == state->written, "a message of the server was lost");
    CHECK(state->received == state->sent, "a message of the owner was lost");
}

static void run(unsigned long *messages)
{
    round_state state;
    int i;

    may_fail = 0;
    open_connection(&state);
    may_fail = random_number(3) == 0;
    for (i = 0; i < STEPS && !state.cut; ++i) {
        switch (random_number(16)) {
        case 0: case 1: case 2: serve_message(&state); break;
        case 3: serve_ping(&state); break;
        case 4: case 5: case 6: receive(&state); break;
        case 7: case 8: case 9: take(&state); break;
        case 10: case 11: send(&state); break;
        case 12: case 13: take_message(&state); break;
        case 14: tick(&state); break;
        default:
            if (random_number(100) == 0)
                own_close(&state);
            else if (random_number(100) == 0)
                serve_close(&state);
        }
    }
    finish(&state);
    *messages += state.taken + state.received;
    osb_websocket_free(&state.websocket);
    osb_ws_reader_free(&state.server);
    osb_buffer_free(&state.wire);
}

int main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 5000;
    unsigned long seed = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    unsigned long messages = 0, i;

    osb_set_allocator(&failing);
    for (i = 0; i < rounds; ++i) {
        random_seed(seed + i);
        run(&messages);
    }
    printf("%lu rounds (%lu messages)\n", rounds, messages);
    return 0;
}
