/* SPDX-License-Identifier: MIT */
/* word_count FILE...: how many words are in each file and in all, as `wc -w` counts them, several
 * files at a time on all cores.
 *
 * A file's coroutine has it mapped by the blocking pool, since mmap() and the faults behind it
 * block, and then its megabytes counted by all workers.  One that cannot be read is told and does
 * not stop the others. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <numio/numio.h>

enum { PART_BYTES = 1 << 20, FILES_MAX = 1024 };

struct file {
    const char *name, *text;
    size_t bytes;
    _Atomic uint64_t words;
    int64_t error;
};

struct job {
    struct file files[FILES_MAX];
    int count;
};

/* On a thread of the pool: maps the file and touches its pages. */
static int64_t map_file(void *arg)
{
    struct file *file = arg;
    struct stat stat;
    int fd = open(file->name, O_RDONLY | O_CLOEXEC);
    int64_t rc = fd < 0 || fstat(fd, &stat) < 0 ? -errno : 0;
    if (rc == 0 && !S_ISREG(stat.st_mode))
        rc = S_ISDIR(stat.st_mode) ? -EISDIR : -ESPIPE;
    if (rc == 0 && stat.st_size > 0) {
        void *text = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
        rc = text == MAP_FAILED ? -errno : 0;
        file->text = rc == 0 ? text : NULL;
        file->bytes = rc == 0 ? (size_t)stat.st_size : 0;
    }
    if (fd >= 0)
        (void)close(fd); /* it was only read */
    return rc;
}

/* A word belongs to the part in which it begins. */
static int64_t count_part(uint64_t first, uint64_t end, void *arg)
{
    struct file *file = arg;
    uint64_t words = 0;
    for (uint64_t part = first; part < end; part++) {
        size_t from = part * PART_BYTES, to = from + PART_BYTES;
        bool in_word = from > 0 && !isspace((unsigned char)file->text[from - 1]);
        for (size_t i = from; i < to && i < file->bytes; i++) {
            bool is_space = isspace((unsigned char)file->text[i]);
            words += !is_space && !in_word;
            in_word = !is_space;
        }
    }
    /* relaxed: a sum, read when all have ended */
    (void)atomic_fetch_add_explicit(&file->words, words, memory_order_relaxed);
    return 0;
}

static int64_t count_file(void *arg)
{
    struct file *file = arg;
    file->error = numio_block_in_place(map_file, file);
    if (file->error == 0)
        file->error = numio_parallel_for(0, (file->bytes + PART_BYTES - 1) / PART_BYTES, 1,
                                         count_part, file, NULL);
    if (file->text)
        (void)munmap((void *)(uintptr_t)file->text, file->bytes); /* it was mapped */
    return 0; /* one that cannot be read does not end the others */
}

static int64_t count_all(void *arg)
{
    struct job *job = arg;
    struct numio_scope scope;
    uint64_t all = 0, words;
    bool has_failed = false;
    int64_t rc = numio_scope_open(&scope, 0);
    for (int i = 0; i < job->count && rc == 0; i++)
        rc = numio_scope_spawn_co(&scope, count_file, &job->files[i], NULL);
    int64_t error = numio_scope_close(&scope);
    for (int i = 0; i < job->count && rc == 0 && error == 0; i++) {
        struct file *file = &job->files[i];
        /* relaxed: all have ended */
        all += words = atomic_load_explicit(&file->words, memory_order_relaxed);
        if (file->error && (has_failed = true))
            fprintf(stderr, "word_count: %s: %s\n", file->name, strerror((int)-file->error));
        else
            printf("%10llu %s\n", (unsigned long long)words, file->name);
    }
    if (job->count > 1)
        printf("%10llu total\n", (unsigned long long)all);
    return rc ? rc : has_failed ? -EIO : error;
}

int main(int argc, char **argv)
{
    static struct job job;
    for (int i = 1; i < argc && i <= FILES_MAX; i++)
        job.files[job.count++].name = argv[i];
    if (argc < 2 || argc - 1 > FILES_MAX) {
        fprintf(stderr, "Usage: word_count FILE...   (at most %d)\n", FILES_MAX);
        return 2;
    }
    return numio_main(NULL, count_all, &job) < 0;
}
