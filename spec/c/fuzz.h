/*
 * What the programs that fuzz parsers share: random numbers that can be repeated, results that can be compared, and pieces whose
 * end is guarded.
 */
#ifndef OSB_FUZZ_H
#define OSB_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t random_state;

/* Each stream has a state of its own, so that one that differs can be made again alone. */
static inline void random_seed(unsigned long seed)
{
    random_state = (seed + 1) * 0x9E3779B97F4A7C15u;
}

static inline uint32_t random_number(uint32_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) % below);
}

/* What a parser returned, written one after the other so that equal results are equal bytes. */
typedef struct outcome {
    unsigned char *bytes;
    size_t length, capacity;
    size_t count;
    int status;
} outcome;

static inline void write_bytes(outcome *result, const void *bytes, size_t length)
{
    if (result->capacity - result->length < length) {
        result->capacity = (result->capacity + length) * 2;
        result->bytes = realloc(result->bytes, result->capacity);
        if (!result->bytes)
            abort();
    }
    if (length)
        memcpy(result->bytes + result->length, bytes, length);
    result->length += length;
}

static inline void write_field(outcome *result, const char *bytes, size_t length)
{
    write_bytes(result, &length, sizeof length);
    write_bytes(result, bytes, length);
}

static inline int same(const outcome *a, const outcome *b)
{
    return a->status == b->status && a->count == b->count && a->length == b->length
        && (a->length == 0 || memcmp(a->bytes, b->bytes, a->length) == 0);
}

/*
 * How a stream is cut: pieces of at most `longest` bytes, chosen at random where `at_random`; the parser is asked after every
 * piece, or where `lazy` after some of them.
 */
typedef struct cutting {
    const char *name;
    size_t longest;
    int at_random;
    int lazy;
} cutting;

enum { LONGEST_STREAM = 4096, CUTTINGS = 6 };

static const cutting cuttings[CUTTINGS] = {
    { "whole", LONGEST_STREAM, 0, 0 },
    { "byte by byte", 1, 0, 0 },
    { "byte by byte, parsed now and then", 1, 0, 1 },
    { "in short pieces", 4, 1, 0 },
    { "in long pieces", 64, 1, 0 },
    { "in long pieces, parsed now and then", 64, 1, 1 },
};

static inline size_t next_piece(const cutting *how, size_t left)
{
    size_t piece = how->at_random ? random_number((uint32_t)how->longest + 1) : how->longest;
    return piece < left ? piece : left;
}

/* Copies a piece to the very end of a heap block of LONGEST_STREAM bytes, where reading on is an error. */
static inline char *guarded(char *block, const unsigned char *bytes, size_t length)
{
    return memcpy(block + LONGEST_STREAM - length, bytes, length);
}

static inline void show(const unsigned char *bytes, size_t length)
{
    size_t i;

    for (i = 0; i < length; ++i) {
        if (bytes[i] == '\n')
            fputs("\\n", stderr);
        else if (bytes[i] == '\r')
            fputs("\\r", stderr);
        else if (bytes[i] < 32 || bytes[i] > 126)
            fprintf(stderr, "\\x%02x", (unsigned)bytes[i]);
        else
            fputc(bytes[i], stderr);
    }
    fputc('\n', stderr);
}

#endif
