/* SPDX-License-Identifier: MIT */
/* numio/topology.h: the machine as numio sees it.
 *
 * A topology is a snapshot: packages, NUMA nodes, last-level caches (LLCs), cores and PUs that the
 * caller may use, with the distances between the NUMA nodes, and which NUMA node a device, a file
 * or a network interface is nearest to.  It comes from this machine, from a description of
 * another machine, or from a recorded one, so that multi-node code runs on a laptop.
 *
 * Objects are numbered 0.. without holes, in the order of the hardware tree; these numbers are
 * numio's own.  `os_index` is the kernel's number of the same object and has holes.  Objects
 * without a PU that the caller may use are not there, except NUMA nodes with memory.
 *
 * Immutable after load: any thread may read it without a lock.  Loading takes milliseconds and is
 * for start-up; reading is O(1); the look-ups of devices and files read sysfs.
 * What could not be found out is replaced by the simplest truth that works (in the end: one node)
 * and leaves a sentence, see numio_topology_reason().
 */
#ifndef NUMIO_TOPOLOGY_H
#define NUMIO_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <numio/base.h>

NUMIO_BEGIN_DECLS

/* What becomes a node of the runtime. */
enum numio_shard_by {
    NUMIO_SHARD_PACKAGE = 1, /* a CPU package ("socket") */
    NUMIO_SHARD_NUMA = 0,    /* a NUMA node with memory; the default */
    NUMIO_SHARD_L3 = 2       /* a level-3 cache, never across NUMA nodes */
};

/* No such object, or not known. */
#define NUMIO_TOPOLOGY_NONE UINT32_MAX

struct numio_topology;

/* The machine in one look. */
struct numio_topology_info {
    size_t size; /* sizeof this struct, set by the caller */
    uint32_t package_count, numa_count, llc_count, core_count, pu_count, kind_count;
    uint32_t real_cpu_count; /* CPUs of this machine that the caller may run on */
    bool is_emulated;        /* not this machine: threads go to the real CPUs there are */
    bool has_distances;      /* the firmware gave them; else 10 / 12 / 20 are assumed */
    double cpu_quota;        /* CPUs' worth of time the cgroup grants, 0: no limit */
    uint64_t memory_bytes;   /* of all listed NUMA nodes, 0: unknown */
};

struct numio_topology_package {
    size_t size;
    int os_index; /* -1: the machine does not tell */
    uint32_t core_count, pu_count;
    const char *model; /* the CPU's name, "" if unknown; lives as long as the topology */
};

struct numio_topology_numa {
    size_t size;
    int os_index;        /* the kernel's node number, -1: none */
    uint32_t package;    /* NUMIO_TOPOLOGY_NONE if it serves several or none */
    uint32_t home;       /* itself; where it has no memory, the nearest one that has */
    uint32_t core_count; /* cores whose home it is, 0 for memory that no usable CPU is local to */
    uint32_t pu_count;
    bool is_memoryless;    /* CPUs without local memory: they belong to `home` */
    bool is_cpuless;       /* memory without CPUs of its own, such as CXL or HBM */
    uint64_t memory_bytes; /* local memory, 0: none or unknown */
};

struct numio_topology_llc {
    size_t size;
    unsigned level;       /* 3 for an L3; 0: the machine shows no cache, one is assumed */
    uint64_t cache_bytes; /* 0: unknown */
    uint32_t package;
    uint32_t core_count, pu_count;
};

struct numio_topology_core {
    size_t size;
    int os_index; /* unique only within its package; -1: the machine does not tell */
    uint32_t package, numa, llc;
    uint32_t kind;               /* NUMIO_TOPOLOGY_NONE where all cores are alike */
    uint32_t pu_first, pu_count; /* its SMT siblings: PUs pu_first .. pu_first + pu_count - 1 */
};

struct numio_topology_pu {
    size_t size;
    int os_index; /* the kernel's CPU number on the described machine */
    uint32_t package, numa, llc, core;
    uint32_t smt_index; /* 0 for the core's first usable PU */
};

/* A kind of core, where a machine mixes fast and frugal ones. */
struct numio_topology_kind {
    size_t size;
    int efficiency; /* higher is faster; -1: not known which is faster */
    uint32_t core_count;
    const char *name; /* "IntelCore", "IntelAtom", ...; "" if unknown */
};

/* Loads a topology.  `spec` is one of
 *   NULL                       this machine, as far as the calling thread's CPU binding and its
 *                              cgroup allow
 *   "pack:2 numa:1 core:4 pu:1" an emulated machine, in hwloc's synthetic notation
 *   "/path/to.xml"             a recorded machine (lstopo --of xml); anything with a '/' in it or
 *                              ending in ".xml" is taken for a path
 * Context: any thread; blocks on files; start-up only.
 * Owns:    *ret_topology is the caller's, released with numio_topology_destroy().
 * Errors:  -EINVAL `spec` does not parse or describes no usable CPU; -E2BIG more than 65,536 PUs;
 *          -ENOENT, -EACCES ... the file cannot be read; -ENOMEM.  This machine never fails for
 *          any reason but memory: it degrades to one node with a reason. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_topology_load(const char *spec,
                                                     struct numio_topology **ret_topology);

/* Releases a topology and every string it gave out.
 * Context: any thread, when no other uses it.   Owns: takes NULL.
 * Errors:  none. */
NUMIO_EXPORT void numio_topology_destroy(struct numio_topology *topology);

/* Fills `*ret_info`; the caller has set its `size`.
 * Context: any thread; O(1).
 * Errors:  -EINVAL `size` is too small to be this struct. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_topology_info_get(const struct numio_topology *topology,
                                                         struct numio_topology_info *ret_info);

/* The six below fill in object `index`; the caller has set the struct's `size`.
 * Context: any thread; O(1).
 * Owns:    strings live as long as the topology.
 * Errors:  -EINVAL no such index, or `size` is too small to be this struct. */
NUMIO_EXPORT NUMIO_NODISCARD int
numio_topology_package_get(const struct numio_topology *topology, uint32_t index,
                           struct numio_topology_package *ret_package);
NUMIO_EXPORT NUMIO_NODISCARD int numio_topology_numa_get(const struct numio_topology *topology,
                                                         uint32_t index,
                                                         struct numio_topology_numa *ret_numa);
NUMIO_EXPORT NUMIO_NODISCARD int numio_topology_llc_get(const struct numio_topology *topology,
                                                        uint32_t index,
                                                        struct numio_topology_llc *ret_llc);
NUMIO_EXPORT NUMIO_NODISCARD int numio_topology_core_get(const struct numio_topology *topology,
                                                         uint32_t index,
                                                         struct numio_topology_core *ret_core);
NUMIO_EXPORT NUMIO_NODISCARD int numio_topology_pu_get(const struct numio_topology *topology,
                                                       uint32_t index,
                                                       struct numio_topology_pu *ret_pu);
NUMIO_EXPORT NUMIO_NODISCARD int numio_topology_kind_get(const struct numio_topology *topology,
                                                         uint32_t index,
                                                         struct numio_topology_kind *ret_kind);

/* Distance from NUMA node `from` to `to` as the firmware gives it: 10 is local, 20 takes twice as
 * long; 0 for an index that does not exist.
 * Context: any thread; O(1).
 * Errors:  none. */
NUMIO_EXPORT unsigned numio_topology_distance(const struct numio_topology *topology, uint32_t from,
                                              uint32_t to);

/* The kernel's number of the index-th CPU of this machine that the caller may run on, ascending;
 * -1 past the last.  On a topology of this machine these are its PUs.
 * Context: any thread; O(1).
 * Errors:  none. */
NUMIO_EXPORT int numio_topology_real_cpu(const struct numio_topology *topology, uint32_t index);

/* Why the topology is less than the machine: the index-th sentence, NULL past the last.
 * Context: any thread; O(1).   Owns: lives as long as the topology.
 * Errors:  none. */
NUMIO_EXPORT const char *numio_topology_reason(const struct numio_topology *topology,
                                               uint32_t index);

/* Which listed NUMA node is nearest to a PCI device, given its address: "0000:17:00.0" or, in
 * domain 0, "17:00.0".  A recorded machine answers from its recording.
 * Context: any thread; reads sysfs.
 * Errors:  -EINVAL not an address; -ENOENT no such device; -ENODATA the machine has several nodes
 *          and does not tell, or it is emulated and knows no devices; -EIO sysfs is unreadable. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_topology_node_of_pci(const struct numio_topology *topology,
                                                            const char *bus_id, uint32_t *ret_numa);

/* The same for a network interface, by name.  A bond or VLAN is where all its interfaces are;
 * other virtual ones (lo, veth) have no place: -ENODATA where there are several nodes.
 * Context: any thread; reads sysfs.
 * Errors:  as numio_topology_node_of_pci(); -EINVAL not a possible name. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_topology_node_of_net(const struct numio_topology *topology,
                                                            const char *interface_name,
                                                            uint32_t *ret_numa);

/* The same for the storage behind a file, a directory or a block device.  Partitions, device
 * mapper, md and loop devices are followed to the disks; when these sit on different nodes, or
 * the file system has no disk (tmpfs, NFS, overlay), the answer is -ENODATA.  On a recorded
 * machine only "/dev/NAME" is known.
 * Context: any thread; reads sysfs and the file's metadata.
 * Errors:  as numio_topology_node_of_pci(), and what stat(2) gives for the path. */
NUMIO_EXPORT NUMIO_NODISCARD int numio_topology_node_of_file(const struct numio_topology *topology,
                                                             const char *path, uint32_t *ret_numa);

NUMIO_END_DECLS

#endif
