/*
 * The seam through which the core allocates all memory of its own, so that a test can let any allocation fail.
 *
 * libcurl has a seam of its own (curl_global_init_mem), and so has Lua (lua_newstate).
 */
#ifndef OSB_ALLOC_H
#define OSB_ALLOC_H

#include <stddef.h>

typedef struct osb_allocator {
    void *(*malloc)(size_t size);
    void *(*calloc)(size_t count, size_t size);
    void *(*realloc)(void *block, size_t size);
    void (*free)(void *block);
} osb_allocator;

/* Replaces the allocator; NULL restores the C library's. Call it before the first allocation: blocks must not change allocators. */
void osb_set_allocator(const osb_allocator *allocator);

/* As those of the C library. Where they return NULL, errno is ENOMEM. No size is 0. */
void *osb_malloc(size_t size);
void *osb_calloc(size_t count, size_t size);
void *osb_realloc(void *block, size_t size);
void osb_free(void *block);

/* Returns a copy of a string, or NULL when memory runs out. */
char *osb_strdup(const char *text);

#endif
