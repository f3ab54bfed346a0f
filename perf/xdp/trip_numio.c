/* SPDX-License-Identifier: MIT */
/* Both sides by <numio/xdp.h>: one worker each, which spins. */
#include "perf/xdp/trip.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <numio/numio.h>

#include "perf/load/load_conn.h"
#include "perf/xdp/veth_pair.h"

/* A side while it runs. */
struct run {
    const struct trip_side *side;
    struct numio_xdp_device *device;
    struct numio_xdp *xdp;
};

static int fail(const char *what, int64_t rc)
{
    fprintf(stderr, "xdp_trip: %s: %s (%s)\n", what, strerror((int)-rc), numio_strerror_detail());
    return 1;
}

static int64_t serve(void *arg)
{
    struct run *run = arg;
    struct numio_xdp_frame frames[16];
    int64_t count = numio_xdp_open(run->device, 0, &run->xdp);
    if (count < 0)
        return fail("open", count);
    if (write(run->side->ready_fd, "x", 1) != 1)
        return fail("write", -EIO);
    while ((count = numio_xdp_recv(run->xdp, frames, 16)) > 0) {
        int64_t sent = numio_xdp_send(run->xdp, frames, (unsigned)count);
        if (sent != count)
            return fail("send", sent);
    }
    return fail("recv", count);
}

/* One round trip; returns 0, or why not. */
static int64_t trip(struct run *run, const struct numio_xdp_peer *peer, uint64_t number)
{
    struct numio_xdp_frame frame;
    int64_t rc = numio_xdp_alloc(run->xdp, &frame);
    if (rc < 0)
        return rc;
    memset(frame.bytes, 0, TRIP_BYTES);
    memcpy(frame.bytes, &number, sizeof number);
    frame.len = TRIP_BYTES;
    frame.peer = *peer;
    if ((rc = numio_xdp_send(run->xdp, &frame, 1)) < 0 ||
        (rc = numio_xdp_recv(run->xdp, &frame, 1)) < 0)
        return rc;
    uint64_t back = number + 1;
    if (frame.len == TRIP_BYTES)
        memcpy(&back, frame.bytes, sizeof back);
    rc = numio_xdp_release(run->xdp, &frame);
    return rc < 0 ? rc : back == number ? 0 : -EBADMSG;
}

static int64_t ask(void *arg)
{
    struct run *run = arg;
    const struct trip_side *side = run->side;
    struct numio_address address;
    struct numio_xdp_peer peer;
    char text[64];
    (void)snprintf(text, sizeof text, "%s:%d", VETH_FAR, trip_port(side->kind, false)); /* fits */
    int64_t rc = numio_xdp_open(run->device, 0, &run->xdp);
    if (rc == 0)
        rc = numio_address_parse(text, &address);
    if (rc == 0)
        rc = numio_xdp_resolve(run->xdp, &address, &peer);
    for (unsigned i = 0; rc == 0 && i < side->trips + TRIP_WARM; i++) {
        uint64_t began_ns = load_now_ns();
        rc = trip(run, &peer, i);
        uint64_t ended_ns = load_now_ns();
        if (i >= TRIP_WARM)
            load_hist_add(side->hist, ended_ns - began_ns);
    }
    if (rc == 0)
        rc = numio_xdp_close(run->xdp);
    return rc == 0 ? 0 : fail("asking", rc);
}

static int run_side(const struct trip_side *side, bool is_near, int64_t (*fn)(void *arg))
{
    struct run run = { .side = side };
    struct numio_xdp_opts opts;
    struct numio_config config;
    struct numio_spawn_opts spawn;
    struct numio_runtime *runtime;
    struct numio_join *join;
    char address[64], cpus[16];
    (void)snprintf(address, sizeof address, "%s:%d", is_near ? VETH_NEAR : VETH_FAR,
                   trip_port(side->kind, is_near));     /* fits */
    (void)snprintf(cpus, sizeof cpus, "%d", side->cpu); /* fits */
    numio_xdp_opts_init(&opts, sizeof opts);
    opts.interface = is_near ? "numio0" : "numio1";
    opts.address = address;
    opts.mode = side->kind == TRIP_XDP_GENERIC  ? NUMIO_XDP_GENERIC
                : side->kind == TRIP_XDP_DRIVER ? NUMIO_XDP_DRIVER
                                                : NUMIO_XDP_SOCKET;
    opts.is_required = side->kind != TRIP_FALLBACK;
    int64_t rc = numio_config_init(&config, sizeof config);
    config.workers = 1;
    config.cpus = cpus;
    config.idle = NUMIO_IDLE_SPIN;
    if (rc == 0)
        rc = numio_xdp_attach(&opts, &run.device);
    if (rc == 0)
        rc = numio_runtime_create(&config, &runtime);
    if (rc < 0)
        return fail("start", rc);
    numio_spawn_opts_init(&spawn, sizeof spawn);
    spawn.affinity = NUMIO_AFFINITY_WORKER;
    spawn.worker = 0;
    rc = numio_spawn_co(numio_runtime_handle(runtime), fn, &run, &spawn, &join);
    if (rc < 0)
        return fail("spawn", rc);
    int status = numio_join_wait(&join, -1) == 0 ? 0 : 1;
    numio_runtime_destroy(runtime);
    rc = numio_xdp_detach(run.device);
    return rc < 0 ? fail("detach", rc) : status;
}

int trip_numio_serve(const struct trip_side *side)
{
    return run_side(side, false, serve);
}

int trip_numio_ask(const struct trip_side *side)
{
    return run_side(side, true, ask);
}
