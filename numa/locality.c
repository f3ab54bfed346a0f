/* SPDX-License-Identifier: MIT */
/* numa/locality.c: devices, files and interfaces -> the topology's NUMA node.
 *
 * This machine's are looked up in sysfs (sysdev.c) each time, since devices come and go; a
 * recorded machine's in the list that was recorded.  On a machine of one node that node is the
 * answer for everything that exists.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "numa/machine.h"
#include "numa/sysdev.h"
#include "numa/sysnodes.h"
#include "runtime/base/error.h"

enum { BUS_ID_BYTES = 32, INTERFACE_BYTES_MAX = 16 };

/* The listed node with memory that is nearest to the kernel's `os_node`. */
static int map_node(const struct numio_topology *t, int os_node, uint32_t *ret_numa)
{
    uint32_t best = NUMIO_TOPOLOGY_NONE;
    int best_distance = 0;
    for (uint32_t i = 0; i < t->info.numa_count; i++) {
        const struct numio_topology_numa *numa = &t->numas[i];
        if (numa->os_index == os_node) {
            *ret_numa = numa->home;
            return 0;
        }
        /* hwloc may have dropped a node without memory; the kernel still knows where it is. */
        int distance = nio_sysnode_distance(t->root, os_node, numa->os_index);
        if (numa->home == i && distance > 0 &&
            (best == NUMIO_TOPOLOGY_NONE || distance < best_distance)) {
            best = i;
            best_distance = distance;
        }
    }
    if (best == NUMIO_TOPOLOGY_NONE)
        return nio_error(-ENODATA, "NUMA node %d is not one of the topology's", os_node);
    *ret_numa = best;
    return 0;
}

/* Turns the outcome of a sysfs look-up into that of the public function. */
static int conclude(const struct numio_topology *t, int err, int os_node, uint32_t *ret_numa)
{
    if (t->info.numa_count == 1 && (err == 0 || err == -ENODATA)) {
        *ret_numa = 0;
        return 0;
    }
    return err ? err : map_node(t, os_node, ret_numa);
}

static int look_up_recorded(const struct numio_topology *t, const char *name, uint32_t *ret_numa)
{
    for (uint32_t i = 0; i < t->device_count; i++) {
        if (strcmp(t->devices[i].name, name) != 0)
            continue;
        if (t->devices[i].numa == NUMIO_TOPOLOGY_NONE)
            return nio_error(-ENODATA, "%s: the recording does not tell its NUMA node", name);
        *ret_numa = t->devices[i].numa;
        return 0;
    }
    if (t->device_count > 0)
        return nio_error(-ENOENT, "%s: not among the recorded machine's devices", name);
    return nio_error(-ENODATA, "%s: the emulated machine knows no devices", name);
}

int numio_topology_node_of_pci(const struct numio_topology *t, const char *bus_id,
                               uint32_t *ret_numa)
{
    unsigned domain, bus, device, function;
    char canonical[BUS_ID_BYTES], extra;
    int os_node = -1;
    if (!bus_id ||
        (sscanf(bus_id, "%8x:%2x:%2x.%1x%c", &domain, &bus, &device, &function, &extra) != 4 &&
         (domain = 0, sscanf(bus_id, "%2x:%2x.%1x%c", &bus, &device, &function, &extra)) != 3))
        return nio_error(-EINVAL, "bus_id: '%s' is no PCI address such as 0000:17:00.0",
                         bus_id ? bus_id : "");
    (void)snprintf(canonical, sizeof canonical, "%04x:%02x:%02x.%x", domain, bus, device,
                   function); /* fits */
    if (t->info.is_emulated)
        return look_up_recorded(t, canonical, ret_numa);
    int err = nio_sysdev_of_pci(t->root, canonical, &os_node);
    return conclude(t, err, os_node, ret_numa);
}

int numio_topology_node_of_net(const struct numio_topology *t, const char *name, uint32_t *ret_numa)
{
    int os_node = -1;
    if (!name || !*name || strlen(name) >= INTERFACE_BYTES_MAX || strpbrk(name, "/ \t\n") ||
        strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return nio_error(-EINVAL, "interface_name: '%.32s' cannot be the name of an interface",
                         name ? name : "");
    if (t->info.is_emulated)
        return look_up_recorded(t, name, ret_numa);
    int err = nio_sysdev_of_net(t->root, name, &os_node);
    return conclude(t, err, os_node, ret_numa);
}

int numio_topology_node_of_file(const struct numio_topology *t, const char *path,
                                uint32_t *ret_numa)
{
    int os_node = -1;
    if (!path || !*path)
        return nio_error(-EINVAL, "path: empty");
    if (t->info.is_emulated)
        return look_up_recorded(t, strncmp(path, "/dev/", 5) == 0 ? path + 5 : path, ret_numa);
    int err = nio_sysdev_of_file(t->root, path, &os_node);
    return conclude(t, err, os_node, ret_numa);
}
