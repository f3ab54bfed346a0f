/* SPDX-License-Identifier: MIT */
/* The receive buffers of a ring: making them, giving back, taking, waiting. */
#include "runtime/driver/buf_group.h"

#include <errno.h>
#include <liburing.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/task/wake.h"

/* These under the lock. */

static void put_in_ring(struct nio_buf_group *group, uint32_t index)
{
    struct io_uring_buf *entry = &group->ring->bufs[group->tail & (group->count - 1)];
    entry->addr = (uintptr_t)nio_buf_of(group, index);
    entry->len = (uint32_t)group->buffer_bytes;
    entry->bid = (uint16_t)index;
    group->tail++;
    group->given++;
    /* [BG1] release: the entry is complete.  Pairs with the kernel's acquire of the tail. */
    atomic_store_explicit((_Atomic uint16_t *)&group->ring->tail, group->tail,
                          memory_order_release);
}

static uint32_t starved(const struct nio_buf_group *group)
{
    /* relaxed: buf_group.h tells why it may be stale */
    return atomic_load_explicit(&group->starved, memory_order_relaxed);
}

static void put(struct nio_buf_group *group, uint32_t index)
{
    if (group->ring && group->free_count >= starved(group))
        put_in_ring(group, index);
    else
        group->free[group->free_count++] = (uint16_t)index;
}

static void leave(struct nio_buf_waiter *waiter)
{
    waiter->prev->next = waiter->next;
    waiter->next->prev = waiter->prev;
}

/* One of the starved has come, or will not: none is kept for it any more. */
static void end_starving(struct nio_buf_group *group)
{
    if (!group->ring)
        return;
    /* relaxed: as above */
    (void)atomic_fetch_sub_explicit(&group->starved, 1, memory_order_relaxed);
    while (group->free_count > starved(group))
        put_in_ring(group, group->free[--group->free_count]);
}

static int register_ring(struct nio_buf_group *group, struct io_uring *ring, void *entries)
{
    struct io_uring_buf_reg reg = { .ring_addr = (uintptr_t)entries,
                                    .ring_entries = group->count,
                                    .bgid = NIO_BUF_GROUP_ID };
    if (nio_fault_now())
        return -ENOMEM;
    int error = io_uring_register_buf_ring(ring, &reg, 0);
    if (!error)
        group->ring = entries;
    return error;
}

int nio_buf_group_create(struct io_uring *ring, const struct nio_buf_memory *memory,
                         struct nio_buf_group **ret_group)
{
    struct nio_buf_group *group = nio_zalloc(sizeof *group);
    if (!group)
        return -ENOMEM;
    group->memory = memory->buffers;
    group->buffer_bytes = memory->buffer_bytes;
    group->count = memory->count;
    group->waiters.next = group->waiters.prev = &group->waiters;
    nio_lock_init(&group->lock, NIO_RANK_DRIVER);
    group->items = nio_zalloc_array(memory->count, sizeof *group->items);
    group->free = nio_zalloc_array(memory->count, sizeof *group->free);
    int error = group->items && group->free ? 0 : -ENOMEM;
    if (!error && ring) {
        memset(memory->entries, 0, memory->count * sizeof(struct io_uring_buf));
        error = register_ring(group, ring, memory->entries);
        if (error == -EINVAL) /* before Linux 5.19: the group is a stack */
            error = 0;
    }
    if (error) {
        nio_buf_group_destroy(group);
        return error;
    }
    for (uint32_t i = 0; i < group->count; i++)
        put(group, i); /* nobody else has it yet */
    *ret_group = group;
    return 0;
}

void nio_buf_group_destroy(struct nio_buf_group *group)
{
    if (!group)
        return;
    nio_free(group->items);
    nio_free(group->free);
    nio_free(group);
}

size_t nio_buf_entries_bytes(uint32_t count)
{
    return count * sizeof(struct io_uring_buf);
}

void nio_buf_give_back(struct nio_buf_group *group, uint32_t index)
{
    struct nio_task *woken = NULL;
    NIO_ASSERT(index < group->count);
    nio_lock_acquire(&group->lock);
    struct nio_buf_waiter *waiter = group->waiters.next;
    if (waiter == &group->waiters) {
        put(group, index);
    } else {
        leave(waiter);
        waiter->index = index;
        woken = waiter->task;
        waiter->task = NULL;
    }
    nio_lock_release(&group->lock);
    if (woken)
        nio_multi_wake(woken);
}

uint64_t nio_buf_given(struct nio_buf_group *group)
{
    nio_lock_acquire(&group->lock);
    uint64_t given = group->given;
    nio_lock_release(&group->lock);
    return given;
}

void nio_buf_note_starved(struct nio_buf_group *group)
{
    /* relaxed: buf_group.h */
    (void)atomic_fetch_add_explicit(&group->starved, 1, memory_order_relaxed);
}

void nio_buf_give_up(struct nio_buf_group *group)
{
    nio_lock_acquire(&group->lock);
    end_starving(group);
    nio_lock_release(&group->lock);
}

enum nio_buf_claim nio_buf_claim(struct nio_buf_group *group, uint64_t given,
                                 struct nio_buf_waiter *waiter, struct nio_task *task)
{
    enum nio_buf_claim claim = NIO_BUF_AGAIN;
    nio_state_ref(task);
    nio_lock_acquire(&group->lock);
    if (group->free_count > 0) {
        waiter->index = group->free[--group->free_count];
        claim = NIO_BUF_HAVE;
    } else if (group->given == given) {
        waiter->task = task;
        waiter->next = &group->waiters;
        waiter->prev = group->waiters.prev;
        waiter->prev->next = waiter;
        group->waiters.prev = waiter;
        claim = NIO_BUF_WAIT;
    }
    end_starving(group);
    nio_lock_release(&group->lock);
    if (claim != NIO_BUF_WAIT)
        nio_task_unref(task);
    return claim;
}

bool nio_buf_unwait(struct nio_buf_group *group, struct nio_buf_waiter *waiter)
{
    nio_lock_acquire(&group->lock);
    struct nio_task *task = waiter->task;
    if (task)
        leave(waiter);
    nio_lock_release(&group->lock);
    if (task)
        nio_task_unref(task);
    return !task;
}
