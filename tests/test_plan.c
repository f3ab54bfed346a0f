/* SPDX-License-Identifier: MIT */
/* Plans for many machines, written out; then the options one by one; then random machines. */
#include "numa/plan.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>

#include <numio/error.h>

#include "runtime/base/clock.h"
#include "runtime/base/compiler.h"
#include "runtime/base/mem.h"
#include "runtime/base/rng.h"
#include "tests/machines/machines.h"

enum { REAL_CPUS = 128 };

static const struct nio_plan_options defaults = { .sq_thread_cpu = -1, .want_sq = true };

static struct nio_plan *make_plan(const struct numio_topology *topology,
                                  const struct nio_plan_options *options)
{
    struct nio_plan *plan = NULL;
    int err = nio_plan_create(topology, options ? options : &defaults, &plan);
    cr_assert_eq(err, 0, "%s", numio_strerror_detail());
    nio_plan_check(plan);
    return plan;
}

/* Plans `machine` and compares the nodes, and one worker's steal order where it is given. */
static void expect_plan(const char *machine, const struct nio_plan_options *options,
                        const char *nodes, unsigned worker, const char *steal)
{
    char text[MACHINES_TEXT_BYTES];
    struct numio_topology *topology = machine_load(machine, REAL_CPUS, NULL);
    struct nio_plan *plan = make_plan(topology, options);
    cr_expect_str_eq(plan_text(plan, text), nodes, "%s:\n got %s\nwant %s", machine, text, nodes);
    if (steal)
        cr_expect_str_eq(steal_text(plan, worker, text), steal, "%s, worker %u:\n got %s\nwant %s",
                         machine, worker, text, steal);
    nio_plan_destroy(plan);
    numio_topology_destroy(topology);
}

static void expect_error(const char *machine, const struct nio_plan_options *options, int error,
                         const char *detail)
{
    struct numio_topology *topology = machine_load(machine, REAL_CPUS, NULL);
    struct nio_plan *plan = (struct nio_plan *)topology, *before = plan;
    cr_expect_eq(nio_plan_create(topology, options, &plan), error);
    cr_expect_eq(plan, before, "ret_plan touched on failure");
    cr_expect_not_null(strstr(numio_strerror_detail(), detail), "detail: %s",
                       numio_strerror_detail());
    numio_topology_destroy(topology);
}

/* --- machines ------------------------------------------------------------------------------ */

Test(plan, one_cpu_has_one_worker_and_no_sq_thread)
{
    expect_plan("pack:1 numa:1 core:1 pu:1", NULL, "0/N", 0, "");
}

Test(plan, one_core_with_smt_puts_the_sq_thread_on_the_sibling)
{
    expect_plan("pack:1 numa:1 core:1 pu:2", NULL, "0/S1", 0, "");
}

Test(plan, machine_without_numa_is_one_node)
{
    expect_plan("core:4 pu:1", NULL, "0,1,2/R3", 1, "2L 0L");
}

Test(plan, two_cores_share_with_the_sq_thread)
{
    expect_plan("pack:1 numa:1 l3:1 core:2 pu:1", NULL, "0,1/H", 1, "0L");
}

Test(plan, two_sockets_reserve_a_core_each)
{
    expect_plan("pack:2 numa:1 l3:1 core:4 pu:1", NULL, "0,1,2/R3 4,5,6/R7", 4,
                "5L 3L 0F20 1F20 2F20");
}

Test(plan, four_sockets_steal_from_the_nearest_first)
{
    expect_plan("four_sockets.xml", NULL, "0,1/H 2,3/H 4,5/H 6,7/H", 2,
                "3L 0F16 1F16 4F32 5F32 6F32 7F32");
    expect_plan("four_sockets.xml", NULL, "0,1/H 2,3/H 4,5/H 6,7/H", 5,
                "4L 6F16 7F16 0F32 1F32 2F32 3F32");
}

Test(plan, snc4_makes_a_node_of_each_cluster)
{
    expect_plan("pack:2 l3:1 numa:4 core:2 pu:1", NULL,
                "0,1/H 2,3/H 4,5/H 6,7/H 8,9/H 10,11/H 12,13/H 14,15/H", 9,
                "8L 10F12 11F12 12F12 13F12 14F12 15F12 "
                "0F20 1F20 2F20 3F20 4F20 5F20 6F20 7F20");
}

Test(plan, snc4_by_package_is_one_node_per_package)
{
    struct nio_plan_options options = defaults;
    options.shard_by = NUMIO_SHARD_PACKAGE;
    expect_plan("pack:2 l3:1 numa:4 core:2 pu:1", &options,
                "0,1,2,3,4,5,6/R7 8,9,10,11,12,13,14/R15", 13,
                "7L 8L 9L 10L 11L 12L 0F20 1F20 2F20 3F20 4F20 5F20 6F20");
}

Test(plan, epyc_nps4_steals_by_cache_then_node_then_package)
{
    expect_plan("epyc_nps4.xml", NULL,
                "0,1,2,3/S35 4,5,6,7/S39 8,9,10,11/S43 12,13,14,15/S47 "
                "16,17,18,19/S51 20,21,22,23/S55 24,25,26,27/S59 28,29,30,31/S63",
                6,
                "7L 4N 5N 8F12 9F12 10F12 11F12 12F12 13F12 14F12 15F12 0F12 1F12 2F12 3F12 "
                "16F32 17F32 18F32 19F32 20F32 21F32 22F32 23F32 "
                "24F32 25F32 26F32 27F32 28F32 29F32 30F32 31F32");
}

Test(plan, epyc_nps4_by_l3_is_a_node_per_cache)
{
    struct nio_plan_options options = defaults;
    options.shard_by = NUMIO_SHARD_L3;
    options.cpus = "0-7,32-39";
    expect_plan("epyc_nps4.xml", &options, "0,1/S33 2,3/S35 4,5/S37 6,7/S39", 4,
                "5L 6F10 7F10 0F12 1F12 2F12 3F12");
}

Test(plan, cpus_without_memory_join_the_nearest_node_that_has)
{
    expect_plan("memoryless.xml", NULL, "0,1/H 2,3,4/R5", 2, "3L 4N 0F20 1F20");
}

Test(plan, cpus_without_any_numa_node_join_the_first)
{
    expect_plan("memoryless_unlisted.xml", NULL, "0,1,2/R3 4,5/H", 3, "4L 0F20 1F20 2F20");
}

Test(plan, memory_without_cpus_is_no_node)
{
    expect_plan("cxl.xml", NULL, "0,1/H 2,3/H", 0, "1L 2F21 3F21");
    expect_plan("cxl_group.xml", NULL, "0,1/H 2,3/H", 3, "2L 0F21 1F21");
}

Test(plan, fast_and_frugal_cores_all_work)
{
    expect_plan("hybrid.xml", NULL, "0,2,4,5,6,7/S3", 2, "3L 4L 5L 0L 1L");
}

Test(plan, a_frugal_core_is_the_one_to_be_reserved)
{
    expect_plan("hybrid_no_smt.xml", NULL, "0,1,2,4,5/R3", 0, "1L 2L 3L 4L");
}

Test(plan, fewer_workers_take_the_fast_cores)
{
    struct nio_plan_options options = defaults;
    options.workers = 3;
    expect_plan("hybrid_no_smt.xml", &options, "0,4,5/R3", 1, "2L 0L");
}

Test(plan, holes_in_the_numbers_do_no_harm)
{
    expect_plan("holes.xml", NULL, "2,9/H 3,40/H", 0, "1L 2F21 3F21");
}

Test(plan, cpuset_of_one_cpu_runs_one_worker_there)
{
    expect_plan("cpuset_one.xml", NULL, "3/N", 0, "");
}

Test(plan, smt_on_uses_siblings_and_smt_off_a_core)
{
    expect_plan("pack:1 numa:1 core:4 pu:2", NULL, "0,2,4,6/S7", 0, "1L 2L 3L");
    expect_plan("pack:1 numa:1 core:4 pu:1", NULL, "0,1,2/R3", 0, "1L 2L");
}

Test(plan, two_packages_on_one_numa_node_follow_shard_by)
{
    struct nio_plan_options options = defaults;
    expect_plan("numa:1 pack:2 core:2 pu:1", &options, "0,1,2/R3", 0, "1L 2N");
    options.shard_by = NUMIO_SHARD_PACKAGE;
    expect_plan("numa:1 pack:2 core:2 pu:1", &options, "0,1/H 2,3/H", 0, "1L 2F10 3F10");
}

/* Plans `machine` under a cgroup v2 quota of `cpu_max`. */
static struct nio_plan *plan_with_quota(const char *machine, const char *cpu_max,
                                        const struct nio_plan_options *options)
{
    char root[PATH_MAX];
    fake_file(fake_root(root), "/proc/self/cgroup", "0::/job\n");
    fake_file(root, "/proc/self/mountinfo",
              "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    fake_file(root, "/sys/fs/cgroup/job/cpu.max", cpu_max);
    struct numio_topology *topology = machine_load(machine, REAL_CPUS, root);
    struct nio_plan *plan = make_plan(topology, options);
    numio_topology_destroy(topology);
    fake_remove(root);
    return plan;
}

Test(plan, quota_of_half_a_cpu_runs_one_worker_without_sq_thread)
{
    char text[MACHINES_TEXT_BYTES];
    struct nio_plan *plan = plan_with_quota("pack:2 numa:1 core:4 pu:1", "50000 100000\n", NULL);
    cr_expect_str_eq(plan_text(plan, text), "0/N");
    cr_expect_eq(plan->cpu_quota, 0.5);
    cr_expect(plan_has_reason(plan, "workers: 1 instead of 8, the CPU quota is 0.50 CPUs"));
    cr_expect(plan_has_reason(plan, "the CPU quota is 0.50 CPUs, an SQ thread needs two"));
    cr_expect(plan_has_reason(plan, "1 of 2 nodes are left out"));
    nio_plan_destroy(plan);
}

Test(plan, quota_caps_the_workers_and_spreads_them)
{
    char text[MACHINES_TEXT_BYTES];
    struct nio_plan *plan = plan_with_quota("pack:2 numa:1 core:4 pu:1", "250000 100000\n", NULL);
    cr_expect_str_eq(plan_text(plan, text), "0,1/R3 4/R7");
    nio_plan_destroy(plan);
    plan = plan_with_quota("pack:2 numa:1 core:4 pu:1", "6400000 100000\n", NULL);
    cr_expect_str_eq(plan_text(plan, text), "0,1,2/R3 4,5,6/R7", "a quota above the CPUs");
    nio_plan_destroy(plan);
}

Test(plan, asking_for_more_workers_than_the_quota_is_obeyed_and_noted)
{
    char text[MACHINES_TEXT_BYTES];
    struct nio_plan_options options = defaults;
    options.workers = 4;
    struct nio_plan *plan =
        plan_with_quota("pack:2 numa:1 core:4 pu:1", "150000 100000\n", &options);
    cr_expect_str_eq(plan_text(plan, text), "0,1/N 4,5/N");
    cr_expect(plan_has_reason(plan, "workers: 4 share a CPU quota of 1.50 CPUs"));
    nio_plan_destroy(plan);
}

/* --- options ------------------------------------------------------------------------------- */

Test(plan, fewer_workers_are_spread_over_the_nodes)
{
    struct nio_plan_options options = defaults;
    options.workers = 3;
    expect_plan("pack:2 numa:1 l3:1 core:4 pu:1", &options, "0,1/R3 4/R7", 2, "0F20 1F20");
    options.workers = 1;
    expect_plan("pack:2 numa:1 l3:1 core:4 pu:1", &options, "0/R3", 0, "");
}

Test(plan, uneven_nodes_fill_up_and_the_rest_goes_on)
{
    struct nio_plan_options options = defaults;
    options.workers = 5;
    options.cpus = "0,4-7";
    expect_plan("pack:2 numa:1 l3:1 core:4 pu:1", &options, "0/H 4,5,6,7/H", 0, NULL);
    options.workers = 4;
    expect_plan("pack:2 numa:1 l3:1 core:4 pu:1", &options, "0/H 4,5,6/R7", 0, NULL);
}

Test(plan, as_many_workers_as_cores_leave_none_reserved)
{
    struct nio_plan_options options = defaults;
    options.workers = 8;
    expect_plan("pack:2 numa:1 core:4 pu:1", &options, "0,1,2,3/H 4,5,6,7/H", 0, NULL);
    options.workers = 7;
    expect_plan("pack:2 numa:1 core:4 pu:1", &options, "0,1,2,3/H 4,5,6/R7", 0, NULL);
}

Test(plan, workers_beyond_the_cores_use_siblings)
{
    struct nio_plan_options options = defaults;
    options.workers = 3;
    expect_plan("pack:1 numa:1 core:2 pu:2", &options, "0,1,2/S3", 0, NULL);
    options.workers = 4;
    expect_plan("pack:1 numa:1 core:2 pu:2", &options, "0,1,2,3/H", 0, NULL);
}

Test(plan, more_workers_than_cpus_are_refused)
{
    struct nio_plan_options options = defaults;
    options.workers = 5;
    expect_error("pack:1 numa:1 core:2 pu:2", &options, -E2BIG,
                 "workers: 5 asked for, but only 4 CPUs may be used");
    options.workers = 2;
    options.cpus = "3";
    expect_error("pack:1 numa:1 core:2 pu:2", &options, -E2BIG, "only 1 CPUs");
}

Test(plan, worker_per_pu_takes_every_pu)
{
    struct nio_plan_options options = defaults;
    options.per_pu = true;
    expect_plan("pack:1 numa:1 core:2 pu:2", &options, "0,1,2,3/H", 0, NULL);
    expect_plan("pack:1 numa:1 core:4 pu:2", &options, "0,1,2,3,4,5/R6", 0, NULL);
}

Test(plan, no_core_is_reserved_when_no_sq_thread_is_wanted)
{
    struct nio_plan_options options = defaults;
    options.want_sq = false;
    options.sq_thread_cpu = 2;
    expect_plan("pack:1 numa:1 core:4 pu:1", &options, "0,1,2,3/N", 0, NULL);
    expect_plan("pack:1 numa:1 core:2 pu:2", &options, "0,2/N", 0, NULL);
}

Test(plan, forced_sq_cpu_moves_the_worker_to_the_sibling)
{
    struct nio_plan_options options = defaults;
    options.sq_thread_cpu = 0;
    expect_plan("pack:1 numa:1 core:2 pu:2", &options, "1,2/F0", 0, NULL);
    options.sq_thread_cpu = 1;
    expect_plan("pack:1 numa:1 core:2 pu:2", &options, "0,2/F1", 0, NULL);
}

Test(plan, forced_sq_cpu_takes_its_core_from_the_workers)
{
    struct nio_plan_options options = defaults;
    options.sq_thread_cpu = 1;
    expect_plan("pack:2 numa:1 core:4 pu:1", &options, "0,2,3/F1 4,5,6/R7", 0, NULL);
}

Test(plan, forced_sq_cpu_is_shared_where_nothing_else_is_left)
{
    char text[MACHINES_TEXT_BYTES];
    struct nio_plan_options options = defaults;
    options.sq_thread_cpu = 0;
    struct numio_topology *topology = machine_load("core:1 pu:1", 1, NULL);
    struct nio_plan *plan = make_plan(topology, &options);
    cr_expect_str_eq(plan_text(plan, text), "0/F0");
    cr_expect(plan->is_oversubscribed);
    cr_expect(plan_has_reason(plan, "sq_thread_cpu: CPU 0 has a worker as well"));
    cr_expect(plan_has_reason(plan, "there is one only by sq_thread_cpu"));
    nio_plan_destroy(plan);
    numio_topology_destroy(topology);
}

Test(plan, forced_sq_cpu_outside_cpus_serves_the_nearest_node)
{
    struct nio_plan_options options = defaults;
    options.cpus = "0-1,6-7";
    options.sq_thread_cpu = 3;
    expect_plan("four_sockets.xml", &options, "0,1/F3 6,7/H", 0, "1L 2F32 3F32");
    options.sq_thread_cpu = 5;
    expect_plan("four_sockets.xml", &options, "0,1/H 6,7/F5", 0, NULL);
}

Test(plan, forced_sq_cpu_must_be_one_of_the_machine)
{
    struct nio_plan_options options = defaults;
    options.sq_thread_cpu = 4;
    expect_error("core:4 pu:1", &options, -EINVAL, "sq_thread_cpu: CPU 4");
    options.sq_thread_cpu = -2;
    expect_error("core:4 pu:1", &options, -EINVAL, "sq_thread_cpu: CPU -2");
}

Test(plan, cpus_narrows_the_machine)
{
    struct nio_plan_options options = defaults;
    options.cpus = "1, 4-5";
    expect_plan("pack:2 numa:1 l3:1 core:4 pu:1", &options, "1/H 4,5/H", 1, "2L 0F20");
    options.cpus = "6";
    expect_plan("pack:2 numa:1 l3:1 core:4 pu:1", &options, "6/N", 0, "");
}

Test(plan, cpus_that_may_not_be_used_are_left_out_and_noted)
{
    char text[MACHINES_TEXT_BYTES];
    struct nio_plan_options options = defaults;
    options.cpus = "0-1,7-9";
    struct numio_topology *topology = machine_load("core:8 pu:1", REAL_CPUS, NULL);
    struct nio_plan *plan = make_plan(topology, &options);
    cr_expect_str_eq(plan_text(plan, text), "0,1,7/H");
    cr_expect(plan_has_reason(plan, "cpus: of 7-9 only 1 may be used"));
    cr_expect_eq(plan->allowed_cpu_count, 3);
    nio_plan_destroy(plan);
    numio_topology_destroy(topology);
}

Test(plan, cpus_that_make_no_sense_are_refused)
{
    static const char *const bad[] = { "",   " ",  "a",    "0-",  "-3",    "3-1",
                                       "0,", ",0", "0,,1", "0 1", "1-2-3", "99999999999999999999" };
    struct nio_plan_options options = defaults;
    for (size_t i = 0; i < NIO_ARRAY_LEN(bad); i++) {
        options.cpus = bad[i];
        expect_error("core:4 pu:1", &options, -EINVAL, "cpus: ");
    }
    options.cpus = "4-7";
    expect_error("core:4 pu:1", &options, -EINVAL, "cpus: '4-7' names no CPU");
}

Test(plan, shard_by_l3_without_l3_falls_back_to_numa)
{
    char text[MACHINES_TEXT_BYTES];
    struct nio_plan_options options = defaults;
    options.shard_by = NUMIO_SHARD_L3;
    struct numio_topology *topology = machine_load("pack:2 numa:1 core:2 pu:1", REAL_CPUS, NULL);
    struct nio_plan *plan = make_plan(topology, &options);
    cr_expect_str_eq(plan_text(plan, text), "0,1/H 2,3/H");
    cr_expect(plan_has_reason(plan, "shard_by: the machine shows no L3"));
    nio_plan_destroy(plan);
    numio_topology_destroy(topology);
    options.shard_by = (enum numio_shard_by)7;
    expect_error("core:4 pu:1", &options, -EINVAL, "shard_by: 7");
}

Test(plan, numa_nodes_map_to_the_nearest_node_of_the_plan)
{
    struct nio_plan_options options = defaults;
    options.cpus = "2-3,4-5";
    struct numio_topology *topology = machine_load("four_sockets.xml", REAL_CPUS, NULL);
    struct nio_plan *plan = make_plan(topology, &options);
    static const unsigned expected[] = { 0, 0, 1, 1 };
    for (uint32_t i = 0; i < 4; i++)
        cr_expect_eq(nio_plan_node_of_numa(plan, i), expected[i], "NUMA node %u", i);
    cr_expect_eq(nio_plan_node_of_numa(plan, 4), 0);
    nio_plan_destroy(plan);
    numio_topology_destroy(topology);
}

/* --- binding ------------------------------------------------------------------------------- */

Test(plan, emulated_workers_go_round_the_real_cpus)
{
    char text[MACHINES_TEXT_BYTES];
    static const int real[] = { 4, 9, 11 };
    struct nio_topology_setup setup = { .real_cpus = real, .real_cpu_count = 3 };
    struct numio_topology *topology;
    cr_assert_eq(nio_topology_load_as("pack:2 numa:1 core:2 pu:2", &setup, &topology), 0);
    struct nio_plan *plan = make_plan(topology, NULL);
    static const int expected[] = { 4, 9, 11, 4 };
    for (unsigned w = 0; w < 4; w++)
        cr_expect_eq(plan->workers[w].bind_cpu, expected[w], "worker %u", w);
    cr_expect_str_eq(plan_text(plan, text), "0,2/S3 4,6/S7");
    cr_expect_eq(plan->nodes[0].sq_bind_cpu, 9);
    cr_expect_eq(plan->nodes[1].sq_bind_cpu, 11);
    cr_expect(plan->is_emulated && plan->is_oversubscribed);
    cr_expect_eq(plan->nodes[0].os_node, -1);
    cr_expect_eq(plan->nodes[0].os_node_count, 0);
    nio_plan_destroy(plan);
    numio_topology_destroy(topology);
}

Test(plan, emulated_machine_on_one_real_cpu_has_no_sq_thread)
{
    char text[MACHINES_TEXT_BYTES];
    struct numio_topology *topology = machine_load("pack:2 numa:1 core:2 pu:1", 1, NULL);
    struct nio_plan *plan = make_plan(topology, NULL);
    cr_expect_str_eq(plan_text(plan, text), "0,1/N 2,3/N");
    cr_expect(plan_has_reason(plan, "this machine gives only one CPU"));
    nio_plan_destroy(plan);
    numio_topology_destroy(topology);
}

Test(plan, spare_cpus_have_neither_worker_nor_sq_thread)
{
    char text[MACHINES_TEXT_BYTES];
    struct nio_plan_options options = defaults;
    options.workers = 2;
    struct numio_topology *topology = machine_load("pack:2 numa:1 core:4 pu:1", 8, NULL);
    struct nio_plan *plan = make_plan(topology, &options);
    cr_expect_str_eq(plan_text(plan, text), "0/R3 4/R7");
    /* dealt: workers 0 1, SQ threads 2 3, then the PUs left over: 4 5 in node 0, 6 7 in node 1 */
    cr_expect_str_eq(cpus_text(plan->nodes[0].bind_cpus, plan->nodes[0].bind_cpu_count, text),
                     "0 2 4 5");
    cr_expect_str_eq(cpus_text(plan->nodes[0].spare_cpus, plan->nodes[0].spare_cpu_count, text),
                     "4 5");
    cr_expect_str_eq(cpus_text(plan->nodes[1].spare_cpus, plan->nodes[1].spare_cpu_count, text),
                     "6 7");
    cr_expect_not(plan->is_oversubscribed);
    nio_plan_destroy(plan);
    numio_topology_destroy(topology);
}

/* A made-up Linux of two packages, the first with two NUMA nodes, that hwloc takes for this. */
static void fake_two_packages(char *root)
{
    fake_machine(fake_root(root), 6, "0-2\n");
    for (int cpu = 0; cpu < 6; cpu++)
        fake_cpu(root, cpu, cpu / 4, cpu < 4 ? 0x0f : 0x30);
    fake_node(root, 0, "0-1\n", 0x03, 1000, "10 12 21\n");
    fake_node(root, 1, "2-3\n", 0x0c, 2000, "12 10 21\n");
    fake_node(root, 2, "4-5\n", 0x30, 4000, "21 21 10\n");
    fake_use(root);
}

Test(plan, real_machine_binds_to_its_own_cpus_and_nodes)
{
    char root[PATH_MAX], text[MACHINES_TEXT_BYTES];
    fake_two_packages(root);
    struct numio_topology *topology = machine_load(NULL, 6, root);
    struct nio_plan *plan = make_plan(topology, NULL);
    cr_expect_str_eq(plan_text(plan, text), "0,1/H 2,3/H 4,5/H");
    cr_expect_not(plan->is_emulated || plan->is_oversubscribed);
    for (unsigned w = 0; w < plan->worker_count; w++)
        cr_expect_eq(plan->workers[w].bind_cpu, plan->workers[w].cpu);
    for (unsigned n = 0; n < 3; n++)
        cr_expect_eq(plan->nodes[n].os_node, (int)n);
    cr_expect_eq(plan->nodes[1].memory_bytes, 2000u << 10);
    cr_expect_str_eq(cpus_text(plan->nodes[1].bind_cpus, plan->nodes[1].bind_cpu_count, text),
                     "2 3");
    cr_expect_eq(plan->nodes[1].spare_cpu_count, 0);
    nio_plan_destroy(plan);
    numio_topology_destroy(topology);
    fake_remove(root);
}

Test(plan, node_of_several_numa_nodes_leaves_memory_to_first_touch)
{
    char root[PATH_MAX], text[MACHINES_TEXT_BYTES];
    struct nio_plan_options options = defaults;
    options.shard_by = NUMIO_SHARD_PACKAGE;
    fake_two_packages(root);
    struct numio_topology *topology = machine_load(NULL, 6, root);
    struct nio_plan *plan = make_plan(topology, &options);
    cr_expect_str_eq(plan_text(plan, text), "0,1,2/R3 4,5/H");
    cr_expect_eq(plan->nodes[0].os_node, -1);
    cr_expect_str_eq(cpus_text(plan->nodes[0].os_nodes, plan->nodes[0].os_node_count, text), "0 1");
    cr_expect_eq(plan->nodes[0].memory_bytes, 3000u << 10);
    cr_expect_eq(plan->nodes[1].os_node, 2);
    cr_expect(plan_has_reason(plan, "node 0 spans 2 NUMA nodes"));
    nio_plan_destroy(plan);
    numio_topology_destroy(topology);
    fake_remove(root);
}

/* --- properties and faults ----------------------------------------------------------------- */

struct random_case {
    char spec[128];
    char cpus[64];
    struct nio_plan_options options;
};

static void make_case(struct nio_rng *rng, struct random_case *c)
{
    unsigned packs = 1 + nio_rng_below(rng, 4), numas = 1 + nio_rng_below(rng, 3);
    unsigned caches = 1 + nio_rng_below(rng, 2), cores = 1 + nio_rng_below(rng, 5);
    unsigned threads = 1 + nio_rng_below(rng, 2), total = packs * numas * caches * cores * threads;
    switch (nio_rng_below(rng, 3)) {
    case 0:
        (void)snprintf(c->spec, sizeof c->spec, "pack:%u numa:%u l3:%u core:%u pu:%u", packs, numas,
                       caches, cores, threads);
        break;
    case 1:
        (void)snprintf(c->spec, sizeof c->spec, "pack:%u l3:%u numa:%u core:%u pu:%u", packs,
                       caches, numas, cores, threads);
        break;
    default:
        (void)snprintf(c->spec, sizeof c->spec, "numa:%u pack:%u l2:%u core:%u pu:%u", numas, packs,
                       caches, cores, threads);
    }
    c->options = defaults;
    c->options.shard_by = (enum numio_shard_by)nio_rng_below(rng, 3);
    c->options.per_pu = nio_rng_below(rng, 4) == 0;
    c->options.want_sq = nio_rng_below(rng, 4) != 0;
    if (nio_rng_below(rng, 3) == 0)
        c->options.workers = 1 + nio_rng_below(rng, total);
    if (nio_rng_below(rng, 4) == 0)
        c->options.sq_thread_cpu = (int)nio_rng_below(rng, total);
    if (nio_rng_below(rng, 2) == 0) {
        unsigned first = nio_rng_below(rng, total);
        unsigned last = first + nio_rng_below(rng, total - first);
        (void)snprintf(c->cpus, sizeof c->cpus, "%u-%u", first, last);
        c->options.cpus = c->cpus;
        if (c->options.workers > last - first + 1)
            c->options.workers = last - first + 1;
    }
}

/* Every other worker exactly once, in order of tier and distance, counted independently. */
static bool reaches_all_in_order(const struct nio_plan *plan, unsigned thief)
{
    bool is_seen[MACHINES_CPUS_MAX] = { false };
    const struct nio_plan_worker *w = &plan->workers[thief];
    unsigned last_rank = 0;
    for (unsigned i = 0; i < w->steal_count; i++) {
        const struct nio_plan_worker *v = &plan->workers[w->steal[i].worker];
        unsigned rank = v->node != w->node
                            ? 1000u + plan->distance[w->node * plan->node_count + v->node]
                            : (v->llc != w->llc);
        if (is_seen[w->steal[i].worker] || rank < last_rank || w->steal[i].worker == thief)
            return false;
        is_seen[w->steal[i].worker] = true;
        last_rank = rank;
    }
    return w->steal_count == plan->worker_count - 1;
}

static bool is_enabled(const struct random_case *c, int cpu)
{
    int first = 0, last = INT_MAX;
    if (c->options.cpus && sscanf(c->options.cpus, "%d-%d", &first, &last) != 2)
        return false;
    return cpu >= first && cpu <= last;
}

static void check_case(const struct random_case *c, const struct nio_plan *plan,
                       const struct nio_plan *again, uint64_t seed)
{
    char text[MACHINES_TEXT_BYTES], other[MACHINES_TEXT_BYTES];
    cr_assert_str_eq(plan_text(plan, text), plan_text(again, other), "seed %lu: %s",
                     (unsigned long)seed, c->spec);
    if (c->options.workers)
        cr_assert_eq(plan->worker_count, c->options.workers, "seed %lu: %s", (unsigned long)seed,
                     c->spec);
    for (unsigned w = 0; w < plan->worker_count; w++) {
        cr_assert(is_enabled(c, plan->workers[w].cpu), "seed %lu: %s", (unsigned long)seed,
                  c->spec);
        cr_assert(reaches_all_in_order(plan, w), "seed %lu: %s worker %u", (unsigned long)seed,
                  c->spec, w);
        cr_assert_arr_eq(plan->workers[w].steal, again->workers[w].steal,
                         plan->workers[w].steal_count * sizeof(struct nio_steal_target),
                         "seed %lu: %s", (unsigned long)seed, c->spec);
    }
    for (unsigned n = 0; n < plan->node_count; n++) {
        const struct nio_plan_node *node = &plan->nodes[n];
        bool is_forced = node->sq_place == NIO_SQ_FORCED;
        cr_assert(node->sq_cpu < 0 || (is_forced ? node->sq_cpu == c->options.sq_thread_cpu
                                                 : is_enabled(c, node->sq_cpu)),
                  "seed %lu: %s: SQ thread on CPU %d", (unsigned long)seed, c->spec, node->sq_cpu);
        cr_assert(c->options.want_sq || node->sq_place == NIO_SQ_NONE);
    }
}

Test(plan, random_machines_keep_every_promise, .timeout = 60)
{
    enum { CASES = 300 };
    const char *given = getenv("NUMIO_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : nio_now_ns();
    printf("NUMIO_TEST_SEED=%lu\n", (unsigned long)seed);
    uint64_t stream = seed;
    struct nio_rng rng;
    nio_rng_init(&rng, &stream);
    for (int i = 0; i < CASES; i++) {
        struct random_case c = { .spec = "" };
        make_case(&rng, &c);
        struct numio_topology *topology = machine_load(c.spec, 1 + nio_rng_below(&rng, 16), NULL);
        struct nio_plan *plan = make_plan(topology, &c.options);
        struct nio_plan *again = make_plan(topology, &c.options);
        check_case(&c, plan, again, seed);
        nio_plan_destroy(plan);
        nio_plan_destroy(again);
        struct nio_plan_options nothing = c.options;
        nothing.cpus = "";
        cr_assert_eq(nio_plan_create(topology, &nothing, &plan), -EINVAL);
        numio_topology_destroy(topology);
    }
}

Test(plan, every_failing_allocation_is_reported_and_cleaned_up, .timeout = 60)
{
    struct nio_plan_options options = defaults;
    options.shard_by = NUMIO_SHARD_L3;
    options.cpus = "0-300";
    options.sq_thread_cpu = 1;
    struct numio_topology *topology = machine_load("pack:2 numa:2 core:3 pu:1", 2, NULL);
    struct nio_plan *plan = NULL;
    int err = -ENOMEM;
    long nth;
    for (nth = 1; err == -ENOMEM; nth++) {
        nio_fault_arm(nth);
        err = nio_plan_create(topology, &options, &plan);
        cr_assert_eq(err != 0, nio_fault_struck(), "allocation %ld", nth);
        cr_assert(err == 0 || strstr(numio_strerror_detail(), "out of memory"));
        cr_assert_lt(nth, 1000);
    }
    nio_fault_arm(0);
    cr_assert_eq(err, 0);
    cr_assert_gt(nth, 15, "the loop must have reached the allocations");
    nio_plan_check(plan);
    nio_plan_destroy(plan);
    nio_plan_destroy(NULL);
    numio_topology_destroy(topology);
}
