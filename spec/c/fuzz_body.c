/*
 * The body of a request: parts from memory, files and readers, read in pieces of random length while the readers supply bytes, and
 * rewound now and then. What comes out must be what the parts make, and nothing else.
 *
 * An input is a list of choices: one byte for each, and the content of parts.
 */
#include "body.h"
#include "fuzz.h"

#include <fcntl.h>
#include <unistd.h>

enum { MAX_PARTS = 4, MAX_CONTENT = 600, MAX_BODY = 16384 };

typedef struct content {
    char bytes[MAX_CONTENT];
    size_t size;
    size_t supplied; /* of a reader */
    int has_ended;
    int lies;        /* a reader that supplies less or more than its size */
} content;

static const unsigned char *input;
static size_t input_left;

static unsigned choose(unsigned below)
{
    if (input_left == 0)
        return 0;
    --input_left;
    return *input++ % below;
}

static void fail(const char *text)
{
    fprintf(stderr, "%s\n", text);
    abort();
}

static void take_content(content *one)
{
    one->size = choose(256) * choose(4);
    if (one->size > MAX_CONTENT)
        one->size = MAX_CONTENT;
    if (one->size > input_left)
        one->size = input_left;
    memcpy(one->bytes, input, one->size);
    input += one->size;
    input_left -= one->size;
    one->supplied = 0;
    one->has_ended = 0;
    one->lies = 0;
}

/* The path of a file with this content. */
static const char *write_file(const content *one, int index)
{
    static char paths[MAX_PARTS][64];
    int fd;

    snprintf(paths[index], sizeof paths[index], "/tmp/opensandbox-fuzz-%ld-%d", (long)getpid(), index);
    fd = open(paths[index], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, one->bytes, one->size) != (ssize_t)one->size || close(fd))
        abort();
    return paths[index];
}

/* Supplies some bytes to the reader that asks. */
static void supply(osb_body *body, content *contents)
{
    size_t part = osb_body_next_reader(body);
    content *one;
    size_t size;

    if (part == 0)
        fail("nobody asks for bytes");
    one = &contents[part - 1];
    size = 1 + choose(200);
    if (size > one->size - one->supplied)
        size = one->size - one->supplied;
    if (osb_body_write(body, part + 1, "x", 1) != -2)
        fail("another part took bytes");
    if (size > 0 && osb_body_write(body, part, one->bytes + one->supplied, size))
        fail("bytes were not taken");
    one->supplied += size;
    if (one->supplied == one->size) {
        one->has_ended = 1;
        if (osb_body_write(body, part, NULL, 0))
            fail("the end was not taken");
    }
}

static void append(char *bytes, size_t *length, const char *more, size_t count)
{
    memcpy(bytes + *length, more, count);
    *length += count;
}

static void append_text(char *bytes, size_t *length, const char *text)
{
    append(bytes, length, text, strlen(text));
}

/* Reads a body to its end, or until it fails. Returns its length, or -1. */
static long read_body(osb_body *body, content *contents, char *bytes, int may_rewind)
{
    size_t length = 0;

    for (;;) {
        size_t room = 1 + choose(255);
        char *into = malloc(room);
        long got;
        if (!into)
            abort();
        got = osb_body_read(body, into, room);
        if (got > (long)room || length + room > MAX_BODY)
            fail("more bytes than there is room for");
        if (got > 0)
            append(bytes, &length, into, (size_t)got);
        free(into);
        if (got == 0)
            return (long)length;
        if (got == OSB_BODY_ERROR) {
            if (!body->problem[0])
                fail("nothing says why the body cannot be read");
            return -1;
        }
        if (got == OSB_BODY_AGAIN) {
            if (osb_body_can_resume(body))
                fail("it can go on, and does not");
            supply(body, contents);
            if (!osb_body_can_resume(body))
                fail("it cannot go on");
        } else if (may_rewind && choose(40) == 1 && osb_body_rewind(body) == 0) {
            length = 0;
        }
    }
}

/* A body of bytes. */
static void test_bytes(void)
{
    osb_body body;
    content one;
    char *bytes = malloc(MAX_BODY);
    int may_repeat = (int)choose(2);

    memset(&body, 0, sizeof body);
    take_content(&one);
    if (!bytes || osb_body_set(&body, one.bytes, one.size, may_repeat))
        abort();
    if (body.size != (int64_t)one.size || read_body(&body, NULL, bytes, 1) != (long)one.size || memcmp(bytes, one.bytes, one.size) != 0)
        fail("the bytes are others");
    if ((osb_body_rewind(&body) == 0) != may_repeat)
        fail("it was rewound against the rule, or not");
    osb_body_free(&body);
    free(bytes);
}

static void test_parts(void)
{
    osb_body body;
    osb_part parts[MAX_PARTS];
    content *contents = calloc(MAX_PARTS, sizeof *contents);
    size_t count = 1 + choose(MAX_PARTS), i, expected_length = 0;
    char *expected = malloc(MAX_BODY), *bytes = malloc(MAX_BODY);
    int has_reader = 0, lies = 0;
    long length;

    if (!contents || !expected || !bytes)
        abort();
    memset(&body, 0, sizeof body);
    memset(parts, 0, sizeof parts);
    for (i = 0; i < count; ++i) {
        osb_part *part = &parts[i];
        take_content(&contents[i]);
        part->kind = (osb_part_kind)choose(3);
        part->name = "name";
        part->filename = "file name";
        part->type = choose(2) ? "text/plain" : NULL;
        part->size = (int64_t)contents[i].size;
        if (part->kind == OSB_PART_MEMORY)
            part->data = contents[i].bytes;
        else if (part->kind == OSB_PART_FILE)
            part->path = write_file(&contents[i], (int)i);
        else if (choose(3) == 0)
            part->size = -1;
        else if (choose(8) == 7)
            part->size += (int64_t)choose(3) - 1;
        if (part->kind == OSB_PART_READER) {
            has_reader = 1;
            lies = lies || (part->size != -1 && part->size != (int64_t)contents[i].size);
        }
        append_text(expected, &expected_length, i == 0 ? "--" : "\r\n--");
        append_text(expected, &expected_length, "boundary\r\nContent-Disposition: form-data; name=\"name\"; filename=\"file name\"\r\n");
        append_text(expected, &expected_length, part->type ? "Content-Type: text/plain\r\n\r\n" : "\r\n");
        append(expected, &expected_length, contents[i].bytes, contents[i].size);
    }
    append_text(expected, &expected_length, "\r\n--boundary--\r\n");
    if (osb_body_set_parts(&body, "boundary", parts, count, 1))
        fail("the body cannot be made");
    length = read_body(&body, contents, bytes, !has_reader);
    if (!lies && (length != (long)expected_length || memcmp(bytes, expected, expected_length) != 0))
        fail("the parts are others");
    if (lies && length >= 0)
        fail("a reader that lies was not noticed");
    if (!lies && body.size >= 0 && body.size != (int64_t)expected_length)
        fail("the size is wrong");
    osb_body_free(&body);
    for (i = 0; i < count; ++i) {
        if (parts[i].path)
            unlink(parts[i].path);
    }
    free(contents);
    free(expected);
    free(bytes);
}

static void test(const unsigned char *bytes, size_t length)
{
    input = bytes;
    input_left = length;
    if (choose(4) == 0)
        test_bytes();
    else
        test_parts();
}

#ifndef OSB_LIBFUZZER

static size_t make(unsigned char *bytes)
{
    size_t length = 1 + random_number(LONGEST_STREAM), i;

    for (i = 0; i < length; ++i)
        bytes[i] = (unsigned char)random_number(256);
    return length;
}

#endif

#include "fuzz_main.h"
