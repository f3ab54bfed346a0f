/* SPDX-License-Identifier: MIT */
/* Where threads go when CPUs are lost: each rule of replan.h by example, then random machines from
 * which random CPUs are taken. */
#include "numa/replan.h"

#include <numio/error.h>

#include "tests/machines/machines.h"
#include "tests/seeded.h"

TestSuite(replan, .timeout = 60);

enum { REAL_CPUS = 64, WORKERS_MAX = 64, NODES_MAX = 16 };

/* A plan and what nio_replan() made of it; `before` is what it made of it last. */
struct scene {
    struct numio_topology *topology;
    struct nio_plan *plan;
    cpu_set_t allowed;
    struct nio_seat before[WORKERS_MAX], workers[WORKERS_MAX], sqs[NODES_MAX];
    bool is_outside[WORKERS_MAX], is_sq_outside[NODES_MAX];
    cpu_set_t outside[WORKERS_MAX], sq_outside[NODES_MAX];
    bool has_sq;
};

static cpu_set_t cpus_of(unsigned bits)
{
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    for (unsigned i = 0; i < 8; i++)
        if (bits >> i & 1)
            CPU_SET(i, &cpus);
    return cpus;
}

static bool is_wish(unsigned bound, unsigned mask, unsigned before, unsigned now)
{
    cpu_set_t sets[] = { cpus_of(bound), cpus_of(mask), cpus_of(before), cpus_of(now) };
    return nio_mask_is_wish(&sets[0], &sets[1], &sets[2], &sets[3]);
}

Test(replan, cpus_that_come_and_go_are_nobody_s_wish)
{
    cr_assert(is_wish(0x4, 0x8, 0xf, 0xf), "from CPU 2 to 3");
    cr_assert(is_wish(0x4, 0xf, 0xf, 0xf), "widened");
    cr_assert(is_wish(0x4, 0x3, 0xf, 0xb), "CPU 2 has gone, and it was moved: the caller knows");
    /* Bound to 0 and 1 for want of its own; the kernel had written 0, 1 and 3 when 3 was there. */
    cr_assert_not(is_wish(0x3, 0xb, 0x3, 0xf), "CPUs 2 and 3 have come back");
    cr_assert(is_wish(0x3, 0x9, 0x3, 0xf), "somebody has taken CPU 1 from it meanwhile");
    cr_assert_not(is_wish(0xc, 0x4, 0xf, 0x7), "CPU 3 has gone");
    cr_assert_not(is_wish(0x4, 0x4, 0xf, 0xf), "nothing has changed");
}

static void scene_start(struct scene *scene, const char *machine, bool want_sq)
{
    struct nio_plan_options options = { .sq_thread_cpu = -1, .want_sq = want_sq };
    memset(scene, 0, sizeof *scene);
    scene->topology = machine_load(machine, REAL_CPUS, NULL);
    cr_assert_eq(nio_plan_create(scene->topology, &options, &scene->plan), 0, "%s",
                 numio_strerror_detail());
    cr_assert_leq(scene->plan->worker_count, WORKERS_MAX);
    cr_assert_leq(scene->plan->node_count, NODES_MAX);
    scene->has_sq = want_sq;
    CPU_ZERO(&scene->allowed);
    for (unsigned n = 0; n < scene->plan->node_count; n++)
        for (unsigned i = 0; i < scene->plan->nodes[n].bind_cpu_count; i++)
            CPU_SET(scene->plan->nodes[n].bind_cpus[i], &scene->allowed);
}

static void scene_end(struct scene *scene)
{
    nio_plan_destroy(scene->plan);
    numio_topology_destroy(scene->topology);
}

static void scene_replan(struct scene *scene)
{
    struct nio_replan_facts facts = { .allowed = &scene->allowed,
                                      .has_sq = scene->has_sq,
                                      .before = scene->before,
                                      .is_outside = scene->is_outside,
                                      .outside = scene->outside,
                                      .is_sq_outside = scene->is_sq_outside,
                                      .sq_outside = scene->sq_outside };
    nio_replan(scene->plan, &facts, scene->workers, scene->sqs);
    memcpy(scene->before, scene->workers, sizeof scene->before);
}

/* "0 1>4 2(0) -3": worker 0 at home, 1 moved to CPU 4, 2 a guest of node 0 on no CPU of its own, 3
 * retired; "o": bound from outside; "~": may not spin.  Then, with SQ threads, those not at home:
 * "S0>5": on CPU 5; "S0(1)": on those of node 1. */
static const char *scene_text(const struct scene *scene, char *text)
{
    text[0] = '\0';
    for (unsigned w = 0; w < scene->plan->worker_count; w++) {
        const struct nio_seat *seat = &scene->workers[w];
        text_add(text, "%s%s%u%s", w ? " " : "", seat->is_retired ? "-" : "", w,
                 seat->may_spin ? "" : "~");
        if (seat->where == NIO_OUTSIDE)
            text_add(text, "o");
        if (seat->where == NIO_GUEST)
            text_add(text, "(%d)", seat->node);
        if (seat->where != NIO_AT_HOME && seat->cpu >= 0)
            text_add(text, ">%d", seat->cpu);
    }
    for (unsigned n = 0; n < scene->plan->node_count; n++) {
        const struct nio_seat *sq = &scene->sqs[n];
        if (sq->where == NIO_OUTSIDE)
            text_add(text, " S%uo", n);
        else if (sq->where != NIO_AT_HOME && sq->cpu >= 0)
            text_add(text, " S%u>%d", n, sq->cpu);
        else if (sq->where != NIO_AT_HOME)
            text_add(text, " S%u(%d)", n, sq->node);
    }
    return text;
}

static void expect(struct scene *scene, const char *want)
{
    char text[MACHINES_TEXT_BYTES];
    scene_replan(scene);
    cr_expect_str_eq(scene_text(scene, text), want, "got  %s\nwant %s", text, want);
}

static int home(const struct scene *scene, unsigned worker)
{
    return scene->plan->workers[worker].bind_cpu;
}

static void lose(struct scene *scene, int cpu)
{
    CPU_CLR(cpu, &scene->allowed);
}

static void regain(struct scene *scene, int cpu)
{
    CPU_SET(cpu, &scene->allowed);
}

/* Two hardware threads a core and a worker on the first of each, on CPUs 0 to 2: 3 to 5 are free.
 */
static const char smt[] = "pack:1 numa:1 core:3 pu:2";
static const char three_cores[] = "pack:1 numa:1 core:3 pu:1";
static const char two_nodes[] = "pack:2 numa:1 core:2 pu:1";

Test(replan, with_all_cpus_everybody_is_at_home_and_spins)
{
    struct scene scene;
    scene_start(&scene, two_nodes, false);
    expect(&scene, "0 1 2 3");
    scene_end(&scene);
}

Test(replan, a_worker_moves_to_a_free_cpu_of_its_node_stays_there_and_comes_home)
{
    struct scene scene;
    scene_start(&scene, smt, false);
    lose(&scene, home(&scene, 1));
    expect(&scene, "0 1>3 2");
    lose(&scene, home(&scene, 0));
    expect(&scene, "0>4 1>3 2"); /* nobody gives up the place that it has */
    regain(&scene, home(&scene, 1));
    expect(&scene, "0>4 1 2");
    regain(&scene, home(&scene, 0));
    expect(&scene, "0 1 2");
    scene_end(&scene);
}

Test(replan, without_a_free_cpu_a_worker_retires_and_its_node_stops_spinning)
{
    struct scene scene;
    scene_start(&scene, "pack:2 numa:1 core:3 pu:1", false);
    lose(&scene, home(&scene, 2));
    expect(&scene, "0~ 1~ -2~ 3 4 5");
    regain(&scene, home(&scene, 2));
    expect(&scene, "0 1 2 3 4 5");
    scene_end(&scene);
}

Test(replan, a_node_without_cpus_is_a_guest_of_the_nearest_one_that_has_some)
{
    struct scene scene;
    scene_start(&scene, two_nodes, false);
    lose(&scene, home(&scene, 0));
    lose(&scene, home(&scene, 1));
    expect(&scene, "0~(1) -1~(1) 2~ 3~"); /* one stays active for the tasks of the node */
    scene_end(&scene);
    scene_start(&scene, "pack:2 numa:1 core:2 pu:2", false);
    for (unsigned i = 0; i < scene.plan->nodes[0].bind_cpu_count; i++)
        lose(&scene, scene.plan->nodes[0].bind_cpus[i]);
    expect(&scene, "0(1)>6 1(1)>7 2 3");
    scene_end(&scene);
}

Test(replan, cpus_that_the_plan_does_not_know_are_used_when_none_other_is_left)
{
    struct scene scene;
    cpu_set_t cpus;
    scene_start(&scene, three_cores, false);
    for (unsigned w = 0; w < 3; w++)
        lose(&scene, home(&scene, w));
    regain(&scene, 40);
    regain(&scene, 41);
    expect(&scene, "0~(-1) 1~(-1) -2~(-1)");
    nio_seat_cpus(scene.plan, &scene.allowed, &scene.workers[0], &cpus);
    cr_expect(CPU_EQUAL(&cpus, &scene.allowed));
    cr_expect_not(nio_plan_knows(scene.plan, &scene.allowed));
    regain(&scene, home(&scene, 1));
    expect(&scene, "-0~ 1~ -2~"); /* one that it knows is enough */
    scene_end(&scene);
}

Test(replan, who_was_bound_from_outside_is_left_there_and_retires_where_another_runs)
{
    struct scene scene;
    scene_start(&scene, smt, false);
    scene.is_outside[1] = true;
    CPU_SET(3, &scene.outside[1]);
    expect(&scene, "0 1~o 2");
    CPU_ZERO(&scene.outside[1]);
    CPU_SET(home(&scene, 0), &scene.outside[1]);
    expect(&scene, "0~ -1~o 2");
    lose(&scene, home(&scene, 1)); /* now it has no home to be kept from */
    expect(&scene, "0 1>3 2");
    scene_end(&scene);
}

Test(replan, an_sq_thread_gets_a_free_cpu_or_shares_and_ends_the_spinning)
{
    struct scene scene;
    scene_start(&scene, "pack:1 numa:1 core:4 pu:1", true);
    int sq_cpu = scene.plan->nodes[0].sq_bind_cpu;
    cr_assert_geq(sq_cpu, 0);
    lose(&scene, home(&scene, 0));
    expect(&scene, "-0~ 1~ 2~"); /* the SQ thread's CPU is not free */
    regain(&scene, home(&scene, 0));
    lose(&scene, sq_cpu);
    expect(&scene, "0~ 1~ 2~ S0(0)");
    regain(&scene, sq_cpu);
    scene.is_sq_outside[0] = true;
    CPU_SET(home(&scene, 1), &scene.sq_outside[0]);
    expect(&scene, "0 1~ 2 S0o");
    scene_end(&scene);
    scene_start(&scene, "pack:1 numa:1 core:2 pu:2", true);
    lose(&scene, scene.plan->nodes[0].sq_bind_cpu);
    expect(&scene, "0 1 S0>3");
    scene_end(&scene);
}

Test(replan, a_node_whose_only_cpu_is_the_sq_threads_keeps_one_worker_there)
{
    struct scene scene;
    scene_start(&scene, "pack:1 numa:1 core:4 pu:1", true);
    for (unsigned w = 0; w < 3; w++)
        lose(&scene, home(&scene, w));
    expect(&scene, "0~ -1~ -2~");
    scene_end(&scene);
}

/* --- Random machines ------------------------------------------------------------------------- */

static bool has_cpus(const struct scene *scene, unsigned node)
{
    bool has = false;
    for (unsigned i = 0; i < scene->plan->nodes[node].bind_cpu_count && !has; i++)
        has = CPU_ISSET(scene->plan->nodes[node].bind_cpus[i], &scene->allowed);
    return has;
}

static unsigned distance(const struct scene *scene, unsigned worker, unsigned node)
{
    const struct nio_plan *plan = scene->plan;
    return plan->distance[plan->workers[worker].node * plan->node_count + node];
}

/* What holds whatever is lost. */
static void check_scene(const struct scene *scene)
{
    const struct nio_plan *plan = scene->plan;
    cpu_set_t taken, cpus, rest;
    unsigned active[NODES_MAX] = { 0 };
    CPU_ZERO(&taken);
    for (unsigned w = 0; w < plan->worker_count; w++) {
        const struct nio_seat *seat = &scene->workers[w];
        bool has_home = CPU_ISSET(home(scene, w), &scene->allowed);
        active[plan->workers[w].node] += !seat->is_retired;
        cr_assert_eq(seat->where == NIO_AT_HOME, has_home && !scene->is_outside[w], "worker %u", w);
        cr_assert_eq(seat->where == NIO_OUTSIDE, has_home && scene->is_outside[w], "worker %u", w);
        if (seat->where == NIO_OUTSIDE)
            continue;
        nio_seat_cpus(plan, &scene->allowed, seat, &cpus);
        cr_assert_gt(CPU_COUNT(&cpus), 0, "worker %u has no CPU", w);
        CPU_AND(&rest, &cpus, &scene->allowed);
        cr_assert(CPU_EQUAL(&rest, &cpus), "worker %u is on CPUs that are gone", w);
        for (unsigned n = 0; n < plan->node_count && seat->where == NIO_GUEST; n++)
            cr_assert(!has_cpus(scene, n) ||
                          distance(scene, w, (unsigned)seat->node) <= distance(scene, w, n),
                      "worker %u is a guest of node %d, node %u is nearer", w, seat->node, n);
        cr_assert(seat->cpu < 0 || !CPU_ISSET(seat->cpu, &taken), "two on CPU %d", seat->cpu);
        cr_assert(!seat->may_spin || seat->cpu >= 0, "worker %u spins on shared CPUs", w);
        if (seat->cpu >= 0)
            CPU_SET(seat->cpu, &taken);
    }
    for (unsigned n = 0; n < plan->node_count; n++) {
        cr_assert_gt(active[n], 0, "node %u has no active worker", n);
        if (scene->sqs[n].where == NIO_OUTSIDE)
            continue;
        nio_seat_cpus(plan, &scene->allowed, &scene->sqs[n], &cpus);
        cr_assert(!scene->has_sq || CPU_COUNT(&cpus) > 0, "SQ thread %u has no CPU", n);
    }
    /* Who spins is alone on its CPU, as far as the runtime's threads go. */
    for (unsigned w = 0; w < plan->worker_count; w++)
        for (unsigned v = 0; v < plan->worker_count && scene->workers[w].may_spin; v++) {
            if (v == w || scene->workers[v].where == NIO_OUTSIDE)
                continue;
            nio_seat_cpus(plan, &scene->allowed, &scene->workers[v], &cpus);
            cr_assert_not(CPU_ISSET(scene->workers[w].cpu, &cpus), "%u spins beside %u", w, v);
        }
}

Test(replan, whatever_is_lost_each_node_keeps_a_worker_and_nobody_runs_where_it_must_not)
{
    static const char *const machines[] = { smt,
                                            three_cores,
                                            two_nodes,
                                            "pack:2 numa:2 core:4 pu:2",
                                            "pack:4 numa:1 core:4 pu:1",
                                            "pack:1 numa:1 core:1 pu:1",
                                            "pack:2 numa:1 core:1 pu:2" };
    struct nio_rng rng = seeded_rng(5);
    for (unsigned i = 0; i < 400; i++) {
        static struct scene scene;
        scene_start(&scene, machines[i % NIO_ARRAY_LEN(machines)], nio_rng_below(&rng, 2));
        cpu_set_t all = scene.allowed;
        for (unsigned round = 0; round < 20; round++) {
            unsigned keep = 1 + nio_rng_below(&rng, 8);
            for (int cpu = 0; cpu < REAL_CPUS; cpu++)
                if (CPU_ISSET(cpu, &all) && nio_rng_below(&rng, 8) < keep)
                    regain(&scene, cpu);
                else
                    lose(&scene, cpu);
            if (CPU_COUNT(&scene.allowed) == 0)
                regain(&scene, (int)nio_rng_below(&rng, REAL_CPUS));
            for (unsigned w = 0; w < scene.plan->worker_count; w++) {
                scene.is_outside[w] = nio_rng_below(&rng, 8) == 0;
                CPU_ZERO(&scene.outside[w]);
                CPU_SET(nio_rng_below(&rng, REAL_CPUS), &scene.outside[w]);
            }
            scene_replan(&scene);
            check_scene(&scene);
            struct scene again = scene;
            scene_replan(&again);
            cr_assert_eq(memcmp(again.workers, scene.workers, sizeof scene.workers), 0,
                         "who has a place keeps it");
        }
        scene_end(&scene);
    }
}
