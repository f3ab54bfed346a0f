/* SPDX-License-Identifier: MIT */
/* Topologies: this machine, emulated, recorded and made-up ones, and what goes wrong with them. */
#include <numio/topology.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <unistd.h>

#include <numio/error.h>

#include "numa/cpulist.h"
#include "numa/sysnodes.h"
#include "runtime/base/compiler.h"
#include "runtime/base/mem.h"
#include "tests/machines/machines.h"

enum { REAL_CPUS = 16 };

static struct numio_topology_info info_of(const struct numio_topology *t)
{
    struct numio_topology_info info = { .size = sizeof info };
    cr_assert_eq(numio_topology_info_get(t, &info), 0);
    return info;
}

static struct numio_topology_numa numa_of(const struct numio_topology *t, uint32_t i)
{
    struct numio_topology_numa numa = { .size = sizeof numa };
    cr_assert_eq(numio_topology_numa_get(t, i, &numa), 0);
    return numa;
}

static struct numio_topology_core core_of(const struct numio_topology *t, uint32_t i)
{
    struct numio_topology_core core = { .size = sizeof core };
    cr_assert_eq(numio_topology_core_get(t, i, &core), 0);
    return core;
}

static struct numio_topology_pu pu_of(const struct numio_topology *t, uint32_t i)
{
    struct numio_topology_pu pu = { .size = sizeof pu };
    cr_assert_eq(numio_topology_pu_get(t, i, &pu), 0);
    return pu;
}

/* What holds for every topology: indices in range, sums agree, siblings are contiguous. */
static void check_topology(const struct numio_topology *t)
{
    struct numio_topology_info info = info_of(t);
    uint32_t next_pu = 0;
    cr_assert(info.package_count && info.numa_count && info.llc_count && info.core_count);
    for (uint32_t c = 0; c < info.core_count; c++) {
        struct numio_topology_core core = core_of(t, c);
        cr_assert_eq(core.pu_first, next_pu);
        cr_assert_gt(core.pu_count, 0);
        cr_assert(core.package < info.package_count && core.numa < info.numa_count &&
                  core.llc < info.llc_count);
        for (uint32_t i = 0; i < core.pu_count; i++) {
            struct numio_topology_pu pu = pu_of(t, next_pu++);
            cr_assert(pu.core == c && pu.smt_index == i && pu.package == core.package &&
                      pu.numa == core.numa && pu.llc == core.llc && pu.os_index >= 0);
        }
    }
    cr_assert_eq(next_pu, info.pu_count);
    uint32_t cores = 0, pus = 0;
    for (uint32_t n = 0; n < info.numa_count; n++) {
        struct numio_topology_numa numa = numa_of(t, n);
        cores += numa.core_count;
        pus += numa.pu_count;
        cr_assert_eq(numa_of(t, numa.home).home, numa.home, "a home is its own home");
        cr_assert_eq(numio_topology_distance(t, n, n), 10);
    }
    cr_assert(cores == info.core_count && pus == info.pu_count);
}

static void expect_bad(const char *spec, int error, const char *detail)
{
    struct numio_topology *t = (void *)&error, *before = t;
    cr_expect_eq(numio_topology_load(spec, &t), error, "'%s'", spec);
    cr_expect_eq(t, before, "ret_topology touched on failure");
    cr_expect_not_null(strstr(numio_strerror_detail(), detail), "'%s': %s", spec,
                       numio_strerror_detail());
}

/* --- this machine -------------------------------------------------------------------------- */

Test(topology, this_machine_shows_the_cpus_of_the_binding)
{
    cpu_set_t set;
    struct numio_topology *t;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    cr_assert_eq(numio_topology_load(NULL, &t), 0);
    check_topology(t);
    struct numio_topology_info info = info_of(t);
    cr_expect_not(info.is_emulated);
    cr_expect_eq(info.pu_count, (uint32_t)CPU_COUNT(&set));
    cr_expect_eq(info.real_cpu_count, info.pu_count);
    for (uint32_t i = 0; i < info.pu_count; i++)
        cr_expect(CPU_ISSET((size_t)pu_of(t, i).os_index, &set));
    cr_expect_gt(info.memory_bytes, 0);
    numio_topology_destroy(t);
}

Test(topology, this_machine_is_restricted_to_one_bound_cpu)
{
    cpu_set_t set, one;
    struct numio_topology *t;
    int cpu = CPU_SETSIZE - 1;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    while (!CPU_ISSET((size_t)cpu, &set)) /* the last one: not number 0, where there are two */
        cpu--;
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
    cr_assert_eq(numio_topology_load(NULL, &t), 0);
    check_topology(t);
    cr_expect_eq(info_of(t).pu_count, 1);
    cr_expect_eq(pu_of(t, 0).os_index, cpu);
    cr_expect_eq(numio_topology_real_cpu(t, 0), cpu);
    cr_expect_eq(numio_topology_real_cpu(t, 1), -1);
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    cr_expect(CPU_EQUAL(&set, &one), "loading must not rebind the thread");
    numio_topology_destroy(t);
}

Test(topology, binding_that_hwloc_does_not_know_degrades_to_one_node)
{
    static const int beyond[] = { 900, 901, 905 };
    struct nio_topology_setup setup = { .real_cpus = beyond, .real_cpu_count = 3 };
    struct numio_topology *t;
    cr_assert_eq(nio_topology_load_as(NULL, &setup, &t), 0);
    check_topology(t);
    struct numio_topology_info info = info_of(t);
    cr_expect(info.numa_count == 1 && info.pu_count == 3 && !info.is_emulated);
    cr_expect_eq(pu_of(t, 2).os_index, 905);
    cr_expect_eq(numa_of(t, 0).os_index, -1);
    cr_expect_gt(numa_of(t, 0).memory_bytes, 0);
    cr_expect(machine_has_reason(t, "hwloc shows none of the CPUs that may be used"));
    cr_expect(machine_has_reason(t, "treated as one node of 3 CPUs"));
    struct nio_plan_options options = { .sq_thread_cpu = -1, .want_sq = true };
    struct nio_plan *plan;
    cr_assert_eq(nio_plan_create(t, &options, &plan), 0);
    nio_plan_check(plan);
    cr_expect_eq(plan->worker_count, 3);
    cr_expect_eq(plan->nodes[0].os_node, -1);
    nio_plan_destroy(plan);
    numio_topology_destroy(t);
}

Test(topology, binding_that_hwloc_knows_in_part_is_noted)
{
    static const int some[] = { 0, 950 };
    struct nio_topology_setup setup = { .real_cpus = some, .real_cpu_count = 2 };
    struct numio_topology *t;
    cr_assert_eq(nio_topology_load_as(NULL, &setup, &t), 0);
    check_topology(t);
    cr_expect_eq(info_of(t).pu_count, 1);
    cr_expect(machine_has_reason(t, "hwloc shows 1 of the 2 CPUs"));
    numio_topology_destroy(t);
}

Test(topology, hwloc_environment_counts_as_emulation)
{
    struct numio_topology *t;
    cr_assert_eq(setenv("HWLOC_SYNTHETIC", "pack:2 numa:1 core:3 pu:1", 1), 0);
    cr_assert_eq(numio_topology_load(NULL, &t), 0);
    cr_expect(info_of(t).is_emulated);
    cr_expect_eq(info_of(t).core_count, 6);
    cr_expect(machine_has_reason(t, "hwloc's environment"));
    numio_topology_destroy(t);
}

Test(topology, hwloc_failing_altogether_degrades_to_one_node)
{
    struct numio_topology *t;
    cr_assert_eq(setenv("HWLOC_XMLFILE", "/nonexistent/machine.xml", 1), 0);
    cr_assert_eq(setenv("HWLOC_COMPONENTS", "xml,stop", 1), 0);
    cr_assert_eq(setenv("HWLOC_HIDE_ERRORS", "2", 1), 0);
    cr_assert_eq(numio_topology_load(NULL, &t), 0);
    check_topology(t);
    cr_expect_eq(info_of(t).numa_count, 1);
    cr_expect_not_null(numio_topology_reason(t, 0));
    numio_topology_destroy(t);
}

/* --- made-up Linux machines ---------------------------------------------------------------- */

Test(topology, linux_memoryless_node_joins_the_nearest_by_distance)
{
    char root[PATH_MAX];
    fake_machine(fake_root(root), 6, "0-2\n");
    for (int cpu = 0; cpu < 6; cpu++)
        fake_cpu(root, cpu, cpu / 2, 3u << (cpu / 2 * 2));
    fake_node(root, 0, "0-1\n", 0x03, 1000, "10 30 20\n");
    fake_node(root, 1, "2-3\n", 0x0c, 0, "30 10 15\n");
    fake_node(root, 2, "4-5\n", 0x30, 1000, "20 15 10\n");
    fake_use(root);
    struct numio_topology *t = machine_load(NULL, 6, root);
    check_topology(t);
    cr_expect_not(info_of(t).is_emulated);
    cr_expect_eq(numa_of(t, core_of(t, 2).numa).os_index, 2);
    cr_expect_eq(numa_of(t, core_of(t, 0).numa).os_index, 0);
    cr_expect(numa_of(t, 1).is_memoryless);
    cr_expect_not(numa_of(t, 1).is_cpuless, "its CPUs are there, only at home elsewhere");
    cr_expect(machine_has_reason(t, "NUMA node 1 has no memory of its own to use: its CPUs belong "
                                    "to node 2"));
    numio_topology_destroy(t);
    fake_remove(root);
}

/* hwloc is shown only the nodes that the process may have memory from; the kernel's files still
 * tell where the CPUs are. */
Test(topology, linux_node_that_hwloc_drops_is_placed_by_the_kernels_distances)
{
    char root[PATH_MAX], hwloc_root[PATH_MAX];
    fake_root(root);
    fake_root(hwloc_root);
    for (int i = 0; i < 2; i++) {
        const char *to = i ? hwloc_root : root;
        fake_machine(to, 6, i ? "0,2\n" : "0-2\n");
        for (int cpu = 0; cpu < 6; cpu++)
            fake_cpu(to, cpu, cpu / 2, 3u << (cpu / 2 * 2));
        fake_node(to, 0, "0-1\n", 0x03, 1000, i ? "10 20\n" : "10 30 20\n");
        fake_node(to, 2, "4-5\n", 0x30, 1000, i ? "20 10\n" : "20 15 10\n");
    }
    fake_node(root, 1, "2-3\n", 0x0c, 0, "30 10 15\n");
    fake_use(hwloc_root);
    struct numio_topology *t = machine_load(NULL, 6, root);
    check_topology(t);
    cr_expect_eq(info_of(t).numa_count, 2);
    cr_expect_eq(numa_of(t, core_of(t, 3).numa).os_index, 2);
    cr_expect(machine_has_reason(t, "NUMA node 1 has no memory of its own to use: its CPUs belong "
                                    "to node 2"));
    numio_topology_destroy(t);
    fake_remove(root);
    fake_remove(hwloc_root);
}

Test(topology, linux_memory_without_cpus_is_nobodys_home)
{
    char root[PATH_MAX];
    fake_machine(fake_root(root), 4, "0-2\n");
    for (int cpu = 0; cpu < 4; cpu++)
        fake_cpu(root, cpu, cpu / 2, 3u << (cpu / 2 * 2));
    /* The memory's number is below that of the CPUs it is attached to. */
    fake_node(root, 0, "\n", 0x0, 5000, "10 28 17\n");
    fake_node(root, 1, "0-1\n", 0x03, 1000, "28 10 21\n");
    fake_node(root, 2, "2-3\n", 0x0c, 1000, "17 21 10\n");
    fake_use(root);
    struct numio_topology *t = machine_load(NULL, 4, root);
    check_topology(t);
    cr_expect_eq(info_of(t).numa_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        struct numio_topology_numa numa = numa_of(t, i);
        cr_expect_eq(numa.is_cpuless, numa.os_index == 0);
        cr_expect_eq(numa.core_count, numa.os_index == 0 ? 0 : 2);
    }
    cr_expect_eq(info_of(t).memory_bytes, 7000u << 10);
    numio_topology_destroy(t);
    fake_remove(root);
}

Test(topology, linux_binding_leaves_other_nodes_as_memory_only)
{
    char root[PATH_MAX];
    static const int bound[] = { 2, 3 };
    fake_machine(fake_root(root), 4, "0-1\n");
    for (int cpu = 0; cpu < 4; cpu++)
        fake_cpu(root, cpu, cpu / 2, 3u << (cpu / 2 * 2));
    fake_node(root, 0, "0-1\n", 0x03, 1000, "10 21\n");
    fake_node(root, 1, "2-3\n", 0x0c, 1000, "21 10\n");
    fake_use(root);
    struct nio_topology_setup setup = { .root = root, .real_cpus = bound, .real_cpu_count = 2 };
    struct numio_topology *t;
    cr_assert_eq(nio_topology_load_as(NULL, &setup, &t), 0);
    check_topology(t);
    struct numio_topology_info info = info_of(t);
    cr_expect(info.package_count == 1 && info.numa_count == 2 && info.pu_count == 2);
    cr_expect_eq(pu_of(t, 0).os_index, 2);
    cr_expect(numa_of(t, 0).core_count == 0 && !numa_of(t, 0).is_cpuless);
    cr_expect_eq(numa_of(t, 1).core_count, 2);
    numio_topology_destroy(t);
    fake_remove(root);
}

Test(topology, kernel_nodes_are_read_from_sysfs)
{
    char root[PATH_MAX];
    static const int cpus[] = { 0, 3, 7, 64 };
    int nodes[4];
    fake_machine(fake_root(root), 8, "0,3\n");
    fake_node(root, 0, "0-2,7\n", 0, 1, "10 31\n");
    fake_node(root, 3, "3-6\n", 0, 1, "32 10\n");
    cr_assert_eq(nio_sysnodes_of_cpus(root, cpus, 4, nodes), 0);
    cr_expect(nodes[0] == 0 && nodes[1] == 3 && nodes[2] == 0 && nodes[3] == -1);
    cr_expect_eq(nio_sysnode_distance(root, 0, 3), 31);
    cr_expect_eq(nio_sysnode_distance(root, 3, 0), 32);
    cr_expect_eq(nio_sysnode_distance(root, 0, 1), -1, "node 1 is not online");
    cr_expect_eq(nio_sysnode_distance(root, 5, 0), -1);
    cr_expect_eq(nio_sysnode_has_cpus(root, 3), 1);
    cr_expect_eq(nio_sysnode_has_cpus(root, 5), -1);
    fake_node(root, 3, "3-6\n", 0, 1, "32\n");
    cr_expect_eq(nio_sysnode_distance(root, 3, 3), -1, "a short line is no answer");
    fake_node(root, 3, "\n", 0, 1, "32 x\n");
    cr_expect_eq(nio_sysnode_distance(root, 3, 3), -1);
    cr_expect_eq(nio_sysnode_has_cpus(root, 3), 0);
    fake_remove(root);
    cr_assert_eq(nio_sysnodes_of_cpus(root, cpus, 4, nodes), 0);
    cr_expect_eq(nodes[0], -1, "no sysfs: unknown");
}

/* --- emulated and recorded machines -------------------------------------------------------- */

Test(topology, emulated_machine_has_the_described_shape)
{
    struct numio_topology *t =
        machine_load("pack:2 numa:2(memory=3221225472) l3:2 core:2 pu:2", REAL_CPUS, NULL);
    check_topology(t);
    struct numio_topology_info info = info_of(t);
    cr_expect(info.is_emulated && !info.has_distances);
    cr_expect(info.package_count == 2 && info.numa_count == 4 && info.llc_count == 8 &&
              info.core_count == 16 && info.pu_count == 32 && info.kind_count == 0);
    cr_expect_eq(info.cpu_quota, 0, "the real quota says nothing about another machine");
    cr_expect_eq(numa_of(t, 3).memory_bytes, (uint64_t)3 << 30);
    cr_expect_eq(numa_of(t, 3).package, 1);
    struct numio_topology_llc llc = { .size = sizeof llc };
    cr_assert_eq(numio_topology_llc_get(t, 7, &llc), 0);
    cr_expect(llc.level == 3 && llc.package == 1 && llc.core_count == 2 && llc.pu_count == 4);
    cr_expect_eq(numio_topology_distance(t, 0, 1), 12);
    cr_expect_eq(numio_topology_distance(t, 1, 2), 20);
    cr_expect_eq(numio_topology_distance(t, 1, 4), 0);
    cr_expect(machine_has_reason(t, "no distances"));
    cr_expect(machine_has_reason(t, "emulated machine"));
    numio_topology_destroy(t);
}

Test(topology, machine_without_caches_gets_one_assumed_per_node)
{
    struct numio_topology *t = machine_load("pack:2 numa:1 core:3 pu:1", REAL_CPUS, NULL);
    struct numio_topology_llc llc = { .size = sizeof llc };
    check_topology(t);
    cr_expect_eq(info_of(t).llc_count, 2);
    cr_assert_eq(numio_topology_llc_get(t, 1, &llc), 0);
    cr_expect(llc.level == 0 && llc.cache_bytes == 0 && llc.core_count == 3);
    numio_topology_destroy(t);
}

Test(topology, recorded_epyc_keeps_numbers_caches_and_distances)
{
    struct numio_topology *t = machine_load("epyc_nps4.xml", REAL_CPUS, NULL);
    check_topology(t);
    struct numio_topology_info info = info_of(t);
    cr_expect(info.package_count == 2 && info.numa_count == 8 && info.llc_count == 16 &&
              info.core_count == 32 && info.pu_count == 64 && info.has_distances);
    cr_expect_eq(pu_of(t, 3).os_index, 33, "the second core's sibling");
    cr_expect_eq(pu_of(t, 3).smt_index, 1);
    cr_expect_eq(numio_topology_distance(t, 0, 3), 12);
    cr_expect_eq(numio_topology_distance(t, 3, 4), 32);
    struct numio_topology_package package = { .size = sizeof package };
    cr_assert_eq(numio_topology_package_get(t, 1, &package), 0);
    cr_expect(package.os_index == 1 && package.core_count == 16 && package.pu_count == 32);
    cr_expect_str_eq(package.model, "numio test CPU");
    numio_topology_destroy(t);
}

Test(topology, recorded_cpuless_memory_is_listed)
{
    static const char *const machines[] = { "cxl.xml", "cxl_group.xml" };
    for (size_t m = 0; m < NIO_ARRAY_LEN(machines); m++) {
        struct numio_topology *t = machine_load(machines[m], REAL_CPUS, NULL);
        check_topology(t);
        cr_expect_eq(info_of(t).numa_count, 3);
        for (uint32_t i = 0; i < 3; i++)
            cr_expect_eq(numa_of(t, i).is_cpuless, numa_of(t, i).os_index == 2, "%s", machines[m]);
        numio_topology_destroy(t);
    }
}

Test(topology, recorded_cpuset_knows_that_the_other_node_has_cpus)
{
    struct numio_topology *t = machine_load("cpuset_one.xml", REAL_CPUS, NULL);
    check_topology(t);
    cr_expect_eq(info_of(t).package_count, 1);
    cr_expect_eq(info_of(t).numa_count, 2);
    cr_expect(!numa_of(t, 0).is_cpuless && numa_of(t, 0).pu_count == 0);
    cr_expect_eq(pu_of(t, 0).os_index, 3);
    cr_expect_eq(numa_of(t, pu_of(t, 0).numa).os_index, 1);
    numio_topology_destroy(t);
}

Test(topology, recorded_kinds_of_core_are_listed)
{
    struct numio_topology *t = machine_load("hybrid.xml", REAL_CPUS, NULL);
    struct numio_topology_kind kind = { .size = sizeof kind };
    check_topology(t);
    cr_assert_eq(info_of(t).kind_count, 2);
    cr_assert_eq(numio_topology_kind_get(t, core_of(t, 0).kind, &kind), 0);
    cr_expect_str_eq(kind.name, "IntelCore");
    cr_expect_eq(kind.core_count, 2);
    int fast = kind.efficiency;
    cr_assert_eq(numio_topology_kind_get(t, core_of(t, 5).kind, &kind), 0);
    cr_expect_str_eq(kind.name, "IntelAtom");
    cr_expect_eq(kind.core_count, 4);
    cr_expect_lt(kind.efficiency, fast);
    numio_topology_destroy(t);
}

Test(topology, recorded_memoryless_node_without_distances_leaves_a_reason)
{
    struct numio_topology *t = machine_load("memoryless_unlisted.xml", REAL_CPUS, NULL);
    check_topology(t);
    cr_expect_eq(info_of(t).numa_count, 2);
    cr_expect_eq(core_of(t, 2).numa, 0);
    cr_expect(machine_has_reason(t, "CPU 2 has no local memory"));
    numio_topology_destroy(t);
}

Test(topology, odd_trees_are_taken_as_well_as_they_can_be)
{
    static const char *const odd[] = { "core:2 pack:2 pu:1",
                                       "core:2 numa:2 pu:2",
                                       "pu:3",
                                       "l2:2 pack:2 core:1 pu:1",
                                       "pack:3 pu:2",
                                       "group:2 group:2 numa:1 core:1 pu:2",
                                       "pack:2 [numa(memory=1GB)] l3:1 core:2 pu:1",
                                       "pack:2 numa:1(memory=0) core:1 pu:1" };
    for (size_t i = 0; i < NIO_ARRAY_LEN(odd); i++) {
        struct nio_plan_options options = { .sq_thread_cpu = -1, .want_sq = true };
        struct nio_plan *plan;
        struct numio_topology *t = machine_load(odd[i], REAL_CPUS, NULL);
        check_topology(t);
        cr_assert_eq(nio_plan_create(t, &options, &plan), 0, "%s", odd[i]);
        nio_plan_check(plan);
        nio_plan_destroy(plan);
        numio_topology_destroy(t);
    }
}

/* --- bad input ----------------------------------------------------------------------------- */

Test(topology, descriptions_that_do_not_parse_name_the_word)
{
    expect_bad("", -EINVAL, "empty");
    expect_bad("  ", -EINVAL, "empty");
    expect_bad("pack:2 nume:1 core:4 pu:1", -EINVAL, "'nume' is no kind of object");
    expect_bad("pack:2 core", -EINVAL, "'core' has no count");
    expect_bad("pack:2 core: pu:1", -EINVAL, "'core:' has no count");
    expect_bad("pack:2 core:x pu:1", -EINVAL, "'core:x' has no count");
    expect_bad("pack:2 core:0 pu:1", -EINVAL, "'core:0' has no count");
    expect_bad("pack:2 core:-1 pu:1", -EINVAL, "'core:-1' has no count");
    expect_bad("pack:2 core:4k pu:1", -EINVAL, "'core:4k' has no count");
    expect_bad("pu:2 core:2", -EINVAL, "\"pu:2 core:2\" is not a machine");
    expect_bad("pack:2 core:2 pu:1(indexes=", -EINVAL, "is not a machine");
    expect_bad("the quick brown fox", -EINVAL, "'the' has no count");
}

Test(topology, machines_of_absurd_size_are_refused_at_once)
{
    expect_bad("pack:1000 core:1000 pu:1", -E2BIG, "more than 65536 PUs");
    expect_bad("pack:99999999999999999999 pu:1", -E2BIG, "more than 65536 PUs");
    expect_bad("4294967296 4294967296", -E2BIG, "more than 65536 PUs");
}

Test(topology, files_that_are_no_recording_are_refused)
{
    char root[PATH_MAX], path[PATH_MAX + 16];
    fake_root(root);
    expect_bad("/nonexistent/machine.xml", -ENOENT, "/nonexistent/machine.xml");
    expect_bad("missing.xml", -ENOENT, "missing.xml");
    expect_bad(root, -EINVAL, "is not a file");
    fake_file(root, "/empty.xml", "");
    (void)snprintf(path, sizeof path, "%s/empty.xml", root);
    expect_bad(path, -EINVAL, "is not a recorded machine");
    fake_file(root, "/text", "pack:2 core:2 pu:1\n");
    (void)snprintf(path, sizeof path, "%s/text", root);
    expect_bad(path, -EINVAL, "is not a recorded machine");
    fake_file(root, "/half.xml",
              "<?xml version=\"1.0\"?>\n<topology version=\"2.0\">\n<object type=\"Machine\"");
    (void)snprintf(path, sizeof path, "%s/half.xml", root);
    expect_bad(path, -EINVAL, "is not a recorded machine");
    fake_remove(root);
}

Test(topology, unreadable_files_say_so)
{
    char root[PATH_MAX], path[PATH_MAX + 16];
    fake_file(fake_root(root), "/secret.xml", "");
    (void)snprintf(path, sizeof path, "%s/secret.xml", root);
    cr_assert_eq(chmod(path, 0), 0);
    cr_assert_eq(chmod(root, 0755), 0);
    if (geteuid() == 0)
        cr_assert_eq(seteuid(65534), 0);
    expect_bad(path, -EACCES, "secret.xml");
    if (getuid() == 0)
        cr_assert_eq(seteuid(0), 0);
    fake_remove(root);
}

Test(topology, wrong_indices_and_sizes_are_refused)
{
    struct numio_topology *t = machine_load("pack:1 core:2 pu:1", REAL_CPUS, NULL);
    struct numio_topology_core core = { .size = sizeof core, .package = 77 };
    cr_expect_eq(numio_topology_core_get(t, 2, &core), -EINVAL);
    cr_expect_not_null(strstr(numio_strerror_detail(), "index 2 of 2"));
    core.size = 8;
    cr_expect_eq(numio_topology_core_get(t, 0, &core), -EINVAL);
    cr_expect_eq(core.package, 77, "nothing written on failure");
    struct numio_topology_kind kind = { .size = sizeof kind };
    cr_expect_eq(numio_topology_kind_get(t, 0, &kind), -EINVAL, "all cores are alike");
    cr_expect_null(numio_topology_reason(t, 1000));
    numio_topology_destroy(t);
    numio_topology_destroy(NULL);
}

Test(topology, longer_structs_of_later_callers_get_zeroes)
{
    struct {
        struct numio_topology_pu pu;
        uint64_t later;
    } longer = { .later = 5 };
    struct numio_topology *t = machine_load("pack:1 core:2 pu:1", REAL_CPUS, NULL);
    longer.pu.size = sizeof longer;
    cr_expect_eq(numio_topology_pu_get(t, 1, &longer.pu), 0);
    cr_expect_eq(longer.pu.os_index, 1);
    cr_expect_eq(longer.pu.size, sizeof longer);
    cr_expect_eq(longer.later, 0);
    numio_topology_destroy(t);
}

Test(topology, cpu_lists_are_read_strictly)
{
    int first, last;
    const char *cursor = "3, 5-7 ,9\n";
    cr_expect_eq(nio_cpulist_next(&cursor, &first, &last), 1);
    cr_expect(first == 3 && last == 3);
    cr_expect_eq(nio_cpulist_next(&cursor, &first, &last), 1);
    cr_expect(first == 5 && last == 7);
    cr_expect_eq(nio_cpulist_next(&cursor, &first, &last), 1);
    cr_expect(first == 9 && last == 9);
    cr_expect_eq(nio_cpulist_next(&cursor, &first, &last), 0);
    cr_expect(nio_cpulist_has("0-3,8", 8) && !nio_cpulist_has("0-3,8", 4));
    cr_expect(nio_cpulist_is_valid("1048575") && !nio_cpulist_is_valid("1048576"));
    cr_expect(!nio_cpulist_is_valid("") && !nio_cpulist_is_valid("7-5"));
}

/* --- faults -------------------------------------------------------------------------------- */

static void fail_each_allocation(const char *machine, const char *root, long least)
{
    struct numio_topology *t = NULL;
    int err = -ENOMEM;
    long nth;
    for (nth = 1; err == -ENOMEM; nth++) {
        nio_fault_arm(nth);
        err = machine_try(machine, 6, root, &t);
        bool has_struck = nio_fault_struck();
        nio_fault_arm(0);
        cr_assert_eq(err != 0, has_struck, "%s, allocation %ld", machine ? machine : "-", nth);
        cr_assert(err == 0 || strstr(numio_strerror_detail(), "out of memory"));
        cr_assert_lt(nth, 1000);
    }
    cr_assert_eq(err, 0);
    cr_expect_gt(nth, least, "only %ld allocations", nth);
    check_topology(t);
    numio_topology_destroy(t);
}

Test(topology, every_failing_allocation_is_reported_and_cleaned_up, .timeout = 60)
{
    fail_each_allocation("pack:2 numa:2 core:3 pu:1", NULL, 15);
    fail_each_allocation("hybrid.xml", NULL, 15);
    fail_each_allocation("devices.xml", NULL, 20);
    fail_each_allocation("memoryless.xml", NULL, 15);
}

Test(topology, every_failing_allocation_on_a_real_machine, .timeout = 60)
{
    char root[PATH_MAX];
    fake_machine(fake_root(root), 6, "0-2\n");
    for (int cpu = 0; cpu < 6; cpu++)
        fake_cpu(root, cpu, cpu / 2, 3u << (cpu / 2 * 2));
    fake_node(root, 0, "0-1\n", 0x03, 1000, "10 30 20\n");
    fake_node(root, 1, "2-3\n", 0x0c, 0, "30 10 15\n");
    fake_node(root, 2, "4-5\n", 0x30, 1000, "20 15 10\n");
    fake_file(root, "/proc/self/cgroup", "0::/job\n");
    fake_file(root, "/proc/self/mountinfo",
              "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    fake_file(root, "/sys/fs/cgroup/job/cpu.max", "150000 100000\n");
    fake_use(root);
    fail_each_allocation(NULL, root, 25);
    fake_remove(root);
}

Test(topology, every_failing_allocation_while_degrading, .timeout = 60)
{
    cr_assert_eq(setenv("HWLOC_XMLFILE", "/nonexistent/machine.xml", 1), 0);
    cr_assert_eq(setenv("HWLOC_COMPONENTS", "xml,stop", 1), 0);
    cr_assert_eq(setenv("HWLOC_HIDE_ERRORS", "2", 1), 0);
    fail_each_allocation(NULL, NULL, 12);
}
