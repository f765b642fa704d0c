/*
 * SHA-1 and base64, as the handshake of WebSocket needs them. SHA-1 protects nothing there: it proves that the server speaks
 * WebSocket.
 */
#ifndef OSB_SHA1_H
#define OSB_SHA1_H

#include <stddef.h>

enum { OSB_SHA1_SIZE = 20 };

/* Computes the digest of `length` bytes. */
void osb_sha1(const void *bytes, size_t length, unsigned char digest[OSB_SHA1_SIZE]);

/* The size of the base64 text of `length` bytes, with its final NUL. */
#define OSB_BASE64_SIZE(length) (((length) + 2) / 3 * 4 + 1)

/* Writes the base64 text of `length` bytes into `text`, which has OSB_BASE64_SIZE(length) bytes. */
void osb_base64(const void *bytes, size_t length, char *text);

#endif
