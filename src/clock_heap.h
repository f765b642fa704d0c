/*
 * Clocks in a binary heap, so that the earliest one is found at once. Their owners hold the entries. Setting and removing a clock take a time that grows
 * with the logarithm of their number.
 */
#ifndef OSB_CLOCK_HEAP_H
#define OSB_CLOCK_HEAP_H

#include <stddef.h>

/* A zeroed clock is in no heap. */
typedef struct osb_clock {
    double at;       /* seconds; it belongs to the heap */
    size_t position; /* 1-based, in the heap; 0: in none */
} osb_clock;

typedef struct osb_clock_heap {
    osb_clock **entries;
    size_t count, capacity;
} osb_clock_heap;

/* Makes room for `count` clocks, so that setting one cannot fail. Returns 0, or -1 when memory runs out. */
int osb_clock_heap_reserve(osb_clock_heap *heap, size_t count);
void osb_clock_heap_free(osb_clock_heap *heap);

/* Sets or moves a clock. */
void osb_clock_set(osb_clock_heap *heap, osb_clock *clock, double at);

/* Removes a clock, if it is set. */
void osb_clock_remove(osb_clock_heap *heap, osb_clock *clock);

/* Returns the earliest clock, or NULL when none is set. */
osb_clock *osb_clock_first(const osb_clock_heap *heap);

#endif
