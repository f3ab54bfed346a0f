/* SPDX-License-Identifier: MIT */
/* What is special to AF_XDP: what is left to the kernel's stack, rings that run dry, where the
 * frames lie, and what waiting costs. */
#include "tests/xdp_world.h"

#include "runtime/sched/worker.h"

enum { FRAMES = 64, FLOOD = 200 };

TestSuite(xdp_rings, .timeout = 60);

static _Atomic uint32_t phase;

static const enum numio_xdp_mode modes[] = { NUMIO_XDP_GENERIC, NUMIO_XDP_DRIVER };

/* ---- what goes where ----------------------------------------------------------------------- */

static int64_t receive_one_and_stop(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp;
    struct numio_xdp_frame frame;
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &xdp) == 0);
    fixture_set(&phase, 1);
    WORLD_EXPECT(numio_xdp_recv(xdp, &frame, 1) == 1);
    WORLD_EXPECT(frame.len == 4 && memcmp(frame.bytes, "mine", 4) == 0);
    WORLD_EXPECT(numio_xdp_release(xdp, &frame) == 0);
    WORLD_EXPECT(world_adds_up(xdp, 0));
    WORLD_EXPECT(numio_xdp_close(xdp) == 0);
    return 0;
}

/* An ordinary socket of the near namespace on another port gets what is sent there. */
static void check_other_port(int family, enum numio_xdp_mode mode)
{
    struct world world = { .family = family };
    struct numio_address address;
    char text[8];
    world_open(&world, mode, NUMIO_IDLE_BALANCED, 1);
    fixture_set(&phase, 0);
    struct numio_join *join = world_spawn(&world, 0, receive_one_and_stop);
    int near = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct timeval patience = { 10, 0 };
    world_address(&world, true, WORLD_PORT + 1, &address);
    cr_assert_eq(bind(near, (struct sockaddr *)&address.storage, address.bytes), 0);
    cr_assert_eq(setsockopt(near, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    int other = world_peer(&world, WORLD_PORT + 1), mine = world_peer(&world, WORLD_PORT);
    cr_assert(fixture_wait(&phase, 1));
    cr_assert_eq(send(other, "other", 5, 0), 5);
    cr_assert_eq(world_recv(near, text, sizeof text), 5, "%s", strerror(errno));
    cr_assert_eq(memcmp(text, "other", 5), 0);
    cr_assert_not(numio_join_is_finished(join));
    cr_assert_eq(send(mine, "mine", 4, 0), 4);
    int64_t line = world_wait(join);
    cr_assert_eq(line, 0, "line %ld", (long)line);
    (void)close(near);
    (void)close(other);
    (void)close(mine);
    world_close(&world);
}

Test(xdp_rings, another_port_is_left_to_the_kernel)
{
    for (unsigned i = 0; i < 2; i++) {
        check_other_port(AF_INET, modes[i]);
        check_other_port(AF_INET6, modes[i]);
    }
}

/* ---- rings that run dry -------------------------------------------------------------------- */

/* Keeps every frame, so that the kernel has none left, and gives them back: the endpoint goes on.
 */
static int64_t keep_all(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp;
    struct numio_xdp_frame kept[FRAMES], frame;
    struct numio_xdp_stats stats = { .size = sizeof stats };
    unsigned count = 0;
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &xdp) == 0);
    fixture_set(&phase, 1);
    while (count < FRAMES) {
        int64_t n = numio_xdp_recv(xdp, &kept[count], FRAMES - count);
        WORLD_EXPECT(n > 0);
        count += (unsigned)n;
    }
    WORLD_EXPECT(world_adds_up(xdp, FRAMES));
    fixture_set(&phase, 2); /* now the flood */
    WORLD_EXPECT(numio_sleep_ns(50000000) == 0);
    WORLD_EXPECT(numio_xdp_stats(xdp, &stats) == 0);
    WORLD_EXPECT(stats.frames_filling == 0 && stats.frames_free == 0);
    WORLD_EXPECT(stats.rx_no_frame > 0);
    for (unsigned i = 0; i < FRAMES; i++)
        WORLD_EXPECT(numio_xdp_release(xdp, &kept[i]) == 0);
    WORLD_EXPECT(numio_xdp_stats(xdp, &stats) == 0);
    WORLD_EXPECT(stats.frames_filling == FRAMES / 2 && stats.frames_out == 0);
    fixture_set(&phase, 3); /* and one more */
    do {                    /* what was still on its way may come first */
        WORLD_EXPECT(numio_xdp_recv(xdp, &frame, 1) == 1);
        count = *(const char *)frame.bytes == 'z';
        WORLD_EXPECT(numio_xdp_release(xdp, &frame) == 0);
    } while (!count);
    WORLD_EXPECT(world_adds_up(xdp, 0));
    WORLD_EXPECT(numio_xdp_close(xdp) == 0);
    return 0;
}

static void check_dry(enum numio_xdp_mode mode)
{
    struct world world = { .family = AF_INET, .frames = FRAMES };
    world_open(&world, mode, NUMIO_IDLE_BALANCED, 1);
    fixture_set(&phase, 0);
    struct numio_join *join = world_spawn(&world, 0, keep_all);
    int fd = world_peer(&world, WORLD_PORT);
    cr_assert(fixture_wait(&phase, 1));
    while (fixture_get(&phase) == 1)
        cr_assert_eq(send(fd, "a", 1, 0), 1);
    for (unsigned i = 0; i < FLOOD; i++)
        cr_assert_eq(send(fd, "b", 1, 0), 1);
    cr_assert(fixture_wait(&phase, 3));
    cr_assert_eq(send(fd, "z", 1, 0), 1);
    int64_t line = world_wait(join);
    cr_assert_eq(line, 0, "line %ld", (long)line);
    (void)close(fd);
    world_close(&world);
}

Test(xdp_rings, a_program_that_keeps_all_frames_gets_no_more_until_it_gives_some_back)
{
    check_dry(NUMIO_XDP_GENERIC);
    check_dry(NUMIO_XDP_DRIVER);
}

static int64_t wait_for_a_frame(void *arg)
{
    struct world *world = arg;
    struct numio_xdp_frame frame;
    fixture_set(&phase, 1);
    WORLD_EXPECT(numio_xdp_alloc(world->xdp, &frame) == 0);
    WORLD_EXPECT(numio_xdp_release(world->xdp, &frame) == 0);
    return 0;
}

/* Takes all that may be sent from, waits in vain, and another waits until one is released. */
static int64_t take_all(void *arg)
{
    struct world *world = arg;
    struct numio_xdp_frame frames[FRAMES];
    struct numio_deadline deadline;
    struct numio_spawn_opts opts;
    struct numio_join *join;
    unsigned count = 0;
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &world->xdp) == 0);
    bool is_bypass = numio_xdp_is_bypass(world->xdp);
    while (count < (is_bypass ? FRAMES / 2 : FRAMES))
        WORLD_EXPECT(numio_xdp_alloc(world->xdp, &frames[count++]) == 0);
    WORLD_EXPECT(numio_deadline_push(&deadline, 2000000) == 0);
    WORLD_EXPECT(numio_xdp_alloc(world->xdp, &frames[0]) == -ETIMEDOUT);
    WORLD_EXPECT(numio_deadline_pop(&deadline) == -ETIMEDOUT);
    numio_spawn_opts_init(&opts, sizeof opts);
    opts.affinity = NUMIO_AFFINITY_WORKER;
    fixture_set(&phase, 0);
    WORLD_EXPECT(numio_spawn_co(NULL, wait_for_a_frame, world, &opts, &join) == 0);
    while (fixture_get(&phase) == 0)
        WORLD_EXPECT(numio_sleep_ns(1000000) == 0);
    WORLD_EXPECT(!numio_join_is_finished(join));
    WORLD_EXPECT(world_adds_up(world->xdp, count));
    uint64_t began_ns = nio_now_ns();
    WORLD_EXPECT(numio_xdp_release(world->xdp, &frames[0]) == 0);
    WORLD_EXPECT(numio_join_await(&join) == 0);
    WORLD_EXPECT(nio_now_ns() - began_ns < 500000000); /* by the release, not by the clock */
    for (unsigned i = 1; i < count; i++)
        WORLD_EXPECT(numio_xdp_release(world->xdp, &frames[i]) == 0);
    WORLD_EXPECT(world_adds_up(world->xdp, 0));
    WORLD_EXPECT(numio_xdp_close(world->xdp) == 0);
    return 0;
}

Test(xdp_rings, who_wants_a_frame_waits_until_one_is_released)
{
    static const enum numio_idle_policy idles[] = { NUMIO_IDLE_SPIN, NUMIO_IDLE_PARK };
    for (unsigned i = 0; i < 4; i++) {
        struct world world = { .family = AF_INET, .frames = FRAMES };
        world_open(&world, i < 2 ? NUMIO_XDP_GENERIC : NUMIO_XDP_SOCKET, idles[i % 2], 1);
        world_run(&world, take_all);
        world_close(&world);
    }
}

/* ---- where frames lie ---------------------------------------------------------------------- */

static int holds(void *base, size_t bytes, void *context)
{
    return (char *)context >= (char *)base && (char *)context < (char *)base + bytes;
}

static int64_t look_at_memory(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp;
    struct numio_xdp_frame frame;
    struct numio_arena_audit audit = { .size = sizeof audit };
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &xdp) == 0);
    WORLD_EXPECT(numio_xdp_alloc(xdp, &frame) == 0);
    struct nio_worker *worker = nio_worker_current();
    WORLD_EXPECT(nio_node_arena_for_each_mapping(worker->node->arena, holds, frame.bytes) == 1);
    WORLD_EXPECT(numio_arena_audit(world->handle, 0, &audit) == 0);
    WORLD_EXPECT(audit.pages_away == 0 && audit.pages_unknown == 0);
    WORLD_EXPECT(audit.pages_home >= 2048u * 2048 / audit.page_bytes);
    WORLD_EXPECT(numio_xdp_release(xdp, &frame) == 0);
    WORLD_EXPECT(numio_xdp_close(xdp) == 0);
    return 0;
}

Test(xdp_rings, frames_lie_in_the_workers_arena)
{
    struct world world = { .family = AF_INET };
    world_open(&world, NUMIO_XDP_GENERIC, NUMIO_IDLE_BALANCED, 1);
    world_run(&world, look_at_memory);
    world_close(&world);
}

/* ---- what waiting costs -------------------------------------------------------------------- */

static int64_t open_and_echo(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp;
    struct numio_xdp_frame frame;
    WORLD_EXPECT(numio_xdp_open(world->device, 0, &xdp) == 0);
    fixture_set(&phase, 1);
    for (unsigned i = 0; i < FLOOD; i++) {
        WORLD_EXPECT(numio_xdp_recv(xdp, &frame, 1) == 1);
        WORLD_EXPECT(numio_xdp_send(xdp, &frame, 1) == 1);
    }
    fixture_set(&phase, 2);
    WORLD_EXPECT(numio_xdp_close(xdp) == 0);
    return 0;
}

/* Serves some datagrams; returns how many operations the worker has given to its ring. */
static uint64_t count_operations(enum numio_idle_policy idle)
{
    struct world world = { .family = AF_INET };
    struct numio_worker_metrics before = { .size = sizeof before }, after = before;
    char byte;
    world_open(&world, NUMIO_XDP_GENERIC, idle, 1);
    fixture_set(&phase, 0);
    struct numio_join *join = world_spawn(&world, 0, open_and_echo);
    int fd = world_peer(&world, WORLD_PORT);
    cr_assert(fixture_wait(&phase, 1));
    cr_assert_eq(numio_worker_metrics(world.handle, 0, &before), 0);
    for (unsigned i = 0; i < FLOOD; i++) {
        (void)usleep(500); /* a peer that answers at once may be faster than the worker sleeps */
        cr_assert_eq(send(fd, "x", 1, 0), 1);
        cr_assert_eq(world_recv(fd, &byte, 1), 1, "%s", strerror(errno));
    }
    cr_assert(fixture_wait(&phase, 2));
    cr_assert_eq(numio_worker_metrics(world.handle, 0, &after), 0);
    cr_assert_eq(world_wait(join), 0);
    (void)close(fd);
    world_close(&world);
    return after.sqes - before.sqes;
}

Test(xdp_rings, a_worker_that_spins_waits_without_its_ring_and_one_that_parks_with_it)
{
    cr_assert_eq(count_operations(NUMIO_IDLE_SPIN), 0);
    uint64_t parked = count_operations(NUMIO_IDLE_PARK);
    cr_assert_geq(parked, FLOOD / 2, "%llu", (unsigned long long)parked);
}

/* ---- memory that runs out ------------------------------------------------------------------ */

static int64_t open_until_it_works(void *arg)
{
    struct world *world = arg;
    struct numio_xdp *xdp;
    unsigned failures = 0;
    for (long nth = 1;; nth++) {
        nio_fault_arm(nth);
        int rc = numio_xdp_open(world->device, 0, &xdp);
        bool has_struck = nio_fault_struck();
        nio_fault_arm(0);
        if (rc == 0) {
            WORLD_EXPECT(!has_struck);
            break;
        }
        WORLD_EXPECT(rc == -ENOMEM && has_struck);
        failures++;
    }
    WORLD_EXPECT(failures >= 4);
    WORLD_EXPECT(world_adds_up(xdp, 0));
    WORLD_EXPECT(numio_xdp_close(xdp) == 0);
    return 0;
}

Test(xdp_rings, an_opening_without_memory_leaves_nothing)
{
    struct world world = { .family = AF_INET };
    world_open(&world, NUMIO_XDP_GENERIC, NUMIO_IDLE_BALANCED, 1);
    unsigned before = fixture_count_fds();
    world_run(&world, open_until_it_works);
    cr_assert_eq(fixture_count_fds(), before, "descriptors are left");
    world_close(&world);
}
