/* SPDX-License-Identifier: MIT */
/* numa/topology.c: the public face of a topology: load, read, release.  hwloc is in discover.c.
 */
#include <numio/topology.h>

#include <errno.h>
#include <string.h>

#include "numa/cpu_quota.h"
#include "numa/machine.h"
#include "numa/real_cpus.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"

void *nio_numa_array(size_t count, size_t element_bytes)
{
    return nio_zalloc_array(count ? count : 1, element_bytes);
}

/* Releases what a discovery has filled in, so that another may start over. */
static void clear_machine(struct numio_topology *t)
{
    for (uint32_t i = 0; t->packages && i < t->info.package_count; i++)
        nio_free((char *)t->packages[i].model);
    for (uint32_t i = 0; t->kinds && i < t->info.kind_count; i++)
        nio_free((char *)t->kinds[i].name);
    for (uint32_t i = 0; t->devices && i < t->device_count; i++)
        nio_free(t->devices[i].name);
    nio_free(t->packages);
    nio_free(t->numas);
    nio_free(t->llcs);
    nio_free(t->cores);
    nio_free(t->pus);
    nio_free(t->kinds);
    nio_free(t->distance);
    nio_free(t->devices);
    t->packages = NULL;
    t->numas = NULL;
    t->llcs = NULL;
    t->cores = NULL;
    t->pus = NULL;
    t->kinds = NULL;
    t->distance = NULL;
    t->devices = NULL;
    t->device_count = 0;
    t->info.package_count = t->info.numa_count = t->info.llc_count = 0;
    t->info.core_count = t->info.pu_count = t->info.kind_count = 0;
    t->info.has_distances = false;
    t->info.memory_bytes = 0;
}

void numio_topology_destroy(struct numio_topology *t)
{
    if (!t)
        return;
    clear_machine(t);
    nio_reasons_fini(&t->reasons);
    nio_free(t->real_cpus);
    nio_free(t->root);
    nio_free(t);
}

static int fill_real_cpus(struct numio_topology *t, const struct nio_topology_setup *setup)
{
    unsigned count = setup->real_cpu_count;
    int err = 0;
    if (setup->real_cpus) {
        t->real_cpus = nio_numa_array(count, sizeof *t->real_cpus);
        if (!t->real_cpus)
            return -ENOMEM;
        memcpy(t->real_cpus, setup->real_cpus, count * sizeof *t->real_cpus);
    } else {
        count = 0;
        err = nio_real_cpus_read(&t->real_cpus, &count);
        if (err == -ENOMEM)
            return err;
    }
    t->info.real_cpu_count = count;
    if (count > 0)
        return 0;
    return nio_reasons_add(&t->reasons,
                           "the CPUs this thread may run on cannot be read (%s): one is assumed, "
                           "threads are not pinned",
                           strerror(-err));
}

static int fill_machine(struct numio_topology *t, const char *spec)
{
    int err = nio_discover(t, spec);
    if (err != NIO_SURPRISE)
        return err;
    clear_machine(t);
    if (spec)
        return nio_error(-EINVAL, "topology: %s",
                         nio_reasons_get(&t->reasons, t->reasons.count - 1));
    t->info.is_emulated = false;
    return nio_flat_fill(t);
}

static int fill_quota(struct numio_topology *t, const struct nio_topology_setup *setup)
{
    if (t->info.is_emulated && !setup->root)
        return 0;
    return nio_cpu_quota_read(t->root, &t->reasons, &t->info.cpu_quota);
}

static int note_emulation(struct numio_topology *t, const char *spec)
{
    if (!t->info.is_emulated)
        return 0;
    return nio_reasons_add(&t->reasons,
                           "emulated machine (%s): threads share the %u real CPUs round-robin, "
                           "memory is not bound to nodes",
                           spec ? spec : "by hwloc's environment variables",
                           (unsigned)t->info.real_cpu_count);
}

int nio_topology_load_as(const char *spec, const struct nio_topology_setup *setup,
                         struct numio_topology **ret_topology)
{
    struct numio_topology *t = nio_zalloc(sizeof *t);
    if (!t)
        return nio_error(-ENOMEM, "topology: out of memory");
    int err = -ENOMEM;
    t->info.size = sizeof t->info;
    t->root = nio_strdup(setup->root ? setup->root : "");
    if (!t->root)
        goto fail;
    err = fill_real_cpus(t, setup);
    if (!err)
        err = fill_machine(t, spec);
    if (!err)
        err = note_emulation(t, spec);
    if (!err)
        err = fill_quota(t, setup);
    if (err)
        goto fail;
    *ret_topology = t;
    return 0;
fail:
    numio_topology_destroy(t);
    return err == -ENOMEM ? nio_error(err, "topology: out of memory") : err;
}

int numio_topology_load(const char *spec, struct numio_topology **ret_topology)
{
    const struct nio_topology_setup this_machine = { .root = NULL };
    return nio_topology_load_as(spec, &this_machine, ret_topology);
}

/* All public structs start with their size, so one copy serves them all.  A caller built against
 * a later version has a longer struct: its tail reads as zeroes. */
static int copy_out(void *ret, const void *items, size_t item_bytes, uint32_t index, uint32_t count)
{
    size_t size;
    memcpy(&size, ret, sizeof size);
    if (size < item_bytes)
        return nio_error(-EINVAL, "topology: the struct's size field is %zu, not %zu", size,
                         item_bytes);
    if (index >= count)
        return nio_error(-EINVAL, "topology: index %u of %u", (unsigned)index, (unsigned)count);
    memset(ret, 0, size);
    memcpy(ret, (const char *)items + (size_t)index * item_bytes, item_bytes);
    memcpy(ret, &size, sizeof size);
    return 0;
}

int numio_topology_info_get(const struct numio_topology *t, struct numio_topology_info *ret_info)
{
    return copy_out(ret_info, &t->info, sizeof t->info, 0, 1);
}

int numio_topology_package_get(const struct numio_topology *t, uint32_t index,
                               struct numio_topology_package *ret_package)
{
    return copy_out(ret_package, t->packages, sizeof *t->packages, index, t->info.package_count);
}

int numio_topology_numa_get(const struct numio_topology *t, uint32_t index,
                            struct numio_topology_numa *ret_numa)
{
    return copy_out(ret_numa, t->numas, sizeof *t->numas, index, t->info.numa_count);
}

int numio_topology_llc_get(const struct numio_topology *t, uint32_t index,
                           struct numio_topology_llc *ret_llc)
{
    return copy_out(ret_llc, t->llcs, sizeof *t->llcs, index, t->info.llc_count);
}

int numio_topology_core_get(const struct numio_topology *t, uint32_t index,
                            struct numio_topology_core *ret_core)
{
    return copy_out(ret_core, t->cores, sizeof *t->cores, index, t->info.core_count);
}

int numio_topology_pu_get(const struct numio_topology *t, uint32_t index,
                          struct numio_topology_pu *ret_pu)
{
    return copy_out(ret_pu, t->pus, sizeof *t->pus, index, t->info.pu_count);
}

int numio_topology_kind_get(const struct numio_topology *t, uint32_t index,
                            struct numio_topology_kind *ret_kind)
{
    return copy_out(ret_kind, t->kinds, sizeof *t->kinds, index, t->info.kind_count);
}

unsigned numio_topology_distance(const struct numio_topology *t, uint32_t from, uint32_t to)
{
    uint32_t count = t->info.numa_count;
    return from < count && to < count ? t->distance[from * count + to] : 0;
}

int numio_topology_real_cpu(const struct numio_topology *t, uint32_t index)
{
    return index < t->info.real_cpu_count ? t->real_cpus[index] : -1;
}

const char *numio_topology_reason(const struct numio_topology *t, uint32_t index)
{
    return nio_reasons_get(&t->reasons, index);
}
