/* SPDX-License-Identifier: MIT */
/* The probe makes no more than its wish needs; SQ threads are counted by the kernel's names. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "runtime/driver/driver.h"

enum { TRIES = 20 };

TestSuite(probe, .timeout = 60);

/* SQ threads of this process now; one that has ended lingers a moment. */
static unsigned count_sq_threads(void)
{
    unsigned count = 0;
    DIR *tasks = opendir("/proc/self/task");
    cr_assert_not_null(tasks);
    for (struct dirent *entry; (entry = readdir(tasks));) {
        char path[320], name[32] = "";
        (void)snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name); /* fits */
        FILE *file = fopen(path, "re");
        if (!file)
            continue; /* gone, or "." */
        count += fgets(name, sizeof name, file) && strncmp(name, "iou-sqp-", 8) == 0;
        (void)fclose(file);
    }
    (void)closedir(tasks);
    return count;
}

static unsigned seen_after(enum numio_driver wish, struct nio_driver_probe *ret_probe)
{
    unsigned seen = 0;
    for (unsigned i = 0; i < TRIES; i++) {
        nio_driver_probe(wish, ret_probe);
        seen += count_sq_threads() > 0;
    }
    return seen;
}

Test(probe, an_sq_thread_is_made_only_where_one_may_be_wanted)
{
    struct nio_driver_probe probe;
    cr_assert_eq(seen_after(NUMIO_DRIVER_EPOLL, &probe), 0);
    cr_assert_not(probe.has_uring, "not even a ring is tried");
    unsigned for_defer = seen_after(NUMIO_DRIVER_DEFER, &probe);
    if (!probe.has_defer)
        cr_skip_test("no DEFER_TASKRUN here, so defer falls back to what has an SQ thread");
    cr_assert_eq(for_defer, 0);
    cr_assert_not(probe.has_sqpoll);
    unsigned for_auto = seen_after(NUMIO_DRIVER_AUTO, &probe);
    if (!probe.has_sqpoll)
        cr_skip_test("no SQ thread can be had here: %s", probe.reason);
    cr_assert_gt(for_auto, 0, "or this test sees nothing");
}
