/* SPDX-License-Identifier: MIT */
#include "runtime/base/assert.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void nio_assert_failed(const char *expression, const char *file, int line,
                                 const char *function)
{
    (void)fprintf(stderr, "numio: assertion failed: %s (%s:%d, %s)\n", expression, file, line,
                  function); /* nothing to do if stderr is gone */
    abort();
}
