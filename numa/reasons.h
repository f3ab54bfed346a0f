/* SPDX-License-Identifier: MIT */
/* numa/reasons.h: the sentences that say what had to be given up, and why.
 *
 * A topology and a plan each own such a list; `numio info` and the runtime's status print it.
 * Built on one thread at start-up, read-only afterwards.  At most NIO_REASONS_MAX sentences are
 * kept; when there would be more, the last one says that some are missing.  All zeroes is empty.
 */
#ifndef NIO_NUMA_REASONS_H
#define NIO_NUMA_REASONS_H

#include "runtime/base/compiler.h"

enum { NIO_REASONS_MAX = 32, NIO_REASON_BYTES = 512 };

struct nio_reasons {
    char *sentences[NIO_REASONS_MAX];
    unsigned count;
};

/* Appends a sentence; longer than NIO_REASON_BYTES is cut.  Errors: -ENOMEM, nothing is added. */
int nio_reasons_add(struct nio_reasons *reasons, const char *format, ...) NIO_PRINTF(2, 3);
/* The index-th sentence, NULL past the last. */
const char *nio_reasons_get(const struct nio_reasons *reasons, unsigned index);
/* Releases the sentences; the list is empty again. */
void nio_reasons_fini(struct nio_reasons *reasons);

#endif
