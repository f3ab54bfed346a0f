/* SPDX-License-Identifier: MIT */
/* numa/sysdev.h: which kernel NUMA node a device of this machine hangs on.
 *
 * A device's folder in /sys/devices lies below the folders of its bus, up to a PCI device or a
 * root port that has a `numa_node`.  Stacked devices have none of their own and are followed to
 * what they are made of: partitions to disks, device mapper and md by `slaves`, loop devices by
 * their file, NVMe multipath by its controllers, bonds and VLANs by `lower_*`.
 * Reads files below `root` ("" is this machine); any thread; no state; at most
 * NIO_SYSDEV_PARTS_MAX parts.
 *
 * Errors of all: -ENOENT no such device; -ENODATA no place is told, or the parts have several;
 * -ENOMEM; all with detail.
 */
#ifndef NIO_NUMA_SYSDEV_H
#define NIO_NUMA_SYSDEV_H

enum { NIO_SYSDEV_PARTS_MAX = 64 };

/* `bus_id` in the kernel's spelling, "0000:17:00.0". */
int nio_sysdev_of_pci(const char *root, const char *bus_id, int *ret_os_node);
int nio_sysdev_of_net(const char *root, const char *interface_name, int *ret_os_node);
int nio_sysdev_of_block(const char *root, unsigned major, unsigned minor, int *ret_os_node);
/* Errors: also those of statx(2). */
int nio_sysdev_of_file(const char *root, const char *path, int *ret_os_node);

#endif
