/* SPDX-License-Identifier: MIT */
#include "numa/sysnodes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "numa/cpulist.h"
#include "numa/sysfile.h"
#include "runtime/base/mem.h"

#define NODE_FOLDER "/sys/devices/system/node/"
enum { PATH_BYTES = 96, LINE_BYTES = 4096 };

static int load_cpulist(const char *root, int node, char **ret_list)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, NODE_FOLDER "node%d/cpulist", node); /* fits */
    return nio_sysfile_load(root, path, ret_list);
}

static int mark_node(const char *root, int node, const int *cpus, unsigned count, int *nodes)
{
    char *list;
    int err = load_cpulist(root, node, &list);
    if (err)
        return err == -ENOMEM ? err : 0; /* its CPUs stay unknown */
    for (unsigned i = 0; i < count; i++)
        if (nodes[i] < 0 && nio_cpulist_has(list, cpus[i]))
            nodes[i] = node;
    nio_free(list);
    return 0;
}

int nio_sysnodes_of_cpus(const char *root, const int *cpus, unsigned count, int *ret_nodes)
{
    char online[LINE_BYTES];
    int first, last;
    for (unsigned i = 0; i < count; i++)
        ret_nodes[i] = -1;
    if (nio_sysfile_read(root, NODE_FOLDER "online", online, sizeof online) != 0)
        return 0; /* a kernel without NUMA */
    const char *cursor = online;
    while (nio_cpulist_next(&cursor, &first, &last) > 0) { /* bounded by the text */
        for (int node = first; node <= last; node++) {
            int err = mark_node(root, node, cpus, count, ret_nodes);
            if (err)
                return err;
        }
    }
    return 0;
}

int nio_sysnode_has_cpus(const char *root, int node)
{
    char *list;
    int err = load_cpulist(root, node, &list);
    if (err)
        return err == -ENOMEM ? err : -1;
    int has_cpus = nio_cpulist_is_valid(list);
    nio_free(list);
    return has_cpus;
}

/* The position of `node` among the online ones, -1 if it is not there. */
static int online_position(const char *root, int node)
{
    char online[LINE_BYTES];
    int first, last, before = 0;
    if (nio_sysfile_read(root, NODE_FOLDER "online", online, sizeof online) != 0)
        return -1;
    const char *cursor = online;
    while (nio_cpulist_next(&cursor, &first, &last) > 0) { /* bounded by the text */
        if (node >= first && node <= last)
            return before + node - first;
        before += last - first + 1;
    }
    return -1;
}

int nio_sysnode_distance(const char *root, int from, int to)
{
    char path[PATH_BYTES], line[LINE_BYTES];
    int position = online_position(root, to);
    (void)snprintf(path, sizeof path, NODE_FOLDER "node%d/distance", from); /* fits */
    if (position < 0 || nio_sysfile_read(root, path, line, sizeof line) != 0)
        return -1;
    char *at = line, *end = line;
    long value = -1;
    for (int i = 0; i <= position; i++, at = end) {
        value = strtol(at, &end, 10);
        if (end == at || value <= 0 || value > 65535)
            return -1;
    }
    return (int)value;
}
