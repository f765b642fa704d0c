#include "utf8.h"

#include <stdint.h>
#include <string.h>

/* Begins a character. The range of its second byte excludes overlong forms, surrogates and code points beyond U+10FFFF. */
static int begin_character(osb_utf8 *state, unsigned char lead)
{
    state->lowest = 0x80;
    state->highest = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) {
        state->missing = 1;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        state->missing = 2;
        if (lead == 0xE0)
            state->lowest = 0xA0;
        else if (lead == 0xED)
            state->highest = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        state->missing = 3;
        if (lead == 0xF0)
            state->lowest = 0x90;
        else if (lead == 0xF4)
            state->highest = 0x8F;
    } else {
        return -1;
    }
    return 0;
}

/* Returns the number of ASCII bytes at the front, counted eight at a time, because most text is ASCII. */
static size_t ascii_prefix(const char *bytes, size_t length)
{
    size_t position = 0;

    while (length - position >= sizeof(uint64_t)) {
        uint64_t eight;
        memcpy(&eight, bytes + position, sizeof eight);
        if (eight & 0x8080808080808080u)
            break;
        position += sizeof eight;
    }
    return position;
}

int osb_utf8_check(osb_utf8 *state, const char *bytes, size_t length)
{
    size_t position = 0;

    while (position < length) {
        unsigned char byte = (unsigned char)bytes[position];
        if (state->missing > 0) {
            if (byte < state->lowest || byte > state->highest)
                return -1;
            --state->missing;
            state->lowest = 0x80;
            state->highest = 0xBF;
            ++position;
        } else if (byte < 0x80) {
            size_t skipped = ascii_prefix(bytes + position, length - position);
            position += skipped ? skipped : 1;
        } else {
            if (begin_character(state, byte))
                return -1;
            ++position;
        }
    }
    return 0;
}
