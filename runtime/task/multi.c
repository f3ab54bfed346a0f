/* SPDX-License-Identifier: MIT */
/* The queue and the signal of requests with many completions: multi.h has the protocol. */
#include "runtime/task/multi.h"

#include <unistd.h>

#include "runtime/base/assert.h"
#include "runtime/task/wake.h"

static void push(struct nio_multi *multi, uint32_t index, int32_t result)
{
    NIO_ASSERT(index < multi->item_count);
    struct nio_multi_item *item = &multi->items[index];
    multi->posted++;
    /* relaxed: ordered by [MU1] */
    atomic_store_explicit(&item->result, result, memory_order_relaxed);
    /* relaxed: only linked to */
    uint32_t head = atomic_load_explicit(&multi->newest, memory_order_relaxed);
    do {
        /* relaxed: as above */
        atomic_store_explicit(&item->next, head, memory_order_relaxed);
        /* [MU1] release: publishes the item.  relaxed on failure: retried. */
    } while (!atomic_compare_exchange_weak_explicit(&multi->newest, &head, index + 1,
                                                    memory_order_release, memory_order_relaxed));
}

static void add(struct nio_multi *multi, int32_t result)
{
    if (result <= 0)
        return;
    /* relaxed in both: ordered by [MU2] */
    if (multi->kind == NIO_MULTI_POLL)
        (void)atomic_fetch_or_explicit(&multi->sum, (uint32_t)result, memory_order_relaxed);
    else
        /* relaxed: as above */
        (void)atomic_fetch_add_explicit(&multi->sum, (uint32_t)result, memory_order_relaxed);
}

struct nio_task *nio_multi_post(struct nio_multi *multi, int32_t result, int32_t buffer,
                                bool is_last)
{
    switch (multi->kind) {
    case NIO_MULTI_ACCEPT:
        if (result >= 0 && (uint32_t)result < multi->item_count)
            push(multi, (uint32_t)result, result);
        else if (result >= 0)
            (void)close(result); /* the limit was raised beyond the table's: numio/stream.h */
        break;
    case NIO_MULTI_RECV:
        if (buffer >= 0)
            push(multi, (uint32_t)buffer, result);
        break;
    case NIO_MULTI_POLL:
    case NIO_MULTI_TICK:
        add(multi, result);
        break;
    }
    if (is_last)
        multi->op._result = result;
    /* [MU2] acq_rel: publishes what was posted; acquire for the waiting task's reference.  Pairs
     * with [MU3] and [MU4]. */
    uintptr_t before = atomic_exchange_explicit(
        &multi->signal, is_last ? NIO_MULTI_ENDED : NIO_MULTI_NEWS, memory_order_acq_rel);
    NIO_DEBUG_ASSERT(before != NIO_MULTI_ENDED);
    return before > NIO_MULTI_ENDED ? (struct nio_task *)before : NULL;
}

bool nio_multi_has_enough(const struct nio_multi *multi)
{
    /* relaxed: what was taken a moment ago is seen the next time */
    return multi->kind == NIO_MULTI_ACCEPT &&
           multi->posted - atomic_load_explicit(&multi->taken, memory_order_relaxed) >=
               NIO_MULTI_PENDING_MAX;
}

void nio_multi_wake(struct nio_task *task)
{
    nio_wake_act(task, nio_state_wake_by_value(task));
}

/* Turns what has come since the last time around, oldest first. */
static void take_all(struct nio_multi *multi)
{
    /* relaxed: what is missed here is told by the signal */
    if (atomic_load_explicit(&multi->newest, memory_order_relaxed) == 0)
        return;
    /* [MU1] acquire: sees the items. */
    uint32_t index = atomic_exchange_explicit(&multi->newest, 0, memory_order_acquire);
    uint32_t oldest = 0;
    while (index) {
        struct nio_multi_item *item = &multi->items[index - 1];
        /* relaxed: seen by [MU1]; the item is the consumer's */
        uint32_t next = atomic_load_explicit(&item->next, memory_order_relaxed);
        /* relaxed: as above */
        atomic_store_explicit(&item->next, oldest, memory_order_relaxed);
        oldest = index;
        index = next;
    }
    multi->oldest = oldest;
}

bool nio_multi_take(struct nio_multi *multi, uint32_t *ret_index, int32_t *ret_result)
{
    if (!multi->oldest)
        take_all(multi);
    if (!multi->oldest)
        return false;
    struct nio_multi_item *item = &multi->items[multi->oldest - 1];
    *ret_index = multi->oldest - 1;
    /* relaxed in both: the consumer's own; whoever else reads it may be late */
    uint32_t taken = atomic_load_explicit(&multi->taken, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(&multi->taken, taken + 1, memory_order_relaxed);
    /* relaxed in both: the item is the consumer's */
    *ret_result = atomic_load_explicit(&item->result, memory_order_relaxed);
    /* relaxed: as above */
    multi->oldest = atomic_load_explicit(&item->next, memory_order_relaxed);
    return true;
}

uint32_t nio_multi_take_sum(struct nio_multi *multi)
{
    /* relaxed: nothing comes with the number; what is missed is told by the signal */
    return atomic_exchange_explicit(&multi->sum, 0, memory_order_relaxed);
}

bool nio_multi_look(struct nio_multi *multi)
{
    uintptr_t expected = NIO_MULTI_NEWS;
    /* [MU3] acq_rel: sees what was posted before [MU2]; release, since the items are looked for
     * after this and not before.  acquire on failure: with ENDED comes everything. */
    (void)atomic_compare_exchange_strong_explicit(&multi->signal, &expected, NIO_MULTI_QUIET,
                                                  memory_order_acq_rel, memory_order_acquire);
    return expected == NIO_MULTI_ENDED;
}

bool nio_multi_wait(struct nio_multi *multi, struct nio_task *task, bool *ret_busy)
{
    uintptr_t expected = NIO_MULTI_QUIET;
    nio_state_ref(task);
    /* [MU4] release: hands the reference over.  Pairs with [MU2].  relaxed on failure: the caller
     * looks again. */
    bool is_left = atomic_compare_exchange_strong_explicit(
        &multi->signal, &expected, (uintptr_t)task, memory_order_release, memory_order_relaxed);
    *ret_busy = expected > NIO_MULTI_ENDED;
    if (!is_left)
        nio_task_unref(task);
    return is_left;
}

void nio_multi_unwait(struct nio_multi *multi, struct nio_task *task)
{
    uintptr_t expected = (uintptr_t)task;
    /* relaxed: if it fails the producer has the reference, and the caller looks again */
    if (atomic_compare_exchange_strong_explicit(&multi->signal, &expected, NIO_MULTI_QUIET,
                                                memory_order_relaxed, memory_order_relaxed))
        nio_task_unref(task);
}

void nio_multi_reset(struct nio_multi *multi)
{
    NIO_DEBUG_ASSERT(!multi->oldest);
    /* relaxed in both: the submission orders them */
    atomic_store_explicit(&multi->newest, 0, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(&multi->signal, NIO_MULTI_QUIET, memory_order_relaxed);
}
