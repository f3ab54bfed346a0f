/* SPDX-License-Identifier: MIT */
/* numa/discover_numa.c: NUMA nodes, the distances between them, and each PU's home.
 *
 * The home of a PU is the NUMA node whose memory it is given by default.  In order:
 *   1. the node the kernel counts the CPU in, if that has memory (this machine only);
 *   2. among the nodes with memory whose locality includes the PU, the narrowest, and of equals
 *      the lowest numbered: firmware numbers DRAM before HBM and CXL memory;
 *   3. the node with memory that is nearest to the PU's memory-less node, by hwloc's distances or
 *      by the kernel's, since hwloc may drop memory-less nodes;
 *   4. one of its package, or the first there is, with a reason.
 */
#include "numa/discover.h"

#include <errno.h>
#include <hwloc/distances.h>

#include "numa/sysnodes.h"
#include "runtime/base/mem.h"

enum { MATRICES_MAX = 4 };

static hwloc_obj_t numa_obj(const struct nio_discovery *d, uint32_t i)
{
    return hwloc_get_obj_by_type(d->hwloc, HWLOC_OBJ_NUMANODE, i);
}

static hwloc_obj_t package_of(const struct nio_discovery *d, hwloc_obj_t obj)
{
    return hwloc_get_ancestor_obj_by_type(d->hwloc, HWLOC_OBJ_PACKAGE, obj);
}

static bool has_memory(const struct nio_discovery *d, uint32_t i)
{
    return !d->is_memory_known || d->t->numas[i].memory_bytes > 0;
}

static int list_numas(struct nio_discovery *d)
{
    struct numio_topology *t = d->t;
    uint32_t count = (uint32_t)hwloc_get_nbobjs_by_type(d->hwloc, HWLOC_OBJ_NUMANODE);
    t->numas = nio_numa_array(count, sizeof *t->numas);
    t->distance = nio_numa_array((size_t)count * count, sizeof *t->distance);
    if (!t->numas || !t->distance)
        return -ENOMEM;
    t->info.numa_count = count;
    for (uint32_t i = 0; i < count; i++) {
        hwloc_obj_t obj = numa_obj(d, i), package = package_of(d, obj);
        uint32_t package_index = NUMIO_TOPOLOGY_NONE;
        for (uint32_t p = 0; package && p < t->info.package_count; p++)
            if (d->package_objs[p] == package)
                package_index = p;
        t->numas[i] = (struct numio_topology_numa){
            .size = sizeof t->numas[i],
            .os_index = obj->os_index == HWLOC_UNKNOWN_INDEX ? -1 : (int)obj->os_index,
            .package = package_index,
            .home = i,
            .memory_bytes = obj->attr->numanode.local_memory,
        };
        t->info.memory_bytes += t->numas[i].memory_bytes;
    }
    d->is_memory_known = t->info.memory_bytes > 0;
    return d->is_memory_known
               ? 0
               : nio_reasons_add(&t->reasons, "the machine does not say how much memory it has");
}

static void assume_distances(struct nio_discovery *d)
{
    struct numio_topology *t = d->t;
    uint32_t count = t->info.numa_count;
    for (uint32_t from = 0; from < count; from++) {
        hwloc_obj_t package = package_of(d, numa_obj(d, from));
        for (uint32_t to = 0; to < count; to++) {
            bool is_near = package && package == package_of(d, numa_obj(d, to));
            uint16_t distance = is_near ? NIO_DISTANCE_PACKAGE : NIO_DISTANCE_FAR;
            t->distance[from * count + to] = from == to ? NIO_DISTANCE_LOCAL : distance;
        }
    }
}

/* True when every node is nearest to itself and all values scale to 10 = local. */
static bool is_sane(const struct hwloc_distances_s *matrix)
{
    for (unsigned from = 0; from < matrix->nbobjs; from++) {
        const hwloc_uint64_t *row = &matrix->values[from * matrix->nbobjs];
        hwloc_uint64_t local = row[from];
        for (unsigned to = 0; to < matrix->nbobjs; to++)
            if (local == 0 || row[to] < local || row[to] / local > UINT16_MAX / 11)
                return false;
    }
    return true;
}

static void use_distances(struct nio_discovery *d, const struct hwloc_distances_s *matrix)
{
    struct numio_topology *t = d->t;
    uint32_t count = t->info.numa_count;
    for (unsigned from = 0; from < matrix->nbobjs; from++) {
        const hwloc_uint64_t *row = &matrix->values[from * matrix->nbobjs];
        hwloc_uint64_t local = row[from];
        for (unsigned to = 0; to < matrix->nbobjs; to++) {
            size_t slot =
                matrix->objs[from]->logical_index * (size_t)count + matrix->objs[to]->logical_index;
            t->distance[slot] = (uint16_t)((row[to] * NIO_DISTANCE_LOCAL + local / 2) / local);
        }
    }
    t->info.has_distances = matrix->nbobjs == count;
}

static int discover_distances(struct nio_discovery *d)
{
    struct numio_topology *t = d->t;
    struct hwloc_distances_s *matrices[MATRICES_MAX];
    unsigned found = MATRICES_MAX;
    bool is_insane = false;
    assume_distances(d);
    if (t->info.numa_count < 2) {
        t->info.has_distances = true; /* one node is 10 from itself */
        return 0;
    }
    if (nio_fault_now())
        return -ENOMEM;
    if (hwloc_distances_get_by_type(d->hwloc, HWLOC_OBJ_NUMANODE, &found, matrices,
                                    HWLOC_DISTANCES_KIND_MEANS_LATENCY, 0) < 0)
        found = 0;
    unsigned held = found < MATRICES_MAX ? found : MATRICES_MAX;
    for (unsigned i = 0; i < held; i++) {
        is_insane = !is_sane(matrices[i]) || is_insane;
        if (!t->info.has_distances && is_sane(matrices[i]))
            use_distances(d, matrices[i]);
        hwloc_distances_release(d->hwloc, matrices[i]);
    }
    if (t->info.has_distances)
        return 0;
    return nio_reasons_add(
        &t->reasons,
        "the firmware gives %s distances between NUMA nodes: %d local, %d in one "
        "package, %d to another are assumed",
        is_insane ? "senseless" : "no", NIO_DISTANCE_LOCAL, NIO_DISTANCE_PACKAGE, NIO_DISTANCE_FAR);
}

static uint32_t numa_by_os_index(const struct numio_topology *t, int os_index)
{
    for (uint32_t i = 0; os_index >= 0 && i < t->info.numa_count; i++)
        if (t->numas[i].os_index == os_index)
            return i;
    return NUMIO_TOPOLOGY_NONE;
}

/* The narrowest NUMA node around `pu`, with or without memory. */
static uint32_t local_numa(const struct nio_discovery *d, hwloc_obj_t pu, bool with_memory)
{
    uint32_t best = NUMIO_TOPOLOGY_NONE;
    int best_weight = 0;
    for (uint32_t i = 0; i < d->t->info.numa_count; i++) {
        hwloc_obj_t obj = numa_obj(d, i);
        if (has_memory(d, i) != with_memory || !obj->cpuset ||
            !hwloc_bitmap_isset(obj->cpuset, pu->os_index))
            continue;
        int weight = hwloc_bitmap_weight(obj->cpuset);
        if (best == NUMIO_TOPOLOGY_NONE || weight < best_weight ||
            (weight == best_weight && obj->os_index < numa_obj(d, best)->os_index)) {
            best = i;
            best_weight = weight;
        }
    }
    return best;
}

/* The node with memory nearest to listed node `from`. */
static uint32_t nearest_to_numa(const struct nio_discovery *d, uint32_t from)
{
    const struct numio_topology *t = d->t;
    uint32_t best = NUMIO_TOPOLOGY_NONE;
    const uint16_t *row = &t->distance[from * t->info.numa_count];
    for (uint32_t i = 0; i < t->info.numa_count; i++)
        if (has_memory(d, i) && (best == NUMIO_TOPOLOGY_NONE || row[i] < row[best]))
            best = i;
    return best;
}

/* The node with memory nearest to the kernel's node `sys_node`, which hwloc does not show. */
static uint32_t nearest_to_sysnode(const struct nio_discovery *d, int sys_node)
{
    const struct numio_topology *t = d->t;
    uint32_t best = NUMIO_TOPOLOGY_NONE;
    int best_distance = 0;
    for (uint32_t i = 0; sys_node >= 0 && i < t->info.numa_count; i++) {
        int distance = nio_sysnode_distance(t->root, sys_node, t->numas[i].os_index);
        if (has_memory(d, i) && distance > 0 &&
            (best == NUMIO_TOPOLOGY_NONE || distance < best_distance)) {
            best = i;
            best_distance = distance;
        }
    }
    return best;
}

/* Step 4: nobody knows.  There is a node with memory, or no memory is known and all count. */
static uint32_t any_numa(const struct nio_discovery *d, hwloc_obj_t pu)
{
    hwloc_obj_t package = package_of(d, pu);
    uint32_t first = NUMIO_TOPOLOGY_NONE;
    for (uint32_t i = 0; i < d->t->info.numa_count; i++) {
        if (!has_memory(d, i))
            continue;
        if (package && package_of(d, numa_obj(d, i)) == package)
            return i;
        if (first == NUMIO_TOPOLOGY_NONE)
            first = i;
    }
    return first;
}

/* Steps 3 and 4: a PU without local memory.  Leaves one sentence per memory-less node. */
static int adopt(struct nio_discovery *d, hwloc_obj_t pu)
{
    struct numio_topology *t = d->t;
    int sys_node = d->sys_nodes[pu->logical_index];
    uint32_t own = local_numa(d, pu, false), home = NUMIO_TOPOLOGY_NONE;
    int orphan = own == NUMIO_TOPOLOGY_NONE ? sys_node : t->numas[own].os_index;
    if (own != NUMIO_TOPOLOGY_NONE)
        home = nearest_to_numa(d, own);
    if (home == NUMIO_TOPOLOGY_NONE)
        home = nearest_to_sysnode(d, sys_node);
    bool is_known = home != NUMIO_TOPOLOGY_NONE;
    if (!is_known)
        home = any_numa(d, pu);
    d->homes[pu->logical_index] = home;
    int key = is_known ? orphan : NIO_PUS_MAX + (int)home;
    if (d->last_orphan == key)
        return 0;
    d->last_orphan = key;
    if (is_known)
        return nio_reasons_add(&t->reasons,
                               "NUMA node %d has no memory of its own to use: its CPUs belong to "
                               "node %d, the nearest that has",
                               orphan, t->numas[home].os_index);
    return nio_reasons_add(&t->reasons,
                           "CPU %u has no local memory to use and its distances are not known: "
                           "it and its neighbours belong to node %d",
                           pu->os_index, t->numas[home].os_index);
}

static int find_home(struct nio_discovery *d, hwloc_obj_t pu)
{
    uint32_t home = numa_by_os_index(d->t, d->sys_nodes[pu->logical_index]);
    if (home == NUMIO_TOPOLOGY_NONE || !has_memory(d, home))
        home = local_numa(d, pu, true);
    if (home == NUMIO_TOPOLOGY_NONE)
        return adopt(d, pu);
    d->homes[pu->logical_index] = home;
    return 0;
}

/* Which kernel node each PU is counted in; all unknown on an emulated machine. */
static int read_sysnodes(struct nio_discovery *d)
{
    if (d->t->info.is_emulated) {
        for (unsigned i = 0; i < d->hwloc_pu_count; i++)
            d->sys_nodes[i] = -1;
        return 0;
    }
    int *cpus = nio_numa_array(d->hwloc_pu_count, sizeof *cpus);
    if (!cpus)
        return -ENOMEM;
    for (unsigned i = 0; i < d->hwloc_pu_count; i++)
        cpus[i] = (int)hwloc_get_obj_by_type(d->hwloc, HWLOC_OBJ_PU, i)->os_index;
    int err = nio_sysnodes_of_cpus(d->t->root, cpus, d->hwloc_pu_count, d->sys_nodes);
    nio_free(cpus);
    return err;
}

/* Marks memory that is no CPU's own.  Errors: -ENOMEM. */
static int mark_cpuless(struct nio_discovery *d, uint32_t i)
{
    struct numio_topology_numa *numa = &d->t->numas[i];
    hwloc_obj_t obj = numa_obj(d, i);
    int has_cpus = -1;
    if (!d->t->info.is_emulated && numa->os_index >= 0)
        has_cpus = nio_sysnode_has_cpus(d->t->root, numa->os_index);
    if (has_cpus == -ENOMEM)
        return -ENOMEM;
    if (has_cpus >= 0) {
        numa->is_cpuless = has_cpus == 0;
        return 0;
    }
    /* A PU outside the binding or the cgroup still makes it a node with CPUs. */
    numa->is_cpuless = !obj->complete_cpuset || hwloc_bitmap_iszero(obj->complete_cpuset);
    if (numa->is_cpuless || numa->is_memoryless || hwloc_bitmap_iszero(obj->cpuset))
        return 0;
    numa->is_cpuless = true;
    for (unsigned p = 0; p < d->hwloc_pu_count; p++)
        if (d->homes[p] == i)
            numa->is_cpuless = false;
    return 0;
}

int nio_discover_numas(struct nio_discovery *d)
{
    int err = list_numas(d);
    if (!err)
        err = discover_distances(d);
    if (!err)
        err = read_sysnodes(d);
    for (unsigned i = 0; !err && i < d->hwloc_pu_count; i++)
        err = find_home(d, hwloc_get_obj_by_type(d->hwloc, HWLOC_OBJ_PU, i));
    for (uint32_t i = 0; !err && i < d->t->info.numa_count; i++) {
        if (!has_memory(d, i)) {
            d->t->numas[i].is_memoryless = true;
            d->t->numas[i].home = nearest_to_numa(d, i);
        }
        err = mark_cpuless(d, i);
    }
    return err;
}
