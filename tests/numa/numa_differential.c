/* SPDX-License-Identifier: MIT */
/* The program of tests/io_program.h on a file system whose disk has queues for polling: its
 * O_DIRECT reads and writes go through the polled ring under iopoll, and every profile sees the
 * same.
 *
 * It writes to QEMU's NVMe disk, and only where NUMIO_SPOIL_MACHINE is 1. */
#include "tests/io_program.h"
#include "tests/numa/numa_disk.h"
#include "tests/numa/numa_runtime.h"

enum { STEPS = 250, ROUNDS = 2 };

static uint64_t digest_of(enum numio_driver driver, uint64_t seed, uint64_t *ret_polled)
{
    static struct program p;
    struct numa_run run;
    struct numio_config config;
    program_open(&p, seed, STEPS, disk_folder);
    numa_must(numio_config_init(&config, sizeof config), "config");
    config.driver = driver;
    numa_start(&run, &config);
    numa_must((int)numio_block_on(run.handle, program_run, &p), "the program");
    *ret_polled = 0;
    for (unsigned i = 0; i < run.status.workers; i++) {
        struct numio_worker_metrics metrics;
        numa_must(numio_worker_metrics(run.handle, i, &metrics), "metrics");
        *ret_polled += metrics.cqes_polled;
    }
    numa_stop(&run);
    program_close(&p);
    return p.digest;
}

int main(void)
{
    static const enum numio_driver drivers[] = { NUMIO_DRIVER_EPOLL, NUMIO_DRIVER_SQPOLL,
                                                 NUMIO_DRIVER_DEFER, NUMIO_DRIVER_IOPOLL };
    static const char *const names[] = { "on a polled disk epoll sees the same twice",
                                         "on a polled disk sqpoll sees what epoll sees",
                                         "on a polled disk defer sees what epoll sees",
                                         "on a polled disk iopoll sees what epoll sees" };
    static const char mounting[] = "all profiles see the same on a polled disk";
    uint64_t polled;
    if (!disk_may_be_spoiled() || !disk_polls("nvme0n1")) {
        numa_skip(mounting, "there is no NVMe disk to write to that polls");
        return numa_end();
    }
    if (!disk_mount(mounting))
        return numa_end();
    for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
        uint64_t wanted = digest_of(NUMIO_DRIVER_EPOLL, seed, &polled);
        for (unsigned i = 0; i < 4; i++) {
            uint64_t digest = digest_of(drivers[i], seed, &polled);
            numa_check(digest == wanted, names[i], "seed %llu", (unsigned long long)seed);
        }
        numa_check(polled > 0, "its O_DIRECT operations are polled for", "none was");
    }
    disk_unmount();
    return numa_end();
}
