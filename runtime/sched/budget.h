/* SPDX-License-Identifier: MIT */
/* sched/budget.h: the cooperative budget: how many awaits that are ready at once a task may pass in
 * one poll before others have a turn.
 *
 * A worker fills it before each poll; a joined task that runs inside of its joiner shares the
 * joiner's, so that the loop comes around as often as without such runs.  An await that does not
 * have to wait spends one unit; with the last one spent it lets the others run first.  The idea and
 * the figure are Tokio's (tokio/src/task/coop).  Owner of the worker only.
 */
#ifndef NIO_SCHED_BUDGET_H
#define NIO_SCHED_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

enum { NIO_BUDGET = 128 };

struct nio_budget {
    uint32_t left;
};

static inline void nio_budget_fill(struct nio_budget *budget)
{
    budget->left = NIO_BUDGET;
}

/* True: the next await gives way, also if it is ready. */
static inline bool nio_budget_is_spent(const struct nio_budget *budget)
{
    return budget->left <= 1;
}

static inline void nio_budget_spend(struct nio_budget *budget)
{
    if (budget->left > 0) /* a task that was run inside may have spent the last */
        budget->left--;
}

#endif
