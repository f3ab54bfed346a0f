/* SPDX-License-Identifier: MIT */
/* Whether the kernel did with the SQ threads what was asked: one per node, on the planned CPU or
 * within the node's, in the ordinary scheduling class.  What differs becomes a reason in the
 * status; the runtime works all the same.  Start-up only. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>

#include "runtime/lifecycle.h"

/* True if the thread may run on the planned CPUs only. */
static bool is_placed(int tid, const struct nio_plan_node *plan)
{
    cpu_set_t allowed, planned;
    CPU_ZERO(&planned);
    if (plan->sq_bind_cpu >= 0 && plan->sq_bind_cpu < CPU_SETSIZE)
        CPU_SET(plan->sq_bind_cpu, &planned);
    for (unsigned i = 0; plan->sq_bind_cpu < 0 && i < plan->bind_cpu_count; i++)
        if (plan->bind_cpus[i] < CPU_SETSIZE)
            CPU_SET(plan->bind_cpus[i], &planned);
    if (sched_getaffinity(tid, sizeof allowed, &allowed) != 0)
        return false;
    CPU_AND(&planned, &planned, &allowed);
    return CPU_EQUAL(&planned, &allowed);
}

static void check_node(struct numio_handle *handle, struct nio_node *node)
{
    char reason[160] = "";
    int tid = nio_driver_sq_thread(node->workers[0]->driver);
    node->sq_tid = tid > 0 ? tid : -1;
    for (unsigned i = 1; i < node->worker_count && tid > 0; i++) {
        int other = nio_driver_sq_thread(node->workers[i]->driver);
        if (other > 0 && other != tid)
            (void)snprintf(reason, sizeof reason,
                           "node %u: its rings are served by more than one SQ thread (%d, %d)",
                           node->index, tid, other); /* fits */
    }
    if (tid <= 0)
        (void)snprintf(reason, sizeof reason, "node %u: its SQ thread did not show within 200 ms",
                       node->index); /* fits */
    else if (!is_placed(tid, node->plan))
        (void)snprintf(reason, sizeof reason,
                       "node %u: SQ thread %d may run outside of the CPUs planned for it",
                       node->index, tid); /* fits */
    else if ((sched_getscheduler(tid) & ~SCHED_RESET_ON_FORK) != SCHED_OTHER)
        (void)snprintf(reason, sizeof reason, "node %u: SQ thread %d is not SCHED_OTHER",
                       node->index, tid); /* fits */
    nio_handle_add_reason(handle, reason);
}

void nio_check_sq_threads(struct numio_handle *handle)
{
    for (unsigned i = 0; i < handle->node_count; i++) {
        struct nio_node *node = handle->nodes[i];
        node->sq_tid = -1;
        if (nio_driver_profile(node->workers[0]->driver) == NUMIO_DRIVER_SQPOLL)
            check_node(handle, node);
    }
}
