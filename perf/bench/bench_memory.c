/* SPDX-License-Identifier: MIT */
/* Bytes per idle task.  Each sample is a process of its own, so that nothing an earlier sample
 * freed can be used again.
 *
 * The child spawns from its main thread and waits until all tasks have run once.  A future then
 * stays pending; a coroutine sleeps for longer than the child lives.  Two figures: what the
 * resident set grew by, and what the pages of the runtime's arenas did.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numio/io.h>

#include "perf/bench/bench_scenarios.h"
#include "perf/bench/bench_signal.h"

enum { TASKS = 1000000, TASKS_QUICK = 100000, CHILD_TEXT_BYTES = 128 };

static const uint64_t wait_ns_max = 120000000000;
static const uint64_t long_sleep_ns = 3600000000000;

/* --- the child ------------------------------------------------------------------------------ */

struct idler {
    struct bench_gate *gate;
    uint64_t word; /* what the task has to keep */
};

static enum numio_poll idler_poll(void *state, struct numio_context *cx)
{
    (void)cx;
    bench_gate_leave(((struct idler *)state)->gate);
    return NUMIO_PENDING;
}

static int64_t idler_co(void *arg)
{
    bench_gate_leave(arg);
    return numio_sleep_ns(long_sleep_ns);
}

static int spawn_idler(enum bench_flavor flavor, struct numio_handle *handle,
                       struct bench_gate *gate, uint64_t word)
{
    if (flavor == BENCH_COROUTINE)
        return numio_spawn_co(handle, idler_co, gate, NULL, NULL);
    struct idler idler = { .gate = gate, .word = word };
    struct numio_future future = { .poll = idler_poll, .state = &idler, .size = sizeof idler };
    return numio_spawn(handle, &future, NULL, NULL);
}

static double resident_bytes(void)
{
    unsigned long pages;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (!statm || fscanf(statm, "%*u %lu", &pages) != 1)
        bench_fail("/proc/self/statm cannot be read");
    (void)fclose(statm); /* it was only read */
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static double arena_bytes(struct numio_handle *handle)
{
    struct numio_status status = { .size = sizeof status };
    double bytes = 0;
    bench_must(numio_status(handle, &status), "numio_status");
    for (unsigned i = 0; i < status.nodes; i++) {
        struct numio_arena_audit audit = { .size = sizeof audit };
        bench_must(numio_arena_audit(handle, i, &audit), "numio_arena_audit");
        bytes += (double)(audit.pages_home + audit.pages_away + audit.pages_unknown) *
                 (double)audit.page_bytes;
    }
    return bytes;
}

static void wait_for_all(const struct bench_gate *gate)
{
    const struct timespec pause = { .tv_nsec = 1000000 };
    uint64_t start_ns = bench_now_ns();
    while (bench_gate_left(gate) > 0) {
        if (bench_now_ns() - start_ns > wait_ns_max)
            bench_fail("%zu idle tasks were never polled", bench_gate_left(gate));
        (void)nanosleep(&pause, NULL); /* woken early, it looks again earlier */
    }
}

int bench_idle_child(const struct bench_options *options)
{
    unsigned tasks = options->is_quick ? TASKS_QUICK : TASKS;
    struct numio_config config;
    struct numio_runtime *runtime;
    static struct bench_gate gate; /* outlives main(), as the tasks do */
    bench_options_config(options, &config);
    bench_must(numio_runtime_create(&config, &runtime), "numio_runtime_create");
    struct numio_handle *handle = numio_runtime_handle(runtime);
    double arena_before = arena_bytes(handle);
    double resident_before = resident_bytes();
    bench_gate_arm(&gate, tasks);
    for (unsigned i = 0; i < tasks; i++)
        bench_must(spawn_idler(options->flavor, handle, &gate, i), "spawn of an idle task");
    wait_for_all(&gate);
    double resident = resident_bytes() - resident_before;
    double arena = arena_bytes(handle) - arena_before;
    if (numio_live_tasks(handle) != tasks)
        bench_fail("%llu tasks are idle, not %u", (unsigned long long)numio_live_tasks(handle),
                   tasks);
    printf("%.3f %.3f\n", resident / tasks, arena / tasks);
    (void)fflush(stdout); /* the parent misses the figures if it fails */
    _exit(0);             /* without winding a million tasks down */
}

/* --- the parent ----------------------------------------------------------------------------- */

/* The parent's own command line and what makes it a child. */
static char **child_argv(const struct bench *b, char *mode)
{
    size_t count = 0;
    while (b->options->argv[count])
        count++;
    char **argv = bench_alloc(count + 2, sizeof argv[0]);
    memcpy(argv, b->options->argv, count * sizeof argv[0]);
    argv[count] = mode;
    return argv;
}

static pid_t start_child(const struct bench *b, int *ret_fd)
{
    char future[] = "--idle-child=future";
    char coroutine[] = "--idle-child=coroutine";
    char path[] = "/proc/self/exe";
    bool is_coroutine = b->scenario->flavor == BENCH_COROUTINE;
    char **argv = child_argv(b, is_coroutine ? coroutine : future);
    int ends[2];
    pid_t pid;
    posix_spawn_file_actions_t actions;
    if (pipe(ends) || posix_spawn_file_actions_init(&actions) ||
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO) ||
        posix_spawn_file_actions_addclose(&actions, ends[0]))
        bench_fail("no pipe to a child: %s", strerror(errno));
    int rc = posix_spawn(&pid, path, &actions, NULL, argv, environ);
    if (rc)
        bench_fail("%s: %s", path, strerror(rc));
    (void)posix_spawn_file_actions_destroy(&actions); /* cannot fail */
    (void)close(ends[1]);
    free(argv);
    *ret_fd = ends[0];
    return pid;
}

/* Starts a child, waits for it, reads its two figures. */
static void run_child(const struct bench *b, double *ret_resident, double *ret_arena)
{
    char text[CHILD_TEXT_BYTES];
    size_t used = 0;
    ssize_t got;
    int fd, status;
    pid_t pid = start_child(b, &fd);
    while (used < sizeof text - 1 && (got = read(fd, text + used, sizeof text - 1 - used)) > 0)
        used += (size_t)got;
    text[used] = '\0';
    (void)close(fd); /* it was only read */
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        bench_fail("%s: the child process failed", b->scenario->name);
    if (sscanf(text, "%lf %lf", ret_resident, ret_arena) != 2)
        bench_fail("%s: the child process said: %s", b->scenario->name, text);
}

void bench_idle_task_bytes(struct bench *b)
{
    unsigned rounds = b->options->rounds;
    double *resident = bench_alloc(rounds, sizeof resident[0]);
    double *arena = bench_alloc(rounds, sizeof arena[0]);
    if (!bench_start(b)) /* only for what the line says of the runtime */
        return;
    char driver[16];
    (void)snprintf(driver, sizeof driver, "%s", b->driver); /* the words are shorter */
    bench_stop(b);
    b->driver = driver;
    for (unsigned i = 0; i < rounds; i++) {
        run_child(b, &resident[i], &arena[i]);
        bench_progress(b, i + 1, rounds);
    }
    bench_put(b, b->scenario->name, "bytes", resident, rounds);
    bench_put(b, b->scenario->also, "bytes", arena, rounds);
    free(resident);
    free(arena);
}
