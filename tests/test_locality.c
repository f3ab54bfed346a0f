/* SPDX-License-Identifier: MIT */
/* Where devices, files and interfaces are: on recorded machines, and by a made-up sysfs. */
#include <numio/topology.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <numio/error.h>

#include "numa/sysdev.h"
#include "runtime/base/mem.h"
#include "tests/machines/machines.h"

#define PCI "/sys/devices/pci0000:00/"

/* A symbolic link below `root`; an absolute target is taken below `root` too. */
static void fake_link(const char *root, const char *path, const char *target)
{
    char full[PATH_MAX], full_target[PATH_MAX];
    fake_path(full, root, path, "");
    fake_path(full_target, root, target, "");
    fake_folders(full);
    cr_assert_eq(symlink(full_target, full), 0, "cannot link %s", full);
}

/* A PCI device with the given `numa_node`. */
static void fake_pci(const char *root, const char *bus_id, const char *numa_node)
{
    char path[PATH_MAX], link[PATH_MAX];
    (void)snprintf(path, sizeof path, PCI "%s/numa_node", bus_id);
    fake_file(root, path, numa_node);
    (void)snprintf(path, sizeof path, PCI "%s", bus_id);
    (void)snprintf(link, sizeof link, "/sys/bus/pci/devices/%s", bus_id);
    fake_link(root, link, path);
}

/* A disk `name` numbered `number` on a PCI device. */
static void fake_disk(const char *root, const char *bus_id, const char *name, const char *number)
{
    char path[PATH_MAX], link[PATH_MAX];
    (void)snprintf(path, sizeof path, PCI "%s/block/%s/dev", bus_id, name);
    fake_file(root, path, number);
    (void)snprintf(path, sizeof path, PCI "%s/block/%s", bus_id, name);
    (void)snprintf(link, sizeof link, "/sys/dev/block/%s", number);
    fake_link(root, link, path);
}

/* Two nodes; a device on each, one that nobody places, and one without any node. */
static void fake_devices(char *root)
{
    fake_machine(fake_root(root), 4, "0-1\n");
    for (int cpu = 0; cpu < 4; cpu++)
        fake_cpu(root, cpu, cpu / 2, 3u << (cpu / 2 * 2));
    fake_node(root, 0, "0-1\n", 0x03, 1000, "10 21\n");
    fake_node(root, 1, "2-3\n", 0x0c, 1000, "21 10\n");
    fake_pci(root, "0000:00:02.0", "0\n");
    fake_pci(root, "0000:00:03.0", "1\n");
    fake_pci(root, "0000:00:04.0", "-1\n");
    fake_disk(root, "0000:00:02.0", "sda", "8:0");
    fake_disk(root, "0000:00:03.0", "sdb", "8:16");
    fake_disk(root, "0000:00:04.0", "sdc", "8:32");
    fake_use(root);
}

static int block_node(const char *root, unsigned major_number, unsigned minor_number)
{
    int os_node = -7;
    int err = nio_sysdev_of_block(root, major_number, minor_number, &os_node);
    cr_expect_eq(err != 0, os_node == -7, "ret_os_node touched on failure");
    return err ? err : os_node;
}

/* --- recorded and emulated machines -------------------------------------------------------- */

Test(locality, recorded_devices_have_their_node)
{
    struct numio_topology *t = machine_load("devices.xml", 2, NULL);
    uint32_t numa = 9;
    cr_expect_eq(numio_topology_node_of_net(t, "eth0", &numa), 0);
    cr_expect_eq(numa, 0);
    cr_expect_eq(numio_topology_node_of_file(t, "/dev/nvme0n1", &numa), 0);
    cr_expect_eq(numa, 1);
    cr_expect_eq(numio_topology_node_of_pci(t, "0000:17:00.0", &numa), 0);
    cr_expect_eq(numa, 0);
    cr_expect_eq(numio_topology_node_of_pci(t, "85:00.0", &numa), 0, "domain 0 may be left out");
    cr_expect_eq(numa, 1);
    numio_topology_destroy(t);
}

Test(locality, recorded_devices_outside_the_nodes_have_no_data)
{
    struct numio_topology *t = machine_load("devices.xml", 2, NULL);
    uint32_t numa = 9;
    cr_expect_eq(numio_topology_node_of_file(t, "/dev/nvme1n1", &numa), -ENODATA);
    cr_expect_eq(numio_topology_node_of_pci(t, "02:00.0", &numa), -ENODATA);
    cr_expect_eq(numio_topology_node_of_net(t, "eth7", &numa), -ENOENT);
    cr_expect_eq(numio_topology_node_of_file(t, "/etc/passwd", &numa), -ENOENT);
    cr_expect_eq(numa, 9, "ret_numa touched on failure");
    numio_topology_destroy(t);
}

Test(locality, emulated_machines_know_no_devices)
{
    struct numio_topology *t = machine_load("pack:2 numa:1 core:2 pu:1", 2, NULL);
    uint32_t numa = 9;
    cr_expect_eq(numio_topology_node_of_net(t, "lo", &numa), -ENODATA);
    cr_expect_eq(numio_topology_node_of_pci(t, "00:02.0", &numa), -ENODATA);
    cr_expect_eq(numio_topology_node_of_file(t, "/", &numa), -ENODATA);
    cr_expect_not_null(strstr(numio_strerror_detail(), "knows no devices"));
    numio_topology_destroy(t);
}

/* --- bad input ----------------------------------------------------------------------------- */

Test(locality, impossible_names_are_refused)
{
    static const char *const bus_ids[] = {
        "", "x", "00:02", "0000:00:02", "0000:00:02.0x", "zz:0.0", "../../etc", "0000:00:02.0/.."
    };
    static const char *const names[] = { "", ".", "..", "a/b", "a b", "0123456789abcdef" };
    struct numio_topology *t = machine_load("devices.xml", 2, NULL);
    uint32_t numa = 9;
    for (size_t i = 0; i < sizeof bus_ids / sizeof bus_ids[0]; i++)
        cr_expect_eq(numio_topology_node_of_pci(t, bus_ids[i], &numa), -EINVAL, "%s", bus_ids[i]);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        cr_expect_eq(numio_topology_node_of_net(t, names[i], &numa), -EINVAL, "%s", names[i]);
    cr_expect_eq(numio_topology_node_of_pci(t, NULL, &numa), -EINVAL);
    cr_expect_eq(numio_topology_node_of_net(t, NULL, &numa), -EINVAL);
    cr_expect_eq(numio_topology_node_of_file(t, NULL, &numa), -EINVAL);
    cr_expect_eq(numio_topology_node_of_file(t, "", &numa), -EINVAL);
    numio_topology_destroy(t);
}

/* --- sysfs --------------------------------------------------------------------------------- */

Test(locality, pci_device_is_on_the_node_it_tells)
{
    char root[PATH_MAX];
    fake_devices(root);
    struct numio_topology *t = machine_load(NULL, 4, root);
    uint32_t numa = 9;
    cr_expect_eq(numio_topology_node_of_pci(t, "0000:00:03.0", &numa), 0);
    cr_expect_eq(numa, 1);
    cr_expect_eq(numio_topology_node_of_pci(t, "00:02.0", &numa), 0);
    cr_expect_eq(numa, 0);
    cr_expect_eq(numio_topology_node_of_pci(t, "00:04.0", &numa), -ENODATA);
    cr_expect_not_null(strstr(numio_strerror_detail(), "0000:00:04.0: the machine does not tell"));
    cr_expect_eq(numio_topology_node_of_pci(t, "00:05.0", &numa), -ENOENT);
    numio_topology_destroy(t);
    fake_remove(root);
}

Test(locality, device_without_a_node_takes_its_parents)
{
    char root[PATH_MAX];
    fake_devices(root);
    fake_pci(root, "0000:00:07.0", "1\n");
    fake_file(root, PCI "0000:00:07.0/0000:09:00.0/numa_node", "-1\n");
    fake_link(root, "/sys/bus/pci/devices/0000:09:00.0", PCI "0000:00:07.0/0000:09:00.0");
    int os_node = -1;
    cr_expect_eq(nio_sysdev_of_pci(root, "0000:09:00.0", &os_node), 0);
    cr_expect_eq(os_node, 1);
    fake_remove(root);
}

Test(locality, interface_is_where_its_device_is)
{
    char root[PATH_MAX];
    uint32_t numa = 9;
    fake_devices(root);
    fake_file(root, PCI "0000:00:03.0/net/eth1/mtu", "1500\n");
    fake_link(root, "/sys/class/net/eth1", PCI "0000:00:03.0/net/eth1");
    fake_file(root, "/sys/devices/virtual/net/lo/mtu", "65536\n");
    fake_link(root, "/sys/class/net/lo", "/sys/devices/virtual/net/lo");
    struct numio_topology *t = machine_load(NULL, 4, root);
    cr_expect_eq(numio_topology_node_of_net(t, "eth1", &numa), 0);
    cr_expect_eq(numa, 1);
    cr_expect_eq(numio_topology_node_of_net(t, "lo", &numa), -ENODATA);
    cr_expect_eq(numio_topology_node_of_net(t, "eth9", &numa), -ENOENT);
    numio_topology_destroy(t);
    fake_remove(root);
}

Test(locality, bond_is_where_its_interfaces_agree)
{
    char root[PATH_MAX];
    int os_node = -1;
    fake_devices(root);
    fake_file(root, PCI "0000:00:03.0/net/eth1/mtu", "1500\n");
    fake_file(root, PCI "0000:00:03.0/net/eth2/mtu", "1500\n");
    fake_file(root, PCI "0000:00:02.0/net/eth0/mtu", "1500\n");
    fake_file(root, "/sys/devices/virtual/net/bond0/mtu", "1500\n");
    fake_link(root, "/sys/class/net/bond0", "/sys/devices/virtual/net/bond0");
    fake_link(root, "/sys/devices/virtual/net/bond0/lower_eth1", PCI "0000:00:03.0/net/eth1");
    fake_link(root, "/sys/devices/virtual/net/bond0/lower_eth2", PCI "0000:00:03.0/net/eth2");
    cr_expect_eq(nio_sysdev_of_net(root, "bond0", &os_node), 0);
    cr_expect_eq(os_node, 1);
    fake_link(root, "/sys/devices/virtual/net/bond0/lower_eth0", PCI "0000:00:02.0/net/eth0");
    cr_expect_eq(nio_sysdev_of_net(root, "bond0", &os_node), -ENODATA);
    cr_expect_not_null(strstr(numio_strerror_detail(), "several NUMA nodes"));
    fake_remove(root);
}

Test(locality, disk_and_partition_are_on_the_controllers_node)
{
    char root[PATH_MAX];
    fake_devices(root);
    fake_file(root, PCI "0000:00:03.0/block/sdb/sdb1/partition", "1\n");
    fake_link(root, "/sys/dev/block/8:17", PCI "0000:00:03.0/block/sdb/sdb1");
    cr_expect_eq(block_node(root, 8, 16), 1);
    cr_expect_eq(block_node(root, 8, 17), 1);
    cr_expect_eq(block_node(root, 8, 0), 0);
    cr_expect_eq(block_node(root, 8, 32), -ENODATA);
    cr_expect_eq(block_node(root, 8, 99), -ENOENT);
    fake_remove(root);
}

/* /dev/null stands for /dev/ng0n1: it has its number, and lies on no disk. */
Test(locality, character_device_is_where_its_own_device_is)
{
    char root[PATH_MAX];
    int os_node = -7;
    fake_devices(root);
    cr_expect_eq(nio_sysdev_of_file(root, "/dev/null", &os_node), -ENOENT);
    fake_file(root, PCI "0000:00:03.0/nvme/nvme0/ng0n1/dev", "1:3\n");
    fake_link(root, "/sys/dev/char/1:3", PCI "0000:00:03.0/nvme/nvme0/ng0n1");
    fake_link(root, "/sys/dev/block/1:3", PCI "0000:00:02.0/block/sda"); /* another device */
    cr_expect_eq(nio_sysdev_of_file(root, "/dev/null", &os_node), 0);
    cr_expect_eq(os_node, 1);
    fake_remove(root);
}

/* dm-0 lies on sdb1 and on dm-1, which lies on sdb: all on node 1. */
Test(locality, stacked_devices_are_followed_to_the_disks)
{
    char root[PATH_MAX];
    fake_devices(root);
    fake_file(root, PCI "0000:00:03.0/block/sdb/sdb1/partition", "1\n");
    fake_file(root, "/sys/devices/virtual/block/dm-0/dev", "253:0\n");
    fake_file(root, "/sys/devices/virtual/block/dm-1/dev", "253:1\n");
    fake_link(root, "/sys/dev/block/253:0", "/sys/devices/virtual/block/dm-0");
    fake_link(root, "/sys/devices/virtual/block/dm-0/slaves/sdb1",
              PCI "0000:00:03.0/block/sdb/sdb1");
    fake_link(root, "/sys/devices/virtual/block/dm-0/slaves/dm-1",
              "/sys/devices/virtual/block/dm-1");
    fake_link(root, "/sys/devices/virtual/block/dm-1/slaves/sdb", PCI "0000:00:03.0/block/sdb");
    cr_expect_eq(block_node(root, 253, 0), 1);
    fake_link(root, "/sys/devices/virtual/block/dm-1/slaves/sda", PCI "0000:00:02.0/block/sda");
    cr_expect_eq(block_node(root, 253, 0), -ENODATA, "now on both nodes");
    fake_remove(root);
}

Test(locality, stack_with_an_unplaced_disk_has_no_data)
{
    char root[PATH_MAX];
    fake_devices(root);
    fake_file(root, "/sys/devices/virtual/block/md0/dev", "9:0\n");
    fake_link(root, "/sys/dev/block/9:0", "/sys/devices/virtual/block/md0");
    fake_link(root, "/sys/devices/virtual/block/md0/slaves/sdb", PCI "0000:00:03.0/block/sdb");
    fake_link(root, "/sys/devices/virtual/block/md0/slaves/sdc", PCI "0000:00:04.0/block/sdc");
    cr_expect_eq(block_node(root, 9, 0), -ENODATA);
    fake_remove(root);
}

Test(locality, devices_stacked_in_a_circle_end)
{
    char root[PATH_MAX];
    fake_devices(root);
    fake_file(root, "/sys/devices/virtual/block/dm-0/dev", "253:0\n");
    fake_file(root, "/sys/devices/virtual/block/dm-1/dev", "253:1\n");
    fake_link(root, "/sys/dev/block/253:0", "/sys/devices/virtual/block/dm-0");
    fake_link(root, "/sys/devices/virtual/block/dm-0/slaves/dm-1",
              "/sys/devices/virtual/block/dm-1");
    fake_link(root, "/sys/devices/virtual/block/dm-1/slaves/dm-0",
              "/sys/devices/virtual/block/dm-0");
    cr_expect_eq(block_node(root, 253, 0), -ENODATA);
    fake_remove(root);
}

Test(locality, nvme_multipath_is_on_its_controllers_node)
{
    char root[PATH_MAX];
    fake_devices(root);
    fake_file(root, "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/dev", "259:0\n");
    fake_link(root, "/sys/dev/block/259:0",
              "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1");
    fake_file(root, PCI "0000:00:03.0/nvme/nvme0/model", "x\n");
    fake_link(root, "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0",
              PCI "0000:00:03.0/nvme/nvme0");
    cr_expect_eq(block_node(root, 259, 0), 1);
    fake_remove(root);
}

/* The device number of the made-up files themselves, if it is one that sysfs lists. */
static bool own_device(const char *path, unsigned *ret_major, unsigned *ret_minor)
{
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    *ret_major = major(st.st_dev);
    *ret_minor = minor(st.st_dev);
    return *ret_major != 0;
}

Test(locality, file_is_where_its_file_systems_disk_is)
{
    char root[PATH_MAX], number[64];
    unsigned major_number, minor_number;
    fake_devices(root);
    if (!own_device(root, &major_number, &minor_number)) {
        fake_remove(root);
        cr_skip_test("the folder for made-up files is not on a disk");
    }
    (void)snprintf(number, sizeof number, "%u:%u", major_number, minor_number);
    fake_disk(root, "0000:00:03.0", "vda", number);
    struct numio_topology *t = machine_load(NULL, 4, root);
    uint32_t numa = 9;
    cr_expect_eq(numio_topology_node_of_file(t, root, &numa), 0, "a folder");
    cr_expect_eq(numa, 1);
    numio_topology_destroy(t);
    /* A loop device over a file of that file system. */
    char backing[PATH_MAX + 16];
    fake_file(root, "/image", "x");
    (void)snprintf(backing, sizeof backing, "%s/image\n", root);
    fake_file(root, "/sys/devices/virtual/block/loop0/loop/backing_file", backing);
    fake_link(root, "/sys/dev/block/7:0", "/sys/devices/virtual/block/loop0");
    cr_expect_eq(block_node(root, 7, 0), 1);
    fake_file(root, "/sys/devices/virtual/block/loop0/loop/backing_file", "/nonexistent\n");
    cr_expect_eq(block_node(root, 7, 0), -ENODATA);
    fake_remove(root);
}

/* btrfs numbers its devices itself; the mount table then names the disk. */
Test(locality, file_system_with_its_own_numbers_is_found_by_its_mount)
{
    char root[PATH_MAX], line[256];
    struct statx st;
    uint32_t numa = 9;
    fake_devices(root);
    cr_assert_eq(statx(AT_FDCWD, "/proc/self", 0, STATX_MNT_ID, &st), 0);
    (void)snprintf(line, sizeof line, "%llu 1 0:5 / /proc rw - btrfs /proc/self/exe rw\n",
                   (unsigned long long)st.stx_mnt_id);
    fake_file(root, "/proc/self/mountinfo", line);
    struct numio_topology *t = machine_load(NULL, 4, root);
    cr_expect_eq(numio_topology_node_of_file(t, "/proc/self", &numa), -ENODATA,
                 "the source is no block device");
    cr_expect_not_null(strstr(numio_strerror_detail(), "no disk is behind it"));
    numio_topology_destroy(t);
    fake_remove(root);
}

Test(locality, mount_source_that_is_a_disk_is_followed)
{
    static const char *const disks[] = { "/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/loop0" };
    char root[PATH_MAX], line[256], number[64];
    struct statx st;
    struct stat disk = { .st_mode = 0 };
    uint32_t numa = 9;
    size_t i = 0;
    while (i < sizeof disks / sizeof disks[0] &&
           (stat(disks[i], &disk) != 0 || !S_ISBLK(disk.st_mode)))
        i++;
    if (i == sizeof disks / sizeof disks[0])
        cr_skip_test("this machine shows no disk in /dev");
    fake_devices(root);
    cr_assert_eq(statx(AT_FDCWD, "/proc/self", 0, STATX_MNT_ID, &st), 0);
    (void)snprintf(line, sizeof line, "%llu 1 0:5 / /proc rw - btrfs %s rw\n",
                   (unsigned long long)st.stx_mnt_id, disks[i]);
    fake_file(root, "/proc/self/mountinfo", line);
    (void)snprintf(number, sizeof number, "%u:%u", major(disk.st_rdev), minor(disk.st_rdev));
    fake_disk(root, "0000:00:03.0", "disk", number);
    struct numio_topology *t = machine_load(NULL, 4, root);
    cr_expect_eq(numio_topology_node_of_file(t, "/proc/self", &numa), 0);
    cr_expect_eq(numa, 1);
    cr_expect_eq(numio_topology_node_of_file(t, disks[i], &numa), 0, "the disk itself");
    numio_topology_destroy(t);
    fake_remove(root);
}

Test(locality, device_of_a_memoryless_node_goes_to_the_nearest_with_memory)
{
    char root[PATH_MAX];
    uint32_t numa = 9;
    fake_machine(fake_root(root), 6, "0-2\n");
    for (int cpu = 0; cpu < 6; cpu++)
        fake_cpu(root, cpu, cpu / 2, 3u << (cpu / 2 * 2));
    fake_node(root, 0, "0-1\n", 0x03, 1000, "10 30 20\n");
    fake_node(root, 1, "2-3\n", 0x0c, 0, "30 10 15\n");
    fake_node(root, 2, "4-5\n", 0x30, 1000, "20 15 10\n");
    fake_pci(root, "0000:00:02.0", "1\n");
    fake_pci(root, "0000:00:03.0", "7\n");
    fake_use(root);
    struct numio_topology *t = machine_load(NULL, 6, root);
    cr_expect_eq(numio_topology_node_of_pci(t, "0000:00:02.0", &numa), 0);
    cr_expect_eq(numa, 2);
    cr_expect_eq(numio_topology_node_of_pci(t, "0000:00:03.0", &numa), -ENODATA);
    cr_expect_not_null(strstr(numio_strerror_detail(), "NUMA node 7 is not"));
    numio_topology_destroy(t);
    fake_remove(root);
}

Test(locality, on_one_node_everything_that_exists_is_there)
{
    char root[PATH_MAX];
    uint32_t numa = 9;
    fake_machine(fake_root(root), 2, "0\n");
    for (int cpu = 0; cpu < 2; cpu++)
        fake_cpu(root, cpu, 0, 0x3);
    fake_node(root, 0, "0-1\n", 0x03, 1000, "10\n");
    fake_pci(root, "0000:00:04.0", "-1\n");
    fake_use(root);
    struct numio_topology *t = machine_load(NULL, 2, root);
    cr_expect_eq(numio_topology_node_of_pci(t, "0000:00:04.0", &numa), 0);
    cr_expect_eq(numa, 0);
    cr_expect_eq(numio_topology_node_of_pci(t, "0000:00:05.0", &numa), -ENOENT);
    cr_expect_eq(numio_topology_node_of_file(t, "/nonexistent/file", &numa), -ENOENT);
    cr_expect_eq(numio_topology_node_of_net(t, "eth0", &numa), -ENOENT);
    numio_topology_destroy(t);
    fake_remove(root);
}

Test(locality, this_machine_places_its_own_files)
{
    struct numio_topology *t;
    uint32_t numa = NUMIO_TOPOLOGY_NONE;
    cr_assert_eq(numio_topology_load(NULL, &t), 0);
    struct numio_topology_info info = { .size = sizeof info };
    cr_assert_eq(numio_topology_info_get(t, &info), 0);
    int err = numio_topology_node_of_file(t, "/", &numa);
    cr_expect(err == -ENODATA || (err == 0 && numa < info.numa_count), "%d", err);
    cr_expect(err == 0 || info.numa_count > 1, "with one node the answer is known");
    cr_expect_eq(numio_topology_node_of_file(t, "/nonexistent/file", &numa), -ENOENT);
    numio_topology_destroy(t);
}

Test(locality, every_failing_allocation_is_reported)
{
    char root[PATH_MAX];
    int os_node = -1, err = -ENOMEM;
    long nth;
    fake_devices(root);
    fake_file(root, "/sys/devices/virtual/block/dm-0/dev", "253:0\n");
    fake_link(root, "/sys/dev/block/253:0", "/sys/devices/virtual/block/dm-0");
    fake_link(root, "/sys/devices/virtual/block/dm-0/slaves/sdb", PCI "0000:00:03.0/block/sdb");
    for (nth = 1; err == -ENOMEM; nth++) {
        nio_fault_arm(nth);
        err = nio_sysdev_of_block(root, 253, 0, &os_node);
        cr_assert_eq(err != 0, nio_fault_struck(), "allocation %ld", nth);
        cr_assert_lt(nth, 100);
    }
    nio_fault_arm(0);
    cr_expect(err == 0 && os_node == 1 && nth > 3);
    fake_remove(root);
}
