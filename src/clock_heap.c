#include "clock_heap.h"

#include "alloc.h"

enum { MIN_CAPACITY = 16 };

int osb_clock_heap_reserve(osb_clock_heap *heap, size_t count)
{
    size_t capacity = heap->capacity ? heap->capacity : MIN_CAPACITY;
    osb_clock **entries;

    if (count <= heap->capacity)
        return 0;
    while (capacity < count)
        capacity *= 2;
    entries = osb_realloc(heap->entries, capacity * sizeof *entries);
    if (!entries)
        return -1;
    heap->entries = entries;
    heap->capacity = capacity;
    return 0;
}

void osb_clock_heap_free(osb_clock_heap *heap)
{
    osb_free(heap->entries);
    heap->entries = NULL;
    heap->count = heap->capacity = 0;
}

/* Positions are 1-based, so that the parent of a position is its half. */
static osb_clock *entry(const osb_clock_heap *heap, size_t position)
{
    return heap->entries[position - 1];
}

static void put(osb_clock_heap *heap, osb_clock *clock, size_t position)
{
    heap->entries[position - 1] = clock;
    clock->position = position;
}

static void sift_up(osb_clock_heap *heap, osb_clock *clock, size_t position)
{
    while (position > 1 && entry(heap, position / 2)->at > clock->at) {
        put(heap, entry(heap, position / 2), position);
        position /= 2;
    }
    put(heap, clock, position);
}

static void sift_down(osb_clock_heap *heap, osb_clock *clock, size_t position)
{
    for (;;) {
        size_t child = position * 2;
        if (child > heap->count)
            break;
        if (child < heap->count && entry(heap, child + 1)->at < entry(heap, child)->at)
            ++child;
        if (entry(heap, child)->at >= clock->at)
            break;
        put(heap, entry(heap, child), position);
        position = child;
    }
    put(heap, clock, position);
}

void osb_clock_set(osb_clock_heap *heap, osb_clock *clock, double at)
{
    int is_earlier = !clock->position || at < clock->at;

    clock->at = at;
    if (!clock->position)
        sift_up(heap, clock, ++heap->count);
    else if (is_earlier)
        sift_up(heap, clock, clock->position);
    else
        sift_down(heap, clock, clock->position);
}

void osb_clock_remove(osb_clock_heap *heap, osb_clock *clock)
{
    size_t position = clock->position;
    osb_clock *last;

    if (!position)
        return;
    clock->position = 0;
    last = entry(heap, heap->count--);
    if (last == clock)
        return;
    if (position > 1 && last->at < entry(heap, position / 2)->at)
        sift_up(heap, last, position);
    else
        sift_down(heap, last, position);
}

osb_clock *osb_clock_first(const osb_clock_heap *heap)
{
    return heap->count ? entry(heap, 1) : NULL;
}
