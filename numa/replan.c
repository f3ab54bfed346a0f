/* SPDX-License-Identifier: MIT */
/* The rules stand in replan.h; each step here is one of them. */
#include "numa/replan.h"

#include "runtime/base/assert.h"

/* What the steps share. */
struct replan {
    const struct nio_plan *plan;
    const struct nio_replan_facts *facts;
    struct nio_seat *workers, *sqs;
    cpu_set_t taken;   /* CPUs that have a worker or an SQ thread of their own */
    cpu_set_t crowded; /* CPUs that a thread may run on which has none of its own */
};

static bool has(const cpu_set_t *set, int cpu)
{
    return cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(cpu, set);
}

static bool is_allowed(const struct replan *r, int cpu)
{
    return has(r->facts->allowed, cpu);
}

/* The CPUs that are left of a node. */
static void node_cpus(const struct nio_plan *plan, const cpu_set_t *allowed, int node,
                      cpu_set_t *ret_cpus)
{
    CPU_ZERO(ret_cpus);
    for (unsigned i = 0; i < plan->nodes[node].bind_cpu_count; i++)
        if (has(allowed, plan->nodes[node].bind_cpus[i]))
            CPU_SET(plan->nodes[node].bind_cpus[i], ret_cpus);
}

void nio_seat_cpus(const struct nio_plan *plan, const cpu_set_t *allowed,
                   const struct nio_seat *seat, cpu_set_t *ret_cpus)
{
    if (seat->cpu >= 0) {
        CPU_ZERO(ret_cpus);
        CPU_SET(seat->cpu, ret_cpus);
    } else if (seat->node >= 0) {
        node_cpus(plan, allowed, seat->node, ret_cpus);
    } else {
        *ret_cpus = *allowed;
    }
}

bool nio_plan_knows(const struct nio_plan *plan, const cpu_set_t *cpus)
{
    cpu_set_t known, mine;
    CPU_ZERO(&known);
    for (unsigned n = 0; n < plan->node_count; n++) {
        node_cpus(plan, cpus, (int)n, &mine);
        CPU_OR(&known, &known, &mine);
    }
    return CPU_EQUAL(&known, cpus);
}

static bool has_cpus(const struct replan *r, unsigned node)
{
    cpu_set_t cpus;
    node_cpus(r->plan, r->facts->allowed, (int)node, &cpus);
    return CPU_COUNT(&cpus) > 0;
}

/* The lowest CPU of the node that nobody has and that is not planned for an SQ thread; -1: none. */
static int free_cpu(const struct replan *r, unsigned node)
{
    const struct nio_plan_node *plan = &r->plan->nodes[node];
    for (unsigned i = 0; i < plan->bind_cpu_count; i++) {
        int cpu = plan->bind_cpus[i];
        if (is_allowed(r, cpu) && !has(&r->taken, cpu) && cpu != plan->sq_bind_cpu)
            return cpu;
    }
    return -1;
}

/* The nearest node with CPUs, itself first; -1: none has any. */
static int nearest_node(const struct replan *r, unsigned node)
{
    int nearest = -1;
    unsigned distance = UINT16_MAX + 1u;
    if (has_cpus(r, node))
        return (int)node;
    for (unsigned n = 0; n < r->plan->node_count; n++) {
        unsigned d = r->plan->distance[node * r->plan->node_count + n];
        if (d < distance && has_cpus(r, n)) {
            nearest = (int)n;
            distance = d;
        }
    }
    return nearest;
}

static void take(struct replan *r, int cpu)
{
    if (cpu >= 0 && cpu < CPU_SETSIZE)
        CPU_SET(cpu, &r->taken);
}

static bool is_lost(const struct replan *r, unsigned w)
{
    int cpu = r->plan->workers[w].bind_cpu;
    return cpu >= 0 && cpu < CPU_SETSIZE && !is_allowed(r, cpu); /* beyond: was never bound */
}

/* Rules 1 and 2; all others are homeless afterwards. */
static void place_those_with_a_home(struct replan *r)
{
    const struct nio_plan *plan = r->plan;
    for (unsigned w = 0; w < plan->worker_count; w++) {
        int cpu = plan->workers[w].bind_cpu;
        bool is_outside = r->facts->is_outside[w] && !is_lost(r, w);
        r->workers[w] = (struct nio_seat){ .where = is_outside ? NIO_OUTSIDE : NIO_AT_HOME,
                                           .cpu = cpu,
                                           .node = (int)plan->workers[w].node };
        if (!is_outside && !is_lost(r, w))
            take(r, cpu);
    }
    for (unsigned w = 0; w < plan->worker_count; w++) {
        struct nio_seat *seat = &r->workers[w];
        if (seat->where != NIO_OUTSIDE)
            continue;
        seat->cpu = -1;
        seat->is_retired = true;
        for (int cpu = 0; cpu < CPU_SETSIZE && seat->is_retired; cpu++)
            if (has(&r->facts->outside[w], cpu) && !has(&r->taken, cpu)) {
                take(r, cpu);
                seat->is_retired = false;
            }
    }
}

static void move(struct replan *r, unsigned w, enum nio_whereabouts where, int node, int cpu)
{
    struct nio_seat *seat = &r->workers[w];
    seat->where = where;
    seat->node = node;
    seat->cpu = cpu;
    seat->is_retired = cpu < 0;
    take(r, cpu);
}

/* Rule 3: first those who stay where they have moved to, then the others. */
static void place_within_their_nodes(struct replan *r)
{
    const struct nio_plan *plan = r->plan;
    for (unsigned w = 0; w < plan->worker_count; w++) {
        const struct nio_seat *before = &r->facts->before[w];
        unsigned node = plan->workers[w].node;
        if (is_lost(r, w) && before->where == NIO_MOVED && !before->is_retired &&
            before->cpu >= 0 && is_allowed(r, before->cpu) && !has(&r->taken, before->cpu))
            move(r, w, NIO_MOVED, (int)node, before->cpu);
    }
    for (unsigned w = 0; w < plan->worker_count; w++) {
        unsigned node = plan->workers[w].node;
        if (!is_lost(r, w) || r->workers[w].where == NIO_MOVED || !has_cpus(r, node))
            continue;
        move(r, w, NIO_MOVED, (int)node, free_cpu(r, node)); /* rule 4 if there is none */
    }
}

/* Rule 5. */
static void place_guests(struct replan *r)
{
    const struct nio_plan *plan = r->plan;
    int strangers = CPU_COUNT(r->facts->allowed);
    for (unsigned w = 0; w < plan->worker_count; w++) {
        if (!is_lost(r, w) || has_cpus(r, plan->workers[w].node))
            continue;
        int node = nearest_node(r, plan->workers[w].node);
        move(r, w, NIO_GUEST, node, node >= 0 ? free_cpu(r, (unsigned)node) : -1);
        if (node < 0) /* the plan knows none of the CPUs: as many are active as there are */
            r->workers[w].is_retired = strangers-- <= 0;
    }
}

/* Rule 6. */
static void keep_one_active(struct replan *r)
{
    for (unsigned n = 0; n < r->plan->node_count; n++) {
        const struct nio_plan_node *node = &r->plan->nodes[n];
        bool has_active = false;
        for (unsigned i = 0; i < node->worker_count; i++)
            has_active |= !r->workers[node->worker_first + i].is_retired;
        if (!has_active)
            r->workers[node->worker_first].is_retired = false;
    }
}

static void crowd(struct replan *r, const cpu_set_t *cpus)
{
    CPU_OR(&r->crowded, &r->crowded, cpus);
}

static void place_sq_thread(struct replan *r, unsigned n)
{
    const struct nio_plan_node *node = &r->plan->nodes[n];
    struct nio_seat *sq = &r->sqs[n];
    cpu_set_t cpus;
    *sq = (struct nio_seat){ .where = NIO_AT_HOME, .cpu = -1, .node = (int)n };
    if (!r->facts->has_sq || (node->sq_bind_cpu < 0 && has_cpus(r, n)))
        return; /* none, or it shares the node's CPUs by plan, where the spin looks at it */
    if (r->facts->is_sq_outside[n] && is_allowed(r, node->sq_bind_cpu)) {
        sq->where = NIO_OUTSIDE;
        crowd(r, &r->facts->sq_outside[n]);
        return;
    }
    if (node->sq_bind_cpu >= 0 && is_allowed(r, node->sq_bind_cpu)) {
        sq->cpu = node->sq_bind_cpu;
        return;
    }
    sq->node = nearest_node(r, n);
    sq->where = sq->node == (int)n ? NIO_MOVED : NIO_GUEST;
    if (sq->where == NIO_MOVED)
        sq->cpu = free_cpu(r, n);
    take(r, sq->cpu);
    if (sq->cpu < 0) {
        nio_seat_cpus(r->plan, r->facts->allowed, sq, &cpus);
        crowd(r, &cpus);
    }
}

static void judge_spinning(struct replan *r)
{
    cpu_set_t cpus;
    for (unsigned w = 0; w < r->plan->worker_count; w++) {
        const struct nio_seat *seat = &r->workers[w];
        if (seat->where == NIO_OUTSIDE) {
            crowd(r, &r->facts->outside[w]);
        } else if (seat->where != NIO_AT_HOME && seat->cpu < 0) {
            nio_seat_cpus(r->plan, r->facts->allowed, seat, &cpus);
            crowd(r, &cpus);
        }
    }
    for (unsigned w = 0; w < r->plan->worker_count; w++) {
        struct nio_seat *seat = &r->workers[w];
        bool is_unbound = r->plan->workers[w].bind_cpu < 0;
        seat->may_spin = is_unbound || (seat->cpu >= 0 && !has(&r->crowded, seat->cpu));
    }
}

bool nio_mask_is_wish(const cpu_set_t *bound, const cpu_set_t *mask, const cpu_set_t *before,
                      const cpu_set_t *now)
{
    cpu_set_t common, was, is;
    CPU_AND(&common, before, now);
    CPU_AND(&was, bound, &common);
    CPU_AND(&is, mask, &common);
    return !CPU_EQUAL(&was, &is);
}

void nio_replan(const struct nio_plan *plan, const struct nio_replan_facts *facts,
                struct nio_seat *ret_workers, struct nio_seat *ret_sqs)
{
    struct replan r = { .plan = plan, .facts = facts, .workers = ret_workers, .sqs = ret_sqs };
    CPU_ZERO(&r.taken);
    CPU_ZERO(&r.crowded);
    NIO_ASSERT(CPU_COUNT(facts->allowed) > 0);
    place_those_with_a_home(&r);
    place_within_their_nodes(&r);
    place_guests(&r);
    keep_one_active(&r);
    for (unsigned n = 0; n < plan->node_count; n++)
        place_sq_thread(&r, n);
    judge_spinning(&r);
}
