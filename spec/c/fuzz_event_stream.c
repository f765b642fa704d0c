/*
 * The event-stream decoder: a stream is decoded whole, byte by byte, and cut at random places, with events taken after every piece or
 * after some. All must result in the same events and in the same end. The first byte of an input chooses the limit.
 */
#include "event_stream.h"
#include "fuzz.h"

enum { MAX_FRAGMENTS = 24 };

/* Takes all complete events. Returns 0 when the decoder has failed; it must stay so. */
static int take(osb_event_stream *stream, outcome *result)
{
    osb_event event;

    for (;;) {
        osb_event again;
        result->status = osb_event_stream_next(stream, &event);
        if (result->status != OSB_EVENT_READY)
            break;
        if (osb_event_stream_next(stream, &again) != OSB_EVENT_READY || again.data != event.data || again.length != event.length) {
            fprintf(stderr, "the next event changed before it was removed\n");
            abort();
        }
        ++result->count;
        write_field(result, event.data, event.length);
        osb_event_stream_remove(stream);
    }
    if ((int)osb_event_stream_next(stream, &event) != result->status) {
        fprintf(stderr, "the decoder changed its state\n");
        abort();
    }
    return result->status == OSB_EVENT_NONE;
}

static outcome decode(const unsigned char *bytes, size_t length, size_t limit, const cutting *how)
{
    outcome result = { NULL, 0, 0, 0, OSB_EVENT_NONE };
    osb_event_stream stream;
    char *block = malloc(LONGEST_STREAM);
    size_t position = 0;
    int going = 1;

    if (!block)
        abort();
    osb_event_stream_init(&stream, limit);
    while (position < length && going) {
        size_t piece = next_piece(how, length - position);
        char *copy = guarded(block, bytes + position, piece);
        if (osb_event_stream_feed(&stream, copy, piece))
            abort();
        memset(copy, '{', piece);
        position += piece;
        if (!how->lazy || random_number(3) == 0)
            going = take(&stream, &result);
    }
    osb_event_stream_end(&stream);
    take(&stream, &result);
    osb_event_stream_free(&stream);
    free(block);
    return result;
}

static size_t limit_of(unsigned char code)
{
    return code < 128 ? (size_t)code + 1 : (size_t)code * 64;
}

static void test(const unsigned char *bytes, size_t length)
{
    size_t limit = limit_of(bytes[0]);
    outcome first = decode(bytes + 1, length - 1, limit, &cuttings[0]);
    int i;

    for (i = 1; i < CUTTINGS; ++i) {
        outcome other = decode(bytes + 1, length - 1, limit, &cuttings[i]);
        if (!same(&first, &other)) {
            fprintf(stderr, "limit %lu, whole: %lu events and status %d; %s: %lu events and status %d\n", (unsigned long)limit,
                (unsigned long)first.count, first.status, cuttings[i].name, (unsigned long)other.count, other.status);
            show(bytes, length);
            abort();
        }
        free(other.bytes);
    }
    free(first.bytes);
}

#ifndef OSB_LIBFUZZER

#define PIECE(text) { text, sizeof text - 1 }

static const struct {
    const char *bytes;
    size_t length;
} fragments[] = {
    PIECE("\n"), PIECE("\n"), PIECE("\n"), PIECE("\r\n"), PIECE("\r"), PIECE("\n\n"), PIECE("\r\n\r\n"), PIECE("\r\r\n"),
    PIECE("{"), PIECE("}"), PIECE("{}"), PIECE("{\"type\":\"ping\"}"), PIECE("{\"a\":1}\n\n"), PIECE("{\"a\":1}\n"), PIECE(" {"),
    PIECE("data:"), PIECE("data: "), PIECE("data"), PIECE("data:  x"), PIECE("data: {\"b\":2}\n\n"), PIECE("data: y\r\n"),
    PIECE("datum: x"), PIECE("Data: x"), PIECE("event:"), PIECE("event: e\n"), PIECE("event"), PIECE("id: 7\n"), PIECE("id:"),
    PIECE("id"), PIECE("retry: 10\n"), PIECE(":"), PIECE(": a comment\n"), PIECE(" "), PIECE("x"), PIECE("\0"), PIECE("\xEF\xBB\xBF"),
    PIECE("\xEF\xBB"), PIECE("\xEF"), PIECE("\xC2\x85"), PIECE("\xE2\x80\xA8"), PIECE("\xFF"), PIECE("[1]"), PIECE("xxxxxxxx"),
};

/* Makes a stream of the pieces that matter to the decoder. Runs of one byte come near the limit, where being one byte off matters. */
static size_t make(unsigned char *bytes)
{
    size_t length = 1, limit;
    unsigned count = random_number(MAX_FRAGMENTS + 1);

    bytes[0] = (unsigned char)(random_number(2) ? random_number(60) : 255);
    limit = limit_of(bytes[0]);
    if (random_number(8) == 0) {
        memcpy(bytes + 1, "\xEF\xBB\xBF", 3);
        length += 1 + random_number(3);
    }
    while (count--) {
        if (random_number(6) == 0) {
            size_t run = limit < 128 && random_number(2) ? limit + random_number(20) - (limit < 10 ? limit : 10)
                                                        : random_number(40);
            if (run > LONGEST_STREAM - length)
                break;
            memset(bytes + length, random_number(2) ? 'x' : '{', run);
            length += run;
        } else {
            unsigned i = random_number(sizeof fragments / sizeof fragments[0]);
            if (fragments[i].length > LONGEST_STREAM - length)
                break;
            memcpy(bytes + length, fragments[i].bytes, fragments[i].length);
            length += fragments[i].length;
        }
    }
    return length;
}

#endif

#include "fuzz_main.h"
