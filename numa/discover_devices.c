/* SPDX-License-Identifier: MIT */
/* numa/discover_devices.c: the PCI devices, disks and network interfaces of a recorded machine.
 *
 * This machine's devices come and go and are looked up in sysfs when asked for (locality.c); a
 * recording is all there is, so its devices are copied here.
 */
#include "numa/discover.h"

#include <errno.h>
#include <stdio.h>

#include "runtime/base/mem.h"

/* The one NUMA node around a device, NONE when there are several. */
static uint32_t numa_of_device(const struct nio_discovery *d, hwloc_obj_t device)
{
    const struct numio_topology *t = d->t;
    hwloc_obj_t place = hwloc_get_non_io_ancestor_obj(d->hwloc, device);
    uint32_t found = NUMIO_TOPOLOGY_NONE;
    if (t->info.numa_count == 1)
        return 0;
    if (!place || !place->nodeset)
        return NUMIO_TOPOLOGY_NONE;
    for (uint32_t i = 0; i < t->info.numa_count; i++) {
        const struct numio_topology_numa *numa = &t->numas[i];
        if (numa->is_cpuless || numa->os_index < 0 ||
            !hwloc_bitmap_isset(place->nodeset, (unsigned)numa->os_index))
            continue;
        if (found != NUMIO_TOPOLOGY_NONE && found != numa->home)
            return NUMIO_TOPOLOGY_NONE;
        found = numa->home;
    }
    return found;
}

static int add_device(struct nio_discovery *d, hwloc_obj_t obj)
{
    struct numio_topology *t = d->t;
    char bus_id[32];
    const char *name = obj->name;
    if (obj->type == HWLOC_OBJ_PCI_DEVICE) {
        const struct hwloc_pcidev_attr_s *pci = &obj->attr->pcidev;
        (void)snprintf(bus_id, sizeof bus_id, "%04x:%02x:%02x.%x", (unsigned)pci->domain, pci->bus,
                       pci->dev, pci->func); /* fits */
        name = bus_id;
    }
    if (!name)
        return 0;
    char *copy = nio_strdup(name);
    if (!copy)
        return -ENOMEM;
    t->devices[t->device_count++] =
        (struct nio_device){ .name = copy, .numa = numa_of_device(d, obj) };
    return 0;
}

int nio_discover_devices(struct nio_discovery *d)
{
    int pci = hwloc_get_nbobjs_by_type(d->hwloc, HWLOC_OBJ_PCI_DEVICE);
    int os = hwloc_get_nbobjs_by_type(d->hwloc, HWLOC_OBJ_OS_DEVICE);
    int err = 0;
    d->t->devices = nio_numa_array((size_t)(pci > 0 ? pci : 0) + (size_t)(os > 0 ? os : 0),
                                   sizeof *d->t->devices);
    if (!d->t->devices)
        return -ENOMEM;
    for (hwloc_obj_t obj = NULL; !err && (obj = hwloc_get_next_pcidev(d->hwloc, obj));)
        err = add_device(d, obj);
    for (hwloc_obj_t obj = NULL; !err && (obj = hwloc_get_next_osdev(d->hwloc, obj));)
        err = add_device(d, obj);
    return err;
}
