/* SPDX-License-Identifier: MIT */
/* numa/plan_bind.c: the planned machine -> this machine's CPUs and NUMA nodes.
 *
 * On a real topology both are the same.  On an emulated one the real CPUs are dealt round-robin,
 * first to the workers in their order, then to the SQ threads, then to the other PUs, so that the
 * threads are spread evenly whatever the emulated numbering; memory is not bound.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "numa/plan_build.h"
#include "runtime/base/mem.h"

static uint32_t node_of_pu(const struct nio_plan_builder *b, uint32_t pu)
{
    uint32_t group = b->pus[pu].group;
    return group == NUMIO_TOPOLOGY_NONE ? group : b->groups[group].node;
}

uint32_t nio_plan_nearest_node(const struct nio_plan_builder *b, uint32_t numa)
{
    const struct numio_topology *t = b->t;
    uint32_t count = t->info.numa_count, best = 0;
    unsigned best_distance = UINT32_MAX;
    for (uint32_t n = 0; n < b->whole->plan.node_count; n++) {
        for (uint32_t m = 0; m < count; m++) {
            unsigned distance = t->distance[t->numas[numa].home * count + m];
            if (b->node_numas[n * count + m] && distance < best_distance) {
                best = n;
                best_distance = distance;
            }
        }
    }
    return best;
}

/* Fills the kernel's node numbers of one node, from *next on. */
static int list_os_nodes(struct nio_plan_builder *b, uint32_t n, int **next)
{
    const struct numio_topology *t = b->t;
    struct nio_plan_node *node = &b->whole->plan.nodes[n];
    const uint32_t *is_local = &b->node_numas[n * t->info.numa_count];
    node->os_nodes = *next;
    for (uint32_t m = 0; m < t->info.numa_count; m++) {
        if (!is_local[m])
            continue;
        node->memory_bytes += t->numas[m].memory_bytes;
        if (!t->info.is_emulated && t->numas[m].os_index >= 0) {
            *(*next)++ = t->numas[m].os_index;
            node->os_node_count++;
        }
    }
    node->os_node = node->os_node_count == 1 ? node->os_nodes[0] : -1;
    if (node->os_node_count < 2)
        return 0;
    return nio_reasons_add(&b->whole->reasons,
                           "node %u spans %u NUMA nodes: its memory is placed by first touch",
                           (unsigned)n, node->os_node_count);
}

int nio_plan_place_memory(struct nio_plan_builder *b)
{
    const struct numio_topology *t = b->t;
    struct nio_plan_whole *whole = b->whole;
    uint32_t nodes = whole->plan.node_count, count = t->info.numa_count;
    b->node_numas = nio_numa_array((size_t)nodes * count, sizeof *b->node_numas);
    whole->os_nodes = nio_numa_array((size_t)nodes * count, sizeof *whole->os_nodes);
    whole->node_of_numa = nio_numa_array(count, sizeof *whole->node_of_numa);
    if (!b->node_numas || !whole->os_nodes || !whole->node_of_numa)
        return -ENOMEM;
    for (uint32_t i = 0; i < t->info.pu_count; i++) {
        uint32_t n = node_of_pu(b, i);
        if (n != NUMIO_TOPOLOGY_NONE)
            b->node_numas[n * count + t->pus[i].numa] = 1;
    }
    int *next = whole->os_nodes, err = 0;
    for (uint32_t n = 0; n < nodes && !err; n++)
        err = list_os_nodes(b, n, &next);
    for (uint32_t m = 0; m < count; m++)
        whole->node_of_numa[m] = nio_plan_nearest_node(b, m);
    return err;
}

static uint32_t pu_of_cpu(const struct nio_plan_builder *b, int cpu)
{
    uint32_t i = 0;
    while (b->t->pus[i].os_index != cpu) /* the plan only names the topology's CPUs */
        i++;
    return i;
}

/* The real CPU of a PU, dealt now if it has none yet. */
static int deal_real_cpu(struct nio_plan_builder *b, uint32_t pu, uint32_t *dealt)
{
    const struct numio_topology *t = b->t;
    struct nio_plan_pu *state = &b->pus[pu];
    if (t->info.real_cpu_count == 0)
        return -1;
    if (!t->info.is_emulated)
        state->real_cpu = t->pus[pu].os_index;
    else if (state->real_cpu < 0)
        state->real_cpu = t->real_cpus[(*dealt)++ % t->info.real_cpu_count];
    return state->real_cpu;
}

static void deal_real_cpus(struct nio_plan_builder *b)
{
    struct nio_plan *plan = &b->whole->plan;
    uint32_t dealt = 0;
    unsigned w = 0;
    for (uint32_t n = 0; n < plan->node_count; n++)
        for (uint32_t i = 0; i < b->t->info.pu_count; i++)
            if (b->pus[i].is_worker && node_of_pu(b, i) == n)
                plan->workers[w++].bind_cpu = deal_real_cpu(b, i, &dealt);
    for (uint32_t n = 0; n < plan->node_count; n++)
        if (plan->nodes[n].sq_cpu >= 0)
            plan->nodes[n].sq_bind_cpu =
                deal_real_cpu(b, pu_of_cpu(b, plan->nodes[n].sq_cpu), &dealt);
    for (uint32_t i = 0; i < b->t->info.pu_count; i++)
        if (b->pus[i].is_enabled)
            (void)deal_real_cpu(b, i, &dealt); /* remembered in the PU's state */
}

static int compare_ints(const void *a, const void *b)
{
    int left = *(const int *)a, right = *(const int *)b;
    return (left > right) - (left < right);
}

/* Sorts and drops duplicates; returns how many are left. */
static unsigned sort_unique(int *cpus, unsigned count)
{
    unsigned kept = 0;
    qsort(cpus, count, sizeof *cpus, compare_ints);
    for (unsigned i = 0; i < count; i++)
        if (kept == 0 || cpus[kept - 1] != cpus[i])
            cpus[kept++] = cpus[i];
    return kept;
}

static int *list_node_cpus(const struct nio_plan_builder *b, uint32_t n, int *next, const int *busy,
                           unsigned busy_count)
{
    struct nio_plan_node *node = &b->whole->plan.nodes[n];
    unsigned count = 0;
    int *spare;
    for (uint32_t i = 0; i < b->t->info.pu_count; i++)
        if (node_of_pu(b, i) == n && b->pus[i].real_cpu >= 0)
            next[count++] = b->pus[i].real_cpu;
    node->bind_cpus = next;
    node->bind_cpu_count = sort_unique(next, count);
    spare = next + node->bind_cpu_count;
    node->spare_cpus = spare;
    for (unsigned i = 0; i < node->bind_cpu_count; i++)
        if (!bsearch(&next[i], busy, busy_count, sizeof *busy, compare_ints))
            spare[node->spare_cpu_count++] = next[i];
    return spare + node->spare_cpu_count;
}

/* The real CPUs that have a thread of the plan, sorted; notes whether one has two. */
static unsigned list_busy(struct nio_plan *plan, int *busy)
{
    unsigned count = 0;
    for (unsigned w = 0; w < plan->worker_count; w++)
        if (plan->workers[w].bind_cpu >= 0)
            busy[count++] = plan->workers[w].bind_cpu;
    for (unsigned n = 0; n < plan->node_count; n++)
        if (plan->nodes[n].sq_bind_cpu >= 0)
            busy[count++] = plan->nodes[n].sq_bind_cpu;
    unsigned kept = sort_unique(busy, count);
    plan->is_oversubscribed = kept < count;
    return kept;
}

int nio_plan_bind(struct nio_plan_builder *b)
{
    struct nio_plan_whole *whole = b->whole;
    struct nio_plan *plan = &whole->plan;
    deal_real_cpus(b);
    /* Every PU is at most once in bind_cpus and once in spare_cpus. */
    whole->cpu_lists = nio_numa_array((size_t)b->t->info.pu_count * 2, sizeof(int));
    int *busy = nio_numa_array((size_t)plan->worker_count + plan->node_count, sizeof *busy);
    if (!whole->cpu_lists || !busy) {
        nio_free(busy);
        return -ENOMEM;
    }
    unsigned busy_count = list_busy(plan, busy);
    int *next = whole->cpu_lists;
    for (uint32_t n = 0; n < plan->node_count; n++)
        next = list_node_cpus(b, n, next, busy, busy_count);
    nio_free(busy);
    if (!plan->is_oversubscribed)
        return 0;
    return nio_reasons_add(&whole->reasons,
                           "%u workers and their SQ threads share %u real CPUs: nobody spins",
                           plan->worker_count, busy_count);
}
