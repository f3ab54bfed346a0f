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

enum { WOKEN_MAX = 64 };

/* Fills what is asked for: every buffer is free. */
static void fill(struct nio_buf_group *group)
{
    for (uint32_t i = 0; i < group->count; i++)
        nio_buf_give_back(group, i);
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
    fill(group);
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
    struct nio_task *woken[WOKEN_MAX];
    unsigned count = 0;
    NIO_ASSERT(index < group->count);
    nio_lock_acquire(&group->lock);
    if (group->ring) {
        struct io_uring_buf *entry = &group->ring->bufs[group->tail & (group->count - 1)];
        entry->addr = (uintptr_t)nio_buf_of(group, index);
        entry->len = (uint32_t)group->buffer_bytes;
        entry->bid = (uint16_t)index;
        group->tail++;
        /* [BG1] release: the entry is complete.  Pairs with the kernel's acquire of the tail. */
        atomic_store_explicit((_Atomic uint16_t *)&group->ring->tail, group->tail,
                              memory_order_release);
    } else {
        group->free[group->free_count++] = (uint16_t)index;
    }
    group->given++;
    struct nio_buf_waiter *waiter = group->waiters.next;
    for (; waiter != &group->waiters && count < WOKEN_MAX; waiter = waiter->next) {
        if (waiter->task)
            woken[count++] = waiter->task;
        waiter->task = NULL;
    }
    nio_lock_release(&group->lock);
    for (unsigned i = 0; i < count; i++)
        nio_multi_wake(woken[i]);
}

bool nio_buf_take(struct nio_buf_group *group, uint32_t *ret_index)
{
    nio_lock_acquire(&group->lock);
    bool is_taken = group->free_count > 0;
    if (is_taken)
        *ret_index = group->free[--group->free_count];
    nio_lock_release(&group->lock);
    return is_taken;
}

uint64_t nio_buf_given(struct nio_buf_group *group)
{
    nio_lock_acquire(&group->lock);
    uint64_t given = group->given;
    nio_lock_release(&group->lock);
    return given;
}

bool nio_buf_wait(struct nio_buf_group *group, uint64_t given, struct nio_buf_waiter *waiter,
                  struct nio_task *task)
{
    nio_state_ref(task);
    nio_lock_acquire(&group->lock);
    bool is_left = group->given == given;
    if (is_left) {
        waiter->task = task;
        waiter->next = &group->waiters;
        waiter->prev = group->waiters.prev;
        waiter->prev->next = waiter;
        group->waiters.prev = waiter;
    }
    nio_lock_release(&group->lock);
    if (!is_left)
        nio_task_unref(task);
    return is_left;
}

void nio_buf_unwait(struct nio_buf_group *group, struct nio_buf_waiter *waiter)
{
    nio_lock_acquire(&group->lock);
    struct nio_task *task = waiter->task;
    waiter->prev->next = waiter->next;
    waiter->next->prev = waiter->prev;
    nio_lock_release(&group->lock);
    if (task)
        nio_task_unref(task);
}
