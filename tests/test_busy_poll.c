/* SPDX-License-Identifier: MIT */
/* Promises of numio/busy_poll.h and of the configuration's napi_busy_poll_us, napi_prefer_busy_poll
 * and cpu_dma_latency_us: what was asked for is set where the kernel says so, and what is refused
 * is told. */
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "tests/driver_each.h"
#include "tests/runtime_fixture.h"

enum { NOBODY = 65534, REGISTER_NAPI = 27, NAPI_US = 70 };

static int option_of(int fd, int option)
{
    int value = -1;
    socklen_t bytes = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &bytes) == 0 ? value : -errno;
}

/* ---- sockets ------------------------------------------------------------------------------ */

/* What takes CAP_NET_ADMIN runs as root only. */
static void need_net_admin(void)
{
    int fd = numio_udp_bind("127.0.0.1:0");
    struct numio_busy_poll how = { .us = 1, .is_preferred = true };
    cr_assert_geq(fd, 0);
    int rc = numio_busy_poll_set(fd, &how);
    (void)close(fd); /* only asked */
    if (rc == -EPERM)
        cr_skip_test("%s", numio_strerror_detail());
    cr_assert_eq(rc, 0, "%s", numio_strerror_detail());
}

static const struct numio_busy_poll all_options = { .us = 50, .is_preferred = true, .budget = 16 };

/* The budget can be set and not be read. */
static bool has_all_options(int fd)
{
    return option_of(fd, SO_BUSY_POLL) == 50 && option_of(fd, SO_PREFER_BUSY_POLL) == 1;
}

Test(busy_poll, the_options_of_a_socket_are_set_and_zeroes_leave_them)
{
    need_net_admin();
    struct numio_busy_poll nothing = { 0 };
    int fd = numio_udp_bind("127.0.0.1:0");
    cr_assert_geq(fd, 0);
    cr_assert_eq(numio_busy_poll_set(fd, &all_options), 0, "%s", numio_strerror_detail());
    cr_assert(has_all_options(fd));
    cr_assert_eq(numio_busy_poll_set(fd, &nothing), 0);
    cr_assert(has_all_options(fd));
    (void)close(fd);
}

Test(busy_poll, tcp_options_set_them_too)
{
    need_net_admin();
    struct numio_tcp_opts opts;
    numio_tcp_opts_init(&opts, sizeof opts);
    opts.busy_poll = all_options;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(numio_tcp_set(fd, &opts), 0, "%s", numio_strerror_detail());
    cr_assert(has_all_options(fd));
    (void)close(fd);
}

struct accepted {
    _Atomic uint32_t is_done;
    bool has_options;
};

static int64_t look_at_options(int fd, void *arg)
{
    struct accepted *accepted = arg;
    accepted->has_options = has_all_options(fd);
    (void)numio_close(fd); /* looked at */
    fixture_set(&accepted->is_done, 1);
    return 0;
}

static struct numio_listener *listen_polling(struct numio_handle *handle,
                                             const struct numio_busy_poll *how)
{
    struct numio_listener *listener;
    struct numio_listen_opts opts;
    numio_listen_opts_init(&opts, sizeof opts);
    opts.address = "127.0.0.1:0";
    opts.busy_poll = *how;
    return numio_listener_open(handle, &opts, &listener) == 0 ? listener : NULL;
}

static int64_t connect_once(void *arg)
{
    struct numio_address address;
    char text[NUMIO_ADDRESS_TEXT_BYTES];
    int fd = numio_listener_fd(arg, 0);
    if (numio_udp_local(fd, &address) < 0)
        return -EINVAL;
    return numio_tcp_connect(numio_address_print(&address, text, sizeof text));
}

Test(busy_poll, connections_have_them_from_their_listener, .timeout = 20)
{
    need_net_admin();
    struct numio_runtime *runtime = fixture_start(1);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_listener *listener = listen_polling(handle, &all_options);
    struct accepted accepted = { 0 };
    cr_assert_not_null(listener, "%s", numio_strerror_detail());
    cr_assert_null(numio_listener_reason(listener), "%s", numio_listener_reason(listener));
    cr_assert_eq(numio_listener_serve(listener, look_at_options, &accepted), 0);
    int64_t fd = numio_block_on(handle, connect_once, listener);
    cr_assert_geq(fd, 0);
    cr_assert(fixture_wait(&accepted.is_done, 1));
    cr_assert(accepted.has_options);
    (void)close((int)fd);
    cr_assert_eq(numio_listener_close(listener), 0);
    numio_runtime_destroy(runtime);
}

static bool become_nobody(void)
{
    return geteuid() != 0 ||
           (setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

static int is_told_that_it_may_not(void)
{
    struct numio_runtime *runtime;
    struct numio_tcp_opts opts;
    struct accepted accepted = { 0 };
    FIXTURE_CHILD_CHECK(become_nobody());
    numio_tcp_opts_init(&opts, sizeof opts);
    opts.busy_poll = all_options;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = numio_tcp_set(fd, &opts);
    FIXTURE_CHILD_CHECK(rc == -EPERM, "%d", rc);
    /* on newer kernels the time alone takes no right */
    FIXTURE_CHILD_CHECK(strstr(numio_strerror_detail(), "BUSY_POLL = "));
    FIXTURE_CHILD_CHECK(strstr(numio_strerror_detail(), "CAP_NET_ADMIN"));
    opts.busy_poll = (struct numio_busy_poll){ .budget = 16 };
    rc = numio_tcp_set(fd, &opts);
    FIXTURE_CHILD_CHECK(rc == -EPERM, "%d", rc);
    FIXTURE_CHILD_CHECK(strstr(numio_strerror_detail(), "SO_BUSY_POLL_BUDGET = 16"));
    FIXTURE_CHILD_CHECK(numio_runtime_create(NULL, &runtime) == 0);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_listener *listener = listen_polling(handle, &all_options);
    FIXTURE_CHILD_CHECK(listener != NULL);
    const char *reason = numio_listener_reason(listener);
    FIXTURE_CHILD_CHECK(reason && strstr(reason, "BUSY_POLL = ") && strstr(reason, "CAP_NET_ADMIN"),
                        "%s", reason);
    FIXTURE_CHILD_CHECK(numio_listener_serve(listener, look_at_options, &accepted) == 0);
    FIXTURE_CHILD_CHECK(numio_block_on(handle, connect_once, listener) >= 0);
    FIXTURE_CHILD_CHECK(fixture_wait(&accepted.is_done, 1)); /* it serves all the same */
    FIXTURE_CHILD_CHECK(numio_listener_close(listener) == 0);
    numio_runtime_destroy(runtime);
    return 0;
}

Test(busy_poll, an_ordinary_user_is_told_and_the_listener_serves_without, .timeout = 30)
{
    fixture_expect_child(is_told_that_it_may_not);
}

Test(busy_poll, values_that_no_kernel_takes_are_refused_by_the_options_name)
{
    need_net_admin();
    struct numio_busy_poll budget = { .budget = 65536 }, time = { .us = UINT32_MAX };
    int fd = numio_udp_bind("127.0.0.1:0");
    cr_assert_eq(numio_busy_poll_set(fd, &budget), -EINVAL);
    cr_assert(strstr(numio_strerror_detail(), "SO_BUSY_POLL_BUDGET = 65536"));
    cr_assert_eq(numio_busy_poll_set(fd, &time), -EINVAL);
    cr_assert(strstr(numio_strerror_detail(), "SO_BUSY_POLL = 4294967295"));
    (void)close(fd);
    cr_assert_eq(numio_busy_poll_set(-1, &all_options), -EBADF);
}

/* ---- rings -------------------------------------------------------------------------------- */

/* The kernel's struct io_uring_napi.  Setting it gives what was set before. */
struct napi {
    uint32_t us;
    uint8_t is_preferred;
    uint8_t zero[11];
};

static void check_ring(enum numio_driver profile)
{
    each_require_uring();
    struct nio_driver_options options = harness_options(profile);
    struct napi napi = { 0 };
    options.napi_us = NAPI_US;
    options.napi_prefer = true;
    struct nio_driver *driver = each_create(&options);
    long rc = syscall(SYS_io_uring_register, nio_driver_ring_fd(driver), REGISTER_NAPI, &napi, 1);
    if (rc < 0) { /* then the driver must have said so */
        const char *reason = nio_driver_reason(driver);
        cr_assert_eq(nio_driver_napi_us(driver), 0);
        cr_assert(reason && strstr(reason, "do not busy-poll"), "%s", reason);
    } else {
        cr_assert_null(nio_driver_reason(driver), "%s", nio_driver_reason(driver));
        cr_assert_eq(nio_driver_napi_us(driver), NAPI_US);
        cr_assert_eq(napi.us, NAPI_US);
        cr_assert_eq(napi.is_preferred, 1);
    }
    nio_driver_destroy(driver);
}

Test(busy_poll, the_ring_has_what_was_asked_for_sqpoll, .timeout = 20)
{
    check_ring(NUMIO_DRIVER_SQPOLL);
}

Test(busy_poll, the_ring_has_what_was_asked_for_defer, .timeout = 20)
{
    check_ring(NUMIO_DRIVER_DEFER);
}

static struct numio_status status_of(struct numio_handle *handle)
{
    struct numio_status status = { 0 };
    if (numio_status(handle, &status) < 0)
        status.napi_busy_poll_us = UINT32_MAX; /* which no test expects */
    return status;
}

static int64_t use_the_ring(void *arg)
{
    int64_t fd = numio_open("/dev/null", O_WRONLY | O_CLOEXEC, 0);
    (void)arg;
    return fd < 0 ? fd : numio_close((int)fd);
}

static void polls_or_says_why(enum numio_driver driver)
{
    struct numio_config config = fixture_config(driver, 1);
    config.napi_busy_poll_us = NAPI_US;
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    bool does_poll = status_of(handle).napi_busy_poll_us == NAPI_US;
    cr_assert(does_poll || status_of(handle).napi_busy_poll_us == 0);
    cr_assert_neq(does_poll,
                  fixture_has_reason(handle, "busy-poll") || fixture_has_reason(handle, "napi"));
    cr_assert(driver != NUMIO_DRIVER_EPOLL || !does_poll);
    cr_assert_eq(numio_block_on(handle, use_the_ring, NULL), 0);
    numio_runtime_destroy(runtime);
}

Test(busy_poll, a_runtime_polls_or_says_why_not, .timeout = 30)
{
    polls_or_says_why(NUMIO_DRIVER_EPOLL);
    if (!fixture_has_uring())
        return;
    polls_or_says_why(NUMIO_DRIVER_SQPOLL);
    polls_or_says_why(NUMIO_DRIVER_DEFER);
}

/* As a kernel before 6.9: the registration fails with EINVAL. */
static int forbid_napi(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_register, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, REGISTER_NAPI, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = { .len = sizeof rules / sizeof *rules, .filter = rules };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0 ? -errno : 0;
}

static int works_on_an_older_kernel(void)
{
    struct numio_config config;
    struct numio_runtime *runtime;
    FIXTURE_CHILD_CHECK(forbid_napi() == 0);
    FIXTURE_CHILD_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.driver = NUMIO_DRIVER_DEFER;
    config.napi_busy_poll_us = NAPI_US;
    FIXTURE_CHILD_CHECK(numio_runtime_create(&config, &runtime) == 0);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    FIXTURE_CHILD_CHECK(status_of(handle).napi_busy_poll_us == 0);
    FIXTURE_CHILD_CHECK(
        fixture_has_reason(handle, "do not busy-poll: the kernel does not know it"));
    FIXTURE_CHILD_CHECK(numio_block_on(handle, use_the_ring, NULL) == 0);
    numio_runtime_destroy(runtime);
    return 0;
}

Test(busy_poll, where_the_kernel_lacks_napi_rings_work_and_the_reason_is_told, .timeout = 20)
{
    if (!fixture_has_uring())
        cr_skip_test("no io_uring here");
    fixture_expect_child(works_on_an_older_kernel);
}

/* ---- idle CPUs ---------------------------------------------------------------------------- */

static const char latency_device[] = "/dev/cpu_dma_latency";

/* Whether this process holds the device. */
static bool holds_latency(void)
{
    DIR *dir = opendir("/proc/self/fd");
    char target[64];
    bool does = false;
    cr_assert_not_null(dir);
    for (struct dirent *entry; !does && (entry = readdir(dir));) {
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        does = strcmp(target, latency_device) == 0;
    }
    (void)closedir(dir); /* only read from */
    return does;
}

/* What the kernel makes of everybody's wishes, in microseconds. */
static int latency_limit(void)
{
    int32_t us = -1;
    int fd = open(latency_device, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (read(fd, &us, sizeof us) != (ssize_t)sizeof us)
        us = -1;
    (void)close(fd); /* only read from */
    return us;
}

Test(busy_poll, cpu_dma_latency_is_held_while_the_runtime_lives, .timeout = 20)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    int before = latency_limit();
    if (before <= 0)
        cr_skip_test("%s: %s", latency_device, before < 0 ? strerror(-before) : "held by others");
    struct numio_runtime *runtime = fixture_create(&config);
    cr_assert_eq(status_of(numio_runtime_handle(runtime)).cpu_dma_latency_us, -1);
    cr_assert_not(holds_latency(), "nobody has asked for it");
    numio_runtime_destroy(runtime);
    config.cpu_dma_latency_us = 0;
    runtime = fixture_create(&config);
    struct numio_handle *handle = numio_handle_ref(numio_runtime_handle(runtime));
    cr_assert_eq(status_of(handle).cpu_dma_latency_us, 0);
    cr_assert_not(fixture_has_reason(handle, "cpu_dma_latency"));
    cr_assert(holds_latency());
    cr_assert_eq(latency_limit(), 0);
    numio_runtime_destroy(runtime);
    cr_assert_not(holds_latency(), "not even while there is a handle");
    numio_handle_unref(handle);
}

static int is_told_that_latency_is_refused(void)
{
    struct numio_config config;
    struct numio_runtime *runtime;
    FIXTURE_CHILD_CHECK(become_nobody());
    if (access(latency_device, W_OK) == 0)
        return 77;
    FIXTURE_CHILD_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.cpu_dma_latency_us = 0;
    FIXTURE_CHILD_CHECK(numio_runtime_create(&config, &runtime) == 0);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    FIXTURE_CHILD_CHECK(status_of(handle).cpu_dma_latency_us == -1);
    FIXTURE_CHILD_CHECK(fixture_has_reason(handle, latency_device));
    numio_runtime_destroy(runtime);
    return 0;
}

Test(busy_poll, a_refused_cpu_dma_latency_is_told, .timeout = 20)
{
    fixture_expect_child(is_told_that_latency_is_refused);
}
