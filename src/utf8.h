/* A check of UTF-8 (RFC 3629) piece by piece: a character may be cut anywhere between two pieces. */
#ifndef OSB_UTF8_H
#define OSB_UTF8_H

#include <stddef.h>

/* A zeroed state is that of a text without a byte: there is no init function. */
typedef struct osb_utf8 {
    unsigned char missing; /* bytes that the current character still needs */
    unsigned char lowest;  /* the range of the next of them */
    unsigned char highest;
} osb_utf8;

/* Checks the next bytes of a text. Returns 0, or -1 when a byte cannot follow those before it. */
int osb_utf8_check(osb_utf8 *state, const char *bytes, size_t length);

/* True when the text may end here: its last character is complete. */
static inline int osb_utf8_may_end(const osb_utf8 *state)
{
    return state->missing == 0;
}

/* True when all of the bytes are UTF-8. */
static inline int osb_utf8_is_valid(const char *bytes, size_t length)
{
    osb_utf8 state = { 0, 0, 0 };

    return osb_utf8_check(&state, bytes, length) == 0 && osb_utf8_may_end(&state);
}

#endif
