/* SPDX-License-Identifier: MIT */
/* The design note stands in owned.h. */
#include "runtime/sched/owned.h"

#include "runtime/task/wake.h"

int nio_stripe_init(struct nio_stripe *stripe, struct nio_node_arena *arena, unsigned number)
{
    /* The stripe's number in the upper bits makes ids unique without a common counter. */
    stripe->next_id = (uint64_t)number << 48 | 1;
    stripe->is_closed = false;
    return nio_slab_init(&stripe->slab, arena);
}

static void cancel_cell(void *cell, void *arg)
{
    (void)arg;
    nio_wake_act(cell, nio_state_cancel_owned(cell));
}

void nio_stripe_close(struct nio_stripe *stripe)
{
    stripe->is_closed = true;
    nio_slab_for_each_live(&stripe->slab, cancel_cell, NULL);
}

struct visit {
    void (*fn)(struct nio_task *task, void *arg);
    void *arg;
};

static void visit_cell(void *cell, void *arg)
{
    const struct visit *visit = arg;
    uint64_t state = nio_state_load(cell);
    /* 0: freed by another worker since the walk looked. */
    if (state != 0 && !(state & NIO_STATE_COMPLETE))
        visit->fn(cell, visit->arg);
}

void nio_stripe_for_each(struct nio_stripe *stripe, void (*fn)(struct nio_task *task, void *arg),
                         void *arg)
{
    struct visit visit = { fn, arg };
    nio_slab_for_each_live(&stripe->slab, visit_cell, &visit);
}
