/* SPDX-License-Identifier: MIT */
/* numa/discover.c: hwloc's tree -> packages, caches, cores, PUs and kinds of core.
 *
 * hwloc's own restriction to the binding is not used: it does nothing when the process's threads
 * are bound differently, and it forgets which memory belonged to the CPUs it removes.  Instead
 * the PUs outside the calling thread's binding are left out here.  hwloc never rebinds the
 * calling thread (DONT_CHANGE_BINDING), so loading disturbs nobody.
 */
#include "numa/discover.h"

#include <errno.h>
#include <hwloc/cpukinds.h>
#include <stdlib.h>
#include <string.h>

#include "numa/spec.h"
#include "runtime/base/error.h"
#include "runtime/base/mem.h"

static int compare_ints(const void *a, const void *b)
{
    int left = *(const int *)a, right = *(const int *)b;
    return (left > right) - (left < right);
}

static bool is_usable(const struct nio_discovery *d, hwloc_obj_t pu)
{
    const struct numio_topology *t = d->t;
    int cpu = (int)pu->os_index;
    if (!hwloc_bitmap_isset(hwloc_topology_get_allowed_cpuset(d->hwloc), pu->os_index))
        return false;
    if (t->info.is_emulated || t->info.real_cpu_count == 0)
        return true;
    return bsearch(&cpu, t->real_cpus, t->info.real_cpu_count, sizeof cpu, compare_ints) != NULL;
}

static hwloc_obj_t hwloc_pu(const struct nio_discovery *d, unsigned i)
{
    return hwloc_get_obj_by_type(d->hwloc, HWLOC_OBJ_PU, i);
}

static int object_number(hwloc_obj_t obj)
{
    return obj && obj->os_index != HWLOC_UNKNOWN_INDEX ? (int)obj->os_index : -1;
}

static const char *cpu_model(const struct nio_discovery *d, hwloc_obj_t package)
{
    const char *model = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    if (!model)
        model = hwloc_obj_get_info_by_name(hwloc_get_root_obj(d->hwloc), "CPUModel");
    return model ? model : "";
}

static uint32_t find_package(const struct nio_discovery *d, hwloc_obj_t obj)
{
    for (uint32_t i = d->t->info.package_count; i-- > 0;)
        if (d->package_objs[i] == obj)
            return i;
    return NUMIO_TOPOLOGY_NONE;
}

static hwloc_obj_t package_of(const struct nio_discovery *d, hwloc_obj_t obj)
{
    return hwloc_get_ancestor_obj_by_type(d->hwloc, HWLOC_OBJ_PACKAGE, obj);
}

static int add_package(struct nio_discovery *d, hwloc_obj_t obj)
{
    struct numio_topology *t = d->t;
    char *model = nio_strdup(cpu_model(d, obj));
    if (!model)
        return -ENOMEM;
    uint32_t i = t->info.package_count++;
    d->package_objs[i] = obj;
    t->packages[i] = (struct numio_topology_package){ .size = sizeof t->packages[i],
                                                      .os_index = object_number(obj),
                                                      .model = model };
    return 0;
}

/* Allocates for the usable PUs and lists their packages. */
static int discover_packages(struct nio_discovery *d)
{
    struct numio_topology *t = d->t;
    unsigned usable = 0;
    for (unsigned i = 0; i < d->hwloc_pu_count; i++)
        usable += is_usable(d, hwloc_pu(d, i));
    if (usable == 0) {
        int err = nio_reasons_add(&t->reasons, "hwloc shows none of the CPUs that may be used");
        return err ? err : NIO_SURPRISE;
    }
    t->packages = nio_numa_array(usable, sizeof *t->packages);
    t->llcs = nio_numa_array(usable, sizeof *t->llcs);
    t->cores = nio_numa_array(usable, sizeof *t->cores);
    t->pus = nio_numa_array(usable, sizeof *t->pus);
    d->package_objs = nio_numa_array(usable, sizeof *d->package_objs);
    d->llc_keys = nio_numa_array(usable, sizeof *d->llc_keys);
    if (!t->packages || !t->llcs || !t->cores || !t->pus || !d->package_objs || !d->llc_keys)
        return -ENOMEM;
    for (unsigned i = 0; i < d->hwloc_pu_count; i++) {
        hwloc_obj_t pu = hwloc_pu(d, i);
        hwloc_obj_t package = package_of(d, pu);
        if (!is_usable(d, pu) || find_package(d, package) != NUMIO_TOPOLOGY_NONE)
            continue;
        int err = add_package(d, package);
        if (err)
            return err;
    }
    return 0;
}

/* The outermost data or unified cache around `pu`, NULL if the machine shows none. */
static hwloc_obj_t last_level_cache(hwloc_obj_t pu)
{
    hwloc_obj_t found = NULL;
    for (hwloc_obj_t obj = pu->parent; obj; obj = obj->parent) /* bounded by the tree's depth */
        if (hwloc_obj_type_is_dcache(obj->type))
            found = obj;
    return found;
}

static uint32_t find_or_add_llc(struct nio_discovery *d, hwloc_obj_t pu, uint32_t package,
                                uint32_t numa)
{
    struct numio_topology *t = d->t;
    hwloc_obj_t cache = last_level_cache(pu);
    struct nio_llc_key key = { .cache = cache,
                               .package = cache ? 0 : package,
                               .numa = cache ? 0 : numa };
    for (uint32_t i = t->info.llc_count; i-- > 0;) {
        const struct nio_llc_key *other = &d->llc_keys[i];
        if (other->cache == key.cache && other->package == key.package && other->numa == key.numa)
            return i;
    }
    uint32_t i = t->info.llc_count++;
    d->llc_keys[i] = key;
    t->llcs[i] = (struct numio_topology_llc){ .size = sizeof t->llcs[i],
                                              .level = cache ? cache->attr->cache.depth : 0,
                                              .cache_bytes = cache ? cache->attr->cache.size : 0,
                                              .package = package };
    return i;
}

static uint32_t add_core(struct nio_discovery *d, hwloc_obj_t obj, hwloc_obj_t pu)
{
    struct numio_topology *t = d->t;
    uint32_t package = find_package(d, package_of(d, pu));
    uint32_t numa = d->homes[pu->logical_index];
    uint32_t llc = find_or_add_llc(d, pu, package, numa);
    int kind = t->info.kind_count ? hwloc_cpukinds_get_by_cpuset(d->hwloc, pu->cpuset, 0) : -1;
    uint32_t i = t->info.core_count++;
    t->cores[i] = (struct numio_topology_core){
        .size = sizeof t->cores[i],
        .os_index = obj->type == HWLOC_OBJ_CORE ? object_number(obj) : -1,
        .package = package,
        .numa = numa,
        .llc = llc,
        .kind = kind < 0 ? NUMIO_TOPOLOGY_NONE : (uint32_t)kind,
        .pu_first = t->info.pu_count,
    };
    t->packages[package].core_count++;
    t->numas[numa].core_count++;
    t->llcs[llc].core_count++;
    if (kind >= 0)
        t->kinds[kind].core_count++;
    return i;
}

static void add_pu(struct nio_discovery *d, uint32_t core_index, hwloc_obj_t pu)
{
    struct numio_topology *t = d->t;
    struct numio_topology_core *core = &t->cores[core_index];
    uint32_t i = t->info.pu_count++;
    t->pus[i] = (struct numio_topology_pu){
        .size = sizeof t->pus[i],
        .os_index = (int)pu->os_index,
        .package = core->package,
        .numa = core->numa,
        .llc = core->llc,
        .core = core_index,
        .smt_index = core->pu_count,
    };
    core->pu_count++;
    t->packages[core->package].pu_count++;
    t->numas[core->numa].pu_count++;
    t->llcs[core->llc].pu_count++;
}

static void discover_cores(struct nio_discovery *d)
{
    struct numio_topology *t = d->t;
    hwloc_obj_t last = NULL;
    uint32_t core = 0;
    for (unsigned i = 0; i < d->hwloc_pu_count; i++) {
        hwloc_obj_t pu = hwloc_pu(d, i);
        if (!is_usable(d, pu))
            continue;
        hwloc_obj_t obj = hwloc_get_ancestor_obj_by_type(d->hwloc, HWLOC_OBJ_CORE, pu);
        if (!obj || package_of(d, obj) != package_of(d, pu))
            obj = pu; /* no cores shown, or odd ones above packages: each PU counts as one */
        if (obj != last || t->cores[core].numa != d->homes[i])
            core = add_core(d, obj, pu);
        last = obj;
        add_pu(d, core, pu);
    }
}

static int discover_kinds(struct nio_discovery *d)
{
    struct numio_topology *t = d->t;
    int count = hwloc_cpukinds_get_nr(d->hwloc, 0);
    if (count < 2)
        count = 0; /* one kind is no difference */
    t->kinds = nio_numa_array((size_t)count, sizeof *t->kinds);
    if (!t->kinds)
        return -ENOMEM;
    for (unsigned i = 0; i < (unsigned)count; i++) {
        unsigned info_count = 0;
        struct hwloc_info_s *infos = NULL;
        int efficiency = -1;
        const char *name = "";
        (void)hwloc_cpukinds_get_info(d->hwloc, i, NULL, &efficiency, &info_count, &infos,
                                      0); /* the index is valid */
        for (unsigned k = 0; k < info_count; k++)
            if (strcmp(infos[k].name, "CoreType") == 0)
                name = infos[k].value;
        char *copy = nio_strdup(name);
        if (!copy)
            return -ENOMEM;
        t->kinds[t->info.kind_count++] = (struct numio_topology_kind){ .size = sizeof t->kinds[i],
                                                                       .efficiency = efficiency,
                                                                       .name = copy };
    }
    return 0;
}

static int note_missing_cpus(struct numio_topology *t)
{
    if (t->info.is_emulated || t->info.pu_count >= t->info.real_cpu_count)
        return 0;
    return nio_reasons_add(&t->reasons, "hwloc shows %u of the %u CPUs that may be used",
                           (unsigned)t->info.pu_count, (unsigned)t->info.real_cpu_count);
}

static int copy_machine(struct nio_discovery *d)
{
    int pus = hwloc_get_nbobjs_by_type(d->hwloc, HWLOC_OBJ_PU);
    int numas = hwloc_get_nbobjs_by_type(d->hwloc, HWLOC_OBJ_NUMANODE);
    if (pus < 1 || pus > NIO_PUS_MAX || numas < 1 || numas > NIO_NUMAS_MAX) {
        int err =
            nio_reasons_add(&d->t->reasons, "hwloc shows %d PUs and %d NUMA nodes", pus, numas);
        return err ? err : NIO_SURPRISE;
    }
    d->hwloc_pu_count = (unsigned)pus;
    d->sys_nodes = nio_numa_array(d->hwloc_pu_count, sizeof *d->sys_nodes);
    d->homes = nio_numa_array(d->hwloc_pu_count, sizeof *d->homes);
    if (!d->sys_nodes || !d->homes)
        return -ENOMEM;
    int err = discover_packages(d);
    if (!err)
        err = nio_discover_numas(d);
    if (!err)
        err = discover_kinds(d);
    if (err)
        return err;
    discover_cores(d);
    err = note_missing_cpus(d->t);
    return err ? err : nio_discover_devices(d);
}

static int note_no_recording(const char *path, int err)
{
    return nio_error(err, "topology: %s is not a recorded machine of hwloc 2 (lstopo --of xml)",
                     path);
}

/* Tells hwloc where the machine comes from.  Returns 0 or an error with detail. */
static int set_source(hwloc_topology_t hwloc, const char *spec)
{
    if (!spec)
        return 0;
    bool is_path = nio_spec_is_path(spec);
    int err = is_path ? nio_spec_check_file(spec) : nio_spec_check_synthetic(spec);
    if (err)
        return err;
    errno = 0;
    if (is_path && hwloc_topology_set_xml(hwloc, spec) < 0)
        return note_no_recording(spec, errno == ENOMEM ? -ENOMEM : -EINVAL);
    if (!is_path && hwloc_topology_set_synthetic(hwloc, spec) < 0)
        return nio_error(errno == ENOMEM ? -ENOMEM : -EINVAL,
                         "topology: \"%s\" is not a machine; each level divides the one before, "
                         "the last is pu, as in \"pack:2 numa:1 core:4 pu:1\"",
                         spec);
    return 0;
}

/* Loads hwloc's view.  NIO_SURPRISE when hwloc cannot. */
static int load_hwloc(struct nio_discovery *d, const char *spec)
{
    int err = set_source(d->hwloc, spec);
    if (err)
        return err;
    bool is_recorded = spec && nio_spec_is_path(spec);
    unsigned long flags = HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING;
    errno = 0;
    if (nio_fault_now())
        return -ENOMEM;
    if (hwloc_topology_set_flags(d->hwloc, flags) < 0 ||
        (is_recorded &&
         hwloc_topology_set_io_types_filter(d->hwloc, HWLOC_TYPE_FILTER_KEEP_IMPORTANT) < 0) ||
        hwloc_topology_load(d->hwloc) < 0) {
        if (errno == ENOMEM)
            return -ENOMEM;
        if (is_recorded)
            return note_no_recording(spec, -EINVAL);
        err = nio_reasons_add(&d->t->reasons, "hwloc cannot read %s (%s)",
                              spec ? spec : "this machine", strerror(errno ? errno : EINVAL));
        return err ? err : NIO_SURPRISE;
    }
    d->t->info.is_emulated = spec || !hwloc_topology_is_thissystem(d->hwloc);
    return 0;
}

int nio_discover(struct numio_topology *topology, const char *spec)
{
    struct nio_discovery d = { .t = topology, .last_orphan = -1 };
    if (nio_fault_now() || hwloc_topology_init(&d.hwloc) < 0)
        return -ENOMEM;
    int err = load_hwloc(&d, spec);
    if (!err)
        err = copy_machine(&d);
    hwloc_topology_destroy(d.hwloc);
    nio_free(d.package_objs);
    nio_free(d.llc_keys);
    nio_free(d.sys_nodes);
    nio_free(d.homes);
    return err;
}
