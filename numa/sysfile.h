/* SPDX-License-Identifier: MIT */
/* numa/sysfile.h: reads what /proc and /sys say, below a root that a test may replace.
 *
 * `root` is put before every path: "" is this machine.  Blocking file reads, any thread, no state.
 */
#ifndef NIO_NUMA_SYSFILE_H
#define NIO_NUMA_SYSFILE_H

#include <stddef.h>

/* Reads a small file into `text`, NUL-terminated, without its last line end.
 * Returns 0; -errno of open or read; -E2BIG when it does not fit. */
int nio_sysfile_read(const char *root, const char *path, char *text, size_t text_bytes);
/* Reads a whole file of unknown length into memory that the caller frees with nio_free().
 * Errors: as above, and -ENOMEM; -E2BIG beyond 4 MiB. */
int nio_sysfile_load(const char *root, const char *path, char **ret_text);
/* Reads one decimal number.  Errors: as nio_sysfile_read(); -EINVAL when it is not one. */
int nio_sysfile_number(const char *root, const char *path, long long *ret_value);

#endif
