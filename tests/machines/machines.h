/* SPDX-License-Identifier: MIT */
/* machines/machines.h: machines for the tests of numa/: the recorded ones beside this file, hwloc's
 * synthetic ones, and a made-up /proc and /sys that hwloc's Linux reader takes for this machine.
 *
 * Everything aborts the test when it cannot be set up.  Test thread only.
 */
#ifndef NIO_TESTS_MACHINES_H
#define NIO_TESTS_MACHINES_H

#include <criterion/criterion.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "numa/machine.h"
#include "numa/plan.h"

enum { MACHINES_CPUS_MAX = 256, MACHINES_TEXT_BYTES = 4096 };

/* "name.xml" -> its path in this folder, which the build names; everything else is left as it is.
 */
static inline const char *machine_spec(const char *name, char *path)
{
    size_t length = strlen(name);
    if (length < 4 || strcmp(name + length - 4, ".xml") != 0 || strchr(name, '/'))
        return name;
    int written = snprintf(path, PATH_MAX, "%s/%s", NIO_MACHINES_DIR, name);
    cr_assert(written > 0 && written < PATH_MAX, "path too long");
    return path;
}

/* The machine as seen from one with `real_cpus` CPUs 0.., with the /proc and /sys below `root`. */
static inline int machine_try(const char *name, unsigned real_cpus, const char *root,
                              struct numio_topology **ret_topology)
{
    char path[PATH_MAX];
    int cpus[MACHINES_CPUS_MAX];
    for (int i = 0; i < MACHINES_CPUS_MAX; i++)
        cpus[i] = i;
    struct nio_topology_setup setup = { .root = root,
                                        .real_cpus = cpus,
                                        .real_cpu_count = real_cpus };
    return nio_topology_load_as(name ? machine_spec(name, path) : NULL, &setup, ret_topology);
}

static inline struct numio_topology *machine_load(const char *name, unsigned real_cpus,
                                                  const char *root)
{
    struct numio_topology *topology = NULL;
    int err = machine_try(name, real_cpus, root, &topology);
    cr_assert_eq(err, 0, "%s: %s", name ? name : "(this machine)", strerror(-err));
    return topology;
}

/* True when one of the topology's reasons has `part` in it. */
static inline bool machine_has_reason(const struct numio_topology *topology, const char *part)
{
    const char *reason;
    for (unsigned i = 0; (reason = numio_topology_reason(topology, i)); i++)
        if (strstr(reason, part))
            return true;
    return false;
}

static inline bool plan_has_reason(const struct nio_plan *plan, const char *part)
{
    const char *reason;
    for (unsigned i = 0; (reason = nio_plan_reason(plan, i)); i++)
        if (strstr(reason, part))
            return true;
    return false;
}

static inline void text_add(char *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static inline void text_add(char *text, const char *format, ...)
{
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text + used, MACHINES_TEXT_BYTES - used, format, args);
    va_end(args);
    cr_assert_lt(strlen(text), MACHINES_TEXT_BYTES - 1, "text too long");
}

/* The nodes in short: "0,1,2/R3 4,5/H" is a node of workers on CPUs 0 to 2 with its SQ thread on
 * reserved core's CPU 3, and one whose SQ thread shares.  N none, S sibling, F forced. */
static inline const char *plan_text(const struct nio_plan *plan, char *text)
{
    static const char places[] = "NSRHF";
    text[0] = '\0';
    for (unsigned n = 0; n < plan->node_count; n++) {
        const struct nio_plan_node *node = &plan->nodes[n];
        for (unsigned w = 0; w < node->worker_count; w++)
            text_add(text, "%s%d",
                     w   ? ","
                     : n ? " "
                         : "",
                     plan->workers[node->worker_first + w].cpu);
        text_add(text, "/%c", places[node->sq_place]);
        if (node->sq_cpu >= 0)
            text_add(text, "%d", node->sq_cpu);
    }
    return text;
}

/* A worker's steal order in short: "1L 2N 5F21": worker, tier, distance of another node. */
static inline const char *steal_text(const struct nio_plan *plan, unsigned worker, char *text)
{
    static const char tiers[] = "LNF";
    const struct nio_plan_worker *w = &plan->workers[worker];
    text[0] = '\0';
    for (unsigned i = 0; i < w->steal_count; i++) {
        text_add(text, "%s%u%c", i ? " " : "", w->steal[i].worker, tiers[w->steal[i].tier]);
        if (w->steal[i].tier == NIO_TIER_FAR)
            text_add(text, "%u", w->steal[i].distance);
    }
    return text;
}

/* A list of CPUs in short: "0 1 5". */
static inline const char *cpus_text(const int *cpus, unsigned count, char *text)
{
    text[0] = '\0';
    for (unsigned i = 0; i < count; i++)
        text_add(text, "%s%d", i ? " " : "", cpus[i]);
    return text;
}

/* A new folder for made-up files; removed by fake_remove(). */
static inline const char *fake_root(char *path)
{
    const char *tmp = getenv("TMPDIR");
    int length = snprintf(path, PATH_MAX, "%s/numio-test-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(length > 0 && length < PATH_MAX, "path too long");
    cr_assert_not_null(mkdtemp(path), "no folder for made-up files");
    return path;
}

static inline void fake_folders(const char *path)
{
    char part[PATH_MAX];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        (void)snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        (void)mkdir(part, 0755); /* there already, or the next open fails */
    }
}

/* Joins up to three parts into a path. */
static inline void fake_path(char *full, const char *a, const char *b, const char *c)
{
    int length = snprintf(full, PATH_MAX, "%s%s%s", a, b, c);
    cr_assert(length > 0 && length < PATH_MAX, "path too long");
}

static inline void fake_file(const char *root, const char *path, const char *text)
{
    char full[PATH_MAX];
    fake_path(full, root, path, "");
    fake_folders(full);
    FILE *file = fopen(full, "w");
    cr_assert_not_null(file, "cannot write %s", full);
    (void)fputs(text, file);
    cr_assert_eq(fclose(file), 0, "cannot write %s", full);
}

static inline void fake_remove(const char *root)
{
    char command[PATH_MAX + 16]; /* fits: a path is below PATH_MAX */
    (void)snprintf(command, sizeof command, "rm -rf '%s'", root);
    cr_assert_eq(system(command), 0);
}

/* One CPU with a core of its own in a made-up /sys; all CPUs of a package must be named by
 * `package_mask`. */
static inline void fake_cpu(const char *root, int cpu, int package, unsigned package_mask)
{
    static const struct {
        const char *file;
        bool is_package;
    } masks[] = { { "core_siblings", true },
                  { "package_cpus", true },
                  { "thread_siblings", false },
                  { "core_cpus", false } };
    char path[PATH_MAX], text[64];
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/%s", cpu,
                       masks[i].file);
        (void)snprintf(text, sizeof text, "%08x\n", masks[i].is_package ? package_mask : 1u << cpu);
        fake_file(root, path, text);
    }
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/core_id", cpu);
    (void)snprintf(text, sizeof text, "%d\n", cpu);
    fake_file(root, path, text);
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/physical_package_id",
                   cpu);
    (void)snprintf(text, sizeof text, "%d\n", package);
    fake_file(root, path, text);
}

/* One NUMA node in a made-up /sys. */
static inline void fake_node(const char *root, int node, const char *cpulist, unsigned mask,
                             unsigned memory_kb, const char *distances)
{
    char path[PATH_MAX], text[128];
    (void)snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", node);
    fake_file(root, path, cpulist);
    (void)snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpumap", node);
    (void)snprintf(text, sizeof text, "%08x\n", mask);
    fake_file(root, path, text);
    (void)snprintf(path, sizeof path, "/sys/devices/system/node/node%d/meminfo", node);
    (void)snprintf(text, sizeof text, "Node %d MemTotal: %u kB\n", node, memory_kb);
    fake_file(root, path, text);
    (void)snprintf(path, sizeof path, "/sys/devices/system/node/node%d/distance", node);
    fake_file(root, path, distances);
}

/* What a made-up machine of `cpus` CPUs needs besides. */
static inline void fake_machine(const char *root, int cpus, const char *online_nodes)
{
    char text[64];
    (void)snprintf(text, sizeof text, "0-%d\n", cpus - 1);
    fake_file(root, "/sys/devices/system/cpu/online", text);
    fake_file(root, "/sys/devices/system/cpu/possible", text);
    fake_file(root, "/sys/devices/system/node/online", online_nodes);
    fake_file(root, "/proc/cpuinfo", "processor : 0\n");
    fake_file(root, "/proc/meminfo", "MemTotal: 1000000 kB\n");
    fake_file(root, "/proc/mounts", "sysfs /sys sysfs rw 0 0\n");
}

/* From now on hwloc takes the files below `root` for this machine. */
static inline void fake_use(const char *root)
{
    cr_assert_eq(setenv("HWLOC_FSROOT", root, 1), 0);
    cr_assert_eq(setenv("HWLOC_THISSYSTEM", "1", 1), 0);
    cr_assert_eq(setenv("HWLOC_HIDE_ERRORS", "2", 1), 0);
    cr_assert_eq(setenv("HWLOC_COMPONENTS", "linux", 1), 0);
}

#endif
