/* SPDX-License-Identifier: MIT */
#include "runtime/base/thread.h"

#include <signal.h>
#include <stddef.h>

#include "runtime/base/compiler.h"

static const int not_blocked[] = { SIGSEGV, SIGBUS,  SIGFPE, SIGILL,
                                   SIGTRAP, SIGABRT, SIGSYS, SIGPROF };

int nio_thread_start(pthread_t *ret_thread, const pthread_attr_t *attr, void *(*fn)(void *arg),
                     void *arg)
{
    sigset_t blocked, before;
    (void)sigfillset(&blocked); /* cannot fail, like all below that is not looked at */
    for (size_t i = 0; i < NIO_ARRAY_LEN(not_blocked); i++)
        (void)sigdelset(&blocked, not_blocked[i]);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int rc = pthread_create(ret_thread, attr, fn, arg);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}
