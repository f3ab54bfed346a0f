/* SPDX-License-Identifier: MIT */
/* Step "file": makes the file that the next steps use, through the rings, or takes the one that was
 * named; then reads it with plain system calls and remembers a digest and a hash per block, so that
 * the later steps are checked against what numio did not touch. */
#include "runtime/tool/tour.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <numio/io.h>

enum { CHUNK_BYTES = 1 << 20, WRITERS = 8 };

/* A file of one's own may be of any size; a minute is not enough for more than this. */
static const uint64_t served_bytes_max = 256u << 20;

struct writer {
    struct tour *tour;
    unsigned index, node;
    int fd;
};

/* The contents of the made file: word i is a function of i. */
static void fill_chunk(uint64_t *words, uint64_t offset)
{
    for (size_t i = 0; i < CHUNK_BYTES / sizeof *words; i++)
        words[i] = tour_mix(offset / sizeof *words + i);
}

/* Writes every WRITERS-th chunk. */
static int64_t write_chunks(void *arg)
{
    const struct writer *writer = arg;
    uint64_t bytes = writer->tour->file.bytes;
    int64_t status = 0;
    struct tour_buffer buffer = tour_buffer_alloc(CHUNK_BYTES);
    uint64_t *chunk = buffer.bytes;
    if (!chunk)
        return -ENOMEM;
    uint64_t stride = (uint64_t)WRITERS * CHUNK_BYTES;
    for (uint64_t at = (uint64_t)writer->index * CHUNK_BYTES; at < bytes && status >= 0;
         at += stride) {
        fill_chunk(chunk, at);
        status = numio_pwrite_all(writer->fd, chunk, CHUNK_BYTES, (int64_t)at);
        if (status >= 0)
            tour_progress(writer->tour, 1);
    }
    tour_buffer_free(&buffer);
    return status < 0 ? status : 0;
}

static int64_t sync_file(void *arg)
{
    const struct writer *writer = arg;
    return numio_fsync(writer->fd);
}

/* An unnamed file: it is gone with its last descriptor, however the tour ends. */
static int open_unnamed(struct tour *tour, struct tour_file *file)
{
    const char *tmpdir = getenv("TMPDIR");
    const char *folders[] = { tmpdir && *tmpdir ? tmpdir : "/var/tmp", "/tmp", "." };
    int err = -ENOENT;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        (void)snprintf(file->path, sizeof file->path, "%s/numio-tour-XXXXXX", folders[i]); /* cut */
        file->fd = mkostemp(file->path, O_CLOEXEC);
        if (file->fd >= 0) {
            (void)unlink(file->path); /* its descriptor is enough */
            (void)snprintf(file->path, sizeof file->path, "/proc/self/fd/%d", file->fd); /* fits */
            return 0;
        }
        err = -errno;
    }
    tour_wrong(tour, "no file can be made in %s or /tmp: %s", folders[0], strerror(-err));
    return err;
}

/* Runs the writers, then one fsync. */
static void write_file(struct tour *tour)
{
    struct writer *writers = tour_alloc(tour, WRITERS * sizeof *writers);
    struct numio_join **joins = tour_alloc(tour, WRITERS * sizeof *joins);
    int64_t results[WRITERS] = { 0 };
    if (!writers || !joins)
        return;
    for (unsigned i = 0; i < WRITERS; i++) {
        unsigned node = i % tour->machine.status.nodes;
        writers[i] = (struct writer){ tour, i, node, tour->file.fd };
        (void)tour_spawn(tour, node, write_chunks, &writers[i], &joins[i]); /* noted if it fails */
    }
    int err = tour_join(tour, joins, results, WRITERS);
    for (unsigned i = 0; err == 0 && i < WRITERS; i++)
        if (results[i] < 0)
            tour_wrong(tour, "writing: %s", strerror((int)-results[i]));
    if (err < 0 || tour->wrong_count > tour->step_wrong)
        return;
    if (tour_spawn(tour, 0, sync_file, writers, joins) == 0)
        err = tour_join(tour, joins, results, 1);
    if (err == 0 && results[0] < 0)
        tour_wrong(tour, "fsync: %s", strerror((int)-results[0]));
}

static int open_given(struct tour *tour, struct tour_file *file)
{
    struct stat stat;
    (void)snprintf(file->path, sizeof file->path, "%s", tour->options->file); /* checked below */
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC);
    if (file->fd < 0 || fstat(file->fd, &stat) < 0) {
        tour_wrong(tour, "%s: %s", file->path, strerror(errno));
        return -1;
    }
    if (!S_ISREG(stat.st_mode) || stat.st_size == 0) {
        tour_wrong(tour, "%s: %s", file->path,
                   S_ISREG(stat.st_mode) ? "the file is empty" : "not a regular file");
        return -1;
    }
    uint64_t bytes = (uint64_t)stat.st_size;
    file->bytes = bytes < served_bytes_max ? bytes : served_bytes_max;
    return 0;
}

void tour_file_make(struct tour *tour)
{
    struct tour_file *file = &tour->file;
    char bytes[TOOL_NUMBER_BYTES];
    file->is_made = tour->options->file == NULL;
    if (!file->is_made) {
        tour_begin(tour, "file", NULL, 0);
        if (open_given(tour, file) < 0) {
            file->bytes = 0;
            tour_end(tour, "cannot be used");
        }
        return;
    }
    tour_begin(tour, "write", "MiB", tour->options->file_bytes / CHUNK_BYTES);
    if (open_unnamed(tour, file) == 0) {
        file->bytes = tour->options->file_bytes;
        write_file(tour);
    }
    bool is_usable = tour->wrong_count == tour->step_wrong && !tour->is_interrupted;
    if (is_usable)
        tour_end(tour, "%s through the rings by %d coroutines, synced",
                 tool_bytes(bytes, file->bytes), WRITERS);
    else
        tour_end(tour, "did not finish");
    if (!is_usable)
        file->bytes = 0;
}

/* Reads up to CHUNK_BYTES with plain system calls.  Returns the count or a negative errno value. */
static int64_t read_plainly(int fd, void *buf, size_t len, uint64_t offset)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(fd, (char *)buf + got, len - got, (off_t)(offset + got));
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            break;
        got += n > 0 ? (size_t)n : 0;
    }
    return (int64_t)got;
}

/* Hashes one chunk into the digest and the table; compares a made file with what it must be. */
static void index_chunk(struct tour *tour, struct tool_sha256 *sha, const char *chunk, size_t len,
                        uint64_t offset)
{
    struct tour_file *file = &tour->file;
    tool_sha256_add(sha, chunk, len);
    for (size_t at = 0; at < len; at += TOUR_BLOCK_BYTES) {
        size_t part = len - at < TOUR_BLOCK_BYTES ? len - at : TOUR_BLOCK_BYTES;
        file->block_hashes[(offset + at) / TOUR_BLOCK_BYTES] = tour_block_hash(chunk + at, part);
    }
    if (!file->is_made)
        return;
    uint64_t word;
    for (size_t at = 0; at < len; at += sizeof word) {
        memcpy(&word, chunk + at, sizeof word);
        if (word != tour_mix((offset + at) / sizeof word)) {
            tour_wrong(tour, "byte %llu of the file is not what was written",
                       (unsigned long long)(offset + at));
            return;
        }
    }
}

void tour_file_index(struct tour *tour)
{
    struct tour_file *file = &tour->file;
    struct tool_sha256 sha;
    char bytes[TOOL_NUMBER_BYTES];
    if (file->bytes == 0)
        return;
    tour_begin(tour, "file", "MiB", file->bytes / CHUNK_BYTES);
    char *chunk = tour_alloc(tour, CHUNK_BYTES);
    file->block_hashes =
        tour_alloc(tour, (file->bytes / TOUR_BLOCK_BYTES + 1) * sizeof *file->block_hashes);
    tool_sha256_init(&sha);
    uint64_t offset = 0;
    while (chunk && file->block_hashes && offset < file->bytes && !tour_poll(tour)) {
        uint64_t left = file->bytes - offset;
        size_t want = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
        int64_t got = read_plainly(file->fd, chunk, want, offset);
        if (got != (int64_t)want) {
            tour_wrong(tour, "reading the file: %s",
                       got < 0 ? strerror((int)-got) : "it became shorter");
            break;
        }
        index_chunk(tour, &sha, chunk, want, offset);
        offset += want;
        tour_progress(tour, 1);
    }
    tool_sha256_finish(&sha, file->digest);
    if (offset < file->bytes) {
        file->bytes = 0; /* the later steps have nothing to compare with */
        tour_end(tour, tour->is_interrupted ? "interrupted" : "cannot be used");
        return;
    }
    tour_end(tour, "%s by plain reads, SHA-256 %.16s...", tool_bytes(bytes, file->bytes),
             file->digest);
}

void tour_file_fini(struct tour *tour)
{
    if (tour->file.fd >= 0)
        close(tour->file.fd);
    tour->file.fd = -1;
}
