/* SPDX-License-Identifier: MIT */
#include "alloc/huge_pages.h"

#include <stddef.h>
#include <string.h>

#include "numa/sysfile.h"

enum { TEXT_BYTES = 128 };

const char *nio_huge_pages_objection(const char *root)
{
    char text[TEXT_BYTES];
    if (nio_sysfile_read(root, "/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text) <
        0)
        return "huge_pages has no effect: the kernel was built without transparent huge pages";
    if (strstr(text, "[never]")) /* the choice that holds stands in brackets */
        return "huge_pages has no effect: /sys/kernel/mm/transparent_hugepage/enabled says never; "
               "write madvise there";
    return NULL;
}
