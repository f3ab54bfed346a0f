/* SPDX-License-Identifier: MIT */
/* Promises of numio where the machine or the program misbehaves: signals, CPUs that go away, stack
 * overflow, fork, system calls that are forbidden, memory that runs out under operations. */
#include <numio/batch.h>

#include "tests/runtime_fixture.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "runtime/base/compiler.h"

enum { ECHOES = 300, STORM_US = 100, PESTERED_RUNTIMES = 60, FAULTS_MAX = 300 };

static int64_t echo_value(void *arg)
{
    return (int64_t)(intptr_t)arg;
}

/* ---- a piece of everything ---------------------------------------------------------------- */

struct work {
    int listener;
    char address[32];
    int64_t wrong; /* line of the first thing that went wrong */
};

#define EXPECT(work, condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (work)->wrong = __LINE__;                                                              \
            return -1;                                                                             \
        }                                                                                          \
    } while (0)

static int64_t serve_one(void *arg)
{
    struct work *work = arg;
    char buffer[512];
    int64_t n;
    int fd = (int)numio_accept(work->listener, NULL, NULL, SOCK_CLOEXEC);
    EXPECT(work, fd >= 0);
    while ((n = numio_recv(fd, buffer, sizeof buffer, 0)) > 0)
        EXPECT(work, numio_send_all(fd, buffer, (size_t)n, 0) == n);
    EXPECT(work, n == 0);
    return numio_close(fd);
}

static int64_t do_a_bit_of_everything(void *arg)
{
    struct work *work = arg;
    char buffer[512];
    struct numio_join *server;
    EXPECT(work, numio_spawn_co(NULL, serve_one, work, NULL, &server) == 0);
    int fd = (int)numio_tcp_connect(work->address);
    EXPECT(work, fd >= 0);
    int file = (int)numio_open("/proc/self/exe", O_RDONLY | O_CLOEXEC, 0);
    EXPECT(work, file >= 0);
    for (unsigned i = 0; i < ECHOES; i++) {
        memset(buffer, (int)i, sizeof buffer);
        EXPECT(work, numio_send_all(fd, buffer, sizeof buffer, 0) == sizeof buffer);
        memset(buffer, 0, sizeof buffer);
        EXPECT(work, numio_recv_all(fd, buffer, sizeof buffer, 0) == sizeof buffer);
        EXPECT(work, buffer[511] == (char)i);
        EXPECT(work, numio_pread_all(file, buffer, 500, i) == 500);
        if (i % 16 == 0)
            EXPECT(work, numio_sleep_ns(50000) == 0);
        if (i % 64 == 0)
            EXPECT(work, numio_block_in_place(echo_value, (void *)6) == 6);
    }
    EXPECT(work, numio_shutdown(fd, SHUT_WR) == 0);
    EXPECT(work, numio_recv(fd, buffer, 1, 0) == 0);
    EXPECT(work, numio_close(fd) == 0 && numio_close(file) == 0);
    return numio_join_await(&server);
}

static void work_init(struct work *work)
{
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    *work = (struct work){ .listener = numio_tcp_listen("127.0.0.1:0", 0) };
    cr_assert_geq(work->listener, 0, "%s", numio_strerror_detail());
    cr_assert_eq(getsockname(work->listener, (struct sockaddr *)&address, &bytes), 0);
    (void)snprintf(work->address, sizeof work->address, "127.0.0.1:%d",
                   ntohs(address.sin_port)); /* it fits */
}

static void work_once(struct numio_runtime *runtime, struct work *work)
{
    int64_t result = numio_block_on(numio_runtime_handle(runtime), do_a_bit_of_everything, work);
    cr_assert_eq(work->wrong, 0, "line %ld", (long)work->wrong);
    cr_assert_eq(result, 0, "%ld", (long)result);
}

/* ---- signals ------------------------------------------------------------------------------ */

static _Atomic uint32_t signals;

static void on_signal(int number)
{
    (void)number;
    /* relaxed: a count */
    (void)atomic_fetch_add_explicit(&signals, 1, memory_order_relaxed);
}

static void handle_signal(int number)
{
    struct sigaction action = { .sa_handler = on_signal }; /* no SA_RESTART: calls end with EINTR */
    cr_assert_eq(sigaction(number, &action, NULL), 0);
}

FIXTURE_EACH(faults, a_storm_of_signals_to_the_process_changes_nothing, .timeout = 30)
{
    struct itimerval storm = { { 0, STORM_US }, { 0, STORM_US } };
    struct itimerval calm = { { 0, 0 }, { 0, 0 } };
    struct work work;
    work_init(&work);
    handle_signal(SIGALRM);
    cr_assert_eq(setitimer(ITIMER_REAL, &storm, NULL), 0);
    for (unsigned i = 0; i < 3; i++)
        work_once(runtime, &work);
    cr_assert_eq(setitimer(ITIMER_REAL, &calm, NULL), 0);
    cr_assert_gt(fixture_get(&signals), 10, "there was no storm");
    (void)close(work.listener);
}

struct pester {
    struct numio_handle *handle;
    _Atomic uint32_t gate;
};

/* SIGPROF is what profilers send to threads, so workers do not block it. */
static void *pester_workers(void *arg)
{
    struct pester *pester = arg;
    while (fixture_get(&pester->gate) == 0) {
        struct numio_worker_status status;
        for (unsigned i = 0; numio_worker_status(pester->handle, i, &status) == 0; i++)
            (void)syscall(SYS_tgkill, getpid(), status.tid, SIGPROF); /* it exists */
        (void)nio_futex_wait(&pester->gate, 0, STORM_US * 1000);      /* the pace of the storm */
    }
    return NULL;
}

FIXTURE_EACH(faults, signals_to_the_workers_interrupt_no_operation, .timeout = 30)
{
    struct pester pester = { .handle = numio_runtime_handle(runtime) };
    struct work work;
    pthread_t thread;
    work_init(&work);
    handle_signal(SIGPROF);
    cr_assert_eq(pthread_create(&thread, NULL, pester_workers, &pester), 0);
    for (unsigned i = 0; i < 3; i++)
        work_once(runtime, &work);
    fixture_set(&pester.gate, 1);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_gt(fixture_get(&signals), 10, "there was no storm");
    (void)close(work.listener);
}

/* Without a thread for it the kernel ends a request with -ECANCELED if signals keep it from making
 * one.  Each runtime's worker has to be given its first here, on a machine that is busy with
 * signals: without runtime/driver/uring_iowq.c an open fails in at least one of them. */
static int64_t open_by_the_ring(void *arg)
{
    struct numio_op ops[2];
    (void)arg;
    int fd = (int)numio_open("/proc/self/exe", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    numio_op_fsync(&ops[0], fd);
    numio_op_link(&ops[0]);
    numio_op_close(&ops[1], fd);
    return numio_batch_await(ops, 2);
}

static void *pester_without_pause(void *arg)
{
    struct pester *pester = arg;
    struct numio_worker_status status;
    cr_assert_eq(numio_worker_status(pester->handle, 0, &status), 0);
    while (fixture_get(&pester->gate) == 0)
        (void)syscall(SYS_tgkill, getpid(), status.tid, SIGPROF); /* it exists */
    return NULL;
}

Test(faults, signals_do_not_cancel_what_needs_a_thread_of_the_kernel, .timeout = 60)
{
    handle_signal(SIGPROF);
    for (unsigned i = 0; i < PESTERED_RUNTIMES; i++) {
        struct numio_config config = fixture_config(NUMIO_DRIVER_DEFER, 1);
        struct numio_runtime *runtime = fixture_create(&config);
        struct pester pester = { .handle = numio_runtime_handle(runtime) };
        pthread_t threads[3];
        for (unsigned k = 0; k < NIO_ARRAY_LEN(threads); k++)
            cr_assert_eq(pthread_create(&threads[k], NULL, pester_without_pause, &pester), 0);
        int64_t result = numio_block_on(pester.handle, open_by_the_ring, NULL);
        fixture_set(&pester.gate, 1);
        for (unsigned k = 0; k < NIO_ARRAY_LEN(threads); k++)
            cr_assert_eq(pthread_join(threads[k], NULL), 0);
        cr_assert_eq(result, 0, "runtime %u: %ld", i, (long)result);
        numio_runtime_destroy(runtime);
    }
}

/* ---- CPUs that go away -------------------------------------------------------------------- */

/* All workers onto one CPU, as a shrinking cpuset does it. */
static void take_cpus_away(struct numio_handle *handle)
{
    struct numio_worker_status status;
    cpu_set_t one;
    int cpu = sched_getcpu();
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    for (unsigned i = 0; numio_worker_status(handle, i, &status) == 0; i++)
        cr_assert_eq(sched_setaffinity(status.tid, sizeof one, &one), 0);
}

FIXTURE_EACH(faults, workers_whose_cpu_is_taken_away_go_on, .timeout = 30)
{
    struct work work;
    work_init(&work);
    work_once(runtime, &work);
    take_cpus_away(numio_runtime_handle(runtime));
    for (unsigned i = 0; i < 3; i++)
        work_once(runtime, &work);
    (void)close(work.listener);
}

Test(faults, spinning_workers_on_one_cpu_make_progress, .timeout = 30)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 2);
    config.idle = NUMIO_IDLE_SPIN;
    struct numio_runtime *runtime = fixture_create(&config);
    take_cpus_away(numio_runtime_handle(runtime));
    for (unsigned i = 0; i < 20; i++)
        cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), echo_value, (void *)3), 3);
    numio_runtime_destroy(runtime);
}

/* ---- stack overflow ----------------------------------------------------------------------- */

static void keep(const char *memory)
{
    __asm__ __volatile__("" : : "r"(memory) : "memory");
}

/* More than the stack in one frame, touched from the top as the compiler's probes do it. */
static int64_t overflow(void *arg)
{
    char block[100 << 10];
    for (size_t i = sizeof block; i > 0; i -= 512)
        block[i - 1] = (char)(intptr_t)arg;
    keep(block);
    return block[0];
}

static int overflow_in_child(void)
{
    struct numio_config config;
    struct numio_runtime *runtime;
    struct numio_spawn_opts opts;
    struct numio_join *join;
    FIXTURE_CHILD_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.workers = 1;
    FIXTURE_CHILD_CHECK(numio_runtime_create(&config, &runtime) == 0);
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.name = "deep one";
    FIXTURE_CHILD_CHECK(
        numio_spawn_co(numio_runtime_handle(runtime), overflow, NULL, &opts, &join) == 0);
    return numio_join_wait(&join, -1) == 0 ? 2 : 3; /* it survived */
}

Test(faults, a_stack_overflow_names_the_coroutine_and_its_spawn, .timeout = 20)
{
    static struct fixture_ending ending;
    fixture_in_child(overflow_in_child, &ending);
    cr_assert(WIFSIGNALED(ending.status), "wait status 0x%x: %s", (unsigned)ending.status,
              ending.output);
    cr_assert(WTERMSIG(ending.status) == SIGSEGV || WTERMSIG(ending.status) == SIGBUS);
    cr_assert(strstr(ending.output, "stack overflow in coroutine 'deep one'"), "%s", ending.output);
    cr_assert(strstr(ending.output, "test_faults.c:"), "%s", ending.output);
    cr_assert(strstr(ending.output, "stack_bytes"), "%s", ending.output);
}

static int64_t deep_but_legal(void *arg)
{
    char block[100 << 10];
    memset(block, (int)(intptr_t)arg, sizeof block);
    keep(block);
    return block[99];
}

Test(faults, a_larger_stack_holds_what_overflows_the_default, .timeout = 20)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    config.stack_bytes = 256 << 10;
    struct numio_runtime *runtime = fixture_create(&config);
    for (unsigned i = 0; i < 10; i++)
        cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), deep_but_legal, (void *)9), 9);
    numio_runtime_destroy(runtime);
}

/* ---- fork --------------------------------------------------------------------------------- */

static struct forked {
    struct numio_runtime *runtime;
    struct numio_join *asleep, *done;
    struct numio_abort *abort;
} forked;

static int64_t sleep_long(void *arg)
{
    (void)arg;
    return numio_sleep_ns(3600000000000ull);
}

static bool has_finished(void *arg)
{
    return numio_join_is_finished(arg);
}

static int use_the_parents_runtime(void)
{
    struct numio_handle *handle = numio_runtime_handle(forked.runtime);
    struct numio_future future = { .poll = (enum numio_poll(*)(void *, struct numio_context *))1 };
    struct numio_join *join;
    FIXTURE_CHILD_CHECK(numio_spawn_co(handle, echo_value, NULL, NULL, &join) == -EPERM);
    FIXTURE_CHILD_CHECK(strstr(numio_strerror_detail(), "forked child"));
    FIXTURE_CHILD_CHECK(numio_spawn(handle, &future, NULL, &join) == -EPERM);
    FIXTURE_CHILD_CHECK(numio_spawn_batch(handle, &future, 1, NULL, &join) == -EPERM);
    FIXTURE_CHILD_CHECK(numio_spawn_blocking(handle, echo_value, NULL, NULL, &join) == -EPERM);
    FIXTURE_CHILD_CHECK(numio_block_on(handle, echo_value, NULL) == -EPERM);
    FIXTURE_CHILD_CHECK(numio_join_wait(&forked.asleep, -1) == -EPERM);
    FIXTURE_CHILD_CHECK(numio_join_await(&forked.asleep) == -EPERM);
    FIXTURE_CHILD_CHECK(numio_join_try(&forked.done) == -EPERM);
    FIXTURE_CHILD_CHECK(numio_runtime_shutdown(forked.runtime, -1, NULL, 0, NULL) == -EPERM);
    FIXTURE_CHILD_CHECK(numio_runtime_shutdown_background(forked.runtime) == -EPERM);
    numio_abort_task(forked.abort); /* these say nothing, and do nothing to the parent */
    numio_join_abort(forked.asleep);
    numio_join_detach(&forked.asleep);
    numio_join_detach(&forked.done);
    numio_handle_unref(numio_handle_ref(handle));
    return 0;
}

static int make_a_runtime_of_its_own(void)
{
    struct numio_runtime *runtime;
    struct numio_config config;
    FIXTURE_CHILD_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.workers = 2;
    FIXTURE_CHILD_CHECK(numio_runtime_create(&config, &runtime) == 0);
    for (intptr_t i = 0; i < 100; i++)
        FIXTURE_CHILD_CHECK(numio_block_on(numio_runtime_handle(runtime), echo_value, (void *)i) ==
                            i);
    numio_runtime_destroy(runtime);
    return 0;
}

FIXTURE_EACH(faults, a_forked_child_is_refused_and_does_the_parent_no_harm, .timeout = 30)
{
    struct numio_handle *handle = numio_runtime_handle(runtime);
    forked.runtime = runtime;
    cr_assert_eq(numio_spawn_co(handle, sleep_long, NULL, NULL, &forked.asleep), 0);
    cr_assert_eq(numio_spawn_co(handle, echo_value, (void *)5, NULL, &forked.done), 0);
    forked.abort = numio_join_abort_handle(forked.asleep);
    cr_assert(fixture_until(has_finished, forked.done));
    fixture_expect_child(use_the_parents_runtime);
    cr_assert_eq(numio_block_on(handle, echo_value, (void *)8), 8);
    cr_assert(!numio_join_is_finished(forked.asleep), "the child aborted the parent's task");
    cr_assert_eq(numio_join_try(&forked.done), 5);
    numio_abort_task(forked.abort);
    cr_assert_eq(numio_join_wait(&forked.asleep, 5000000000), -ECANCELED);
    numio_abort_drop(forked.abort);
}

FIXTURE_EACH(faults, a_forked_child_may_have_a_runtime_of_its_own, .timeout = 30)
{
    cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), echo_value, (void *)1), 1);
    fixture_expect_child(make_a_runtime_of_its_own);
    cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), echo_value, (void *)2), 2);
}

/* Forks in the middle of a task. */
static int64_t fork_in_a_task(void *arg)
{
    char byte;
    pid_t pid = fork();
    if (pid == 0) {
        int wrong = numio_sleep_ns(1) != -EPERM;
        wrong |= numio_yield_now() != -EPERM;
        wrong |= numio_read(0, &byte, 1) != -EPERM;
        wrong |= numio_go(echo_value, NULL) != -EPERM;
        wrong |= numio_block_in_place(echo_value, NULL) != -EPERM;
        _exit(wrong);
    }
    int *ret_status = arg;
    if (pid < 0 || waitpid(pid, ret_status, 0) != pid)
        return -errno;
    return numio_yield_now();
}

FIXTURE_EACH(faults, a_fork_inside_a_task_is_refused_in_the_child_only, .timeout = 30)
{
    int status = -1;
    cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), fork_in_a_task, &status), 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status 0x%x", (unsigned)status);
    cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), echo_value, (void *)2), 2);
}

/* ---- a container that forbids much -------------------------------------------------------- */

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#endif

/* From now on io_uring and the memory policies are refused with EPERM, as in a default container.
 */
static bool confine(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 0, 7),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 6, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_register, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mbind, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_set_mempolicy, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_move_pages, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog program = { .len = NIO_ARRAY_LEN(code), .filter = code };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static int run_confined(enum numio_driver driver)
{
    struct numio_config config;
    struct numio_runtime *runtime;
    struct numio_status status;
    struct numio_node_status node;
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    struct work work = { .listener = numio_tcp_listen("127.0.0.1:0", 0) };
    FIXTURE_CHILD_CHECK(work.listener >= 0);
    FIXTURE_CHILD_CHECK(getsockname(work.listener, (struct sockaddr *)&address, &bytes) == 0);
    (void)snprintf(work.address, sizeof work.address, "127.0.0.1:%d",
                   ntohs(address.sin_port)); /* it fits */
    FIXTURE_CHILD_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.workers = 2;
    config.driver = driver;
    int rc = numio_runtime_create(&config, &runtime);
    FIXTURE_CHILD_CHECK(rc == 0, "%d", rc);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    FIXTURE_CHILD_CHECK(numio_status(handle, &status) == 0);
    FIXTURE_CHILD_CHECK(strcmp(status.driver, "epoll") == 0, "%s", status.driver);
    FIXTURE_CHILD_CHECK(fixture_has_reason(handle, "io_uring"));
    FIXTURE_CHILD_CHECK(numio_node_status(handle, 0, &node) == 0);
    FIXTURE_CHILD_CHECK(node.os_node == -1);
    FIXTURE_CHILD_CHECK(fixture_has_reason(handle, "mbind"));
    int64_t result = numio_block_on(handle, do_a_bit_of_everything, &work);
    FIXTURE_CHILD_CHECK(result == 0 && work.wrong == 0, "%ld, line %ld", (long)result,
                        (long)work.wrong);
    numio_runtime_destroy(runtime);
    return 0;
}

static int confined_auto(void)
{
    if (!confine()) {
        (void)fprintf(stderr, "seccomp is not available");
        return 77;
    }
    int rc = run_confined(NUMIO_DRIVER_AUTO);
    return rc ? rc : run_confined(NUMIO_DRIVER_SQPOLL); /* a wish is demoted, with its reason */
}

Test(faults, without_io_uring_and_mbind_everything_works_and_says_why, .timeout = 30)
{
    fixture_expect_child(confined_auto);
}

static int confined_strict(void)
{
    struct numio_config config;
    struct numio_runtime *runtime = NULL;
    if (!confine()) {
        (void)fprintf(stderr, "seccomp is not available");
        return 77;
    }
    FIXTURE_CHILD_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.memory_strict = true;
    int rc = numio_runtime_create(&config, &runtime);
    FIXTURE_CHILD_CHECK(rc == -EXDEV, "%d", rc);
    FIXTURE_CHILD_CHECK(strstr(numio_strerror_detail(), "mbind") ||
                        strstr(numio_strerror_detail(), "memory_strict"));
    return 0;
}

Test(faults, strict_memory_without_mbind_is_refused, .timeout = 30)
{
    fixture_expect_child(confined_strict);
}

/* ---- no memory under an operation --------------------------------------------------------- */

static int64_t operate_without_memory(void *arg)
{
    struct work *work = arg;
    char buffer[64];
    int64_t results[12];
    unsigned count = 0;
    int ends[2];
    struct statx stat;
    EXPECT(work, pipe2(ends, O_CLOEXEC) == 0);
    int file = (int)(results[count++] = numio_open("/proc/self/exe", O_RDONLY | O_CLOEXEC, 0));
    results[count++] = numio_pread(file, buffer, sizeof buffer, 0);
    results[count++] = numio_statx(AT_FDCWD, "/", 0, STATX_SIZE, &stat);
    results[count++] = numio_fsync(file);
    results[count++] = numio_poll_fd(ends[1], POLLOUT);
    results[count++] = numio_write(ends[1], "x", 1);
    results[count++] = numio_read(ends[0], buffer, 1);
    results[count++] = numio_sleep_ns(100);
    results[count++] = numio_close(ends[0]);
    results[count++] = numio_close(ends[1]);
    if (file >= 0)
        results[count++] = numio_close(file);
    for (unsigned i = 0; i < count; i++)
        EXPECT(work, results[i] >= 0 || results[i] == -ENOMEM || results[i] == -EAGAIN ||
                         (file < 0 && results[i] == -EBADF));
    return 0;
}

FIXTURE_EACH(faults, operations_survive_each_allocation_failing, .timeout = 60)
{
    struct numio_status status;
    cr_assert_eq(numio_status(numio_runtime_handle(runtime), &status), 0);
    enum numio_driver driver = !strcmp(status.driver, "epoll")   ? NUMIO_DRIVER_EPOLL
                               : !strcmp(status.driver, "defer") ? NUMIO_DRIVER_DEFER
                                                                 : NUMIO_DRIVER_SQPOLL;
    for (long nth = 1; nth < FAULTS_MAX; nth++) {
        struct numio_config config = fixture_config(driver, 1);
        struct numio_runtime *fresh = fixture_create(&config);
        struct work work = { 0 };
        nio_fault_arm(nth);
        int64_t result = numio_block_on(numio_runtime_handle(fresh), operate_without_memory, &work);
        bool has_struck = nio_fault_struck();
        nio_fault_arm(0);
        cr_assert_eq(work.wrong, 0, "allocation %ld, line %ld", nth, (long)work.wrong);
        cr_assert(result == 0 || result == -ENOMEM, "%ld", (long)result);
        work_init(&work);
        work_once(fresh, &work); /* it has recovered */
        (void)close(work.listener);
        numio_runtime_destroy(fresh);
        if (!has_struck)
            return;
    }
    cr_assert_fail("more than %d allocations", FAULTS_MAX);
}
