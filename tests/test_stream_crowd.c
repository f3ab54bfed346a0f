/* SPDX-License-Identifier: MIT */
/* An accept stream whose consumer is slow takes some connections ahead of it, not all. */
#include "tests/listener.h"
#include "tests/runtime_fixture.h"
#include "tests/steps.h"

#include <sys/socket.h>

#include <numio/stream.h>

static const uint64_t ms = 1000000;

/* The first part is more than a stream accepts ahead of its consumer: how far it gets before its
 * request is ended is a matter of who runs when. */
enum { CROWD = 450, FIRST_PART = 300, FEW = 8 };

struct crowd {
    struct listener listener;
    int fds[CROWD], count;
};

static int64_t connect_crowd(void *arg)
{
    struct crowd *crowd = arg;
    int end = crowd->count < FIRST_PART ? FIRST_PART : CROWD;
    for (; crowd->count < end; crowd->count++) {
        int i = crowd->count;
        EXPECT((crowd->fds[i] = connect_to(&crowd->listener)) >= 0);
        EXPECT(send(crowd->fds[i], &i, sizeof i, 0) == sizeof i);
    }
    return 0;
}

/* The number of descriptors once nobody accepts any more. */
static unsigned count_when_quiet(void)
{
    unsigned seen = 0, now;
    while ((now = fixture_count_fds()) != seen) { /* bounded by the crowd */
        seen = now;
        if (numio_sleep_ns(50 * ms) != 0)
            return 0;
    }
    return now;
}

static int64_t come_late(void *arg)
{
    static bool has_come[CROWD];
    struct crowd *crowd = arg;
    struct numio_stream *stream;
    memset(has_come, 0, sizeof has_come);
    crowd->count = 0;
    EXPECT(numio_accept_stream(crowd->listener.fd, SOCK_CLOEXEC, &stream) == 0);
    EXPECT(numio_within(ms, numio_stream_next(stream)) == -ETIMEDOUT); /* it has begun */
    EXPECT(numio_block_in_place(connect_crowd, crowd) == 0);
    unsigned first = count_when_quiet();
    EXPECT(numio_block_in_place(connect_crowd, crowd) == 0);
    /* Of those nobody was accepted; a file or two that another thread just reads do not matter. */
    EXPECT(count_when_quiet() < first + CROWD - FIRST_PART + FEW);
    for (int i = 0; i < CROWD; i++) {
        int64_t fd = numio_stream_next(stream);
        int number = -1;
        EXPECT(fd >= 0);
        EXPECT(numio_recv_all((int)fd, &number, sizeof number, 0) == sizeof number);
        EXPECT(number >= 0 && number < CROWD && !has_come[number]);
        has_come[number] = true;
        EXPECT(numio_close((int)fd) == 0);
    }
    return numio_stream_close(&stream);
}

FIXTURE_EACH(stream_crowd, that_nobody_takes_waits_with_the_kernel, .timeout = 60)
{
    static struct crowd crowd;
    open_listener(&crowd.listener);
    unsigned before = fixture_count_fds();
    int64_t line = numio_block_on(numio_runtime_handle(runtime), come_late, &crowd);
    cr_assert_eq(line, 0, "line %ld", (long)line);
    for (int i = 0; i < CROWD; i++)
        (void)close(crowd.fds[i]);
    cr_assert_eq(fixture_count_fds(), before);
    (void)close(crowd.listener.fd);
}
