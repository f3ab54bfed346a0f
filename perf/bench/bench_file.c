/* SPDX-License-Identifier: MIT */
#include "perf/bench/bench_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <numio/io.h>

#include "perf/bench/bench_gated.h"
#include "perf/bench/bench_scenarios.h"

/* --- the file ------------------------------------------------------------------------------- */

/* Writes the blocks and makes sure that none is dirty any more. */
static int fill(int fd)
{
    enum { CHUNK_BLOCKS = 256 };
    int rc = 0;
    char *chunk = bench_alloc(CHUNK_BLOCKS, BENCH_BLOCK_BYTES);
    for (uint64_t first = 0; first < BENCH_FILE_BLOCKS && !rc; first += CHUNK_BLOCKS) {
        for (uint64_t i = 0; i < CHUNK_BLOCKS; i++) {
            uint64_t number = first + i;
            memcpy(chunk + i * BENCH_BLOCK_BYTES, &number, sizeof number);
        }
        ssize_t wrote = write(fd, chunk, CHUNK_BLOCKS * BENCH_BLOCK_BYTES);
        if (wrote != CHUNK_BLOCKS * BENCH_BLOCK_BYTES)
            rc = wrote < 0 ? -errno : -ENOSPC;
    }
    if (!rc && fsync(fd))
        rc = -errno;
    free(chunk);
    return rc;
}

static int open_readers(struct bench_file *file, const char *path)
{
    int flags = O_RDONLY | O_CLOEXEC | (file->shape.is_direct ? O_DIRECT : 0);
    for (unsigned i = 0; i < file->shape.readers; i++) {
        file->fds[i] = open(path, flags);
        if (file->fds[i] >= 0)
            continue;
        int rc = -errno;
        file->shape.readers = i;
        bench_file_close(file);
        return rc;
    }
    return 0;
}

bool bench_file_open(struct bench *b, struct bench_file *file)
{
    char path[4096];
    file->shape = *(const struct bench_file_shape *)b->scenario->arg;
    int length = snprintf(path, sizeof path, "%s/numio-bench-XXXXXX", b->options->dir);
    if (length < 0 || (size_t)length >= sizeof path) {
        bench_skip(b, "the name of the directory is too long");
        return false;
    }
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        bench_skip(b, "%s: %s", path, strerror(errno));
        return false;
    }
    int rc = fill(fd);
    if (!rc)
        rc = open_readers(file, path);
    (void)close(fd);    /* fsync has reported what there was */
    (void)unlink(path); /* a file that is gone already is fine */
    if (rc)
        bench_skip(b, "%s: %s", path, strerror(-rc));
    return rc == 0;
}

void bench_file_close(struct bench_file *file)
{
    for (unsigned i = 0; i < file->shape.readers; i++)
        (void)close(file->fds[i]); /* it was only read */
}

/* --- the readers ---------------------------------------------------------------------------- */

/* A reader's part that lives on from block to block; a coroutine gets it as its argument. */
struct reader {
    struct bench_gate *gate;
    int fd;
    unsigned reads;
    uint64_t random;
    char *buffer;
};

struct reader_future {
    struct reader *reader;
    struct numio_op op;
    unsigned done;
    uint64_t number; /* of the block that is being read */
    bool is_reading;
};

static enum numio_poll reader_poll(void *state, struct numio_context *cx)
{
    struct reader_future *f = state;
    struct reader *r = f->reader;
    for (; f->done < r->reads; f->done++) {
        int64_t got;
        if (!f->is_reading) {
            f->number = bench_file_next(&r->random);
            numio_op_read(&f->op, r->fd, r->buffer, BENCH_BLOCK_BYTES,
                          (int64_t)f->number * BENCH_BLOCK_BYTES);
            bench_must(numio_op_start(&f->op, cx), "numio_op_start");
            f->is_reading = true;
        }
        if (numio_op_poll(&f->op, cx, &got) == NUMIO_PENDING)
            return NUMIO_PENDING;
        f->is_reading = false;
        bench_file_check(f->number, r->buffer, got);
    }
    bench_gate_leave(r->gate);
    return NUMIO_READY;
}

static int64_t reader_co(void *arg)
{
    struct reader *r = arg;
    for (unsigned i = 0; i < r->reads; i++) {
        uint64_t number = bench_file_next(&r->random);
        int64_t got =
            numio_pread(r->fd, r->buffer, BENCH_BLOCK_BYTES, (int64_t)number * BENCH_BLOCK_BYTES);
        bench_file_check(number, r->buffer, got);
    }
    bench_gate_leave(r->gate);
    return r->reads;
}

static void start_readers(struct bench_gated *g)
{
    struct reader *readers = g->arg;
    for (size_t i = 0; i < g->leavers; i++) {
        struct reader_future f = { .reader = &readers[i] };
        struct numio_future future = { .poll = reader_poll, .state = &f, .size = sizeof f };
        bench_must(numio_spawn(NULL, &future, NULL, NULL), "numio_spawn");
    }
}

static void start_readers_co(struct bench_gated *g)
{
    struct reader *readers = g->arg;
    for (size_t i = 0; i < g->leavers; i++)
        bench_must(numio_spawn_co(NULL, reader_co, &readers[i], NULL, NULL), "numio_spawn_co");
}

static void run_readers(struct bench *b, const struct bench_file *file)
{
    const struct bench_file_shape *shape = &file->shape;
    size_t buffers_bytes = (size_t)shape->readers * BENCH_BLOCK_BYTES;
    struct reader *readers = bench_alloc(shape->readers, sizeof(readers[0]));
    struct bench_gated g = { .leavers = shape->readers, .repeats = 1, .arg = readers };
    g.ops = (uint64_t)shape->readers * shape->reads_each;
    g.start = b->scenario->flavor == BENCH_COROUTINE ? start_readers_co : start_readers;
    char *buffers = numio_io_buffer_alloc(b->handle, NUMIO_NODE_ANY, buffers_bytes);
    if (!buffers)
        bench_fail("no memory for %zu bytes of buffers", buffers_bytes);
    for (unsigned i = 0; i < shape->readers; i++) {
        readers[i] = (struct reader){ .gate = &g.gate,
                                      .fd = file->fds[i],
                                      .reads = shape->reads_each,
                                      .random = i + 1,
                                      .buffer = buffers + (size_t)i * BENCH_BLOCK_BYTES };
    }
    bench_repeat(b, bench_gated_block, &g);
    numio_io_buffer_free(b->handle, NUMIO_NODE_ANY, buffers, buffers_bytes);
    free(readers);
}

void bench_file_read(struct bench *b)
{
    struct bench_file file;
    if (!bench_start(b))
        return;
    if (bench_file_open(b, &file)) {
        run_readers(b, &file);
        bench_file_close(&file);
    }
    bench_stop(b);
}
