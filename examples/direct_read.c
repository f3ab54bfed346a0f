/* SPDX-License-Identifier: MIT */
/* direct_read FILE: times 4 KiB reads at random places of a file or disk, past the page cache, on
 * the node of the disk.  NUMIO_DRIVER=iopoll polls for them where the disk can be polled. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <numio/numio.h>

enum { BLOCK_BYTES = 4096, READS = 10000 };

static int fd;
static double us[READS]; /* how long each read took */

static double now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail */
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int64_t read_blocks(void *arg)
{
    int64_t n = BLOCK_BYTES, blocks = lseek(fd, 0, SEEK_END) / BLOCK_BYTES;
    uint64_t chance = 1; /* Knuth's linear congruential generator, MMIX */
    (void)arg;
    int node = numio_current_node();
    void *block = numio_io_buffer_alloc(NULL, node, BLOCK_BYTES);
    for (int i = 0; block && blocks > 0 && n == BLOCK_BYTES && i < READS; i++) {
        chance = chance * 6364136223846793005 + 1442695040888963407;
        double begin_us = now_us();
        n = numio_pread(fd, block, BLOCK_BYTES, (int64_t)(chance >> 33) % blocks * BLOCK_BYTES);
        us[i] = now_us() - begin_us;
    }
    if (block)
        numio_io_buffer_free(NULL, node, block, BLOCK_BYTES);
    return !block ? -ENOMEM : blocks <= 0 ? -ENODATA : n < 0 ? n : 0;
}

static int by_time(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static int64_t direct_read(void *arg)
{
    struct numio_spawn_opts opts;
    struct numio_status status;
    struct numio_join *join;
    numio_spawn_opts_init(&opts, sizeof opts);
    fd = open(arg, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int home = numio_home_of_fd(NULL, fd);
    if (home >= 0) { /* else no disk of one node is behind it */
        opts.affinity = NUMIO_AFFINITY_NODE;
        opts.node = home;
    }
    int64_t rc = numio_spawn_co(NULL, read_blocks, NULL, &opts, &join);
    if (rc < 0 || (rc = numio_join_await(&join)) < 0 || (rc = numio_status(NULL, &status)) < 0)
        return rc;
    qsort(us, READS, sizeof *us, by_time);
    printf("driver %s: p50 %.1f us, p99 %.1f us, p99.9 %.1f us\n", status.driver, us[READS / 2],
           us[READS * 99 / 100], us[READS * 999 / 1000]);
    return close(fd);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: direct_read FILE\n");
        return 2;
    }
    int64_t rc = numio_main(NULL, direct_read, argv[1]);
    if (rc < 0)
        fprintf(stderr, "direct_read: %s: %s\n", argv[1], strerror((int)-rc));
    return rc < 0;
}
