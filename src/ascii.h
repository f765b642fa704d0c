/* Comparing ASCII text in any case. The C library's functions for that depend on the locale. */
#ifndef OSB_ASCII_H
#define OSB_ASCII_H

#include <stddef.h>

static inline int osb_ascii_lower(int c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

/* Returns 1 when the first `length` bytes of both are the same letters. */
static inline int osb_ascii_equal(const char *a, const char *b, size_t length)
{
    size_t i = 0;

    while (i < length && osb_ascii_lower(a[i]) == osb_ascii_lower(b[i]))
        ++i;
    return i == length;
}

#endif
