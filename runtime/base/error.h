/* SPDX-License-Identifier: MIT */
/* base/error.h: records the sentence that numio_strerror_detail() returns.  Per thread, no lock.
 */
#ifndef NIO_BASE_ERROR_H
#define NIO_BASE_ERROR_H

#include <numio/error.h>

#include "runtime/base/compiler.h"

enum { NIO_ERROR_DETAIL_BYTES = 256 };

/* Records a sentence for the calling thread and returns `error` (a negative errno value), so that
 * a failing path reads `return nio_error(-EINVAL, "workers: ...")`.  Longer text is cut. */
int nio_error(int error, const char *format, ...) NIO_PRINTF(2, 3);

#endif
