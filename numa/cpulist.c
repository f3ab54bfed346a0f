/* SPDX-License-Identifier: MIT */
#include "numa/cpulist.h"

#include <errno.h>
#include <stddef.h>

static const char *skip_blanks(const char *at)
{
    while (*at == ' ' || *at == '\t')
        at++;
    return at;
}

static bool is_end(char c)
{
    return c == '\0' || c == '\n';
}

/* Reads a decimal number below NIO_CPU_LIMIT; NULL when there is none. */
static const char *read_number(const char *at, int *ret_value)
{
    int value = 0;
    if (*at < '0' || *at > '9')
        return NULL;
    while (*at >= '0' && *at <= '9') {
        value = value * 10 + (*at - '0');
        if (value >= NIO_CPU_LIMIT)
            return NULL;
        at++;
    }
    *ret_value = value;
    return at;
}

int nio_cpulist_next(const char **cursor, int *ret_first, int *ret_last)
{
    int first, last;
    const char *at = skip_blanks(*cursor);
    if (is_end(*at))
        return 0;
    at = read_number(at, &first);
    if (!at)
        return -EINVAL;
    last = first;
    at = skip_blanks(at);
    if (*at == '-')
        at = read_number(skip_blanks(at + 1), &last);
    if (!at || last < first)
        return -EINVAL;
    at = skip_blanks(at);
    if (*at == ',') {
        at = skip_blanks(at + 1);
        if (is_end(*at))
            return -EINVAL; /* a comma promises another range */
    } else if (!is_end(*at)) {
        return -EINVAL;
    }
    *cursor = at;
    *ret_first = first;
    *ret_last = last;
    return 1;
}

bool nio_cpulist_is_valid(const char *text)
{
    int first, last, rc, ranges = 0;
    while ((rc = nio_cpulist_next(&text, &first, &last)) > 0) /* bounded by the text */
        ranges = 1;
    return rc == 0 && ranges > 0;
}

bool nio_cpulist_has(const char *text, int cpu)
{
    int first, last;
    while (nio_cpulist_next(&text, &first, &last) > 0) /* bounded by the text */
        if (cpu >= first && cpu <= last)
            return true;
    return false;
}
