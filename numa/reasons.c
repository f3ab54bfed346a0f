/* SPDX-License-Identifier: MIT */
#include "numa/reasons.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "runtime/base/mem.h"

int nio_reasons_add(struct nio_reasons *reasons, const char *format, ...)
{
    char text[NIO_REASON_BYTES];
    if (reasons->count == NIO_REASONS_MAX)
        return 0; /* the last sentence already says that some are missing */
    if (reasons->count == NIO_REASONS_MAX - 1) {
        (void)snprintf(text, sizeof text, "further reasons are not shown"); /* fits */
    } else {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args); /* cut at the buffer's end */
        va_end(args);
    }
    char *copy = nio_strdup(text);
    if (!copy)
        return -ENOMEM;
    reasons->sentences[reasons->count++] = copy;
    return 0;
}

const char *nio_reasons_get(const struct nio_reasons *reasons, unsigned index)
{
    return index < reasons->count ? reasons->sentences[index] : NULL;
}

void nio_reasons_fini(struct nio_reasons *reasons)
{
    for (unsigned i = 0; i < reasons->count; i++)
        nio_free(reasons->sentences[i]);
    reasons->count = 0;
}
