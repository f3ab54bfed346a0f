/* SPDX-License-Identifier: MIT */
/* numa/plan_check.c: everything that plan.h promises, asserted; and nothing that only plan_*.c
 * knows, so that it also checks a plan somebody else made.
 */
#include "numa/machine.h"
#include "numa/plan.h"
#include "runtime/base/assert.h"
#include "runtime/base/mem.h"

static bool has_cpu(const int *cpus, unsigned count, int cpu)
{
    for (unsigned i = 0; i < count; i++)
        if (cpus[i] == cpu)
            return true;
    return false;
}

static void check_ascending(const int *cpus, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        NIO_ASSERT(cpus[i] >= 0 && (i == 0 || cpus[i - 1] < cpus[i]));
}

static bool is_worker_cpu(const struct nio_plan *plan, int cpu)
{
    for (unsigned w = 0; w < plan->worker_count; w++)
        if (plan->workers[w].cpu == cpu)
            return true;
    return false;
}

static bool is_worker_core(const struct nio_plan *plan, uint32_t core)
{
    for (unsigned w = 0; w < plan->worker_count; w++)
        if (plan->workers[w].core == core)
            return true;
    return false;
}

static void check_sq(const struct nio_plan *plan, const struct nio_plan_node *node)
{
    bool is_pinned = node->sq_place != NIO_SQ_NONE && node->sq_place != NIO_SQ_SHARED;
    NIO_ASSERT(is_pinned == (node->sq_cpu >= 0));
    NIO_ASSERT(is_pinned == (node->sq_core != NUMIO_TOPOLOGY_NONE));
    NIO_ASSERT(is_pinned || node->sq_bind_cpu == -1);
    if (node->sq_place == NIO_SQ_SIBLING || node->sq_place == NIO_SQ_RESERVED) {
        NIO_ASSERT(!is_worker_cpu(plan, node->sq_cpu));
        NIO_ASSERT(is_worker_core(plan, node->sq_core) == (node->sq_place == NIO_SQ_SIBLING));
        NIO_ASSERT(node->sq_bind_cpu == -1 ||
                   has_cpu(node->bind_cpus, node->bind_cpu_count, node->sq_bind_cpu));
    }
    for (unsigned n = 0; is_pinned && n < plan->node_count; n++)
        NIO_ASSERT(&plan->nodes[n] == node || plan->nodes[n].sq_cpu != node->sq_cpu);
}

static void check_node(const struct nio_plan *plan, unsigned n)
{
    const struct nio_plan_node *node = &plan->nodes[n];
    unsigned expected_first =
        n == 0 ? 0 : plan->nodes[n - 1].worker_first + plan->nodes[n - 1].worker_count;
    NIO_ASSERT(node->worker_count > 0 && node->worker_first == expected_first);
    check_ascending(node->bind_cpus, node->bind_cpu_count);
    check_ascending(node->spare_cpus, node->spare_cpu_count);
    for (unsigned i = 0; i < node->spare_cpu_count; i++) {
        int cpu = node->spare_cpus[i];
        NIO_ASSERT(has_cpu(node->bind_cpus, node->bind_cpu_count, cpu));
        for (unsigned w = 0; w < plan->worker_count; w++)
            NIO_ASSERT(plan->workers[w].bind_cpu != cpu);
        for (unsigned m = 0; m < plan->node_count; m++)
            NIO_ASSERT(plan->nodes[m].sq_bind_cpu != cpu);
    }
    NIO_ASSERT(node->os_node == -1 || node->os_node == node->os_nodes[0]);
    NIO_ASSERT(node->os_node == -1 || !plan->is_emulated);
    NIO_ASSERT(plan->distance[n * plan->node_count + n] == NIO_DISTANCE_LOCAL);
    check_sq(plan, node);
}

/* How far `victim` is behind `thief`, counted round. */
static unsigned turn(const struct nio_plan *plan, unsigned thief, unsigned victim)
{
    return (victim + plan->worker_count - thief) % plan->worker_count;
}

static void check_target(const struct nio_plan *plan, unsigned thief, unsigned i)
{
    const struct nio_plan_worker *w = &plan->workers[thief];
    const struct nio_steal_target *target = &w->steal[i];
    NIO_ASSERT(target->worker < plan->worker_count && target->worker != thief);
    const struct nio_plan_worker *v = &plan->workers[target->worker];
    NIO_ASSERT(target->node == v->node);
    NIO_ASSERT(target->distance == plan->distance[w->node * plan->node_count + v->node]);
    NIO_ASSERT((target->tier == NIO_TIER_FAR) == (v->node != w->node));
    NIO_ASSERT(target->tier == NIO_TIER_FAR ||
               (target->tier == NIO_TIER_LLC) == (v->llc == w->llc));
    if (i == 0)
        return;
    const struct nio_steal_target *before = &w->steal[i - 1];
    NIO_ASSERT(before->tier <= target->tier);
    if (before->tier != target->tier)
        return;
    NIO_ASSERT(before->distance <= target->distance);
    /* Strictly rising turns within a tier and distance also show that nobody comes twice. */
    NIO_ASSERT(before->distance < target->distance ||
               turn(plan, thief, before->worker) < turn(plan, thief, target->worker));
}

static void check_worker(const struct nio_plan *plan, unsigned index)
{
    const struct nio_plan_worker *w = &plan->workers[index];
    NIO_ASSERT(w->node < plan->node_count);
    const struct nio_plan_node *node = &plan->nodes[w->node];
    NIO_ASSERT(index >= node->worker_first && index < node->worker_first + node->worker_count);
    NIO_ASSERT(w->cpu >= 0);
    NIO_ASSERT(w->bind_cpu == -1 || plan->is_emulated || w->bind_cpu == w->cpu);
    NIO_ASSERT(w->bind_cpu == -1 || has_cpu(node->bind_cpus, node->bind_cpu_count, w->bind_cpu));
    for (unsigned other = 0; other < index; other++)
        NIO_ASSERT(plan->workers[other].cpu != w->cpu);
    NIO_ASSERT(w->steal_count == plan->worker_count - 1);
    for (unsigned i = 0; i < w->steal_count; i++)
        check_target(plan, index, i);
}

void nio_plan_check(const struct nio_plan *plan)
{
    NIO_ASSERT(plan->worker_count > 0 && plan->worker_count <= NIO_PLAN_WORKERS_MAX);
    NIO_ASSERT(plan->node_count > 0 && plan->node_count <= plan->worker_count);
    NIO_ASSERT(plan->worker_count <= plan->allowed_cpu_count);
    for (unsigned n = 0; n < plan->node_count; n++)
        check_node(plan, n);
    const struct nio_plan_node *last = &plan->nodes[plan->node_count - 1];
    NIO_ASSERT(last->worker_first + last->worker_count == plan->worker_count);
    for (unsigned w = 0; w < plan->worker_count; w++)
        check_worker(plan, w);
}
