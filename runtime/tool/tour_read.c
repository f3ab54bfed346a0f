/* SPDX-License-Identifier: MIT */
/* Step "read": coroutines on all nodes read random blocks of the file past the page cache and
 * compare each with the hash of that block. */
#include "runtime/tool/tour.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <numio/io.h>

enum { READERS = 64 };

/* A slow disk does not make the tour longer than this. */
static const uint64_t time_max_ns = 8000000000u;

struct opening {
    const char *path;
    bool is_direct;
    int fd; /* -1: none */
};

struct reader {
    struct tour *tour;
    int fd;
    uint64_t seed, count; /* reads to do */
    uint64_t deadline_ns;
    uint64_t read, bad;
    uint64_t bad_block; /* the last one */
};

/* Opens the file past the page cache and tries a read, or says why that cannot be. */
static int64_t open_direct(void *arg)
{
    struct opening *opening = arg;
    int64_t fd = numio_open(opening->path, O_RDONLY | O_CLOEXEC | O_DIRECT, 0);
    if (fd < 0)
        return fd;
    struct tour_buffer buffer = tour_buffer_alloc(TOUR_BLOCK_BYTES);
    int64_t status = -ENOMEM;
    if (buffer.bytes)
        status = numio_pread((int)fd, buffer.bytes, buffer.size, 0);
    tour_buffer_free(&buffer);
    if (status < 0) {
        (void)numio_close((int)fd); /* the read's error is the one to tell */
        return status;
    }
    opening->fd = (int)fd;
    return 0;
}

static int64_t open_buffered(void *arg)
{
    struct opening *opening = arg;
    int64_t fd = numio_open(opening->path, O_RDONLY | O_CLOEXEC, 0);
    opening->fd = fd < 0 ? -1 : (int)fd;
    return fd < 0 ? fd : 0;
}

static int64_t close_file(void *arg)
{
    const struct opening *opening = arg;
    return numio_close(opening->fd);
}

/* One random block; returns 0 or a negative errno value. */
static int64_t read_block(struct reader *reader, void *buf)
{
    const struct tour_file *file = &reader->tour->file;
    uint64_t blocks = (file->bytes + TOUR_BLOCK_BYTES - 1) / TOUR_BLOCK_BYTES;
    uint64_t block = tour_mix(reader->seed + reader->read) % blocks;
    uint64_t left = file->bytes - block * TOUR_BLOCK_BYTES;
    size_t want = left < TOUR_BLOCK_BYTES ? (size_t)left : TOUR_BLOCK_BYTES;

    memset(buf, 0, TOUR_BLOCK_BYTES); /* what an earlier read left must not pass for this one's */
    int64_t got =
        numio_pread(reader->fd, buf, TOUR_BLOCK_BYTES, (int64_t)(block * TOUR_BLOCK_BYTES));
    if (got < 0)
        return got;
    /* A file that is served in part goes on behind the last block. */
    if ((size_t)got < want || tour_block_hash(buf, want) != file->block_hashes[block]) {
        reader->bad++;
        reader->bad_block = block;
    }
    reader->read++;
    return 0;
}

static int64_t read_blocks(void *arg)
{
    struct reader *reader = arg;
    int64_t status = 0;
    struct tour_buffer buffer = tour_buffer_alloc(TOUR_BLOCK_BYTES);
    if (!buffer.bytes)
        return -ENOMEM;
    while (status == 0 && reader->read < reader->count && tour_now_ns() < reader->deadline_ns) {
        status = read_block(reader, buffer.bytes);
        tour_progress(reader->tour, 1);
    }
    tour_buffer_free(&buffer);
    return status;
}

/* Runs one coroutine on node 0. */
static int run_alone(struct tour *tour, int64_t (*fn)(void *arg), void *arg)
{
    struct numio_join *join = NULL;
    int64_t result = 0;
    int err = tour_spawn(tour, 0, fn, arg, &join);
    if (err == 0)
        err = tour_join(tour, &join, &result, 1);
    return err < 0 ? err : (int)result;
}

/* Opens the file, past the page cache if the file system lets us. */
static int open_file(struct tour *tour, struct opening *opening)
{
    opening->path = tour->file.path;
    opening->fd = -1;
    int err = run_alone(tour, open_direct, opening);
    opening->is_direct = err == 0;
    if (err == -EINVAL || err == -EOPNOTSUPP)
        err = run_alone(tour, open_buffered, opening);
    if (err < 0 && err != -EINTR)
        tour_wrong(tour, "opening %s: %s", opening->path, strerror(-err));
    return err;
}

/* Spawns the readers and waits; returns how many blocks were read. */
static uint64_t run_readers(struct tour *tour, struct reader *readers, struct numio_join **joins)
{
    int64_t results[READERS] = { 0 };
    uint64_t total = 0;
    for (unsigned i = 0; i < READERS; i++)
        (void)tour_spawn(tour, i % tour->machine.status.nodes, read_blocks, /* noted if it fails */
                         &readers[i], &joins[i]);
    int err = tour_join(tour, joins, results, READERS);
    for (unsigned i = 0; i < READERS; i++) {
        total += readers[i].read;
        if (err == 0 && results[i] < 0)
            tour_wrong(tour, "reader %u: %s", i, strerror((int)-results[i]));
        if (readers[i].bad > 0)
            tour_wrong(tour, "reader %u: %llu blocks differ from the file, one is %llu", i,
                       (unsigned long long)readers[i].bad,
                       (unsigned long long)readers[i].bad_block);
    }
    return total;
}

void tour_read(struct tour *tour)
{
    char count[TOOL_NUMBER_BYTES], rate[TOOL_NUMBER_BYTES];
    struct opening opening;
    uint64_t wanted = tour->options->read_count;
    if (tour->file.bytes == 0)
        return;
    tour_begin(tour, "read", "blocks", wanted);
    struct reader *readers = tour_alloc(tour, READERS * sizeof *readers);
    struct numio_join **joins = tour_alloc(tour, READERS * sizeof *joins);
    if (!readers || !joins || open_file(tour, &opening) < 0) {
        tour_end(tour, tour->is_interrupted ? "interrupted" : "not run");
        return;
    }
    uint64_t start_ns = tour_now_ns();
    for (unsigned i = 0; i < READERS; i++)
        readers[i] = (struct reader){ .tour = tour,
                                      .fd = opening.fd,
                                      .seed = tour_mix(tour->options->config.rng_seed + i),
                                      .count = wanted / READERS + (i < wanted % READERS),
                                      .deadline_ns = start_ns + time_max_ns };
    uint64_t total = run_readers(tour, readers, joins);
    uint64_t time_ns = tour_now_ns() - start_ns;
    if (!tour->is_interrupted && !tour->is_stuck && run_alone(tour, close_file, &opening) < 0)
        tour_wrong(tour, "the file could not be closed");
    if (tour->is_interrupted || total == 0)
        tour_end(tour, tour->is_interrupted ? "interrupted" : "nothing was read");
    else
        tour_end(tour, "%s random 4 KiB %sreads, %s, %s%s", tool_count(count, total),
                 opening.is_direct ? "O_DIRECT " : "", tool_rate(rate, total, time_ns),
                 tour->wrong_count > tour->step_wrong ? "not all right" : "all right",
                 opening.is_direct ? "" : "; buffered: this file system refuses O_DIRECT");
}
