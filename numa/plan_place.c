/* SPDX-License-Identifier: MIT */
/* numa/plan_place.c: which PUs get workers, which groups become nodes, and where the SQ threads
 * go.
 *
 * Every enabled PU has a rank.  The first PU of a core ranks DEFAULT (with per_pu: every PU), its
 * siblings SIBLING, and what is kept for an SQ thread SQ: the CPU that sq_thread_cpu names, or, in
 * a node of CORES_TO_RESERVE cores without a free sibling, the last of the slowest cores.  The
 * default number of workers is the number of DEFAULT PUs, capped by the CPU quota.  Workers are
 * dealt to the groups one by one, rank by rank, so that they are spread evenly; inside a group
 * the fastest kind of core comes first, then the order of the hardware tree.
 */
#include <errno.h>
#include <stdlib.h>

#include "numa/plan_build.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"

enum { CORES_TO_RESERVE = 4 };

struct candidate {
    uint32_t group, rank, pu;
    int efficiency;
};

static void rank_core(struct nio_plan_builder *b, uint32_t c)
{
    const struct numio_topology_core *core = &b->t->cores[c];
    bool has_default = false;
    for (uint32_t i = core->pu_first; i < core->pu_first + core->pu_count; i++) {
        struct nio_plan_pu *pu = &b->pus[i];
        if (!pu->is_enabled)
            continue;
        if (i == b->forced_pu)
            pu->rank = NIO_PU_SQ;
        else
            pu->rank = has_default && !b->options.per_pu ? NIO_PU_SIBLING : NIO_PU_DEFAULT;
        has_default = has_default || i != b->forced_pu;
    }
}

static void count_slots(struct nio_plan_builder *b)
{
    for (uint32_t i = 0; i < b->t->info.pu_count; i++)
        if (b->pus[i].is_enabled)
            b->groups[b->pus[i].group].slots[b->pus[i].rank]++;
}

/* The last of the slowest cores of a group among those without a worker. */
static uint32_t last_free_core(const struct nio_plan_builder *b, uint32_t group)
{
    uint32_t best = NUMIO_TOPOLOGY_NONE;
    for (uint32_t c = b->t->info.core_count; c-- > 0;) {
        const struct nio_plan_core *core = &b->cores[c];
        if (core->group != group || core->worker_count > 0)
            continue;
        if (best == NUMIO_TOPOLOGY_NONE || core->efficiency < b->cores[best].efficiency)
            best = c;
    }
    return best;
}

static void move_slot(struct nio_plan_builder *b, uint32_t pu, enum nio_pu_rank rank)
{
    struct nio_plan_group *group = &b->groups[b->pus[pu].group];
    group->slots[b->pus[pu].rank]--;
    group->slots[rank]++;
    b->pus[pu].rank = rank;
}

static void reserve_core(struct nio_plan_builder *b, uint32_t group)
{
    uint32_t c = last_free_core(b, group);
    const struct numio_topology_core *core = &b->t->cores[c];
    for (uint32_t i = core->pu_first; i < core->pu_first + core->pu_count; i++)
        if (b->pus[i].is_enabled)
            move_slot(b, i, NIO_PU_SQ);
}

/* A group must have a place for a worker, if need be the one meant for the SQ thread. */
static void keep_one_default(struct nio_plan_builder *b, uint32_t group)
{
    for (uint32_t i = 0; i < b->t->info.pu_count; i++) {
        if (b->pus[i].group == group) {
            move_slot(b, i, NIO_PU_DEFAULT);
            return;
        }
    }
}

static void rank_pus(struct nio_plan_builder *b)
{
    uint32_t forced_group = NUMIO_TOPOLOGY_NONE;
    for (uint32_t c = 0; c < b->t->info.core_count; c++)
        rank_core(b, c);
    count_slots(b);
    if (b->forced_pu != NUMIO_TOPOLOGY_NONE)
        forced_group = nio_plan_find_group(b, b->t->pus[b->forced_pu].core);
    for (uint32_t g = 0; g < b->group_count; g++) {
        struct nio_plan_group *group = &b->groups[g];
        if (b->is_sq_allowed && g != forced_group && group->slots[NIO_PU_SIBLING] == 0 &&
            group->core_count >= CORES_TO_RESERVE)
            reserve_core(b, g);
        if (group->slots[NIO_PU_DEFAULT] == 0)
            keep_one_default(b, g);
    }
}

/* The quota rounded up to whole CPUs. */
static unsigned quota_cpus(double quota)
{
    if (quota >= NIO_PUS_MAX)
        return NIO_PUS_MAX;
    unsigned whole = (unsigned)quota;
    return whole + (quota > whole);
}

/* How many workers there will be. */
static int count_workers(struct nio_plan_builder *b, unsigned *ret_count)
{
    const struct nio_plan *plan = &b->whole->plan;
    struct nio_reasons *reasons = &b->whole->reasons;
    unsigned asked = b->options.workers, wanted = 0;
    double quota = plan->cpu_quota;
    for (uint32_t g = 0; g < b->group_count; g++)
        wanted += b->groups[g].slots[NIO_PU_DEFAULT];
    if (asked > plan->allowed_cpu_count)
        return nio_error(-E2BIG, "workers: %u asked for, but only %u CPUs may be used", asked,
                         plan->allowed_cpu_count);
    if (asked > NIO_PLAN_WORKERS_MAX)
        return nio_error(-E2BIG, "workers: %u asked for, but numio runs at most %d", asked,
                         NIO_PLAN_WORKERS_MAX);
    int err = 0;
    if (asked) {
        *ret_count = asked;
        if (quota > 0 && asked > quota_cpus(quota))
            err = nio_reasons_add(reasons, "workers: %u share a CPU quota of %.2f CPUs", asked,
                                  quota);
        return err;
    }
    *ret_count = wanted < NIO_PLAN_WORKERS_MAX ? wanted : NIO_PLAN_WORKERS_MAX;
    if (*ret_count < wanted)
        err = nio_reasons_add(reasons, "workers: %u instead of %u, numio runs no more", *ret_count,
                              wanted);
    if (err || quota <= 0 || quota_cpus(quota) >= *ret_count)
        return err;
    *ret_count = quota_cpus(quota);
    return nio_reasons_add(reasons, "workers: %u instead of %u, the CPU quota is %.2f CPUs",
                           *ret_count, wanted, quota);
}

/* Deals `count` workers to the groups, one each in turn, rank by rank. */
static void deal(struct nio_plan_builder *b, unsigned count)
{
    for (unsigned rank = 0; rank < NIO_PU_RANKS && count > 0; rank++) {
        bool has_dealt = true;
        while (has_dealt && count > 0) { /* each round deals one at least */
            has_dealt = false;
            for (uint32_t g = 0; g < b->group_count && count > 0; g++) {
                struct nio_plan_group *group = &b->groups[g];
                uint32_t places = 0;
                for (unsigned r = 0; r <= rank; r++)
                    places += group->slots[r];
                if (group->take == places)
                    continue;
                group->take++;
                count--;
                has_dealt = true;
            }
        }
    }
}

static int compare_candidates(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->efficiency != y->efficiency)
        return x->efficiency > y->efficiency ? -1 : 1;
    return (x->pu > y->pu) - (x->pu < y->pu);
}

/* Gives each group's workers to its best PUs. */
static int choose_pus(struct nio_plan_builder *b)
{
    const struct numio_topology *t = b->t;
    uint32_t count = 0, group = NUMIO_TOPOLOGY_NONE, taken = 0;
    struct candidate *list = nio_numa_array(t->info.pu_count, sizeof *list);
    if (!list)
        return -ENOMEM;
    for (uint32_t i = 0; i < t->info.pu_count; i++)
        if (b->pus[i].is_enabled)
            list[count++] = (struct candidate){ .group = b->pus[i].group,
                                                .rank = b->pus[i].rank,
                                                .pu = i,
                                                .efficiency = b->cores[t->pus[i].core].efficiency };
    qsort(list, count, sizeof *list, compare_candidates);
    for (uint32_t i = 0; i < count; i++) {
        taken = list[i].group == group ? taken : 0;
        group = list[i].group;
        if (taken++ < b->groups[group].take) {
            b->pus[list[i].pu].is_worker = true;
            b->cores[t->pus[list[i].pu].core].worker_count++;
        }
    }
    nio_free(list);
    return 0;
}

/* Numbers the groups that have workers; the others are no nodes. */
static int number_nodes(struct nio_plan_builder *b)
{
    struct nio_plan *plan = &b->whole->plan;
    unsigned idle = 0;
    for (uint32_t g = 0; g < b->group_count; g++) {
        if (b->groups[g].take == 0)
            idle++;
        else
            b->groups[g].node = plan->node_count++;
    }
    plan->nodes = nio_numa_array(plan->node_count, sizeof *plan->nodes);
    if (!plan->nodes)
        return -ENOMEM;
    if (idle == 0)
        return 0;
    return nio_reasons_add(&b->whole->reasons,
                           "workers: too few for every node, %u of %u nodes are left out", idle,
                           (unsigned)b->group_count);
}

static void add_worker(struct nio_plan_builder *b, struct nio_plan_node *node, uint32_t pu)
{
    struct nio_plan *plan = &b->whole->plan;
    const struct numio_topology_pu *p = &b->t->pus[pu];
    if (node->worker_count == 0)
        node->package = p->package;
    plan->workers[node->worker_first + node->worker_count] =
        (struct nio_plan_worker){ .node = b->groups[b->pus[pu].group].node,
                                  .llc = p->llc,
                                  .cpu = p->os_index,
                                  .bind_cpu = -1,
                                  .core = p->core };
    node->worker_count++;
}

static int list_workers(struct nio_plan_builder *b, unsigned count)
{
    struct nio_plan *plan = &b->whole->plan;
    unsigned first = 0;
    plan->workers = nio_numa_array(count, sizeof *plan->workers);
    if (!plan->workers)
        return -ENOMEM;
    plan->worker_count = count;
    for (uint32_t g = 0; g < b->group_count; g++) {
        if (b->groups[g].node == NUMIO_TOPOLOGY_NONE)
            continue;
        plan->nodes[b->groups[g].node].worker_first = first;
        first += b->groups[g].take;
    }
    for (uint32_t i = 0; i < b->t->info.pu_count; i++)
        if (b->pus[i].is_worker)
            add_worker(b, &plan->nodes[b->groups[b->pus[i].group].node], i);
    return 0;
}

int nio_plan_place(struct nio_plan_builder *b)
{
    unsigned count = 0;
    rank_pus(b);
    int err = count_workers(b, &count);
    if (err)
        return err;
    deal(b, count);
    err = choose_pus(b);
    if (!err)
        err = number_nodes(b);
    return err ? err : list_workers(b, count);
}

static void set_sq(struct nio_plan_builder *b, struct nio_plan_node *node, enum nio_sq_place place,
                   uint32_t pu)
{
    node->sq_place = place;
    node->sq_cpu = b->t->pus[pu].os_index;
    node->sq_core = b->t->pus[pu].core;
}

/* The last free PU beside a worker; NUMIO_TOPOLOGY_NONE if there is none. */
static uint32_t free_sibling(const struct nio_plan_builder *b, uint32_t group)
{
    for (uint32_t i = b->t->info.pu_count; i-- > 0;)
        if (b->pus[i].group == group && !b->pus[i].is_worker &&
            b->cores[b->t->pus[i].core].worker_count > 0)
            return i;
    return NUMIO_TOPOLOGY_NONE;
}

static uint32_t first_enabled_pu(const struct nio_plan_builder *b, uint32_t core)
{
    uint32_t i = b->t->cores[core].pu_first;
    while (!b->pus[i].is_enabled) /* the caller's core has one */
        i++;
    return i;
}

static void place_by_rules(struct nio_plan_builder *b, uint32_t group, struct nio_plan_node *node)
{
    uint32_t sibling = free_sibling(b, group);
    uint32_t core = last_free_core(b, group);
    if (sibling != NUMIO_TOPOLOGY_NONE)
        set_sq(b, node, NIO_SQ_SIBLING, sibling);
    else if (core != NUMIO_TOPOLOGY_NONE)
        set_sq(b, node, NIO_SQ_RESERVED, first_enabled_pu(b, core));
    else
        node->sq_place = NIO_SQ_SHARED;
}

/* sq_thread_cpu goes to the node it is in, or to the nearest. */
static int place_forced(struct nio_plan_builder *b)
{
    struct nio_plan *plan = &b->whole->plan;
    const struct numio_topology_pu *pu = &b->t->pus[b->forced_pu];
    uint32_t group = nio_plan_find_group(b, pu->core);
    uint32_t node = group == NUMIO_TOPOLOGY_NONE ? group : b->groups[group].node;
    if (node == NUMIO_TOPOLOGY_NONE)
        node = nio_plan_nearest_node(b, pu->numa);
    set_sq(b, &plan->nodes[node], NIO_SQ_FORCED, b->forced_pu);
    int err = 0;
    if (plan->node_count > 1)
        err = nio_reasons_add(&b->whole->reasons,
                              "sq_thread_cpu: CPU %d serves node %u only, the other nodes' SQ "
                              "threads are placed by the rules",
                              pu->os_index, (unsigned)node);
    if (!err && b->pus[b->forced_pu].is_worker)
        err = nio_reasons_add(&b->whole->reasons, "sq_thread_cpu: CPU %d has a worker as well",
                              pu->os_index);
    return err;
}

int nio_plan_place_sq(struct nio_plan_builder *b)
{
    struct nio_plan *plan = &b->whole->plan;
    for (unsigned n = 0; n < plan->node_count; n++) {
        plan->nodes[n].sq_cpu = plan->nodes[n].sq_bind_cpu = -1;
        plan->nodes[n].sq_core = NUMIO_TOPOLOGY_NONE;
    }
    if (b->forced_pu != NUMIO_TOPOLOGY_NONE) {
        int err = place_forced(b);
        if (err)
            return err;
    }
    for (uint32_t g = 0; b->is_sq_allowed && g < b->group_count; g++) {
        uint32_t n = b->groups[g].node;
        if (n != NUMIO_TOPOLOGY_NONE && plan->nodes[n].sq_place != NIO_SQ_FORCED)
            place_by_rules(b, g, &plan->nodes[n]);
    }
    return 0;
}
