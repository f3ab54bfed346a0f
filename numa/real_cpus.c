/* SPDX-License-Identifier: MIT */
#include "numa/real_cpus.h"

#include <errno.h>
#include <sched.h>

#include "runtime/base/mem.h"

enum { SET_CPUS_FIRST = 1024, SET_CPUS_MAX = 1 << 20 };

static int list_set(const cpu_set_t *set, size_t set_bytes, int **ret_cpus, unsigned *ret_count)
{
    unsigned total = (unsigned)CPU_COUNT_S(set_bytes, set), count = 0;
    int *cpus = nio_zalloc_array(total ? total : 1, sizeof *cpus);
    if (!cpus)
        return -ENOMEM;
    for (int cpu = 0; count < total; cpu++)
        if (CPU_ISSET_S((size_t)cpu, set_bytes, set))
            cpus[count++] = cpu;
    *ret_cpus = cpus;
    *ret_count = count;
    return 0;
}

int nio_real_cpus_read(int **ret_cpus, unsigned *ret_count)
{
    int err = -EINVAL;
    /* The kernel answers EINVAL to a set that is smaller than its own. */
    for (size_t cpus = SET_CPUS_FIRST; err == -EINVAL && cpus <= SET_CPUS_MAX; cpus *= 4) {
        size_t set_bytes = CPU_ALLOC_SIZE(cpus);
        cpu_set_t *set = nio_zalloc(set_bytes);
        if (!set)
            return -ENOMEM;
        err = sched_getaffinity(0, set_bytes, set) < 0 ? -errno : 0;
        if (!err)
            err = list_set(set, set_bytes, ret_cpus, ret_count);
        nio_free(set);
    }
    return err;
}
