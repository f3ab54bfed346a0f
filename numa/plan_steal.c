/* SPDX-License-Identifier: MIT */
/* numa/plan_steal.c: the distances between the plan's nodes and every worker's steal order.
 *
 * The distance between two nodes is the mean over their NUMA nodes: only with shard_by = package
 * has a node several.  Nodes that share a NUMA node are at 10 from each other.
 */
#include <errno.h>
#include <string.h>

#include "numa/plan_build.h"
#include "runtime/base/mem.h"

static uint16_t mean_distance(const struct nio_plan_builder *b, uint32_t from, uint32_t to)
{
    const struct numio_topology *t = b->t;
    uint32_t count = t->info.numa_count;
    uint64_t sum = 0, pairs = 0;
    for (uint32_t x = 0; x < count; x++) {
        for (uint32_t y = 0; y < count; y++) {
            if (!b->node_numas[from * count + x] || !b->node_numas[to * count + y])
                continue;
            sum += t->distance[x * count + y];
            pairs++;
        }
    }
    return (uint16_t)((sum + pairs / 2) / pairs); /* every node has a NUMA node */
}

static int fill_distances(struct nio_plan_builder *b)
{
    struct nio_plan *plan = &b->whole->plan;
    uint32_t count = plan->node_count;
    uint16_t *distance = nio_numa_array((size_t)count * count, sizeof *distance);
    if (!distance)
        return -ENOMEM;
    b->whole->distance = distance;
    plan->distance = distance;
    for (uint32_t from = 0; from < count; from++)
        for (uint32_t to = 0; to < count; to++)
            distance[from * count + to] =
                from == to ? NIO_DISTANCE_LOCAL : mean_distance(b, from, to);
    return 0;
}

static enum nio_tier tier_between(const struct nio_plan_worker *a, const struct nio_plan_worker *b)
{
    if (a->node != b->node)
        return NIO_TIER_FAR;
    return a->llc == b->llc ? NIO_TIER_LLC : NIO_TIER_NODE;
}

/* Appends the victims of one tier and distance, starting after the thief.  Returns the count. */
static unsigned append(const struct nio_plan *plan, unsigned thief, enum nio_tier tier,
                       uint16_t distance, struct nio_steal_target *out)
{
    const struct nio_plan_worker *w = &plan->workers[thief];
    unsigned count = 0;
    for (unsigned k = 1; k < plan->worker_count; k++) {
        unsigned victim = (thief + k) % plan->worker_count;
        const struct nio_plan_worker *v = &plan->workers[victim];
        uint16_t between = plan->distance[w->node * plan->node_count + v->node];
        if (tier_between(w, v) != tier || between != distance)
            continue;
        out[count++] = (struct nio_steal_target){ .worker = (uint16_t)victim,
                                                  .tier = (uint8_t)tier,
                                                  .distance = distance,
                                                  .node = (uint16_t)v->node };
    }
    return count;
}

/* The smallest distance in a node's row that is `floor` or more, skipping the node itself;
 * false when there is none. */
static bool next_distance(const struct nio_plan *plan, unsigned node, unsigned floor,
                          uint16_t *ret_distance)
{
    unsigned best = UINT32_MAX;
    const uint16_t *row = &plan->distance[node * plan->node_count];
    for (unsigned n = 0; n < plan->node_count; n++)
        if (n != node && row[n] >= floor && row[n] < best)
            best = row[n];
    if (best == UINT32_MAX)
        return false;
    *ret_distance = (uint16_t)best;
    return true;
}

static void fill_order(struct nio_plan *plan, unsigned thief, struct nio_steal_target *out)
{
    struct nio_plan_worker *w = &plan->workers[thief];
    unsigned count = append(plan, thief, NIO_TIER_LLC, NIO_DISTANCE_LOCAL, out);
    uint16_t distance;
    count += append(plan, thief, NIO_TIER_NODE, NIO_DISTANCE_LOCAL, out + count);
    for (unsigned floor = 0; next_distance(plan, w->node, floor, &distance);
         floor = distance + 1u) /* at most node_count rounds */
        count += append(plan, thief, NIO_TIER_FAR, distance, out + count);
    w->steal = out;
    w->steal_count = count;
}

int nio_plan_steal_orders(struct nio_plan_builder *b)
{
    struct nio_plan *plan = &b->whole->plan;
    int err = fill_distances(b);
    if (err)
        return err;
    size_t others = plan->worker_count - 1;
    struct nio_steal_target *steals = nio_numa_array(plan->worker_count * others, sizeof *steals);
    if (!steals)
        return -ENOMEM;
    b->whole->steals = steals;
    for (unsigned w = 0; w < plan->worker_count; w++)
        fill_order(plan, w, steals + w * others);
    return 0;
}
