/* SPDX-License-Identifier: MIT */
/* tool_sha256.h: SHA-256 (FIPS 180-4), so that what numio moved can be compared with what
 * sha256sum says.  Plain C, about 4 ns per byte.  One hash, one thread.
 */
#ifndef NIO_TOOL_SHA256_H
#define NIO_TOOL_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { TOOL_SHA256_BYTES = 32, TOOL_SHA256_TEXT_BYTES = 65 };

struct tool_sha256 {
    uint32_t state[8];
    uint64_t length; /* bytes hashed so far */
    unsigned char block[64];
};

void tool_sha256_init(struct tool_sha256 *hash);
void tool_sha256_add(struct tool_sha256 *hash, const void *data, size_t len);
/* Writes the hash as lower-case hexadecimal text; the hash is used up. */
void tool_sha256_finish(struct tool_sha256 *hash, char ret_text[TOOL_SHA256_TEXT_BYTES]);

#endif
