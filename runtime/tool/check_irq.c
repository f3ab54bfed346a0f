/* SPDX-License-Identifier: MIT */
/* Interrupts: those of a PCI device (its msi_irqs in sysfs) should be served by CPUs of the node
 * that the device hangs on; else every completion crosses.  Those of NVMe disks are the kernel's to
 * place: each CPU has a queue of its own and serves its interrupt, wherever the disk is. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/tool/check.h"

/* NVMe: PCI class 01 (storage), subclass 08. */
static bool is_placed_by_kernel(const char *pci)
{
    char line[CHECK_LINE_BYTES];
    check_read(line, "/sys/bus/pci/devices/%s/class", pci);
    return strncmp(line, "0x0108", 6) == 0;
}

static void check_interrupt(struct check *check, struct check_node *node, const char *device,
                            long irq, const struct check_cpus *home)
{
    char line[CHECK_LINE_BYTES];
    struct check_cpus served;
    check_read(line, "/proc/irq/%ld/effective_affinity_list", irq);
    if (!line[0])
        check_read(line, "/proc/irq/%ld/smp_affinity_list", irq);
    if (!line[0])
        return; /* allocated and not in use */
    check_parse_list(line, &served);
    node->interrupts++;
    if (check_is_within(&served, home))
        return;
    node->interrupts_away++;
    if (!is_placed_by_kernel(device) && node->interrupts_away == 1)
        check_finding(
            check,
            "interrupt %ld of %s, which hangs on NUMA node %d, is served on CPU %s: write "
            "CPUs of its node to /proc/irq/%ld/smp_affinity_list, and see that irqbalance "
            "leaves it there",
            irq, device, node->home, line, irq);
}

/* The names of what a device shows itself as: its network interfaces, its disks. */
static void name_device(struct check_node *node, const char *pci)
{
    static const char *const kinds[] = { "net", "nvme", "block" };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[512];
        (void)snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", pci, kinds[i]); /* fits */
        DIR *names = opendir(path);
        struct dirent *entry;
        while (names && (entry = readdir(names))) {
            size_t used = strlen(node->devices), bytes = strlen(entry->d_name);
            if (entry->d_name[0] == '.' || used + bytes + 2 > CHECK_DEVICES_BYTES)
                continue;
            if (used > 0)
                node->devices[used++] = ' ';
            memcpy(node->devices + used, entry->d_name, bytes + 1);
        }
        if (names)
            (void)closedir(names); /* it was only read */
    }
}

/* The node of the runtime that a device's node belongs to, NULL if the device is on none. */
static struct check_node *node_of_device(struct check *check, const char *pci)
{
    char line[CHECK_LINE_BYTES];
    check_read(line, "/sys/bus/pci/devices/%s/numa_node", pci);
    long node = line[0] ? strtol(line, NULL, 10) : -1;
    if (node < 0 && check->machine.info.numa_count == 1)
        node = 0; /* such machines do not say */
    for (unsigned i = 0; node >= 0 && i < check->machine.status.nodes; i++)
        if (check->nodes[i].home == check_home_of_node((int)node))
            return &check->nodes[i];
    return NULL;
}

void check_interrupts(struct check *check)
{
    DIR *devices = opendir("/sys/bus/pci/devices");
    struct dirent *entry;
    while (devices && (entry = readdir(devices))) {
        char path[512];
        struct check_node *node =
            entry->d_name[0] == '.' ? NULL : node_of_device(check, entry->d_name);
        if (!node)
            continue;
        struct check_cpus home;
        check_node_cpus(node->home, &home);
        if (check->machine.info.numa_count == 1 && check_count(&home) == 0)
            home = check->allowed; /* a kernel without NUMA */
        (void)snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/msi_irqs",
                       entry->d_name); /* fits */
        DIR *irqs = opendir(path);
        struct dirent *irq;
        while (irqs && (irq = readdir(irqs)))
            if (irq->d_name[0] != '.')
                check_interrupt(check, node, entry->d_name, strtol(irq->d_name, NULL, 10), &home);
        if (irqs) {
            (void)closedir(irqs); /* it was only read */
            name_device(node, entry->d_name);
        }
    }
    if (devices)
        (void)closedir(devices); /* as above */
}
