/* SPDX-License-Identifier: MIT */
/* http_range.h: the part of a file that a request of http_server asks for.
 *
 * Nothing here waits, and nothing knows numio.
 */
#ifndef HTTP_RANGE_H
#define HTTP_RANGE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct http_range {
    uint64_t from, end; /* bytes of the file, `end` not among them */
    char status[120];   /* of the answer, with its field "Content-Range"; "": all of the file */
};

/* What follows "bytes=" in the field "Range" of a request; "": there is no such field, or it is for
 * one version of the file only, and files have none here. */
static inline const char *http_range_find(const char *head)
{
    static const char field[] = "\nRange: bytes=";
    const char *found = strcasestr(head, "\nIf-Range:") ? NULL : strcasestr(head, field);
    return found ? found + strlen(field) : "";
}

/* `text` as found: "A-B", "A-", or "-N", the last N bytes, and the end of the line.  Anything else
 * is no range, or several, and gets all of the file. */
static inline void http_range_parse(const char *text, uint64_t size, struct http_range *ret_range)
{
    static const char digits[] = "0123456789";
    const char *dash = text + strspn(text, digits);
    const char *line_end = *dash == '-' ? dash + 1 + strspn(dash + 1, digits) : dash;
    bool has_first = dash > text, has_last = line_end > dash + 1;
    uint64_t first = has_first ? strtoull(text, NULL, 10) : 0;
    uint64_t last = has_last ? strtoull(dash + 1, NULL, 10) : UINT64_MAX;
    *ret_range = (struct http_range){ .end = size };
    if (*dash != '-' || *line_end != '\n' || !(has_first || has_last) || last < first)
        return;
    if (!has_first)
        ret_range->from = last < size ? size - last : 0;
    else
        ret_range->from = first;
    if (has_first && last < size)
        ret_range->end = last + 1;
    if (ret_range->from < ret_range->end) {
        (void)snprintf(ret_range->status, sizeof ret_range->status, /* has room */
                       "206 Partial Content\r\nContent-Range: bytes %llu-%llu/%llu",
                       (unsigned long long)ret_range->from, (unsigned long long)ret_range->end - 1,
                       (unsigned long long)size);
        return;
    }
    ret_range->from = ret_range->end = 0;
    (void)snprintf(ret_range->status, sizeof ret_range->status, /* has room */
                   "416 Range Not Satisfiable\r\nContent-Range: bytes */%llu",
                   (unsigned long long)size);
}

#endif
