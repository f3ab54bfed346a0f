/* SPDX-License-Identifier: MIT */
/* The CPU quota out of made-up cgroup files of both versions. */
#include "numa/cpu_quota.h"

#include <criterion/criterion.h>
#include <errno.h>

#include "runtime/base/mem.h"
#include "tests/machines/machines.h"

/* More digits than cpu.max ever has. */
#define LONGER_THAN_ANY "1000000000000000000000000000000000000000000000000000000000000000000000"

/* The mounts of a host with cgroup v2 only, and of one with v1 and an empty v2 tree. */
#define V2_MOUNT "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define OTHER_MOUNTS                                                                               \
    "20 1 8:1 / / rw,relatime - ext4 /dev/root rw\n"                                               \
    "21 20 0:5 / /proc rw - proc proc rw\n"
#define V1_MOUNTS                                                                                  \
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"                                   \
    "33 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"                            \
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"                  \
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"

static double read_quota(const char *root, struct nio_reasons *reasons)
{
    double cpus = -1;
    cr_assert_eq(nio_cpu_quota_read(root, reasons, &cpus), 0);
    return cpus;
}

static void expect_quota(const char *root, double expected, const char *reason)
{
    struct nio_reasons reasons = { .count = 0 };
    double cpus = read_quota(root, &reasons);
    cr_expect_float_eq(cpus, expected, 1e-9, "%f instead of %f", cpus, expected);
    if (reason) {
        cr_assert_eq(reasons.count, 1);
        cr_expect_not_null(strstr(nio_reasons_get(&reasons, 0), reason), "%s",
                           nio_reasons_get(&reasons, 0));
    } else {
        cr_expect_eq(reasons.count, 0, "%s", nio_reasons_get(&reasons, 0));
    }
    nio_reasons_fini(&reasons);
}

static const char *fake_v2(char *root, const char *group)
{
    fake_file(fake_root(root), "/proc/self/cgroup", group);
    fake_file(root, "/proc/self/mountinfo", OTHER_MOUNTS V2_MOUNT);
    return root;
}

static const char *fake_v1(char *root, const char *groups)
{
    fake_file(fake_root(root), "/proc/self/cgroup", groups);
    fake_file(root, "/proc/self/mountinfo", OTHER_MOUNTS V1_MOUNTS);
    return root;
}

Test(cpu_quota, no_cgroups_mean_no_quota)
{
    char root[PATH_MAX];
    expect_quota(fake_root(root), 0, NULL);
    fake_file(root, "/proc/self/cgroup", "0::/\n");
    expect_quota(root, 0, NULL);
    fake_file(root, "/proc/self/mountinfo", OTHER_MOUNTS);
    expect_quota(root, 0, NULL);
    fake_remove(root);
}

Test(cpu_quota, v2_half_a_cpu)
{
    char root[PATH_MAX];
    fake_file(fake_v2(root, "0::/job\n"), "/sys/fs/cgroup/job/cpu.max", "50000 100000\n");
    expect_quota(root, 0.5, "0.50 CPUs, by /sys/fs/cgroup/job/cpu.max");
    fake_remove(root);
}

Test(cpu_quota, v2_max_means_none)
{
    char root[PATH_MAX];
    fake_file(fake_v2(root, "0::/job\n"), "/sys/fs/cgroup/job/cpu.max", "max 100000\n");
    expect_quota(root, 0, NULL);
    fake_file(root, "/sys/fs/cgroup/job/cpu.max", "max\n");
    expect_quota(root, 0, NULL);
    fake_remove(root);
}

Test(cpu_quota, v2_period_may_be_left_out)
{
    char root[PATH_MAX];
    fake_file(fake_v2(root, "0::/job\n"), "/sys/fs/cgroup/job/cpu.max", "300000\n");
    expect_quota(root, 3, "3.00 CPUs");
    fake_remove(root);
}

Test(cpu_quota, v2_ancestor_with_less_wins)
{
    char root[PATH_MAX];
    fake_file(fake_v2(root, "0::/a/b/c\n"), "/sys/fs/cgroup/a/b/c/cpu.max", "400000 100000\n");
    fake_file(root, "/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    fake_file(root, "/sys/fs/cgroup/a/cpu.max", "30000 20000\n");
    expect_quota(root, 1.5, "/sys/fs/cgroup/a/cpu.max");
    fake_remove(root);
}

Test(cpu_quota, v2_own_limit_with_less_wins)
{
    char root[PATH_MAX];
    fake_file(fake_v2(root, "0::/a/b\n"), "/sys/fs/cgroup/a/b/cpu.max", "100000 100000\n");
    fake_file(root, "/sys/fs/cgroup/a/cpu.max", "900000 100000\n");
    expect_quota(root, 1, "/sys/fs/cgroup/a/b/cpu.max");
    fake_remove(root);
}

Test(cpu_quota, v2_mount_point_itself_counts)
{
    char root[PATH_MAX];
    fake_file(fake_v2(root, "0::/\n"), "/sys/fs/cgroup/cpu.max", "120000 100000\n");
    expect_quota(root, 1.2, "/sys/fs/cgroup/cpu.max");
    fake_remove(root);
}

Test(cpu_quota, v2_group_outside_the_namespace_reads_the_mount)
{
    char root[PATH_MAX];
    fake_file(fake_v2(root, "0::/../other\n"), "/sys/fs/cgroup/cpu.max", "70000 100000\n");
    expect_quota(root, 0.7, "/sys/fs/cgroup/cpu.max");
    fake_remove(root);
}

Test(cpu_quota, v2_files_above_the_mount_do_not_count)
{
    char root[PATH_MAX];
    fake_file(fake_v2(root, "0::/job\n"), "/sys/fs/cpu.max", "10000 100000\n");
    expect_quota(root, 0, NULL);
    fake_remove(root);
}

Test(cpu_quota, v1_quota_and_period)
{
    char root[PATH_MAX];
    fake_v1(root, "9:name=systemd:/\n4:cpuset:/x\n3:cpu,cpuacct:/job\n0::/\n");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "25000\n");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "50000\n");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    expect_quota(root, 0.5, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us");
    fake_remove(root);
}

Test(cpu_quota, v1_minus_one_means_none)
{
    char root[PATH_MAX];
    fake_v1(root, "3:cpu,cpuacct:/job\n");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    expect_quota(root, 0, NULL);
    fake_remove(root);
}

Test(cpu_quota, v1_cpuset_and_cpuacct_are_not_cpu)
{
    char root[PATH_MAX];
    fake_v1(root, "4:cpuset:/job\n3:cpuacct:/job\n");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "25000\n");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "50000\n");
    expect_quota(root, 0, NULL);
    fake_remove(root);
}

Test(cpu_quota, both_hierarchies_are_asked)
{
    char root[PATH_MAX];
    fake_v1(root, "3:cpu,cpuacct:/job\n0::/user\n");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "200000\n");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    fake_file(root, "/sys/fs/cgroup/unified/user/cpu.max", "150000 100000\n");
    expect_quota(root, 1.5, "unified/user/cpu.max");
    fake_remove(root);
}

Test(cpu_quota, container_without_namespace_sees_its_own_subtree)
{
    char root[PATH_MAX];
    fake_file(fake_root(root), "/proc/self/cgroup", "3:cpu:/docker/abc/sub\n");
    fake_file(root, "/proc/self/mountinfo",
              "50 40 0:29 /docker/other /mnt/other rw - cgroup cgroup rw,cpu\n"
              "51 40 0:29 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n");
    fake_file(root, "/sys/fs/cgroup/cpu/sub/cpu.cfs_quota_us", "80000\n");
    fake_file(root, "/sys/fs/cgroup/cpu/sub/cpu.cfs_period_us", "100000\n");
    fake_file(root, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "60000\n");
    fake_file(root, "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    expect_quota(root, 0.6, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    fake_remove(root);
}

Test(cpu_quota, mount_point_with_blanks_is_unescaped)
{
    char root[PATH_MAX];
    fake_file(fake_root(root), "/proc/self/cgroup", "0::/job\n");
    fake_file(root, "/proc/self/mountinfo",
              "30 20 0:26 / /mnt/c\\040groups rw - cgroup2 none rw\n");
    fake_file(root, "/mnt/c groups/job/cpu.max", "50000 100000\n");
    expect_quota(root, 0.5, "/mnt/c groups/job/cpu.max");
    fake_remove(root);
}

Test(cpu_quota, nonsense_is_ignored_and_noted)
{
    static const char *const bad[] = { "",
                                       "x",
                                       "-5 100000",
                                       "0 100000",
                                       "50000 0",
                                       "50000 x",
                                       "50000 100000 7",
                                       "maximum",
                                       LONGER_THAN_ANY " 100000" };
    char root[PATH_MAX];
    fake_v2(root, "0::/job\n");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        fake_file(root, "/sys/fs/cgroup/job/cpu.max", bad[i]);
        expect_quota(root, 0, "job/cpu.max makes no sense");
    }
    fake_remove(root);
}

Test(cpu_quota, v1_nonsense_is_ignored_and_noted)
{
    char root[PATH_MAX];
    fake_v1(root, "3:cpu,cpuacct:/job\n");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "many\n");
    expect_quota(root, 0, "cpu.cfs_quota_us makes no sense");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "5000\n");
    expect_quota(root, 0, "cpu.cfs_period_us makes no sense");
    fake_file(root, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "0\n");
    expect_quota(root, 0, "cpu.cfs_period_us makes no sense");
    fake_remove(root);
}

Test(cpu_quota, lines_that_are_no_cgroups_are_skipped)
{
    char root[PATH_MAX];
    fake_file(fake_v2(root, "nonsense\n:\n::\n7:x\n0::/job\n"), "/sys/fs/cgroup/job/cpu.max",
              "50000 100000\n");
    fake_file(root, "/proc/self/mountinfo", "\nx\n1 2 3 4 5 6 - a\n- - - -\n" V2_MOUNT);
    expect_quota(root, 0.5, "job/cpu.max");
    fake_remove(root);
}

Test(cpu_quota, long_mount_tables_are_read_whole)
{
    char root[PATH_MAX], path[PATH_MAX + 32];
    fake_file(fake_v2(root, "0::/job\n"), "/sys/fs/cgroup/job/cpu.max", "50000 100000\n");
    (void)snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    for (int i = 0; i < 2000; i++)
        (void)fprintf(file, "%d 20 0:99 / /mnt/overlay/number/%d rw - overlay overlay rw\n", i, i);
    (void)fputs(V2_MOUNT, file);
    cr_assert_eq(fclose(file), 0);
    expect_quota(root, 0.5, "job/cpu.max");
    fake_remove(root);
}

Test(cpu_quota, this_machine_can_be_asked)
{
    struct nio_reasons reasons = { .count = 0 };
    double cpus = read_quota("", &reasons);
    cr_expect_geq(cpus, 0);
    cr_expect((cpus > 0) <= (reasons.count > 0), "a quota leaves a sentence");
    nio_reasons_fini(&reasons);
}

Test(cpu_quota, every_failing_allocation_is_reported)
{
    char root[PATH_MAX];
    long nth;
    int err = -ENOMEM;
    fake_file(fake_v2(root, "0::/job\n"), "/sys/fs/cgroup/job/cpu.max", "50000 100000\n");
    for (nth = 1; err == -ENOMEM; nth++) {
        struct nio_reasons reasons = { .count = 0 };
        double cpus = 0;
        nio_fault_arm(nth);
        err = nio_cpu_quota_read(root, &reasons, &cpus);
        cr_assert_eq(err != 0, nio_fault_struck(), "allocation %ld", nth);
        cr_assert(err != 0 || cpus == 0.5);
        nio_reasons_fini(&reasons);
        cr_assert_lt(nth, 100);
    }
    nio_fault_arm(0);
    cr_assert_eq(err, 0);
    cr_assert_gt(nth, 4);
    fake_remove(root);
}
