/*
 * The short cut for lines of output: what it takes must be, byte for byte, such an event around the text that it returns; and an event
 * that is made of a text without a quote and a backslash must be taken.
 */
#include "fuzz.h"
#include "output_event.h"

static void fail(const char *text, const unsigned char *bytes, size_t length)
{
    fprintf(stderr, "%s: ", text);
    show(bytes, length);
    abort();
}

/* Writes the event of a text around it. Returns its length. */
static size_t write_event(char *event, const char *name, const unsigned char *text, size_t length, const char *digits, size_t digit_count)
{
    size_t size = (size_t)sprintf(event, "{\"type\":\"%s\",\"text\":\"", name);

    memcpy(event + size, text, length);
    size += length;
    size += (size_t)sprintf(event + size, "\",\"timestamp\":%.*s}", (int)digit_count, digits);
    return size;
}

/* Checks an event that is taken: it must be what its text makes. */
static void check(const unsigned char *bytes, size_t length)
{
    /* At the end of a block, where reading on is an error. */
    char *event = malloc(length), *again = malloc(length + 64);
    const char *text, *digits;
    size_t text_length, digit_count = 0;
    osb_output output;

    if (!event || !again)
        abort();
    memcpy(event, bytes, length);
    output = osb_output_event(event, length, &text, &text_length);
    if (output != OSB_OUTPUT_NONE) {
        if (text < event || text_length > (size_t)(event + length - text))
            fail("the text is elsewhere", bytes, length);
        if (memchr(text, '"', text_length) || memchr(text, '\\', text_length))
            fail("the text is not plain", bytes, length);
        digits = event + length - 1;
        while (digits > event && digits[-1] >= '0' && digits[-1] <= '9') {
            --digits;
            ++digit_count;
        }
        if (digit_count == 0)
            fail("there is no time", bytes, length);
        if (digit_count <= 40
            && (write_event(again, output == OSB_OUTPUT_STDOUT ? "stdout" : "stderr", (const unsigned char *)text, text_length, digits,
                    digit_count) != length || memcmp(again, event, length) != 0))
            fail("the event is another one", bytes, length);
    }
    free(event);
    free(again);
}

/* An event of these bytes as its text. */
static void check_made(const unsigned char *bytes, size_t length)
{
    char *event = malloc(length + 100);
    const char *text;
    size_t size, text_length;
    int is_plain = !memchr(bytes, '"', length) && !memchr(bytes, '\\', length);

    if (!event)
        abort();
    size = write_event(event, length % 2 ? "stdout" : "stderr", bytes, length, "1795469296015", 13);
    if ((osb_output_event(event, size, &text, &text_length) != OSB_OUTPUT_NONE && text_length == length) != is_plain)
        fail("the event of a text is taken, or not, against the rule", bytes, length);
    free(event);
}

static void test(const unsigned char *bytes, size_t length)
{
    check(bytes, length);
    check_made(bytes, length);
}

#ifndef OSB_LIBFUZZER

/* An event with a text of a few bytes, in which a byte or two were changed, removed or doubled. */
static size_t make(unsigned char *bytes)
{
    static const char letters[] = "ab\\\"\n{}:,0 \xc3";
    unsigned char text[16];
    size_t length, count = random_number(sizeof text), i;
    unsigned changes = random_number(3);

    for (i = 0; i < count; ++i)
        text[i] = (unsigned char)letters[random_number(sizeof letters - (random_number(2) ? 1 : 9))];
    length = write_event((char *)bytes, random_number(2) ? "stdout" : "stderr", text, count, "1795469296015", random_number(14));
    while (changes-- > 0 && length > 0) {
        size_t at = random_number((uint32_t)length);
        switch (random_number(4)) {
        case 0:
            bytes[at] = (unsigned char)letters[random_number(sizeof letters)];
            break;
        case 1:
            memmove(bytes + at, bytes + at + 1, --length - at);
            break;
        case 2:
            memmove(bytes + at + 1, bytes + at, length++ - at);
            break;
        default:
            length = at;
        }
    }
    if (length == 0)
        bytes[length++] = '{';
    return length;
}

#endif

#include "fuzz_main.h"
