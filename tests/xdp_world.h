/* SPDX-License-Identifier: MIT */
/* tests/xdp_world.h: two network namespaces, a runtime and a device in the near one, and sockets of
 * the kernel's in the far one.  Without the rights for it a test is skipped, or fails if
 * NUMIO_REQUIRE names xdp.  Test programs only.
 */
#ifndef TESTS_XDP_WORLD_H
#define TESTS_XDP_WORLD_H

#include "tests/runtime_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "perf/xdp/veth_pair.h"

enum { WORLD_PORT = 7000, WORLD_PATIENCE_MS = 10000 };

struct world {
    struct veth_pair pair;
    struct numio_runtime *runtime;
    struct numio_handle *handle;
    struct numio_xdp_device *device;
    struct numio_xdp *xdp; /* the test's coroutines' */
    unsigned frames;       /* of a device; 0: the default */
    int family;
};

static inline void world_refuse(const char *why)
{
    const char *required = getenv("NUMIO_REQUIRE");
    if (required && strstr(required, "xdp"))
        cr_assert_fail("NUMIO_REQUIRE names xdp, but: %s", why);
    cr_skip_test("%s", why);
}

static inline void world_options(const struct world *world, enum numio_xdp_mode mode,
                                 struct numio_xdp_opts *ret_opts)
{
    numio_xdp_opts_init(ret_opts, sizeof *ret_opts);
    ret_opts->interface = "numio0";
    ret_opts->address = world->family == AF_INET6 ? "[" VETH_NEAR_V6 "]:7000" : VETH_NEAR ":7000";
    ret_opts->mode = mode;
    ret_opts->is_required = mode != NUMIO_XDP_SOCKET;
    ret_opts->frames = world->frames;
}

/* Namespaces and a runtime in the near one. */
static inline void world_start(struct world *world, const struct numio_config *config)
{
    if (veth_open(&world->pair) < 0)
        world_refuse(world->pair.problem);
    world->runtime = fixture_create(config);
    world->handle = numio_runtime_handle(world->runtime);
}

/* And a device. */
static inline void world_open(struct world *world, enum numio_xdp_mode mode,
                              enum numio_idle_policy idle, unsigned workers)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, workers);
    struct numio_xdp_opts opts;
    config.idle = idle;
    world_start(world, &config);
    world_options(world, mode, &opts);
    int rc = numio_xdp_attach(&opts, &world->device);
    if (rc == -EPERM || rc == -ENOSYS || rc == -EOPNOTSUPP)
        world_refuse(numio_strerror_detail());
    cr_assert_eq(rc, 0, "%d: %s", rc, numio_strerror_detail());
    cr_assert_eq(numio_xdp_device_mode(world->device), mode);
    cr_assert_null(numio_xdp_device_reason(world->device));
}

static inline void world_close(struct world *world)
{
    cr_assert_eq(numio_xdp_detach(world->device), 0, "%s", numio_strerror_detail());
    numio_runtime_destroy(world->runtime);
    veth_close(&world->pair);
}

/* Starts a coroutine that is pinned to a worker. */
static inline struct numio_join *world_spawn(struct world *world, unsigned worker,
                                             int64_t (*fn)(void *arg))
{
    struct numio_spawn_opts opts;
    struct numio_join *join = NULL;
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    opts.worker = (int)worker;
    cr_assert_eq(numio_spawn_co(world->handle, fn, world, &opts, &join), 0);
    return join;
}

static inline int64_t world_wait(struct numio_join *join)
{
    return numio_join_wait(&join, WORLD_PATIENCE_MS * 1000000ll);
}

/* Runs a coroutine that returns 0 or the line that went wrong. */
static inline void world_run(struct world *world, int64_t (*fn)(void *arg))
{
    int64_t line = world_wait(world_spawn(world, 0, fn));
    cr_assert_eq(line, 0, "line %ld", (long)line);
}

static inline void world_address(const struct world *world, bool is_near, unsigned port,
                                 struct numio_address *ret)
{
    char text[64];
    const char *v4 = is_near ? VETH_NEAR : VETH_FAR, *v6 = is_near ? VETH_NEAR_V6 : VETH_FAR_V6;
    (void)snprintf(text, sizeof text, world->family == AF_INET6 ? "[%s]:%u" : "%s:%u",
                   world->family == AF_INET6 ? v6 : v4, port); /* fits */
    cr_assert_eq(numio_address_parse(text, ret), 0);
}

/* An ordinary UDP socket in the far namespace, connected to the device, or to another port. */
static inline int world_peer(const struct world *world, unsigned port)
{
    struct numio_address near, far;
    struct timeval patience = { WORLD_PATIENCE_MS / 1000, 0 };
    int bytes = 4 << 20;
    world_address(world, true, port, &near);
    world_address(world, false, 0, &far);
    int fd = veth_far_socket(&world->pair, world->family, SOCK_DGRAM);
    cr_assert_geq(fd, 0, "%s", strerror(errno));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes); /* for bursts */
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&far.storage, far.bytes), 0, "%s", strerror(errno));
    cr_assert_eq(connect(fd, (struct sockaddr *)&near.storage, near.bytes), 0, "%s",
                 strerror(errno));
    return fd;
}

/* recv() with the socket's limit in time.  The kernel interrupts the thread that has probed for
 * io_uring when it takes the probe's rings down, and does not restart a wait that has a limit. */
static inline ssize_t world_recv(int fd, void *bytes, size_t len)
{
    ssize_t n;
    do {
        n = recv(fd, bytes, len, 0);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* For coroutines: the line that went wrong. */
#define WORLD_EXPECT(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition,              \
                          numio_strerror_detail());                                                \
            return __LINE__;                                                                       \
        }                                                                                          \
    } while (0)

/* Whether every frame is accounted for, with `out` of them at the program. */
static inline bool world_adds_up(struct numio_xdp *xdp, unsigned out)
{
    struct numio_xdp_stats stats = { .size = sizeof stats };
    return numio_xdp_stats(xdp, &stats) == 0 && stats.frames_out == out &&
           stats.frames_free + stats.frames_filling + stats.frames_out + stats.frames_sending ==
               stats.frames;
}

#endif
