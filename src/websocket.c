#include "websocket.h"

#include <string.h>

#include "sha1.h"

/* The bits of a frame's first two bytes (RFC 6455, 5.2). */
enum { FINAL = 0x80, RESERVED = 0x70, OPCODE = 0x0F, CONTROL = 0x08, MASKED = 0x80, LENGTH = 0x7F };

/* Values of the length field that mean: the length follows in 2, or in 8 bytes. */
enum { LENGTH_IN_2 = 126, LENGTH_IN_8 = 127, MAX_LENGTH_IN_2 = 0xFFFF };

enum { CONTINUATION = 0, MAX_HEADER = 14 };

void osb_ws_reader_init(osb_ws_reader *reader, size_t limit, int masked)
{
    memset(reader, 0, sizeof *reader);
    reader->limit = limit;
    reader->masked = masked;
}

void osb_ws_reader_free(osb_ws_reader *reader)
{
    osb_buffer_free(&reader->input);
    osb_buffer_free(&reader->joined);
}

int osb_ws_reader_feed(osb_ws_reader *reader, const char *bytes, size_t length)
{
    if (reader->closed || reader->failure)
        return 0;
    return osb_buffer_append(&reader->input, bytes, length);
}

static osb_ws_status fail(osb_ws_reader *reader, osb_ws_status status, const char *problem)
{
    reader->failure = status;
    reader->problem = problem;
    osb_buffer_free(&reader->input);
    osb_buffer_free(&reader->joined);
    return status;
}

static uint64_t big_endian(const unsigned char *bytes, size_t count)
{
    uint64_t value = 0;

    while (count--)
        value = value << 8 | *bytes++;
    return value;
}

/* Applies a mask to payload bytes. `offset`: the number of payload bytes before them. */
static void apply_mask(char *bytes, size_t length, const unsigned char mask[4], size_t offset)
{
    unsigned char pattern[8];
    uint64_t eight, patterns;
    size_t i;

    for (i = 0; i < sizeof pattern; ++i)
        pattern[i] = mask[(offset + i) & 3];
    memcpy(&patterns, pattern, sizeof patterns);
    for (i = 0; length - i >= sizeof eight; i += sizeof eight) {
        memcpy(&eight, bytes + i, sizeof eight);
        eight ^= patterns;
        memcpy(bytes + i, &eight, sizeof eight);
    }
    for (; i < length; ++i)
        bytes[i] = (char)((unsigned char)bytes[i] ^ pattern[i & 7]);
}

/* Reading. */

/* Checks a frame's first byte against the frames before it. Returns a message, or NULL. */
static const char *first_byte_problem(const osb_ws_reader *reader, unsigned char first)
{
    if (first & RESERVED)
        return "a frame has reserved bits set";
    switch (first & OPCODE) {
    case CONTINUATION:
        return reader->type ? NULL : "a continuation frame continues no message";
    case OSB_WS_TEXT:
    case OSB_WS_BINARY:
        return reader->type ? "a message begins before the one before it is complete" : NULL;
    case OSB_WS_CLOSE:
    case OSB_WS_PING:
    case OSB_WS_PONG:
        return first & FINAL ? NULL : "a control frame is in fragments";
    default:
        return "a frame has a reserved opcode";
    }
}

/* Reads as much of the header at the front of the input as was received, so that its first wrong byte already is an error. */
static osb_ws_status read_header(osb_ws_reader *reader)
{
    size_t size = osb_buffer_size(&reader->input);
    const unsigned char *bytes;
    const char *problem;
    size_t extended, header;
    uint64_t length;

    if (size < 1)
        return OSB_WS_NONE;
    bytes = (const unsigned char *)osb_buffer_bytes(&reader->input);
    problem = first_byte_problem(reader, bytes[0]);
    if (problem)
        return fail(reader, OSB_WS_VIOLATION, problem);
    if (size < 2)
        return OSB_WS_NONE;
    if (!(bytes[1] & MASKED) != !reader->masked)
        return fail(reader, OSB_WS_VIOLATION, reader->masked ? "a client's frame is not masked" : "a server's frame is masked");
    length = bytes[1] & LENGTH;
    if (bytes[0] & CONTROL && length > OSB_WS_MAX_CONTROL)
        return fail(reader, OSB_WS_VIOLATION, "a control frame is longer than 125 bytes");
    extended = length == LENGTH_IN_8 ? 8 : length == LENGTH_IN_2 ? 2 : 0;
    if (size < 2 + extended)
        return OSB_WS_NONE;
    if (extended)
        length = big_endian(bytes + 2, extended);
    if (length >> 63)
        return fail(reader, OSB_WS_VIOLATION, "a frame's length has its highest bit set");
    if (!(bytes[0] & CONTROL) && length > reader->limit - osb_buffer_size(&reader->joined))
        return fail(reader, OSB_WS_TOO_LARGE, "a message is longer than the limit");
    header = 2 + extended + (reader->masked ? 4 : 0);
    if (size < header)
        return OSB_WS_NONE;
    if (reader->masked)
        memcpy(reader->mask, bytes + header - 4, 4);
    reader->header = header;
    reader->length = (size_t)length;
    reader->prepared = 0;
    reader->opcode = bytes[0] & OPCODE;
    reader->final = (bytes[0] & FINAL) != 0;
    return OSB_WS_READY;
}

static int is_text(const osb_ws_reader *reader)
{
    return reader->opcode == OSB_WS_TEXT || (reader->opcode == CONTINUATION && reader->type == OSB_WS_TEXT);
}

/* Unmasks and checks the received part of the current frame's payload. Returns OSB_WS_READY when the payload is complete. */
static osb_ws_status prepare_payload(osb_ws_reader *reader)
{
    size_t available = osb_buffer_size(&reader->input) - reader->header;
    char *bytes = osb_buffer_writable(&reader->input) + reader->header;

    if (available > reader->length)
        available = reader->length;
    if (reader->masked)
        apply_mask(bytes + reader->prepared, available - reader->prepared, reader->mask, reader->prepared);
    if (is_text(reader) && osb_utf8_check(&reader->text, bytes + reader->prepared, available - reader->prepared))
        return fail(reader, OSB_WS_NOT_UTF8, "a text is not UTF-8");
    reader->prepared = available;
    return available == reader->length ? OSB_WS_READY : OSB_WS_NONE;
}

/* Removes the current frame from the input. Its payload stays in place until the next feed. */
static const char *take_frame(osb_ws_reader *reader)
{
    const char *payload = osb_buffer_bytes(&reader->input) + reader->header;

    reader->input.start += reader->header + reader->length;
    reader->header = 0;
    return payload;
}

static osb_ws_status take_close(osb_ws_reader *reader, osb_ws_message *message)
{
    message->code = OSB_WS_NO_CODE;
    if (message->length == 1)
        return fail(reader, OSB_WS_VIOLATION, "a close frame holds half a code");
    if (message->length >= 2) {
        message->code = (int)big_endian((const unsigned char *)message->data, 2);
        if (!osb_ws_code_is_valid(message->code))
            return fail(reader, OSB_WS_VIOLATION, "a close frame has a code that may not be sent");
        message->data += 2;
        message->length -= 2;
    }
    if (!osb_utf8_is_valid(message->data, message->length))
        return fail(reader, OSB_WS_NOT_UTF8, "the reason of a close frame is not UTF-8");
    reader->closed = 1;
    return OSB_WS_READY;
}

static osb_ws_status take_control(osb_ws_reader *reader, osb_ws_message *message)
{
    message->type = (osb_ws_type)reader->opcode;
    message->code = 0;
    message->length = reader->length;
    message->data = take_frame(reader);
    return message->type == OSB_WS_CLOSE ? take_close(reader, message) : OSB_WS_READY;
}

/* Takes a frame of data. Returns OSB_WS_READY when it completes a message, and OSB_WS_NONE otherwise. */
static osb_ws_status take_data(osb_ws_reader *reader, osb_ws_message *message)
{
    int whole = reader->opcode != CONTINUATION && reader->final;
    size_t length = reader->length;
    const char *payload = take_frame(reader);

    if (reader->opcode != CONTINUATION)
        reader->type = (osb_ws_type)reader->opcode;
    if (!whole && osb_buffer_append(&reader->joined, payload, length))
        return fail(reader, OSB_WS_NO_MEMORY, "not enough memory");
    if (!reader->final)
        return OSB_WS_NONE;
    if (!osb_utf8_may_end(&reader->text))
        return fail(reader, OSB_WS_NOT_UTF8, "a text ends inside a character");
    message->type = reader->type;
    message->code = 0;
    message->length = whole ? length : osb_buffer_size(&reader->joined);
    message->data = whole ? payload : osb_buffer_bytes(&reader->joined);
    reader->type = 0;
    reader->delivered = 1;
    return OSB_WS_READY;
}

osb_ws_status osb_ws_reader_next(osb_ws_reader *reader, osb_ws_message *message)
{
    osb_ws_status status;

    if (reader->failure)
        return reader->failure;
    if (reader->delivered)
        osb_buffer_clear(&reader->joined);
    reader->delivered = 0;
    while (!reader->closed) {
        status = reader->header ? OSB_WS_READY : read_header(reader);
        if (status == OSB_WS_READY)
            status = prepare_payload(reader);
        if (status == OSB_WS_NONE)
            break;
        if (status == OSB_WS_READY)
            status = reader->opcode & CONTROL ? take_control(reader, message) : take_data(reader, message);
        if (status != OSB_WS_NONE)
            return status;
    }
    if (reader->closed) {
        osb_buffer_free(&reader->input);
        osb_buffer_free(&reader->joined);
    } else {
        osb_buffer_consume(&reader->input, 0); /* an emptied block begins at its start again */
    }
    return OSB_WS_NONE;
}

int osb_ws_failure_code(osb_ws_status failure)
{
    switch (failure) {
    case OSB_WS_NOT_UTF8:
        return 1007;
    case OSB_WS_TOO_LARGE:
        return 1009;
    case OSB_WS_NO_MEMORY:
        return 1011;
    default:
        return 1002;
    }
}

int osb_ws_code_is_valid(int code)
{
    if (code >= 3000)
        return code <= 4999;
    /* 1004 is reserved. 1005, 1006 and 1015 describe a connection's end to its owner and are never sent. */
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014);
}

/* Writing. */

int osb_ws_write(osb_buffer *output, osb_ws_type type, const char *bytes, size_t length, const unsigned char *mask)
{
    unsigned char header[MAX_HEADER];
    size_t size = 2, extended = length > MAX_LENGTH_IN_2 ? 8 : length > OSB_WS_MAX_CONTROL ? 2 : 0;

    header[0] = (unsigned char)(FINAL | (int)type);
    header[1] = (unsigned char)(extended == 8 ? LENGTH_IN_8 : extended == 2 ? LENGTH_IN_2 : (int)length);
    while (extended--)
        header[size++] = (unsigned char)((uint64_t)length >> (8 * extended));
    if (mask) {
        header[1] |= MASKED;
        memcpy(header + size, mask, 4);
        size += 4;
    }
    if (osb_buffer_append(output, header, size))
        return -1;
    if (osb_buffer_append(output, bytes, length)) {
        output->end -= size;
        return -1;
    }
    if (mask && length > 0)
        apply_mask(osb_buffer_writable(output) + osb_buffer_size(output) - length, length, mask, 0);
    return 0;
}

int osb_ws_write_close(osb_buffer *output, int code, const char *reason, size_t length, const unsigned char *mask)
{
    char payload[OSB_WS_MAX_CONTROL];

    if (code == OSB_WS_NO_CODE)
        return osb_ws_write(output, OSB_WS_CLOSE, NULL, 0, mask);
    payload[0] = (char)(code >> 8);
    payload[1] = (char)(code & 0xFF);
    if (length > 0)
        memcpy(payload + 2, reason, length);
    return osb_ws_write(output, OSB_WS_CLOSE, payload, length + 2, mask);
}

void osb_ws_accept(const char key[OSB_WS_KEY_LENGTH], char accept[OSB_WS_ACCEPT_LENGTH + 1])
{
    static const char protocol[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* the RFC's constant */
    char text[OSB_WS_KEY_LENGTH + sizeof protocol];
    unsigned char digest[OSB_SHA1_SIZE];

    memcpy(text, key, OSB_WS_KEY_LENGTH);
    memcpy(text + OSB_WS_KEY_LENGTH, protocol, sizeof protocol);
    osb_sha1(text, sizeof text - 1, digest);
    osb_base64(digest, sizeof digest, accept);
}
