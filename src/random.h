/* Random bytes from the system, good enough for keys. */
#ifndef OSB_RANDOM_H
#define OSB_RANDOM_H

#include <stddef.h>

/* Fills `bytes` with at most 256 random bytes. Returns 0, or -1 with errno. */
int osb_random(void *bytes, size_t length);

#endif
