/* SPDX-License-Identifier: MIT */
#include "runtime/base/error.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char detail[NIO_ERROR_DETAIL_BYTES];

int nio_error(int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(detail, sizeof detail, format, args); /* cut at the buffer's end */
    va_end(args);
    return error;
}

const char *numio_strerror_detail(void)
{
    return detail;
}
