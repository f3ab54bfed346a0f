/* SPDX-License-Identifier: MIT */
#include "numa/plan.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>

#include "numa/cpulist.h"
#include "numa/plan_build.h"
#include "runtime/base/assert.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"

static_assert(offsetof(struct nio_plan_whole, plan) == 0, "a plan is the head of its whole");

static const struct nio_plan_whole *whole_of(const struct nio_plan *plan)
{
    return (const struct nio_plan_whole *)(const void *)plan;
}

/* A CPU named in `cpus` that may not be used is left out, with a reason. */
static int note_left_out(const struct nio_plan_builder *b)
{
    const char *cursor = b->options.cpus;
    int first, last;
    while (nio_cpulist_next(&cursor, &first, &last) > 0) { /* bounded by the text */
        int found = 0;
        for (uint32_t i = 0; i < b->t->info.pu_count; i++)
            found += b->t->pus[i].os_index >= first && b->t->pus[i].os_index <= last;
        if (found != last - first + 1)
            return nio_reasons_add(&b->whole->reasons,
                                   "cpus: of %d-%d only %d may be used, the others are left out",
                                   first, last, found);
    }
    return 0;
}

static int enable_pus(struct nio_plan_builder *b)
{
    const struct numio_topology *t = b->t;
    const char *cpus = b->options.cpus;
    unsigned enabled = 0;
    if (cpus && !nio_cpulist_is_valid(cpus))
        return nio_error(-EINVAL, "cpus: '%s' is not a list of CPUs such as 0-3,8", cpus);
    for (uint32_t i = 0; i < t->info.pu_count; i++) {
        b->pus[i].is_enabled = !cpus || nio_cpulist_has(cpus, t->pus[i].os_index);
        b->pus[i].group = NUMIO_TOPOLOGY_NONE;
        b->pus[i].real_cpu = -1;
        enabled += b->pus[i].is_enabled;
    }
    if (enabled == 0)
        return nio_error(-EINVAL, "cpus: '%s' names no CPU that may be used", cpus ? cpus : "");
    b->whole->plan.allowed_cpu_count = enabled;
    return cpus ? note_left_out(b) : 0;
}

static int find_forced_pu(struct nio_plan_builder *b)
{
    int cpu = b->options.sq_thread_cpu;
    b->forced_pu = NUMIO_TOPOLOGY_NONE;
    if (cpu == -1)
        return 0;
    for (uint32_t i = 0; i < b->t->info.pu_count; i++) {
        if (b->t->pus[i].os_index != cpu)
            continue;
        if (b->options.want_sq)
            b->forced_pu = i;
        return 0;
    }
    return nio_error(-EINVAL, "sq_thread_cpu: CPU %d is not one that may be used", cpu);
}

/* An L3 shard needs an L3. */
static int check_shard_by(struct nio_plan_builder *b)
{
    enum numio_shard_by by = b->options.shard_by;
    if (by != NUMIO_SHARD_PACKAGE && by != NUMIO_SHARD_NUMA && by != NUMIO_SHARD_L3)
        return nio_error(-EINVAL, "shard_by: %d is neither package, numa nor l3", (int)by);
    if (by != NUMIO_SHARD_L3)
        return 0;
    for (uint32_t i = 0; i < b->t->info.pu_count; i++)
        if (b->pus[i].is_enabled && b->t->llcs[b->t->pus[i].llc].level >= 3)
            return 0;
    b->options.shard_by = NUMIO_SHARD_NUMA;
    return nio_reasons_add(&b->whole->reasons,
                           "shard_by: the machine shows no L3 cache, numa is used instead");
}

static void group_key(const struct nio_plan_builder *b, uint32_t core, uint32_t *ret_a,
                      uint32_t *ret_b)
{
    const struct numio_topology_core *c = &b->t->cores[core];
    *ret_a = b->options.shard_by == NUMIO_SHARD_PACKAGE ? c->package : c->numa;
    *ret_b = b->options.shard_by == NUMIO_SHARD_L3 ? c->llc : 0;
}

uint32_t nio_plan_find_group(const struct nio_plan_builder *b, uint32_t core)
{
    uint32_t key_a, key_b;
    group_key(b, core, &key_a, &key_b);
    for (uint32_t i = b->group_count; i-- > 0;)
        if (b->groups[i].key_a == key_a && b->groups[i].key_b == key_b)
            return i;
    return NUMIO_TOPOLOGY_NONE;
}

static uint32_t find_or_add_group(struct nio_plan_builder *b, uint32_t core)
{
    uint32_t i = nio_plan_find_group(b, core);
    if (i != NUMIO_TOPOLOGY_NONE)
        return i;
    i = b->group_count++;
    group_key(b, core, &b->groups[i].key_a, &b->groups[i].key_b);
    b->groups[i].node = NUMIO_TOPOLOGY_NONE;
    return i;
}

/* Sorts the enabled PUs into groups; groups and PUs keep the hardware tree's order. */
static void make_groups(struct nio_plan_builder *b)
{
    const struct numio_topology *t = b->t;
    for (uint32_t c = 0; c < t->info.core_count; c++) {
        const struct numio_topology_core *core = &t->cores[c];
        struct nio_plan_core *state = &b->cores[c];
        state->group = NUMIO_TOPOLOGY_NONE;
        state->efficiency = core->kind == NUMIO_TOPOLOGY_NONE ? 0 : t->kinds[core->kind].efficiency;
        for (uint32_t i = core->pu_first; i < core->pu_first + core->pu_count; i++) {
            if (!b->pus[i].is_enabled)
                continue;
            if (state->enabled_count++ == 0)
                state->group = find_or_add_group(b, c);
            b->pus[i].group = state->group;
        }
        if (state->enabled_count)
            b->groups[state->group].core_count++;
    }
}

/* Decides whether the rules give any node an SQ thread, and says why not. */
static int allow_sq(struct nio_plan_builder *b)
{
    const struct numio_topology_info *info = &b->t->info;
    bool is_forced = b->forced_pu != NUMIO_TOPOLOGY_NONE;
    char why[96] = "";
    if (!b->options.want_sq)
        return 0;
    if (b->whole->plan.allowed_cpu_count < 2)
        (void)snprintf(why, sizeof why, "only one CPU may be used"); /* fits */
    else if (info->is_emulated && info->real_cpu_count < 2)
        (void)snprintf(why, sizeof why, "this machine gives only one CPU"); /* fits */
    else if (info->cpu_quota > 0 && info->cpu_quota < 2)
        (void)snprintf(why, sizeof why, "the CPU quota is %.2f CPUs", info->cpu_quota); /* fits */
    b->is_sq_allowed = why[0] == '\0';
    if (b->is_sq_allowed)
        return 0;
    return nio_reasons_add(&b->whole->reasons, "%s, an SQ thread needs two: %s", why,
                           is_forced ? "there is one only by sq_thread_cpu" : "none is planned");
}

static int build(struct nio_plan_builder *b)
{
    const struct numio_topology_info *info = &b->t->info;
    struct nio_plan *plan = &b->whole->plan;
    plan->is_emulated = info->is_emulated;
    plan->cpu_quota = info->cpu_quota;
    b->whole->numa_count = info->numa_count;
    b->pus = nio_numa_array(info->pu_count, sizeof *b->pus);
    b->cores = nio_numa_array(info->core_count, sizeof *b->cores);
    b->groups = nio_numa_array(info->core_count, sizeof *b->groups);
    if (!b->pus || !b->cores || !b->groups)
        return -ENOMEM;
    int err = enable_pus(b);
    if (!err)
        err = find_forced_pu(b);
    if (!err)
        err = check_shard_by(b);
    if (!err)
        err = allow_sq(b);
    if (err)
        return err;
    make_groups(b);
    err = nio_plan_place(b);
    if (!err)
        err = nio_plan_place_memory(b);
    if (!err)
        err = nio_plan_place_sq(b);
    if (!err)
        err = nio_plan_bind(b);
    return err ? err : nio_plan_steal_orders(b);
}

int nio_plan_create(const struct numio_topology *topology, const struct nio_plan_options *options,
                    struct nio_plan **ret_plan)
{
    struct nio_plan_builder b = { .t = topology, .options = *options };
    b.whole = nio_zalloc(sizeof *b.whole);
    int err = b.whole ? build(&b) : -ENOMEM;
    nio_free(b.pus);
    nio_free(b.cores);
    nio_free(b.groups);
    nio_free(b.node_numas);
    if (!err) {
        *ret_plan = &b.whole->plan;
        return 0;
    }
    if (b.whole)
        nio_plan_destroy(&b.whole->plan);
    return err == -ENOMEM ? nio_error(err, "plan: out of memory") : err;
}

void nio_plan_destroy(struct nio_plan *plan)
{
    if (!plan)
        return;
    struct nio_plan_whole *whole = NIO_CONTAINER_OF(plan, struct nio_plan_whole, plan);
    nio_reasons_fini(&whole->reasons);
    nio_free(plan->workers);
    nio_free(plan->nodes);
    nio_free(whole->steals);
    nio_free(whole->distance);
    nio_free(whole->cpu_lists);
    nio_free(whole->os_nodes);
    nio_free(whole->node_of_numa);
    nio_free(whole);
}

unsigned nio_plan_node_of_numa(const struct nio_plan *plan, uint32_t numa)
{
    const struct nio_plan_whole *whole = whole_of(plan);
    return numa < whole->numa_count ? whole->node_of_numa[numa] : 0;
}

const char *nio_plan_reason(const struct nio_plan *plan, unsigned index)
{
    return nio_reasons_get(&whole_of(plan)->reasons, index);
}
