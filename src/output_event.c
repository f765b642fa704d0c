#include "output_event.h"

#include <string.h>

/* Moves `*at` past `expected`, if the text continues with that. */
static int skip(const char **at, const char *end, const char *expected, size_t length)
{
    if ((size_t)(end - *at) < length || memcmp(*at, expected, length) != 0)
        return 0;
    *at += length;
    return 1;
}

#define SKIP(expected) skip(&at, end, expected, sizeof expected - 1)

osb_output osb_output_event(const char *frame, size_t length, const char **text, size_t *text_length)
{
    const char *at = frame, *end = frame + length, *quote;
    osb_output output = OSB_OUTPUT_NONE;

    if (!SKIP("{\"type\":\"std"))
        return OSB_OUTPUT_NONE;
    if (SKIP("out"))
        output = OSB_OUTPUT_STDOUT;
    else if (SKIP("err"))
        output = OSB_OUTPUT_STDERR;
    if (!output || !SKIP("\",\"text\":\""))
        return OSB_OUTPUT_NONE;
    quote = memchr(at, '"', (size_t)(end - at));
    if (!quote || memchr(at, '\\', (size_t)(quote - at)))
        return OSB_OUTPUT_NONE;
    *text = at;
    *text_length = (size_t)(quote - at);
    at = quote + 1;
    if (!SKIP(",\"timestamp\":"))
        return OSB_OUTPUT_NONE;
    while (at < end && *at >= '0' && *at <= '9')
        ++at;
    return end - at == 1 && *at == '}' && at[-1] != ':' ? output : OSB_OUTPUT_NONE;
}
