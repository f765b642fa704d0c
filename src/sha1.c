#include "sha1.h"

#include <stdint.h>
#include <string.h>

enum { BLOCK = 64 };

static uint32_t rotate(uint32_t value, int bits)
{
    return value << bits | value >> (32 - bits);
}

/* FIPS 180-4, 6.1.2. */
static void add_block(uint32_t state[5], const unsigned char *block)
{
    uint32_t words[80];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    int i;

    for (i = 0; i < 16; ++i)
        words[i] = (uint32_t)block[i * 4] << 24 | (uint32_t)block[i * 4 + 1] << 16 | (uint32_t)block[i * 4 + 2] << 8
            | block[i * 4 + 3];
    for (; i < 80; ++i)
        words[i] = rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    for (i = 0; i < 80; ++i) {
        uint32_t mixed, next;
        if (i < 20)
            mixed = ((b & c) | (~b & d)) + 0x5A827999u;
        else if (i < 40)
            mixed = (b ^ c ^ d) + 0x6ED9EBA1u;
        else if (i < 60)
            mixed = ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDCu;
        else
            mixed = (b ^ c ^ d) + 0xCA62C1D6u;
        next = rotate(a, 5) + mixed + e + words[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

void osb_sha1(const void *bytes, size_t length, unsigned char digest[OSB_SHA1_SIZE])
{
    uint32_t state[5] = { 0x67452301u, 0xEFCDAB89u, 0x98BADCFEu, 0x10325476u, 0xC3D2E1F0u };
    unsigned char last[BLOCK * 2] = { 0 };
    const unsigned char *next = bytes;
    uint64_t bits = (uint64_t)length * 8;
    size_t left = length, padded;
    int i;

    for (; left >= BLOCK; left -= BLOCK, next += BLOCK)
        add_block(state, next);
    /* The end: the bytes that are left, a one bit, zeroes, and the length in bits. */
    if (left)
        memcpy(last, next, left);
    last[left] = 0x80;
    padded = left + 9 <= BLOCK ? BLOCK : BLOCK * 2;
    for (i = 0; i < 8; ++i)
        last[padded - 1 - (size_t)i] = (unsigned char)(bits >> (8 * i));
    add_block(state, last);
    if (padded > BLOCK)
        add_block(state, last + BLOCK);
    for (i = 0; i < OSB_SHA1_SIZE; ++i)
        digest[i] = (unsigned char)(state[i / 4] >> (24 - i % 4 * 8));
}

void osb_base64(const void *bytes, size_t length, char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *next = bytes;
    size_t i;

    for (i = 0; i < length; i += 3) {
        size_t left = length - i;
        uint32_t three = (uint32_t)next[i] << 16 | (left > 1 ? (uint32_t)next[i + 1] << 8 : 0) | (left > 2 ? next[i + 2] : 0u);
        *text++ = digits[three >> 18];
        *text++ = digits[three >> 12 & 63];
        *text++ = left > 1 ? digits[three >> 6 & 63] : '=';
        *text++ = left > 2 ? digits[three & 63] : '=';
    }
    *text = '\0';
}
