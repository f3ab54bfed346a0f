/* SPDX-License-Identifier: MIT */
/* Child processes.  posix_spawn() may take milliseconds (it waits for the exec) and runs on the
 * blocking pool; the end is awaited by a poll of the pidfd, and then fetched by waitid(), which
 * does not block any more. */
#include <numio/process.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numio/io.h>
#include <numio/runtime.h>

#include "runtime/base/error.h"
#include "runtime/base/mem.h"
#include "runtime/sched/await.h"

enum { STREAMS = 3 };

struct numio_process {
    pid_t pid;
    int pidfd;
    int fds[STREAMS]; /* the parent's ends, -1: none */
    bool has_ended;
    struct numio_process_end end; /* once it has */
};

/* What the pool's thread works with. */
struct start {
    const struct numio_process_opts *opts;
    struct numio_process *process;
    int childs[STREAMS]; /* the child's ends, -1: nothing to close */
};

void numio_process_opts_init(struct numio_process_opts *opts, size_t size)
{
    memset(opts, 0, size);
    opts->size = size;
    opts->in = opts->out = opts->err = NUMIO_STDIO_INHERIT;
}

/* ---- the start, on the pool --------------------------------------------------------------- */

/* *ret_from is the descriptor that the child's stream comes from, -1 to inherit. */
static int open_stream(struct start *start, unsigned stream, int wanted, int *ret_from)
{
    int ends[2], mine = stream == 0 ? 1 : 0;
    *ret_from = wanted;
    if (wanted >= 0 || wanted == NUMIO_STDIO_INHERIT)
        return 0;
    if (wanted == NUMIO_STDIO_NULL) {
        *ret_from = start->childs[stream] = open("/dev/null", O_RDWR | O_CLOEXEC);
        return *ret_from < 0 ? -errno : 0;
    }
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -errno;
    start->process->fds[stream] = ends[mine];
    *ret_from = start->childs[stream] = ends[1 - mine];
    return 0;
}

static int set_streams(struct start *start, posix_spawn_file_actions_t *actions)
{
    const int wanted[STREAMS] = { start->opts->in, start->opts->out, start->opts->err };
    int from[STREAMS];
    for (unsigned i = 0; i < STREAMS; i++) {
        int rc = open_stream(start, i, wanted[i], &from[i]);
        if (rc < 0)
            return rc;
    }
    /* First out of the way of each other: one may be a number that another goes to. */
    for (unsigned i = 0; i < STREAMS; i++) {
        if (from[i] < 0 || from[i] >= STREAMS || from[i] == (int)i)
            continue;
        int copy = fcntl(from[i], F_DUPFD_CLOEXEC, STREAMS);
        if (copy < 0)
            return -errno;
        if (start->childs[i] >= 0)
            (void)close(start->childs[i]); /* the copy is in its place */
        start->childs[i] = from[i] = copy;
    }
    int error = 0;
    for (unsigned i = 0; i < STREAMS && !error; i++)
        if (from[i] >= 0) /* to itself: only takes FD_CLOEXEC away */
            error = posix_spawn_file_actions_adddup2(actions, from[i], (int)i);
    if (!error && start->opts->folder)
        error = posix_spawn_file_actions_addchdir_np(actions, start->opts->folder);
    return -error;
}

static int set_attributes(const struct start *start, posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    (void)sigemptyset(&none); /* cannot fail, like the next */
    (void)sigfillset(&all);
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    if (start->opts->is_session)
        flags |= POSIX_SPAWN_SETSID;
    int error = posix_spawnattr_setsigmask(attributes, &none);
    error = error ? error : posix_spawnattr_setsigdefault(attributes, &all);
    return error ? -error : -posix_spawnattr_setflags(attributes, flags);
}

static int64_t spawn_on_pool(void *arg)
{
    struct start *start = arg;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char *const *argv = (char *const *)(uintptr_t)start->opts->argv;
    char *const *envp = start->opts->envp ? (char *const *)(uintptr_t)start->opts->envp : environ;
    int rc = -posix_spawn_file_actions_init(&actions);
    if (rc < 0)
        return rc;
    rc = -posix_spawnattr_init(&attributes);
    if (rc == 0) {
        rc = set_streams(start, &actions);
        rc = rc < 0 ? rc : set_attributes(start, &attributes);
        if (rc == 0)
            rc = -posix_spawnp(&start->process->pid, argv[0], &actions, &attributes, argv, envp);
        (void)posix_spawnattr_destroy(&attributes); /* cannot fail */
    }
    (void)posix_spawn_file_actions_destroy(&actions); /* likewise */
    for (unsigned i = 0; i < STREAMS; i++)
        if (start->childs[i] >= 0)
            (void)close(start->childs[i]); /* the child has its own */
    return rc;
}

static void close_pipes(struct numio_process *process)
{
    for (unsigned i = 0; i < STREAMS; i++)
        if (process->fds[i] >= 0)
            (void)close(process->fds[i]); /* pipes; nothing is buffered here */
}

/* Ends a child and takes its status, which a process that was killed has at once. */
static int64_t kill_and_reap(void *arg)
{
    struct numio_process *process = arg;
    siginfo_t info;
    if (process->pidfd >= 0)
        (void)pidfd_send_signal(process->pidfd, SIGKILL, NULL, 0); /* it may have ended */
    else
        (void)kill(process->pid, SIGKILL); /* not reaped yet, so the number is its */
    while (waitid(P_PID, (id_t)process->pid, &info, WEXITED) != 0 && errno == EINTR)
        continue;
    return 0;
}

int64_t numio_process_spawn(const struct numio_process_opts *opts,
                            struct numio_process **ret_process)
{
    struct start start = { .opts = opts, .childs = { -1, -1, -1 } };
    if (!nio_co_current())
        return nio_error(-EINVAL, "process: not spawned from a coroutine");
    if (!opts || !opts->argv || !opts->argv[0])
        return nio_error(-EINVAL, "process: argv names no program");
    if (opts->in < NUMIO_STDIO_PIPE || opts->out < NUMIO_STDIO_PIPE || opts->err < NUMIO_STDIO_PIPE)
        return nio_error(-EINVAL, "process: in, out or err is no enum NUMIO_STDIO_ and no "
                                  "descriptor");
    struct numio_process *process = nio_zalloc(sizeof *process);
    if (!process)
        return nio_error(-ENOMEM, "process: no memory");
    *process = (struct numio_process){ .pidfd = -1, .fds = { -1, -1, -1 } };
    start.process = process;
    int stop = nio_co_stop(nio_co_current());
    int64_t rc = stop ? stop : numio_block_in_place(spawn_on_pool, &start);
    if (rc == 0) {
        process->pidfd = pidfd_open(process->pid, 0);
        if (process->pidfd < 0) {
            rc = nio_error(-errno, "process: pidfd_open: %s", strerror(errno));
            (void)numio_block_in_place(kill_and_reap, process); /* the first error counts */
        }
    } else if (rc != -ECANCELED && rc != -ETIMEDOUT) {
        (void)nio_error((int)rc, "process: %.100s: %s", opts->argv[0],
                        strerror((int)-rc)); /* returned below */
    }
    if (rc < 0) {
        close_pipes(process);
        nio_free(process);
        return rc;
    }
    *ret_process = process;
    return 0;
}

/* ---- afterwards --------------------------------------------------------------------------- */

int numio_process_pid(const struct numio_process *process)
{
    return process->pid;
}

int numio_process_fd(const struct numio_process *process, unsigned stream)
{
    return stream < STREAMS && process->fds[stream] >= 0 ? process->fds[stream] : -EBADF;
}

int64_t numio_process_close_fd(struct numio_process *process, unsigned stream)
{
    int fd = numio_process_fd(process, stream);
    if (fd < 0)
        return fd;
    process->fds[stream] = -1;
    return numio_close(fd);
}

/* The pidfd is readable: the end is there to be fetched. */
static int64_t fetch_end(struct numio_process *process)
{
    siginfo_t info = { 0 };
    if (waitid(P_PIDFD, (id_t)process->pidfd, &info, WEXITED | WNOHANG) != 0)
        return -errno;
    if (info.si_pid == 0)
        return -EAGAIN; /* not yet after all */
    bool is_exit = info.si_code == CLD_EXITED;
    process->end = (struct numio_process_end){ .status = is_exit ? info.si_status : -1,
                                               .signal = is_exit ? 0 : info.si_status,
                                               .has_core = info.si_code == CLD_DUMPED };
    process->has_ended = true;
    return 0;
}

int64_t numio_process_wait(struct numio_process *process, struct numio_process_end *ret_end)
{
    int64_t rc = 0;
    while (!process->has_ended) { /* until the pidfd is readable */
        rc = numio_poll_fd(process->pidfd, POLLIN);
        if (rc < 0)
            return rc;
        rc = fetch_end(process);
        if (rc < 0 && rc != -EAGAIN)
            return nio_error((int)rc, "process: waitid: %s", strerror((int)-rc));
    }
    *ret_end = process->end;
    return 0;
}

int numio_process_kill(struct numio_process *process, int number)
{
    if (process->has_ended)
        return -ESRCH;
    return pidfd_send_signal(process->pidfd, number, NULL, 0) == 0 ? 0 : -errno;
}

void numio_process_destroy(struct numio_process *process)
{
    if (!process)
        return;
    if (!process->has_ended && fetch_end(process) != 0)
        /* Shielded: an aborted task waits all the same.  Without a pool, here and now. */
        if (numio_block_in_place(kill_and_reap, process) != 0)
            (void)kill_and_reap(process);
    close_pipes(process);
    if (process->pidfd >= 0)
        (void)close(process->pidfd); /* nothing to lose */
    nio_free(process);
}
