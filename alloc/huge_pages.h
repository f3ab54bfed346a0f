/* SPDX-License-Identifier: MIT */
/* alloc/huge_pages.h: whether the kernel grants huge pages to those who ask for them.  Any thread;
 * reads a file of /sys. */
#ifndef NIO_ALLOC_HUGE_PAGES_H
#define NIO_ALLOC_HUGE_PAGES_H

/* NULL, or why memory that asks (MADV_HUGEPAGE) gets none.  `root`: as in numa/sysfile.h. */
const char *nio_huge_pages_objection(const char *root);

#endif
