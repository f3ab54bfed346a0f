/* SPDX-License-Identifier: MIT */
/* Registered memory: pages of it are given out once, requests in it use the registration and read
 * and write the same bytes, the rings of a node share it, and there is less of it, with the reason,
 * where no more may be pinned. */
#include "tests/runtime_fixture.h"

#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "alloc/page_pool.h"
#include "runtime/sched/worker.h"
#include "tests/seeded.h"
#include "tests/steps.h"

enum { PAGES = 300, PIECES = 40, STEPS = 4000, NOBODY = 65534, BYTES = 64 << 10 };
static const size_t registered_bytes = 4 << 20;

static void expect_all(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    int64_t line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
    cr_assert_eq(line, 0, "line %ld (%s)", (long)line, numio_strerror_detail());
}

/* ---- the pool ----------------------------------------------------------------------------- */

Test(registered, no_page_is_given_out_twice_and_all_come_back, .timeout = 30)
{
    struct nio_page_pool pool = { 0 };
    struct nio_rng rng = seeded_rng(7);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *base = aligned_alloc(page, PAGES * page);
    struct {
        char *memory;
        size_t bytes;
    } pieces[PIECES] = { 0 };
    cr_assert_null(nio_page_pool_alloc(&pool, 1), "one that was never made has none");
    cr_assert_eq(nio_page_pool_init(&pool, base, PAGES * page), 0);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = nio_rng_below(&rng, PIECES);
        if (pieces[i].memory) {
            for (size_t k = 0; k < pieces[i].bytes; k += page)
                cr_assert_eq(pieces[i].memory[k], (char)i, "somebody else has written here");
            cr_assert(nio_page_pool_free(&pool, pieces[i].memory, pieces[i].bytes));
            pieces[i].memory = NULL;
            continue;
        }
        pieces[i].bytes = 1 + nio_rng_below(&rng, (unsigned)(20 * page));
        pieces[i].memory = nio_page_pool_alloc(&pool, pieces[i].bytes);
        if (!pieces[i].memory)
            continue; /* no piece of that size is left */
        cr_assert_eq((uintptr_t)pieces[i].memory % page, 0);
        for (size_t k = 0; k < pieces[i].bytes; k += page)
            pieces[i].memory[k] = (char)i;
    }
    for (unsigned i = 0; i < PIECES; i++)
        if (pieces[i].memory)
            cr_assert(nio_page_pool_free(&pool, pieces[i].memory, pieces[i].bytes));
    cr_assert_eq(nio_page_pool_used(&pool), 0);
    cr_assert_eq(nio_page_pool_alloc(&pool, PAGES * page), base, "all of it, in one piece");
    cr_assert_null(nio_page_pool_alloc(&pool, 1));
    cr_assert_not(nio_page_pool_free(&pool, &pool, 1), "not of the pool");
    nio_page_pool_fini(&pool);
    free(base);
}

/* ---- requests ----------------------------------------------------------------------------- */

static uint64_t fixed_requests(const struct numio_handle *handle)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < handle->worker_count; i++) {
        struct nio_driver_counters counters;
        nio_driver_counters(handle->workers[i]->driver, &counters);
        sum += counters.fixed;
    }
    return sum;
}

static bool is_registered(const struct numio_handle *handle, const char *memory)
{
    const struct nio_page_pool *pool = &handle->nodes[0]->registered;
    return pool->base && memory >= pool->base && memory < pool->base + pool->bytes;
}

static int64_t read_and_write(void *arg)
{
    int fd = *(const int *)arg;
    char *out = numio_io_buffer_alloc(NULL, NUMIO_NODE_ANY, BYTES);
    char *in = numio_io_buffer_alloc(NULL, NUMIO_NODE_ANY, BYTES);
    EXPECT(out && in);
    for (int i = 0; i < BYTES; i++)
        out[i] = (char)(i * 7 + i / 251);
    memset(in, 0, BYTES);
    EXPECT(numio_pwrite_all(fd, out, BYTES, 0) == BYTES);
    EXPECT(numio_pread_all(fd, in, BYTES, 0) == BYTES);
    EXPECT(memcmp(in, out, BYTES) == 0);
    EXPECT(numio_pread(fd, in + 100, 50, 1000) == 50 && memcmp(in + 100, out + 1000, 50) == 0);
    EXPECT(numio_pread(fd, in, BYTES, BYTES - 5) == 5); /* short at the end */
    numio_io_buffer_free(NULL, NUMIO_NODE_ANY, out, BYTES);
    numio_io_buffer_free(NULL, NUMIO_NODE_ANY, in, BYTES);
    return 0;
}

static int64_t send_zero_copy(void *arg)
{
    const int *ends = arg;
    char *out = numio_io_buffer_alloc(NULL, NUMIO_NODE_ANY, BYTES);
    static char in[BYTES];
    EXPECT(out);
    for (int i = 0; i < BYTES; i++)
        out[i] = (char)(i * 3);
    for (int64_t done = 0, n; done < BYTES; done += n) {
        n = numio_send_zc(ends[0], out + done, 4096, 0);
        EXPECT(n > 0 && numio_recv_all(ends[1], in + done, (size_t)n, 0) == n);
    }
    EXPECT(memcmp(in, out, BYTES) == 0);
    numio_io_buffer_free(NULL, NUMIO_NODE_ANY, out, BYTES);
    return 0;
}

static void connect_pair(int ends[2])
{
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    int listener = numio_tcp_listen("127.0.0.1:0", 1);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    cr_assert_geq(ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), 0);
    cr_assert_eq(connect(ends[0], (struct sockaddr *)&address, bytes), 0);
    cr_assert_geq(ends[1] = accept(listener, NULL, NULL), 0);
    (void)close(listener);
}

static void use_with(enum numio_driver driver)
{
    if (driver != NUMIO_DRIVER_EPOLL && !fixture_has_uring())
        cr_skip_test("no io_uring here");
    struct numio_config config = fixture_config(driver, 2);
    config.registered_bytes = registered_bytes;
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    bool has_rings = driver != NUMIO_DRIVER_EPOLL;
    char path[] = "/tmp/numio-registered-XXXXXX";
    int fd = mkstemp(path), ends[2];
    cr_assert_geq(fd, 0);
    cr_assert_eq(unlink(path), 0);
    connect_pair(ends);
    cr_assert_eq(handle->nodes[0]->registered.bytes, has_rings ? registered_bytes : 0);
    for (int round = 0; round < 40; round++) /* on either worker */
        expect_all(runtime, read_and_write, &fd);
    uint64_t before = fixed_requests(handle);
    cr_assert(has_rings ? before >= 40 * 4 : before == 0, "%lu", (unsigned long)before);
    expect_all(runtime, send_zero_copy, ends);
    cr_assert(fixed_requests(handle) > before || !has_rings);
    char *all = numio_io_buffer_alloc(handle, 0, registered_bytes);
    char *more = numio_io_buffer_alloc(handle, 0, 1);
    cr_assert(all && more && is_registered(handle, all) == has_rings);
    cr_assert_not(is_registered(handle, more), "beyond it there is the arena");
    numio_io_buffer_free(handle, 0, all, registered_bytes);
    numio_io_buffer_free(handle, 0, more, 1);
    cr_assert_eq(nio_page_pool_used(&handle->nodes[0]->registered), 0);
    (void)close(ends[0]);
    (void)close(ends[1]);
    (void)close(fd);
    numio_runtime_destroy(runtime);
}

Test(registered, requests_in_it_use_it_and_move_the_same_bytes, .timeout = 60)
{
    use_with(NUMIO_DRIVER_SQPOLL);
    use_with(NUMIO_DRIVER_DEFER);
    use_with(NUMIO_DRIVER_IOPOLL);
    use_with(NUMIO_DRIVER_EPOLL);
}

/* ---- how much is pinned ------------------------------------------------------------------- */

static unsigned long pinned_kib(void)
{
    char line[128];
    unsigned long kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    cr_assert_not_null(file);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, "VmPin:", 6) == 0)
            kib = strtoul(line + 6, NULL, 10);
    (void)fclose(file); /* only read from */
    return kib;
}

Test(registered, the_rings_of_a_node_share_it, .timeout = 30)
{
    if (!fixture_has_uring())
        cr_skip_test("no io_uring here");
    struct numio_config config = fixture_config(NUMIO_DRIVER_DEFER, 2);
    struct numio_runtime *runtime = fixture_create(&config);
    unsigned long without = pinned_kib();
    numio_runtime_destroy(runtime);
    config.registered_bytes = registered_bytes;
    runtime = fixture_create(&config);
    const struct numio_handle *handle = numio_runtime_handle(runtime);
    cr_assert_eq(handle->nodes[0]->registered.bytes, registered_bytes);
    unsigned long pinned = pinned_kib() - without, once = registered_bytes >> 10;
    cr_assert(pinned == once || pinned == 2 * once, "%lu KiB", pinned);
    if (pinned != once)
        cr_skip_test("before Linux 6.12 each ring pins it again");
    numio_runtime_destroy(runtime);
}

/* An ordinary user who may lock 1 MiB. */
static int registers_what_it_may(void)
{
    struct rlimit limit = { 1 << 20, 1 << 20 };
    FIXTURE_CHILD_CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    if (getuid() == 0)
        FIXTURE_CHILD_CHECK(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
    struct numio_config config;
    struct numio_runtime *runtime;
    FIXTURE_CHILD_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.driver = NUMIO_DRIVER_DEFER;
    config.workers = 2;
    config.registered_bytes = registered_bytes;
    FIXTURE_CHILD_CHECK(numio_runtime_create(&config, &runtime) == 0);
    const struct numio_handle *handle = numio_runtime_handle(runtime);
    size_t bytes = handle->nodes[0]->registered.bytes;
    FIXTURE_CHILD_CHECK(bytes >= (64 << 10) && bytes <= (1 << 20));
    bool is_told = false;
    for (unsigned i = 0; i < handle->reason_count; i++)
        is_told |= strstr(handle->reasons[i], "instead of 4096 KiB") &&
                   strstr(handle->reasons[i], "RLIMIT_MEMLOCK is 1024 KiB");
    FIXTURE_CHILD_CHECK(is_told);
    numio_runtime_destroy(runtime);
    return 0;
}

Test(registered, where_little_may_be_locked_there_is_less_and_the_status_says_why, .timeout = 30)
{
    if (!fixture_has_uring())
        cr_skip_test("no io_uring here");
    fixture_expect_child(registers_what_it_may);
}
