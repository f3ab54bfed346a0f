/* SPDX-License-Identifier: MIT */
/* Homes of descriptors, and listeners whose connections start at home.  What takes several real
 * nodes is tried in guests (numa/numa_home.c). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <numio/deadline.h>
#include <numio/io.h>
#include <numio/net.h>

#include "runtime/net/steer.h"
#include "tests/runtime_fixture.h"

enum { CLIENTS = 40 };

TestSuite(net, .timeout = 60);

static struct numio_runtime *start(const char *topology)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 2);
    config.topology = topology;
    return fixture_create(&config);
}

static int connect_to(unsigned port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0, "%s",
                 strerror(errno));
    return fd;
}

/* What handlers saw; any worker. */
struct served {
    _Atomic unsigned count, on_node[2];
};

static void count(_Atomic unsigned *counter)
{
    /* relaxed: a sum; the byte that the client reads publishes nothing to it */
    (void)atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static unsigned counted(_Atomic unsigned *counter)
{
    /* relaxed: the socket has ordered it for all practical purposes */
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Sends one byte and closes. */
static int64_t serve_one(int fd, void *arg)
{
    struct served *served = arg;
    int node = numio_current_node();
    if (node >= 0 && node < 2)
        count(&served->on_node[node]);
    count(&served->count);
    int64_t rc = numio_write_all(fd, "x", 1);
    (void)numio_close(fd); /* the client looks at the byte */
    return rc;
}

static struct numio_listener *open_group(struct numio_runtime *runtime,
                                         enum numio_listen_group group)
{
    struct numio_listen_opts opts;
    struct numio_listener *listener = NULL;
    numio_listen_opts_init(&opts, sizeof opts);
    opts.address = "127.0.0.1:0";
    opts.group = group;
    cr_assert_eq(numio_listener_open(numio_runtime_handle(runtime), &opts, &listener), 0, "%s",
                 numio_strerror_detail());
    return listener;
}

static void check_clients(struct numio_listener *listener, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char byte = 0;
        int fd = connect_to(numio_listener_port(listener));
        cr_assert_eq(read(fd, &byte, 1), 1, "%s", strerror(errno));
        cr_assert_eq(byte, 'x');
        (void)close(fd);
    }
}

static void check_group(enum numio_listen_group group, unsigned members)
{
    struct numio_runtime *runtime = start("pack:2 numa:1 core:1 pu:1");
    struct numio_listener *listener = open_group(runtime, group);
    struct served served = { 0 };
    cr_assert_eq(numio_listener_count(listener), members);
    cr_assert_eq(numio_listener_serve(listener, serve_one, &served), 0);
    cr_assert_eq(numio_listener_serve(listener, serve_one, &served), -EALREADY);
    check_clients(listener, CLIENTS);
    cr_assert_eq(counted(&served.count), CLIENTS);
    cr_assert_null(numio_listener_reason(listener), "%s", numio_listener_reason(listener));
    cr_assert_eq(numio_listener_close(listener), 0);
    numio_runtime_destroy(runtime);
}

Test(net, one_socket_serves)
{
    check_group(NUMIO_LISTEN_ONE, 1);
}

Test(net, a_socket_for_each_node_serves)
{
    check_group(NUMIO_LISTEN_PER_NODE, 2);
}

Test(net, a_socket_for_each_worker_serves_and_has_its_cpu)
{
    check_group(NUMIO_LISTEN_PER_WORKER, 2);
    struct numio_runtime *runtime = start("pack:2 numa:1 core:1 pu:1");
    struct numio_listener *listener = open_group(runtime, NUMIO_LISTEN_PER_WORKER);
    for (unsigned i = 0; i < 2; i++) {
        struct numio_worker_status worker;
        int cpu = -1;
        socklen_t bytes = sizeof cpu;
        cr_assert_eq(numio_worker_status(numio_runtime_handle(runtime), i, &worker), 0);
        cr_assert_eq(
            getsockopt(numio_listener_fd(listener, i), SOL_SOCKET, SO_INCOMING_CPU, &cpu, &bytes),
            0);
        cr_assert_eq(cpu, worker.bind_cpu);
        cr_assert_eq(numio_listener_node(listener, i), (int)i);
    }
    cr_assert_eq(numio_listener_fd(listener, 2), -EINVAL);
    cr_assert_eq(numio_listener_close(listener), 0);
    numio_runtime_destroy(runtime);
}

/* Connects from one CPU after the other: each goes to the node whose worker has that CPU. */
Test(net, a_connection_starts_on_the_node_of_the_cpu_it_came_in_on)
{
    cpu_set_t before, one;
    cr_assert_eq(sched_getaffinity(0, sizeof before, &before), 0);
    if (CPU_COUNT(&before) < 2)
        cr_skip_test("one CPU");
    struct numio_runtime *runtime = start("pack:2 numa:1 core:1 pu:1");
    struct numio_listener *listener = open_group(runtime, NUMIO_LISTEN_PER_NODE);
    struct served served = { 0 };
    cr_assert_eq(numio_listener_serve(listener, serve_one, &served), 0);
    for (unsigned i = 0; i < 2; i++) {
        struct numio_worker_status worker;
        cr_assert_eq(numio_worker_status(numio_runtime_handle(runtime), i, &worker), 0);
        CPU_ZERO(&one);
        CPU_SET(worker.bind_cpu, &one);
        cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
        unsigned on_it = counted(&served.on_node[i]);
        check_clients(listener, CLIENTS);
        /* One may be stolen, or come in after the thread was moved: not half of them. */
        cr_assert_geq(counted(&served.on_node[i]) - on_it, CLIENTS * 3 / 4, "node %u: %u", i,
                      counted(&served.on_node[i]) - on_it);
    }
    cr_assert_eq(numio_listener_close(listener), 0);
    numio_runtime_destroy(runtime);
}

Test(net, connections_before_the_serving_are_not_lost)
{
    struct numio_runtime *runtime = start("pack:2 numa:1 core:1 pu:1");
    struct numio_listener *listener = open_group(runtime, NUMIO_LISTEN_PER_WORKER);
    struct served served = { 0 };
    int fds[CLIENTS];
    for (unsigned i = 0; i < CLIENTS; i++)
        fds[i] = connect_to(numio_listener_port(listener));
    cr_assert_eq(numio_listener_serve(listener, serve_one, &served), 0);
    for (unsigned i = 0; i < CLIENTS; i++) {
        char byte = 0;
        cr_assert_eq(read(fds[i], &byte, 1), 1);
        (void)close(fds[i]);
    }
    cr_assert_eq(counted(&served.count), CLIENTS);
    cr_assert_eq(numio_listener_close(listener), 0);
    numio_runtime_destroy(runtime);
}

Test(net, without_descriptors_connections_wait)
{
    struct numio_runtime *runtime = start(NULL);
    struct numio_listener *listener = open_group(runtime, NUMIO_LISTEN_ONE);
    struct served served = { 0 };
    struct rlimit limit, none;
    char byte = 0;
    cr_assert_eq(numio_listener_serve(listener, serve_one, &served), 0);
    check_clients(listener, 1);
    int fd = connect_to(numio_listener_port(listener));
    cr_assert_eq(read(fd, &byte, 1), 1);
    (void)close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = (rlim_t)fd + 1;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)numio_listener_port(listener)),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    (void)usleep(50000); /* some vain tries */
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert_eq(read(fd, &byte, 1), 1, "it is served once there are descriptors again");
    (void)close(fd);
    cr_assert_eq(numio_listener_close(listener), 0);
    numio_runtime_destroy(runtime);
}

static int count_fds(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

Test(net, nothing_is_left_whether_closed_before_or_after_the_shutdown)
{
    for (unsigned after = 0; after < 2; after++) {
        struct numio_runtime *runtime = start(NULL);
        int before = count_fds();
        struct numio_listener *listener = open_group(runtime, NUMIO_LISTEN_PER_WORKER);
        struct served served = { 0 };
        int fds[CLIENTS];
        cr_assert_eq(numio_listener_serve(listener, serve_one, &served), 0);
        for (unsigned i = 0; i < CLIENTS; i++)
            fds[i] = connect_to(numio_listener_port(listener));
        if (after)
            cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
        cr_assert_eq(numio_listener_close(listener), 0);
        if (!after)
            cr_assert_eq(numio_runtime_shutdown(runtime, -1, NULL, 0, NULL), 0);
        for (unsigned i = 0; i < CLIENTS; i++)
            (void)close(fds[i]);
        numio_runtime_destroy(runtime);
        cr_assert_leq(count_fds(), before, "descriptors are left");
    }
}

static int64_t close_here(void *arg)
{
    return numio_listener_close(arg);
}

static enum numio_poll close_in_poll(void *state, struct numio_context *cx)
{
    struct numio_listener *listener = *(struct numio_listener **)state;
    *(int *)numio_context_output(cx) = numio_listener_close(listener);
    return NUMIO_READY;
}

Test(net, a_coroutine_may_close_and_a_future_is_refused)
{
    struct numio_runtime *runtime = start(NULL);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_listener *listener = open_group(runtime, NUMIO_LISTEN_ONE);
    struct served served = { 0 };
    struct numio_join *join;
    int rc = 0;
    struct numio_future future = {
        .poll = close_in_poll, .state = &listener, .size = sizeof listener, .output_size = sizeof rc
    };
    cr_assert_eq(numio_listener_serve(listener, serve_one, &served), 0);
    cr_assert_eq(numio_spawn(handle, &future, NULL, &join), 0);
    cr_assert_eq(numio_join_await_output(&join, &rc, sizeof rc), 0);
    cr_assert_eq(rc, -EDEADLK);
    check_clients(listener, 1); /* it serves on */
    cr_assert_eq(numio_block_on(handle, close_here, listener), 0);
    numio_runtime_destroy(runtime);
}

/* ---- draining ------------------------------------------------------------------------------ */

struct draining {
    struct numio_listener *listener;
    _Atomic uint32_t begun; /* handlers */
    _Atomic uint32_t ended;
    uint64_t limit_ns;
};

/* Ends when its client does. */
static int64_t serve_until_eof(int fd, void *arg)
{
    struct draining *draining = arg;
    char byte;
    fixture_set(&draining->begun, fixture_get(&draining->begun) + 1); /* one after the other */
    int64_t n = numio_read(fd, &byte, 1);
    (void)numio_close(fd); /* nothing was written */
    if (numio_sleep_ns(2000000) == 0)
        fixture_set(&draining->ended, fixture_get(&draining->ended) + 1);
    return n;
}

static int64_t drain_within(void *arg)
{
    struct draining *draining = arg;
    struct numio_deadline deadline;
    int rc = numio_deadline_push(&deadline, draining->limit_ns);
    if (rc < 0)
        return rc;
    int64_t result = numio_listener_drain(draining->listener);
    (void)numio_deadline_pop(&deadline); /* the result says it */
    return result;
}

static void check_drain(enum numio_listen_group group)
{
    struct numio_runtime *runtime = start("pack:2 numa:1 core:1 pu:1");
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct draining draining = { .listener = open_group(runtime, group), .limit_ns = 30000000 };
    unsigned port = numio_listener_port(draining.listener);
    int fds[2];
    cr_assert_eq(numio_listener_drain(draining.listener), -EINVAL, "no coroutine");
    cr_assert_eq(numio_listener_serve(draining.listener, serve_until_eof, &draining), 0);
    for (unsigned i = 0; i < 2; i++) {
        fds[i] = connect_to(port);
        cr_assert(fixture_wait(&draining.begun, i + 1));
    }
    cr_assert_eq(numio_block_on(handle, drain_within, &draining), -ETIMEDOUT);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int late = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_neq(connect(late, (struct sockaddr *)&address, sizeof address), 0,
                  "nothing is accepted any more");
    (void)close(late);
    (void)close(fds[0]);
    cr_assert(fixture_wait(&draining.ended, 1));
    cr_assert_eq(numio_block_on(handle, drain_within, &draining), -ETIMEDOUT, "one runs still");
    (void)close(fds[1]);
    draining.limit_ns = 10000000000;
    cr_assert_eq(numio_block_on(handle, drain_within, &draining), 0);
    cr_assert_eq(fixture_get(&draining.ended), 2, "it has waited for the handlers' ends");
    cr_assert_eq(numio_listener_close(draining.listener), 0);
    numio_runtime_destroy(runtime);
}

Test(net, a_drained_listener_accepts_nothing_and_waits_for_its_handlers)
{
    check_drain(NUMIO_LISTEN_ONE);
    check_drain(NUMIO_LISTEN_PER_WORKER);
}

Test(net, options_that_make_no_sense_are_refused_by_name)
{
    struct numio_runtime *runtime = start("pack:2 numa:1 core:1 pu:1");
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_listener *listener = NULL;
    static const struct {
        const char *address;
        int backlog;
        unsigned group;
        int node;
        const char *word;
    } bad[] = {
        { "nonsense", 0, 0, NUMIO_NODE_ANY, "nonsense" },
        { NULL, 0, 0, NUMIO_NODE_ANY, "address" },
        { "127.0.0.1:0", -1, 0, NUMIO_NODE_ANY, "backlog" },
        { "127.0.0.1:0", 0, 3, NUMIO_NODE_ANY, "group" },
        { "127.0.0.1:0", 0, 0, 2, "node" },
        { "127.0.0.1:0", 0, NUMIO_LISTEN_PER_NODE, 1, "node" },
        { "192.0.2.1:1", 0, NUMIO_LISTEN_PER_NODE, NUMIO_NODE_ANY, "192.0.2.1" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct numio_listen_opts opts;
        numio_listen_opts_init(&opts, sizeof opts);
        opts.address = bad[i].address;
        opts.backlog = bad[i].backlog;
        opts.group = (enum numio_listen_group)bad[i].group;
        opts.node = bad[i].node;
        cr_assert_lt(numio_listener_open(handle, &opts, &listener), 0, "%zu", i);
        cr_assert(strstr(numio_strerror_detail(), bad[i].word), "%zu: %s", i,
                  numio_strerror_detail());
        cr_assert_null(listener);
    }
    numio_runtime_destroy(runtime);
}

Test(net, what_hangs_on_nothing_has_no_home)
{
    struct numio_runtime *runtime = start("pack:2 numa:1 core:1 pu:1");
    struct numio_handle *handle = numio_runtime_handle(runtime);
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    cr_assert_eq(numio_home_of_fd(handle, pipes[0]), -ENODATA);
    cr_assert(strstr(numio_strerror_detail(), "neither a file, a device nor a socket"));
    int any = numio_tcp_listen("*:0", 0);
    cr_assert_eq(numio_home_of_fd(handle, any), -ENODATA);
    cr_assert(strstr(numio_strerror_detail(), "no interface"));
    int loopback = numio_tcp_listen("127.0.0.1:0", 0);
    cr_assert_eq(numio_home_of_fd(handle, loopback), -ENODATA);
    cr_assert_eq(numio_home_of_fd(handle, 1000), -EBADF);
    cr_assert_eq(numio_home_of_fd(NULL, any), -EINVAL);
    int event = eventfd(0, EFD_CLOEXEC);
    cr_assert_eq(numio_home_of_fd(handle, event), -ENODATA);
    (void)close(event);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    (void)close(any);
    (void)close(loopback);
    numio_runtime_destroy(runtime);
}

/* "Two packages, each with a node" with this machine's loopback on package 1: writes it to `path`.
 */
static void record_loopback_on_node_1(char *path)
{
    static const char from[] = "name=\"nvme0n1\" osdev_type=\"0\"",
                      to[] = "name=\"lo\" osdev_type=\"2\"";
    char text[32768];
    FILE *file = fopen(NIO_MACHINES_DIR "/devices.xml", "re");
    cr_assert_not_null(file);
    size_t length = fread(text, 1, sizeof text - 1, file);
    cr_assert(feof(file));
    text[length] = '\0';
    (void)fclose(file);
    char *at = strstr(text, from);
    cr_assert_not_null(at);
    int fd = mkstemps(path, 4);
    cr_assert_geq(fd, 0);
    cr_assert_gt(dprintf(fd, "%.*s%s%s", (int)(at - text), text, to, at + sizeof from - 1), 0);
    (void)close(fd);
}

Test(net, a_socket_is_at_home_where_its_interface_is)
{
    char path[] = "/tmp/numio_net_XXXXXX.xml";
    record_loopback_on_node_1(path);
    struct numio_runtime *runtime = start(path);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_listener *listener = open_group(runtime, NUMIO_LISTEN_ONE);
    cr_expect_eq(numio_home_of_fd(handle, numio_listener_fd(listener, 0)), 1, "by its address");
    cr_expect_eq(numio_listener_node(listener, 0), 1, "it is accepted there");
    cr_assert_eq(numio_listener_close(listener), 0);
    struct numio_listen_opts opts;
    numio_listen_opts_init(&opts, sizeof opts);
    opts.address = "127.0.0.1:0";
    opts.node = 0;
    cr_assert_eq(numio_listener_open(handle, &opts, &listener), 0);
    cr_expect_eq(numio_listener_node(listener, 0), 0, "the option comes first");
    cr_assert_eq(numio_listener_close(listener), 0);
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_expect_eq(numio_home_of_fd(handle, any), -ENODATA);
    cr_assert_eq(setsockopt(any, SOL_SOCKET, SO_BINDTODEVICE, "lo", IF_NAMESIZE), 0, "%s",
                 strerror(errno));
    cr_expect_eq(numio_home_of_fd(handle, any), 1, "by SO_BINDTODEVICE");
    (void)close(any);
    numio_runtime_destroy(runtime);
    cr_assert_eq(unlink(path), 0);
}

/* setsockopt(.., SOL_SOCKET, `option`, ..) fails from now on. */
static void forbid_option(int option)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setsockopt, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)option, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOPROTOOPT),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = { .len = sizeof rules / sizeof *rules, .filter = rules };
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0, "%s", strerror(errno));
}

/* The group serves all the same, and says what it lacks. */
static void check_refused(int option, const char *word)
{
    struct numio_runtime *runtime = start("pack:2 numa:1 core:1 pu:1");
    forbid_option(option);
    struct numio_listener *listener = open_group(runtime, NUMIO_LISTEN_PER_WORKER);
    struct served served = { 0 };
    const char *reason = numio_listener_reason(listener);
    cr_assert_not_null(reason);
    cr_expect(strstr(reason, word) && strstr(reason, strerror(ENOPROTOOPT)), "%s", reason);
    cr_assert_eq(numio_listener_serve(listener, serve_one, &served), 0);
    check_clients(listener, CLIENTS);
    cr_assert_eq(numio_listener_close(listener), 0);
    numio_runtime_destroy(runtime);
}

Test(net, a_kernel_that_refuses_incoming_cpu_is_told)
{
    check_refused(SO_INCOMING_CPU, "SO_INCOMING_CPU");
}

Test(net, a_kernel_that_refuses_the_steering_is_told)
{
    check_refused(SO_ATTACH_REUSEPORT_CBPF, "SO_ATTACH_REUSEPORT_CBPF");
}

Test(net, more_cpus_than_the_steering_holds_are_refused)
{
    static struct nio_steer map[NIO_STEER_MAX + 1];
    cr_assert_eq(nio_steer_by_cpu(-1, map, NIO_STEER_MAX + 1), -E2BIG);
    cr_assert_eq(nio_steer_by_cpu(-1, map, NIO_STEER_MAX), -EBADF);
}

static bool has_at_most_fds(void *arg)
{
    return count_fds() <= *(const int *)arg;
}

/* One pass while an allocation may fail: its result, and whether the client was served. */
static int open_serve_close(struct numio_runtime *runtime, struct served *served, bool *ret_served)
{
    struct numio_listen_opts opts;
    struct numio_listener *listener = NULL;
    char byte = 0;
    numio_listen_opts_init(&opts, sizeof opts);
    opts.address = "127.0.0.1:0";
    opts.group = NUMIO_LISTEN_PER_NODE;
    int rc = numio_listener_open(numio_runtime_handle(runtime), &opts, &listener);
    if (rc < 0) {
        cr_assert_null(listener);
        return rc;
    }
    rc = numio_listener_serve(listener, serve_one, served);
    if (rc == 0) {
        int fd = connect_to(numio_listener_port(listener));
        *ret_served = read(fd, &byte, 1) == 1;
        (void)close(fd);
    }
    cr_assert_eq(numio_listener_close(listener), 0);
    return rc;
}

Test(net, every_failing_allocation_is_reported_or_waited_out_and_nothing_is_left)
{
    struct numio_runtime *runtime = start("pack:2 numa:1 core:1 pu:1");
    struct served served = { 0 };
    bool is_served = false, has_struck = true;
    long nth, reported = 0;
    cr_assert_eq(open_serve_close(runtime, &served, &is_served), 0);
    cr_assert(is_served);
    int before = count_fds();
    for (nth = 1; has_struck; nth++) {
        cr_assert_lt(nth, 300);
        is_served = false;
        nio_fault_arm(nth);
        int rc = open_serve_close(runtime, &served, &is_served);
        has_struck = nio_fault_struck();
        nio_fault_arm(0);
        cr_assert(rc == 0 || (rc == -ENOMEM && has_struck), "allocation %ld: %d", nth, rc);
        cr_assert(rc < 0 || is_served, "allocation %ld: the client got nothing", nth);
        cr_assert(fixture_until(has_at_most_fds, &before), "allocation %ld: descriptors", nth);
        reported += rc < 0;
    }
    cr_assert_gt(reported, 0);
    cr_assert_gt(nth, 3, "the connection's allocation has failed too");
    numio_runtime_destroy(runtime);
}

Test(net, a_group_that_runs_out_of_descriptors_leaves_none)
{
    struct numio_runtime *runtime = start("pack:2 numa:1 core:1 pu:1");
    struct numio_listen_opts opts;
    struct numio_listener *listener = NULL;
    struct rlimit limit, few;
    numio_listen_opts_init(&opts, sizeof opts);
    opts.address = "127.0.0.1:0";
    opts.group = NUMIO_LISTEN_PER_NODE;
    int before = count_fds(), next = dup(0);
    cr_assert_geq(next, 0);
    (void)close(next);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = limit;
    few.rlim_cur = (rlim_t)next + 1; /* one socket of the two */
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    int rc = numio_listener_open(numio_runtime_handle(runtime), &opts, &listener);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert_eq(rc, -EMFILE);
    cr_assert(strstr(numio_strerror_detail(), "listen: socket"), "%s", numio_strerror_detail());
    cr_assert_eq(count_fds(), before);
    numio_runtime_destroy(runtime);
}

Test(net, on_a_machine_with_one_node_that_is_everybodys_home)
{
    struct numio_runtime *runtime = start("pack:1 numa:1 core:2 pu:1");
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    cr_assert_eq(numio_home_of_fd(numio_runtime_handle(runtime), pipes[0]), 0);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    numio_runtime_destroy(runtime);
}
