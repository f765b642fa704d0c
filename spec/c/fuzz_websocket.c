/*
 * The WebSocket reader on streams of its own making, and on what the writer makes.
 *
 * Streams of frames, right and wrong ones, are read whole, byte by byte, and cut at random places, at every piece or now and then.
 * All must give the same messages and end in the same way. Messages that the writer has masked must come out of a reader unchanged.
 * To be run under the sanitizers.
 *
 *     fuzz-websocket [streams [seed]]
 *
 * With OSB_LIBFUZZER defined it is a target for libFuzzer instead: -fsanitize=fuzzer,address,undefined.
 */
#include "fuzz.h"
#include "websocket.h"

enum { MOST_FRAMES = 12 };

/* Takes all messages there are. Returns 0 when the reader has failed; it must stay so. */
static int take(osb_ws_reader *reader, outcome *result)
{
    osb_ws_message message;

    for (;;) {
        result->status = osb_ws_reader_next(reader, &message);
        if (result->status != OSB_WS_READY)
            break;
        ++result->count;
        write_bytes(result, &message.type, sizeof message.type);
        write_bytes(result, &message.code, sizeof message.code);
        write_field(result, message.data, message.length);
    }
    if ((int)osb_ws_reader_next(reader, &message) != result->status) {
        fprintf(stderr, "the reader changed its mind\n");
        abort();
    }
    return result->status == OSB_WS_NONE;
}

static outcome parse(const unsigned char *bytes, size_t length, size_t limit, int masked, const cutting *how)
{
    outcome result = { NULL, 0, 0, 0, OSB_WS_NONE };
    osb_ws_reader reader;
    char *block = malloc(LONGEST_STREAM);
    size_t position = 0;
    int going = 1;

    if (!block)
        abort();
    osb_ws_reader_init(&reader, limit, masked);
    while (position < length && going) {
        size_t piece = next_piece(how, length - position);
        char *copy = guarded(block, bytes + position, piece);
        if (osb_ws_reader_feed(&reader, copy, piece))
            abort();
        memset(copy, 0x81, piece); /* the reader must not look at it again */
        position += piece;
        if (!how->lazy || random_number(3) == 0)
            going = take(&reader, &result);
    }
    take(&reader, &result);
    if (result.status > OSB_WS_READY) {
        write_field(&result, reader.problem, strlen(reader.problem));
        if (result.status == OSB_WS_NO_MEMORY)
            abort();
    }
    osb_ws_reader_free(&reader);
    free(block);
    return result;
}

/* Reads a stream in every way. Returns 1, and prints what was different, when two ways disagree; counts the messages. */
static int differs(const unsigned char *bytes, size_t length, size_t limit, int masked, unsigned long *messages)
{
    outcome first = parse(bytes, length, limit, masked, &cuttings[0]);
    int different = 0;
    int i;

    *messages += first.count;
    for (i = 1; i < CUTTINGS && !different; ++i) {
        outcome other = parse(bytes, length, limit, masked, &cuttings[i]);
        if (!same(&first, &other)) {
            different = 1;
            fprintf(stderr, "limit %lu, masked %d, whole: %lu messages and status %d; %s: %lu messages and status %d\n",
                (unsigned long)limit, masked, (unsigned long)first.count, first.status, cuttings[i].name,
                (unsigned long)other.count, other.status);
            show(bytes, length);
        }
        free(other.bytes);
    }
    free(first.bytes);
    return different;
}

#ifdef OSB_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    unsigned long messages = 0;
    size_t limit;

    if (length < 2 || length > LONGEST_STREAM)
        return 0;
    random_seed((unsigned long)length);
    limit = (size_t)(bytes[0] & 127) * (bytes[0] & 1 ? 1 : 64) + 1;
    if (differs(bytes + 1, length - 1, limit, bytes[0] >> 7, &messages))
        abort();
    return 0;
}

#else

static const char *const texts[] = {
    "", "a", "hello", "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "{\"type\":\"connected\"}", "\xEF\xBB\xBF",
    "01234567\xC3\xA4" "89abcdef",
};
static const char *const halves[] = { "\xF0\x9F", "\x98\x80", "\xE2", "\x82\xAC", "\xC3", "\xA4", "\xFF", "\xED\xA0\x80" };

/* Fills a payload: text from the list, or a run of one byte or of any bytes. */
static size_t make_payload(unsigned char *bytes, size_t room, size_t limit)
{
    size_t length = 0, i;
    int any = random_number(4) == 0;

    if (random_number(3)) {
        unsigned count = random_number(4);
        while (count--) {
            const char *text = random_number(12) ? texts[random_number(sizeof texts / sizeof texts[0])]
                                                 : halves[random_number(sizeof halves / sizeof halves[0])];
            size_t size = strlen(text);
            if (size > room - length)
                break;
            memcpy(bytes + length, text, size);
            length += size;
        }
        return length;
    }
    /* Near the limit, and near where the form of the length changes, being one byte off matters. */
    length = random_number(2) ? 120 + random_number(12) : limit < 128 ? limit + random_number(4) : random_number(300);
    if (length > room)
        length = room;
    for (i = 0; i < length; ++i)
        bytes[i] = any ? (unsigned char)random_number(256) : 'x';
    return length;
}

/* Writes a frame as the sender's state allows, and now and then a wrong one. `open`: a message is in fragments. */
static size_t make_frame(unsigned char *bytes, size_t room, size_t limit, int masked, int *open)
{
    static const unsigned char control[] = { 8, 9, 9, 10 };
    unsigned char payload[400];
    size_t length = make_payload(payload, sizeof payload, limit), size = 2, i;
    int final = random_number(3) != 0;
    unsigned char first = (unsigned char)(*open ? 0 : 1 + random_number(2)), mask[4];
    unsigned char marked = masked ? 0x80 : 0;

    if (random_number(4) == 0) {
        first = control[random_number(4)];
        if (length > 125)
            length = random_number(126);
        if (first == 8 && length >= 2) {
            unsigned code = random_number(2) ? 1000 + random_number(20) : random_number(6000);
            payload[0] = (unsigned char)(code >> 8);
            payload[1] = (unsigned char)code;
        }
        final = 1;
    } else {
        *open = !final;
    }
    if (random_number(40) == 0)
        first = (unsigned char)random_number(16);
    if (random_number(60) == 0)
        first |= (unsigned char)(random_number(8) << 4);
    if (random_number(60) == 0)
        marked ^= 0x80;
    if (room < length + 14)
        return 0;
    bytes[0] = (unsigned char)(first | (final ? 0x80 : 0));
    if (length > 125 || random_number(30) == 0) {
        int extended = random_number(3) ? 2 : 8;
        bytes[1] = (unsigned char)(marked | (extended == 2 ? 126 : 127));
        for (i = 0; extended-- > 0; ++i)
            bytes[size++] = (unsigned char)(extended < 2 ? length >> (8 * extended) : 0);
        if (random_number(40) == 0)
            bytes[2] = (unsigned char)random_number(256);
    } else {
        bytes[1] = (unsigned char)(marked | length);
    }
    for (i = 0; i < 4; ++i)
        mask[i] = (unsigned char)random_number(256);
    if (marked) {
        memcpy(bytes + size, mask, 4);
        size += 4;
    }
    for (i = 0; i < length; ++i)
        bytes[size + i] = marked ? payload[i] ^ mask[i & 3] : payload[i];
    return size + length;
}

static size_t make(unsigned char *bytes, size_t limit, int masked)
{
    unsigned count = random_number(MOST_FRAMES + 1);
    size_t length = 0;
    int open = 0;

    while (count--)
        length += make_frame(bytes + length, LONGEST_STREAM - length, limit, masked, &open);
    if (random_number(8) == 0)
        length = random_number((uint32_t)length + 1); /* the connection was cut */
    if (length > 0 && random_number(8) == 0)
        bytes[random_number((uint32_t)length)] = (unsigned char)random_number(256);
    return length;
}

/* Returns 1 when a message does not come back as it was written. */
static int altered(void)
{
    static const osb_ws_type types[] = { OSB_WS_TEXT, OSB_WS_BINARY, OSB_WS_PING, OSB_WS_PONG };
    osb_ws_type type = types[random_number(4)];
    size_t most = type >= OSB_WS_CLOSE ? OSB_WS_MAX_CONTROL : 70000;
    size_t length = random_number(2) ? random_number(140) : random_number(70000);
    unsigned char mask[4];
    char *bytes;
    osb_buffer output = { NULL, 0, 0 };
    osb_ws_message message;
    osb_ws_reader reader;
    int masked = (int)random_number(2), wrong;
    size_t i;

    if (length > most)
        length = most;
    bytes = malloc(length + 1);
    if (!bytes)
        abort();
    for (i = 0; i < length; ++i)
        bytes[i] = (char)random_number(type == OSB_WS_TEXT ? 128 : 256);
    for (i = 0; i < 4; ++i)
        mask[i] = (unsigned char)random_number(256);
    osb_ws_reader_init(&reader, 70000, masked);
    if (osb_ws_write(&output, type, bytes, length, masked ? mask : NULL))
        abort();
    for (i = 0; i < osb_buffer_size(&output);) {
        size_t piece = 1 + random_number(20000);
        if (piece > osb_buffer_size(&output) - i)
            piece = osb_buffer_size(&output) - i;
        if (osb_ws_reader_feed(&reader, osb_buffer_bytes(&output) + i, piece))
            abort();
        i += piece;
        if (i < osb_buffer_size(&output) && osb_ws_reader_next(&reader, &message) != OSB_WS_NONE)
            abort();
    }
    wrong = osb_ws_reader_next(&reader, &message) != OSB_WS_READY || message.type != type || message.length != length
        || (length > 0 && memcmp(message.data, bytes, length) != 0) || osb_ws_reader_next(&reader, &message) != OSB_WS_NONE;
    if (wrong)
        fprintf(stderr, "a message of type %d with %lu bytes came back altered\n", (int)type, (unsigned long)length);
    osb_ws_reader_free(&reader);
    osb_buffer_free(&output);
    free(bytes);
    return wrong;
}

int main(int argc, char **argv)
{
    unsigned long streams = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000;
    unsigned long seed = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    unsigned long differences = 0, messages = 0, i;
    unsigned char bytes[LONGEST_STREAM];

    for (i = 0; i < streams && differences < 10; ++i) {
        size_t limit, length;
        int masked;
        random_seed(seed + i);
        limit = random_number(2) ? 1 + random_number(130) : 1u << 20;
        masked = random_number(3) == 0;
        length = make(bytes, limit, masked);
        if (differs(bytes, length, limit, masked, &messages) || (i % 32 == 0 && altered())) {
            fprintf(stderr, "again with: fuzz-websocket 1 %lu\n", seed + i);
            ++differences;
        }
    }
    printf("%lu streams, %lu differences (%lu messages)\n", i, differences, messages);
    return differences ? 1 : 0;
}

#endif
