/* SPDX-License-Identifier: MIT */
/* base/thread.h: the one way to start a thread of a runtime, of its pool included. */
#ifndef NIO_BASE_THREAD_H
#define NIO_BASE_THREAD_H

#include <pthread.h>

/* As pthread_create().  Signals are for the program's own threads, so this one has all blocked,
 * from its first moment, but those that a thread causes itself, and SIGPROF, by which profilers
 * look at threads.  Any thread; the caller's mask is as before. */
int nio_thread_start(pthread_t *ret_thread, const pthread_attr_t *attr, void *(*fn)(void *arg),
                     void *arg);

#endif
