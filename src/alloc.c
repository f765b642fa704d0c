#include "alloc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const osb_allocator standard = { malloc, calloc, realloc, free };
static const osb_allocator *current = &standard;

void osb_set_allocator(const osb_allocator *allocator)
{
    current = allocator ? allocator : &standard;
}

/* The C library sets errno; another allocator may not. */
static void *checked(void *block)
{
    if (!block)
        errno = ENOMEM;
    return block;
}

void *osb_malloc(size_t size)
{
    return checked(current->malloc(size));
}

void *osb_calloc(size_t count, size_t size)
{
    return checked(current->calloc(count, size));
}

void *osb_realloc(void *block, size_t size)
{
    return checked(current->realloc(block, size));
}

void osb_free(void *block)
{
    current->free(block);
}

char *osb_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = osb_malloc(size);

    if (copy)
        memcpy(copy, text, size);
    return copy;
}
