/* SPDX-License-Identifier: MIT */
/* The design note stands in scope/scope.c. */
#include "runtime/sched/scopes.h"

#include "runtime/sched/await.h"

void nio_scope_abort_children(struct numio_scope *scope, bool only_futures)
{
    struct nio_task *next;
    for (struct nio_task *task = scope->_first; task; task = next) {
        next = nio_member_links(task)->next;
        if (!only_futures || task->kind == NIO_TASK_FUTURE)
            nio_wake_act(task, nio_state_cancel(task));
    }
}

void nio_scopes_errand(struct nio_co *co)
{
    nio_state_clear_errand(&co->task);
    for (struct numio_scope *scope = co->task.scopes; scope; scope = scope->_outer) {
        /* relaxed: it came with the wake that brought the errand */
        bool has_failed =
            atomic_load_explicit(nio_scope_has_failed(scope), memory_order_relaxed) != 0;
        if (!has_failed || scope->_is_aborted)
            continue;
        scope->_is_aborted = true;
        nio_scope_abort_children(scope, false);
    }
}
