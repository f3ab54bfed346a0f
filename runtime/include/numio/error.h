/* SPDX-License-Identifier: MIT */
/* numio/error.h: the sentence behind an error number.
 *
 * Functions return a negative errno value.  Where that number cannot tell which argument, limit
 * or kernel feature was the reason, the failing call also leaves one sentence in a buffer of the
 * calling thread.  The sentence names what was wrong and what to change.
 */
#ifndef NUMIO_ERROR_H
#define NUMIO_ERROR_H

#include <numio/base.h>

NUMIO_BEGIN_DECLS

/* Returns the calling thread's last error sentence, "" if there was none.
 * Context: any thread; never suspends.
 * Owns:    the string belongs to the thread and is valid until its next failing numio call.
 * Errors:  none. */
NUMIO_EXPORT const char *numio_strerror_detail(void);

NUMIO_END_DECLS

#endif
