/* SPDX-License-Identifier: MIT */
/* sched/scopes.h: what the loop does for the scopes of a coroutine (scope/scope.c has the design
 * note).  The owner of the coroutine only. */
#ifndef NIO_SCHED_SCOPES_H
#define NIO_SCHED_SCOPES_H

#include "runtime/sched/worker.h"

static inline _Atomic uint32_t *nio_scope_has_failed(const struct numio_scope *scope)
{
    /* The public header is C++ as well and cannot say _Atomic. */
    return (_Atomic uint32_t *)(uintptr_t)&scope->_has_failed;
}

/* Children have failed: aborts the rest of their scopes. */
void nio_scopes_errand(struct nio_co *co);

/* Asks the scope's children to end. */
void nio_scope_abort_children(struct numio_scope *scope, bool only_futures);

#endif
