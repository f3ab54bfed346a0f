/* SPDX-License-Identifier: MIT */
/* numa/spec.h: what kind of machine description a text is, and what is wrong with it.
 *
 * hwloc only says that a synthetic description does not parse; these checks run first and name
 * the word, and keep a typing slip in a count from asking for gigabytes.  Pure, any thread.
 */
#ifndef NIO_NUMA_SPEC_H
#define NIO_NUMA_SPEC_H

#include <stdbool.h>

/* True when `spec` names a file: it has a '/' or ends in ".xml". */
bool nio_spec_is_path(const char *spec);
/* Checks a synthetic description.  Errors, with detail: -EINVAL a word that is no object type or
 * has no count; -E2BIG more than NIO_PUS_MAX PUs. */
int nio_spec_check_synthetic(const char *spec);
/* Checks that the file can be read.  Errors, with detail: -errno of open(2); -EINVAL a folder. */
int nio_spec_check_file(const char *path);

#endif
