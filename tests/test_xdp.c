/* SPDX-License-Identifier: MIT */
/* Endpoints on a pair of veth interfaces, with the kernel's own UDP sockets at the other end: what
 * holds in every mode, the ordinary socket included.  What is special to one: test_xdp_rings.c. */
#include "tests/xdp_world.h"

enum { ECHOES = 500, BURST = 100, LEN_MAX = 1400 };

TestSuite(xdp, .timeout = 60);

static const enum numio_xdp_mode modes[] = { NUMIO_XDP_GENERIC, NUMIO_XDP_DRIVER,
                                             NUMIO_XDP_SOCKET };
#define MODES (sizeof modes / sizeof *modes)

static _Atomic uint32_t is_waiting; /* the endpoint is open */

/* Runs a body in every mode and with both families. */
static void each_mode(void (*body)(struct world *world))
{
    static const int families[] = { AF_INET, AF_INET6 };
    for (unsigned i = 0; i < MODES * 2; i++) {
        struct world world = { .family = families[i % 2] };
        world_open(&world, modes[i / 2], i % 4 < 2 ? NUMIO_IDLE_BALANCED : NUMIO_IDLE_SPIN, 1);
        body(&world);
        world_close(&world);
    }
}

/* ---- echo --------------------------------------------------------------------------------- */

/* Sends back what comes until a datagram is empty, and checks that no frame is missing. */
static int64_t echo(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp;
    struct numio_xdp_frame frames[16];
    struct numio_xdp_stats stats = { .size = sizeof stats };
    uint64_t received = 0;
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &xdp) == 0);
    WORLD_EXPECT(numio_xdp_is_bypass(xdp) ==
                 (numio_xdp_device_mode(world->device) != NUMIO_XDP_SOCKET));
    WORLD_EXPECT(numio_xdp_reason(xdp) == NULL);
    fixture_set(&is_waiting, 1);
    for (bool is_over = false; !is_over;) {
        int64_t count = numio_xdp_recv(xdp, frames, 16);
        WORLD_EXPECT(count > 0 && count <= 16);
        received += (uint64_t)count;
        for (int64_t i = 0; i < count; i++)
            is_over |= frames[i].len == 0;
        WORLD_EXPECT(numio_xdp_send(xdp, frames, (unsigned)count) == count);
        for (int64_t i = 0; i < count; i++)
            WORLD_EXPECT(frames[i].bytes == NULL);
    }
    WORLD_EXPECT(world_adds_up(xdp, 0));
    WORLD_EXPECT(numio_xdp_stats(xdp, &stats) == 0);
    WORLD_EXPECT(stats.received == received && stats.sent == received && stats.malformed == 0);
    WORLD_EXPECT(received == ECHOES + 1);
    WORLD_EXPECT(stats.rx_dropped == 0 && stats.tx_invalid == 0 && stats.rx_no_frame == 0);
    WORLD_EXPECT(numio_xdp_close(xdp) == 0);
    return 0;
}

/* The kernel's socket would not deliver a datagram with a wrong checksum or length. */
static void exchange(int fd, unsigned number, size_t len)
{
    unsigned char out[LEN_MAX], in[LEN_MAX + 1];
    for (size_t i = 0; i < len; i++)
        out[i] = (unsigned char)(number * 7 + i);
    cr_assert_eq(send(fd, out, len, 0), (ssize_t)len, "%s", strerror(errno));
    cr_assert_eq(world_recv(fd, in, sizeof in), (ssize_t)len, "number %u: %s", number,
                 strerror(errno));
    cr_assert_eq(memcmp(in, out, len), 0, "number %u", number);
}

static void check_echo(struct world *world)
{
    fixture_set(&is_waiting, 0);
    struct numio_join *join = world_spawn(world, 0, echo);
    int fd = world_peer(world, WORLD_PORT);
    char byte;
    cr_assert(fixture_wait(&is_waiting, 1));
    for (unsigned i = 0; i < ECHOES; i++)
        exchange(fd, i, 1 + i * 17 % LEN_MAX);
    cr_assert_eq(send(fd, "", 0, 0), 0);
    cr_assert_eq(world_recv(fd, &byte, 1), 0);
    int64_t line = world_wait(join);
    cr_assert_eq(line, 0, "line %ld", (long)line);
    (void)close(fd);
}

Test(xdp, bytes_come_back_and_the_peer_finds_the_checksums_right)
{
    each_mode(check_echo);
}

/* ---- the first to send --------------------------------------------------------------------- */

static unsigned port_of(int fd)
{
    struct sockaddr_in6 own = { 0 }; /* the port stands at the same place in both families */
    socklen_t bytes = sizeof own;
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&own, &bytes), 0);
    return ntohs(own.sin6_port);
}

static struct numio_address far_address;

/* Finds the neighbour and sends a burst from frames of its own. */
static int64_t send_burst(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp;
    struct numio_xdp_frame frames[BURST];
    struct numio_xdp_peer peer;
    struct numio_address back;
    char text[NUMIO_ADDRESS_TEXT_BYTES], same[NUMIO_ADDRESS_TEXT_BYTES];
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &xdp) == 0);
    WORLD_EXPECT(numio_xdp_resolve(xdp, &far_address, &peer) == 0);
    WORLD_EXPECT(peer.has_mac == numio_xdp_is_bypass(xdp));
    numio_xdp_peer_address(&peer, &back);
    WORLD_EXPECT(strcmp(numio_address_print(&back, text, sizeof text),
                        numio_address_print(&far_address, same, sizeof same)) == 0);
    for (uint32_t i = 0; i < BURST; i++) {
        WORLD_EXPECT(numio_xdp_alloc(xdp, &frames[i]) == 0);
        WORLD_EXPECT(frames[i].capacity >= LEN_MAX && frames[i].len == 0);
        frames[i].len = sizeof i + i;
        memset(frames[i].bytes, 'x', frames[i].len);
        memcpy(frames[i].bytes, &i, sizeof i);
        frames[i].peer = peer;
    }
    WORLD_EXPECT(world_adds_up(xdp, BURST));
    WORLD_EXPECT(numio_xdp_send(xdp, frames, BURST) == BURST);
    WORLD_EXPECT(world_adds_up(xdp, 0));
    WORLD_EXPECT(numio_xdp_close(xdp) == 0);
    return 0;
}

static void check_burst(struct world *world)
{
    int fd = world_peer(world, WORLD_PORT);
    char bytes[BURST + 8];
    world_address(world, false, port_of(fd), &far_address);
    world_run(world, send_burst);
    for (uint32_t i = 0; i < BURST; i++) {
        uint32_t number = 0;
        cr_assert_eq(world_recv(fd, bytes, sizeof bytes), (ssize_t)(sizeof i + i), "number %u: %s",
                     i, strerror(errno));
        memcpy(&number, bytes, sizeof number);
        cr_assert_eq(number, i, "in order, none lost, none twice");
    }
    cr_assert_eq(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), -1);
    (void)close(fd);
}

Test(xdp, a_neighbour_is_found_and_a_burst_arrives_in_order)
{
    each_mode(check_burst);
}

static int64_t resolve_nobody(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp;
    struct numio_address address;
    struct numio_deadline deadline;
    struct numio_xdp_peer peer = { .port = 1 };
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &xdp) == 0);
    WORLD_EXPECT(numio_address_parse("10.77.0.99:1", &address) == 0);
    WORLD_EXPECT(numio_deadline_push(&deadline, 20000000) == 0);
    WORLD_EXPECT(numio_xdp_resolve(xdp, &address, &peer) == -ETIMEDOUT);
    WORLD_EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    WORLD_EXPECT(numio_xdp_resolve(xdp, &address, &peer) == -EHOSTUNREACH);
    WORLD_EXPECT(numio_address_parse("192.0.2.1:1", &address) == 0);
    WORLD_EXPECT(numio_xdp_resolve(xdp, &address, &peer) == -EHOSTUNREACH);
    WORLD_EXPECT(numio_address_parse(VETH_NEAR ":1", &address) == 0);
    WORLD_EXPECT(numio_xdp_resolve(xdp, &address, &peer) == -EHOSTUNREACH);
    WORLD_EXPECT(numio_address_parse("[::1]:1", &address) == 0);
    WORLD_EXPECT(numio_xdp_resolve(xdp, &address, &peer) == -EINVAL);
    WORLD_EXPECT(peer.port == 1 && !peer.has_mac);
    WORLD_EXPECT(numio_xdp_close(xdp) == 0);
    return 0;
}

Test(xdp, nobody_at_an_address_is_told)
{
    struct world world = { .family = AF_INET };
    world_open(&world, NUMIO_XDP_GENERIC, NUMIO_IDLE_BALANCED, 1);
    world_run(&world, resolve_nobody);
    world_close(&world);
}

/* ---- ends of waits ------------------------------------------------------------------------ */

/* A deadline ends the wait; then one that nobody ends but the test, by an abort. */
static int64_t wait_in_vain(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp;
    struct numio_deadline deadline;
    struct numio_xdp_frame frame;
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &xdp) == 0);
    for (unsigned i = 0; i < 20; i++) {
        WORLD_EXPECT(numio_deadline_push(&deadline, i * 200000) == 0);
        WORLD_EXPECT(numio_xdp_recv(xdp, &frame, 1) == -ETIMEDOUT);
        WORLD_EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    }
    WORLD_EXPECT(world_adds_up(xdp, 0));
    fixture_set(&is_waiting, 1);
    int64_t rc = numio_xdp_recv(xdp, &frame, 1);
    WORLD_EXPECT(rc == -ECANCELED);
    WORLD_EXPECT(numio_xdp_recv(xdp, &frame, 1) == -ECANCELED);
    WORLD_EXPECT(numio_xdp_send(xdp, &frame, 1) == -ECANCELED);
    WORLD_EXPECT(numio_xdp_alloc(xdp, &frame) == -ECANCELED);
    WORLD_EXPECT(world_adds_up(xdp, 0));
    WORLD_EXPECT(numio_xdp_close(xdp) == 0);
    return 0;
}

static void check_ends(struct world *world)
{
    fixture_set(&is_waiting, 0);
    struct numio_join *join = world_spawn(world, 0, wait_in_vain);
    cr_assert(fixture_wait(&is_waiting, 1));
    (void)usleep(3000); /* so that it mostly waits; right either way */
    numio_join_abort(join);
    int64_t line = world_wait(join);
    cr_assert_eq(line, 0, "line %ld", (long)line);
}

Test(xdp, deadlines_and_aborts_end_a_wait)
{
    each_mode(check_ends);
}

/* One closes, while another waits and holds a frame. */
static int64_t wait_for_the_close(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp;
    struct numio_xdp_frame kept, frame;
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &xdp) == 0);
    WORLD_EXPECT(numio_xdp_alloc(xdp, &kept) == 0);
    memcpy(kept.bytes, "kept", 5);
    world->xdp = xdp;
    fixture_set(&is_waiting, 1);
    WORLD_EXPECT(numio_xdp_recv(xdp, &frame, 1) == -ESHUTDOWN);
    WORLD_EXPECT(numio_xdp_recv(xdp, &frame, 1) == -ESHUTDOWN);
    WORLD_EXPECT(numio_xdp_close(xdp) == -ESHUTDOWN);
    WORLD_EXPECT(strcmp(kept.bytes, "kept") == 0);
    WORLD_EXPECT(numio_xdp_release(xdp, &kept) == 0); /* with which the endpoint is gone */
    WORLD_EXPECT(kept.bytes == NULL);
    return 0;
}

static int64_t close_under_it(void *arg)
{
    struct world *world = arg;
    WORLD_EXPECT(numio_xdp_detach(world->device) == -EBUSY);
    WORLD_EXPECT(numio_xdp_close(world->xdp) == 1);
    return 0;
}

static void check_close(struct world *world)
{
    fixture_set(&is_waiting, 0);
    struct numio_join *join = world_spawn(world, 0, wait_for_the_close);
    cr_assert(fixture_wait(&is_waiting, 1));
    (void)usleep(3000); /* so that it mostly waits */
    world_run(world, close_under_it);
    int64_t line = world_wait(join);
    cr_assert_eq(line, 0, "line %ld", (long)line);
}

Test(xdp, a_close_ends_the_waits_and_leaves_the_frames)
{
    each_mode(check_close);
}

/* ---- who may call ------------------------------------------------------------------------- */

static int64_t open_unpinned(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp = NULL;
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &xdp) == -EXDEV && !xdp);
    return 0;
}

static int64_t open_it(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp;
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &world->xdp) == 0);
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &xdp) == -EBUSY);
    WORLD_EXPECT(numio_xdp_open(world->device, numio_xdp_device_queues(world->device), &xdp) ==
                 -EINVAL);
    return 0;
}

static int64_t use_elsewhere(void *arg)
{
    struct world *world = arg;
    struct numio_xdp_frame frame;
    struct numio_xdp_stats stats = { .size = sizeof stats };
    WORLD_EXPECT(numio_xdp_recv(world->xdp, &frame, 1) == -EXDEV);
    WORLD_EXPECT(numio_xdp_alloc(world->xdp, &frame) == -EXDEV);
    WORLD_EXPECT(numio_xdp_send(world->xdp, &frame, 1) == -EXDEV);
    WORLD_EXPECT(numio_xdp_release(world->xdp, &frame) == -EXDEV);
    WORLD_EXPECT(numio_xdp_stats(world->xdp, &stats) == -EXDEV);
    WORLD_EXPECT(numio_xdp_close(world->xdp) == -EXDEV);
    WORLD_EXPECT(strstr(numio_strerror_detail(), "worker 0"));
    return 0;
}

static int64_t close_it(void *arg)
{
    struct world *world = arg;
    return numio_xdp_close(world->xdp);
}

Test(xdp, an_endpoint_is_one_workers)
{
    struct world world = { .family = AF_INET };
    struct numio_xdp_frame frame;
    world_open(&world, NUMIO_XDP_GENERIC, NUMIO_IDLE_BALANCED, 2);
    cr_assert_eq(numio_block_on(world.handle, open_unpinned, &world), 0);
    cr_assert_eq(numio_xdp_open(world.device, 0, &world.xdp), -EINVAL);
    world_run(&world, open_it);
    cr_assert_eq(numio_xdp_recv(world.xdp, &frame, 1), -EINVAL, "not in a coroutine");
    int64_t line = world_wait(world_spawn(&world, 1, use_elsewhere));
    cr_assert_eq(line, 0, "line %ld", (long)line);
    world_run(&world, close_it);
    world_close(&world);
}

/* After the shutdown no worker is left, and any thread may close. */
Test(xdp, an_endpoint_is_closed_after_the_shutdown_as_well)
{
    struct world world = { .family = AF_INET };
    world_open(&world, NUMIO_XDP_GENERIC, NUMIO_IDLE_BALANCED, 1);
    world_run(&world, open_it);
    cr_assert_eq(numio_xdp_close(world.xdp), -EXDEV);
    cr_assert_eq(numio_runtime_shutdown(world.runtime, -1, NULL, 0, NULL), 0);
    cr_assert_eq(numio_xdp_close(world.xdp), 0);
    world_close(&world);
}

/* ---- misuse of frames --------------------------------------------------------------------- */

static int64_t misuse(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp;
    struct numio_xdp_frame frame, copy;
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &xdp) == 0);
    WORLD_EXPECT(numio_xdp_alloc(xdp, &frame) == 0);
    copy = frame;
    frame.peer.family = AF_INET6;
    WORLD_EXPECT(numio_xdp_send(xdp, &frame, 1) == -EINVAL && frame.bytes);
    frame.peer.family = AF_INET;
    if (numio_xdp_is_bypass(xdp))
        WORLD_EXPECT(numio_xdp_send(xdp, &frame, 1) == -EDESTADDRREQ && frame.bytes);
    frame.peer.has_mac = true;
    frame.len = frame.capacity + 1;
    WORLD_EXPECT(numio_xdp_send(xdp, &frame, 1) == -EMSGSIZE && frame.bytes);
    frame.len = 1;
    frame.bytes = (char *)frame.bytes - 4096;
    WORLD_EXPECT(numio_xdp_send(xdp, &frame, 1) == -EINVAL && frame.bytes);
    WORLD_EXPECT(numio_xdp_recv(xdp, &frame, 0) == -EINVAL);
    WORLD_EXPECT(numio_xdp_release(xdp, &copy) == 0 && !copy.bytes);
    WORLD_EXPECT(numio_xdp_release(xdp, &copy) == -EINVAL);
    WORLD_EXPECT(numio_xdp_release(xdp, &frame) == -EINVAL); /* the same frame */
    WORLD_EXPECT(numio_xdp_send(xdp, &frame, 1) == -EINVAL);
    WORLD_EXPECT(world_adds_up(xdp, 0));
    WORLD_EXPECT(numio_xdp_close(xdp) == 0);
    return 0;
}

Test(xdp, a_frame_is_released_or_sent_once)
{
    for (unsigned i = 0; i < MODES; i++) {
        struct world world = { .family = AF_INET };
        world_open(&world, modes[i], NUMIO_IDLE_BALANCED, 1);
        world_run(&world, misuse);
        world_close(&world);
    }
}

/* ---- options and fallbacks ----------------------------------------------------------------- */

Test(xdp, options_that_make_no_sense_are_refused_by_name)
{
    struct world world = { .family = AF_INET };
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    world_start(&world, &config);
    static const struct {
        const char *interface, *address;
        unsigned mode, frames, frame_bytes;
        bool is_required;
        int error;
        const char *word;
    } bad[] = {
        { NULL, VETH_NEAR ":1", 0, 0, 0, false, -EINVAL, "interface" },
        { "numio9", VETH_NEAR ":1", 0, 0, 0, false, -ENODEV, "numio9" },
        { "numio0", "nonsense", 0, 0, 0, false, -EINVAL, "nonsense" },
        { "numio0", "127.0.0.1:1", 0, 0, 0, false, -EADDRNOTAVAIL, "numio0" },
        { "numio0", "*:1", 0, 0, 0, false, -EADDRNOTAVAIL, "numio0" },
        { "numio0", VETH_NEAR ":1", 4, 0, 0, false, -EINVAL, "mode" },
        { "numio0", VETH_NEAR ":1", NUMIO_XDP_SOCKET, 0, 0, true, -EINVAL, "is_required" },
        { "numio0", VETH_NEAR ":1", 0, 100, 0, false, -EINVAL, "frames" },
        { "numio0", VETH_NEAR ":1", 0, 32, 0, false, -EINVAL, "frames" },
        { "numio0", VETH_NEAR ":1", 0, 0, 1000, false, -EINVAL, "frame_bytes" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct numio_xdp_opts opts;
        struct numio_xdp_device *device = NULL;
        world_options(&world, NUMIO_XDP_AUTO, &opts);
        opts.interface = bad[i].interface;
        opts.address = bad[i].address;
        opts.mode = (enum numio_xdp_mode)bad[i].mode;
        opts.frames = bad[i].frames;
        opts.frame_bytes = bad[i].frame_bytes;
        opts.is_required = bad[i].is_required;
        cr_assert_eq(numio_xdp_attach(&opts, &device), bad[i].error, "%zu: %s", i,
                     numio_strerror_detail());
        cr_assert(strstr(numio_strerror_detail(), bad[i].word), "%zu: %s", i,
                  numio_strerror_detail());
        cr_assert_null(device);
    }
    world_close(&world);
}

Test(xdp, what_cannot_be_had_is_a_socket_with_a_reason_or_an_error)
{
    struct world world = { .family = AF_INET };
    struct numio_xdp_opts opts;
    struct numio_xdp_device *second = NULL;
    world_open(&world, NUMIO_XDP_GENERIC, NUMIO_IDLE_BALANCED, 1);
    world_options(&world, NUMIO_XDP_GENERIC, &opts);
    opts.address = VETH_NEAR ":7001";
    cr_assert_eq(numio_xdp_attach(&opts, &second), -EBUSY, "a program is attached");
    cr_assert(strstr(numio_strerror_detail(), "another program"), "%s", numio_strerror_detail());
    opts.is_required = false;
    cr_assert_eq(numio_xdp_attach(&opts, &second), 0);
    cr_assert_eq(numio_xdp_device_mode(second), NUMIO_XDP_SOCKET);
    cr_assert_not_null(numio_xdp_device_reason(second));
    cr_assert(strstr(numio_xdp_device_reason(second), "another program"), "%s",
              numio_xdp_device_reason(second));
    cr_assert_eq(numio_xdp_device_port(second), 7001u);
    cr_assert_eq(numio_xdp_detach(second), 0);
    opts.address = VETH_NEAR ":7000";
    cr_assert_eq(numio_xdp_attach(&opts, &second), -EADDRINUSE, "the port is held");
    cr_assert_eq(numio_xdp_detach(NULL), 0);
    world_close(&world);
}

Test(xdp, packets_that_do_not_fit_into_frames_are_a_reason)
{
    struct world world = { .family = AF_INET };
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    struct numio_xdp_opts opts;
    world_start(&world, &config);
    cr_assert(veth_run(world.pair.near, "ip link set numio0 mtu 9000"));
    world_options(&world, NUMIO_XDP_AUTO, &opts);
    cr_assert_eq(numio_xdp_attach(&opts, &world.device), -EMSGSIZE);
    opts.is_required = false;
    cr_assert_eq(numio_xdp_attach(&opts, &world.device), 0);
    cr_assert(strstr(numio_xdp_device_reason(world.device), "MTU 9000"));
    world_close(&world);
}
