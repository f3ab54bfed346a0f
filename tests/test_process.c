/* SPDX-License-Identifier: MIT */
/* Child processes: their streams, their ends, their signals; nothing of them is left behind. */
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include <fcntl.h>
#include <stdio.h>

enum { MANY = 20 };

static int64_t last_line;

static void run(struct numio_runtime *runtime, int64_t (*fn)(void *arg))
{
    /* The pool's threads and the driver's tables come with the first uses. */
    unsigned before = fixture_count_fds();
    last_line = numio_block_on(numio_runtime_handle(runtime), fn, NULL);
    cr_assert_eq(last_line, 0, "line %ld: %s", (long)last_line, numio_strerror_detail());
    cr_assert_eq(fixture_count_fds(), before, "descriptors are left");
}

static struct numio_process_opts opts_of(const char *const *argv)
{
    struct numio_process_opts opts;
    numio_process_opts_init(&opts, sizeof opts);
    opts.argv = argv;
    return opts;
}

/* Runs a shell's text; what it prints goes to `ret_text`, its end to *ret_end. */
static int64_t shell(const char *text, char *ret_text, size_t bytes,
                     struct numio_process_end *ret_end)
{
    const char *argv[] = { "sh", "-c", text, NULL };
    struct numio_process_opts opts = opts_of(argv);
    struct numio_process *process;
    size_t length = 0;
    int64_t n;
    opts.out = NUMIO_STDIO_PIPE;
    int64_t rc = numio_process_spawn(&opts, &process);
    if (rc < 0)
        return rc;
    while ((n = numio_read(numio_process_fd(process, 1), ret_text + length, bytes - 1 - length)) >
           0)
        length += (size_t)n;
    ret_text[length] = '\0';
    rc = numio_process_wait(process, ret_end);
    numio_process_destroy(process);
    return n < 0 ? n : rc;
}

static int64_t use_streams(void *arg)
{
    const char *argv[] = { "sh", "-c", "cat; echo error >&2", NULL };
    struct numio_process_opts opts = opts_of(argv);
    struct numio_process *process;
    struct numio_process_end end;
    char text[64];
    (void)arg;
    opts.in = opts.out = opts.err = NUMIO_STDIO_PIPE;
    EXPECT(numio_process_spawn(&opts, &process) == 0);
    EXPECT(numio_process_pid(process) > 0 && numio_process_fd(process, 3) == -EBADF);
    int in = numio_process_fd(process, 0), out = numio_process_fd(process, 1);
    EXPECT(in >= 0 && fcntl(in, F_GETFD) == FD_CLOEXEC && fcntl(out, F_GETFD) == FD_CLOEXEC);
    EXPECT(numio_write_all(in, "to and fro", 10) == 10);
    EXPECT(numio_pread_all(out, text, 10, -1) == 10 && memcmp(text, "to and fro", 10) == 0);
    EXPECT(numio_process_close_fd(process, 0) == 0);
    EXPECT(numio_process_close_fd(process, 0) == -EBADF);
    EXPECT(numio_pread_all(numio_process_fd(process, 2), text, 64, -1) == 6);
    EXPECT(memcmp(text, "error\n", 6) == 0);
    EXPECT(numio_read(out, text, 1) == 0);
    EXPECT(numio_process_wait(process, &end) == 0 && end.status == 0 && end.signal == 0);
    EXPECT(numio_process_wait(process, &end) == 0 && end.status == 0); /* once more */
    EXPECT(numio_process_kill(process, SIGTERM) == -ESRCH);
    numio_process_destroy(process);
    numio_process_destroy(NULL);
    return 0;
}

FIXTURE_EACH(process, it_is_talked_to_by_pipes, .timeout = 30)
{
    run(runtime, use_streams);
}

static int64_t see_ends(void *arg)
{
    struct numio_process_end end;
    char text[256];
    (void)arg;
    EXPECT(shell("exit 7", text, sizeof text, &end) == 0);
    EXPECT(end.status == 7 && end.signal == 0 && !end.has_core);
    EXPECT(shell("kill -TERM $$", text, sizeof text, &end) == 0);
    EXPECT(end.status == -1 && end.signal == SIGTERM);
    /* Nothing is blocked or ignored in it. */
    EXPECT(shell("grep -h SigBlk /proc/self/status", text, sizeof text, &end) == 0);
    EXPECT(strcmp(text, "SigBlk:\t0000000000000000\n") == 0);
    EXPECT(shell("grep -h SigIgn /proc/self/status", text, sizeof text, &end) == 0);
    EXPECT(strncmp(text, "SigIgn:\t", 8) == 0);
    EXPECT((strtoull(text + 8, NULL, 16) >> (SIGPIPE - 1) & 1) == 0);
    return 0;
}

FIXTURE_EACH(process, its_end_and_its_start_are_as_they_should, .timeout = 30)
{
    (void)signal(SIGPIPE, SIG_IGN); /* inherited by an exec, if nobody minds */
    run(runtime, see_ends);
}

static int64_t use_options(void *arg)
{
    static const char *const envp[] = { "ONLY=this", NULL };
    const char *argv[] = { "sh", "-c", "echo $ONLY-$HOME; pwd; echo err >&2; ps -o sid= -p $$",
                           NULL };
    struct numio_process_opts opts = opts_of(argv);
    struct numio_process *process;
    struct numio_process_end end;
    char text[128] = "", wanted[128];
    (void)arg;
    opts.envp = envp;
    opts.folder = "/proc";
    opts.in = NUMIO_STDIO_NULL;
    opts.out = NUMIO_STDIO_PIPE;
    opts.err = 1; /* where the parent's output goes */
    opts.is_session = true;
    EXPECT(numio_process_spawn(&opts, &process) == 0);
    EXPECT(numio_pread_all(numio_process_fd(process, 1), text, sizeof text, -1) > 0);
    (void)snprintf(wanted, sizeof wanted, "this-\n/proc\n"); /* fits */
    EXPECT(strncmp(text, wanted, strlen(wanted)) == 0);
    if (strlen(text) > strlen(wanted)) /* where there is ps */
        EXPECT(strtol(text + strlen(wanted), NULL, 10) == numio_process_pid(process));
    EXPECT(numio_process_wait(process, &end) == 0);
    numio_process_destroy(process);
    /* What cannot be started says what it was. */
    const char *none[] = { "numio-no-such-program", NULL };
    opts = opts_of(none);
    opts.in = opts.out = NUMIO_STDIO_PIPE;
    EXPECT(numio_process_spawn(&opts, &process) == -ENOENT);
    EXPECT(strstr(numio_strerror_detail(), "numio-no-such-program"));
    opts.argv = argv;
    opts.folder = "/numio-no-such-folder";
    EXPECT(numio_process_spawn(&opts, &process) == -ENOENT);
    opts.argv = NULL;
    EXPECT(numio_process_spawn(&opts, &process) == -EINVAL);
    opts = opts_of(argv);
    opts.err = -9;
    EXPECT(numio_process_spawn(&opts, &process) == -EINVAL);
    return 0;
}

FIXTURE_EACH(process, options_are_obeyed_and_failures_named, .timeout = 30)
{
    run(runtime, use_options);
}

static int64_t kill_them(void *arg)
{
    const char *argv[] = { "sleep", "1000", NULL };
    struct numio_process_opts opts = opts_of(argv);
    struct numio_process *process;
    struct numio_process_end end;
    struct numio_deadline deadline;
    (void)arg;
    EXPECT(numio_process_spawn(&opts, &process) == 0);
    EXPECT(numio_deadline_push(&deadline, 5000000) == 0);
    EXPECT(numio_process_wait(process, &end) == -ETIMEDOUT);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    EXPECT(numio_process_kill(process, 12345) == -EINVAL);
    EXPECT(numio_process_kill(process, SIGUSR1) == 0);
    EXPECT(numio_process_wait(process, &end) == 0 && end.signal == SIGUSR1);
    numio_process_destroy(process);
    /* One that is given up is killed and reaped, in a late scope, too. */
    EXPECT(numio_process_spawn(&opts, &process) == 0);
    int pid = numio_process_pid(process);
    EXPECT(numio_deadline_push(&deadline, 0) == 0);
    numio_process_destroy(process);
    EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    EXPECT(kill(pid, 0) != 0 && errno == ESRCH);
    return 0;
}

FIXTURE_EACH(process, it_is_killed_by_hand_and_when_it_is_given_up, .timeout = 30)
{
    run(runtime, kill_them);
}

static int64_t one_of_many(void *arg)
{
    struct numio_process_end end;
    char text[64], command[64];
    (void)snprintf(command, sizeof command, "echo %d; exit %d", (int)(intptr_t)arg,
                   (int)(intptr_t)arg); /* fits */
    EXPECT(shell(command, text, sizeof text, &end) == 0);
    EXPECT(strtol(text, NULL, 10) == (intptr_t)arg && end.status == (int)(intptr_t)arg);
    return 0;
}

static int64_t run_many(void *arg)
{
    struct numio_join *joins[MANY];
    (void)arg;
    for (intptr_t i = 0; i < MANY; i++)
        EXPECT(numio_spawn_co(NULL, one_of_many, (void *)i, NULL, &joins[i]) == 0);
    for (unsigned i = 0; i < MANY; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(process, many_at_once_do_not_hold_each_others_pipes, .timeout = 60)
{
    run(runtime, run_many);
}

Test(process, outside_of_a_coroutine_it_is_refused, .timeout = 30)
{
    const char *argv[] = { "true", NULL };
    struct numio_process_opts opts = opts_of(argv);
    struct numio_process *process = NULL;
    cr_assert_eq(numio_process_spawn(&opts, &process), -EINVAL);
    cr_assert_null(process);
}
