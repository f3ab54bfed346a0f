/* SPDX-License-Identifier: MIT */
/* rate_limiter [PER_SECOND [BURST [CLIENTS [REQUESTS]]]]: a token bucket: however many clients ask
 * at once, no more than PER_SECOND requests go through in a second, after the first BURST; "1000 10
 * 50 300" in all.
 *
 * A request takes a permit of a semaphore, in the order in which they came.  A coroutine puts one
 * back at each tick of an interval, up to BURST; ticks that a busy machine misses are made up for.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <numio/numio.h>

static const uint64_t second_ns = 1000000000;

struct bucket {
    struct numio_semaphore tokens;
    uint64_t per_second, burst;
    uint64_t clients, requests; /* requests of all together */
};

/* A token each period, for ever; it is aborted in the end. */
static int64_t refill(void *arg)
{
    struct bucket *bucket = arg;
    struct numio_interval ticks;
    uint64_t period_ns = second_ns / bucket->per_second;
    int64_t rc =
        numio_interval_init(&ticks, numio_now_ns() + period_ns, period_ns, NUMIO_MISSED_BURST);
    while (rc == 0 && (rc = numio_interval_next(&ticks, NULL)) == 0)
        if (numio_semaphore_available(&bucket->tokens) < bucket->burst)
            rc = numio_semaphore_release(&bucket->tokens, 1);
    return rc;
}

/* One of the clients: asks for its part of the requests, one after the other. */
static int64_t ask(void *arg)
{
    struct bucket *bucket = arg;
    uint64_t count = bucket->requests / bucket->clients;
    for (uint64_t i = 0; i < count; i++) {
        int rc = numio_semaphore_acquire(&bucket->tokens, 1);
        if (rc < 0)
            return rc;
        /* ... here the request would be sent ... */
    }
    return 0;
}

static int64_t run(void *arg)
{
    struct bucket *bucket = arg;
    struct numio_scope scope;
    struct numio_join *refiller;
    int64_t rc = numio_semaphore_init(&bucket->tokens, bucket->burst);
    uint64_t began_ns = numio_now_ns();
    if (rc == 0)
        rc = numio_spawn_co(NULL, refill, bucket, NULL, &refiller);
    if (rc == 0)
        rc = numio_scope_open(&scope, 0);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < bucket->clients && rc == 0; i++)
        rc = numio_scope_spawn_co(&scope, ask, bucket, NULL);
    int64_t error = numio_scope_close(&scope); /* all have been served */
    double seconds = (double)(numio_now_ns() - began_ns) / (double)second_ns;
    numio_join_abort(refiller);
    (void)numio_join_await(&refiller); /* it was aborted */
    if (rc < 0 || error < 0)
        return rc < 0 ? rc : error;
    uint64_t served = bucket->requests / bucket->clients * bucket->clients;
    printf("%llu requests of %llu clients in %.3f s: %.0f a second, after a burst of %llu\n",
           (unsigned long long)served, (unsigned long long)bucket->clients, seconds,
           (double)(served > bucket->burst ? served - bucket->burst : 0) / seconds,
           (unsigned long long)bucket->burst);
    return 0;
}

int main(int argc, char **argv)
{
    struct bucket bucket = { .per_second = 1000, .burst = 10, .clients = 50, .requests = 300 };
    uint64_t *const values[] = { &bucket.per_second, &bucket.burst, &bucket.clients,
                                 &bucket.requests };
    for (int i = 1; i < argc && i <= 4; i++) {
        char *end;
        *values[i - 1] = strtoull(argv[i], &end, 10);
        if (*end || *values[i - 1] == 0 || *values[i - 1] > 1000000) {
            fprintf(stderr, "rate_limiter: %s is no number from 1 to 1000000\n", argv[i]);
            return 2;
        }
    }
    int64_t rc = numio_main(NULL, run, &bucket);
    if (rc < 0)
        fprintf(stderr, "rate_limiter: %s\n", strerror((int)-rc));
    return rc < 0;
}
