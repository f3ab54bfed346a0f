/* SPDX-License-Identifier: MIT */
/* Scenarios of messages between tasks.  Coroutines only: what waits is the call. */
#include <stdlib.h>

#include <numio/channel.h>

#include "perf/bench/bench_scenarios.h"

enum {
    MESSAGES = 100000,
    CAPACITY = 1000,
    PRODUCERS_MAX = 4,
    ONESHOTS = 10000,
    REPLIES = 10000,
    REPLY_CAPACITY = 16
};

/* --- mpsc_1p, mpsc_4p ----------------------------------------------------------------------- */

struct producer {
    struct numio_channel *channel;
    uint64_t messages;
};

static int64_t produce(void *arg)
{
    const struct producer *p = arg;
    for (uint64_t i = 1; i <= p->messages; i++)
        bench_must(numio_channel_send(p->channel, &i), "numio_channel_send");
    return 0;
}

/* The consumer: its time is that of all messages. */
struct mpsc {
    struct producer producers[PRODUCERS_MAX];
    unsigned count;
    struct bench_block block;
};

static int64_t consume(void *arg)
{
    struct mpsc *m = arg;
    struct numio_join *joins[PRODUCERS_MAX];
    uint64_t sum = 0, message, each = MESSAGES / m->count;
    struct numio_channel *channel;
    bench_must(numio_channel_create(sizeof message, CAPACITY, NUMIO_CHANNEL_ONE_RECEIVER, &channel),
               "numio_channel_create");
    uint64_t start_ns = bench_now_ns();
    for (unsigned i = 0; i < m->count; i++) {
        m->producers[i] = (struct producer){ channel, each };
        bench_must(numio_spawn_co(NULL, produce, &m->producers[i], NULL, &joins[i]),
                   "numio_spawn_co");
    }
    for (uint64_t i = 0; i < each * m->count; i++) {
        bench_must(numio_channel_recv(channel, &message), "numio_channel_recv");
        sum += message;
    }
    m->block = (struct bench_block){ bench_now_ns() - start_ns, each * m->count };
    for (unsigned i = 0; i < m->count; i++)
        bench_must(numio_join_await(&joins[i]), "numio_join_await");
    if (sum != m->count * (each * (each + 1) / 2))
        bench_fail("the messages add up to %llu", (unsigned long long)sum);
    numio_channel_destroy(channel);
    return 0;
}

static struct bench_block in_coroutine(struct bench *b, int64_t (*fn)(void *arg), void *arg,
                                       struct bench_block *block)
{
    struct numio_join *join;
    bench_must(numio_spawn_co(b->handle, fn, arg, NULL, &join), "numio_spawn_co");
    bench_must(numio_join_wait(&join, -1), "numio_join_wait");
    return *block;
}

static struct bench_block mpsc_block(struct bench *b, void *arg)
{
    struct mpsc *m = arg;
    return in_coroutine(b, consume, m, &m->block);
}

static void run_mpsc(struct bench *b, unsigned producers)
{
    struct mpsc mpsc = { .count = producers };
    if (!bench_start(b))
        return;
    bench_repeat(b, mpsc_block, &mpsc);
    bench_stop(b);
}

void bench_mpsc_1p(struct bench *b)
{
    run_mpsc(b, 1);
}

void bench_mpsc_4p(struct bench *b)
{
    run_mpsc(b, PRODUCERS_MAX);
}

/* --- oneshot -------------------------------------------------------------------------------- */

static int64_t pass_values(void *arg)
{
    struct bench_block *block = arg;
    uint64_t sum = 0, start_ns = bench_now_ns();
    for (uint64_t i = 0; i < ONESHOTS; i++) {
        struct numio_oneshot oneshot;
        uint64_t value;
        numio_oneshot_init(&oneshot);
        bench_must(numio_oneshot_send(&oneshot, &i, sizeof i), "numio_oneshot_send");
        bench_must(numio_oneshot_recv(&oneshot, &value, sizeof value), "numio_oneshot_recv");
        sum += value;
    }
    *block = (struct bench_block){ bench_now_ns() - start_ns, ONESHOTS };
    if (sum != (uint64_t)ONESHOTS * (ONESHOTS - 1) / 2)
        bench_fail("the values add up to %llu", (unsigned long long)sum);
    return 0;
}

static struct bench_block oneshot_block(struct bench *b, void *arg)
{
    return in_coroutine(b, pass_values, arg, arg);
}

void bench_oneshot(struct bench *b)
{
    struct bench_block block;
    if (!bench_start(b))
        return;
    bench_repeat(b, oneshot_block, &block);
    bench_stop(b);
}

/* --- request_reply -------------------------------------------------------------------------- */

struct dialogue {
    struct numio_channel *requests, *replies;
    struct bench_block block;
};

static int64_t reply(void *arg)
{
    const struct dialogue *d = arg;
    for (uint64_t i = 0; i < REPLIES; i++) {
        uint64_t message;
        bench_must(numio_channel_recv(d->requests, &message), "numio_channel_recv");
        message++;
        bench_must(numio_channel_send(d->replies, &message), "numio_channel_send");
    }
    return 0;
}

static int64_t request(void *arg)
{
    struct dialogue *d = arg;
    struct numio_join *join;
    uint64_t message = 0;
    bench_must(numio_channel_create(sizeof message, REPLY_CAPACITY, NUMIO_CHANNEL_ONE_RECEIVER,
                                    &d->requests),
               "numio_channel_create");
    bench_must(numio_channel_create(sizeof message, REPLY_CAPACITY, NUMIO_CHANNEL_ONE_RECEIVER,
                                    &d->replies),
               "numio_channel_create");
    bench_must(numio_spawn_co(NULL, reply, d, NULL, &join), "numio_spawn_co");
    uint64_t start_ns = bench_now_ns();
    for (uint64_t i = 0; i < REPLIES; i++) {
        bench_must(numio_channel_send(d->requests, &message), "numio_channel_send");
        bench_must(numio_channel_recv(d->replies, &message), "numio_channel_recv");
    }
    d->block = (struct bench_block){ bench_now_ns() - start_ns, REPLIES };
    bench_must(numio_join_await(&join), "numio_join_await");
    if (message != REPLIES)
        bench_fail("the last reply is %llu", (unsigned long long)message);
    numio_channel_destroy(d->requests);
    numio_channel_destroy(d->replies);
    return 0;
}

static struct bench_block dialogue_block(struct bench *b, void *arg)
{
    struct dialogue *d = arg;
    return in_coroutine(b, request, d, &d->block);
}

void bench_request_reply(struct bench *b)
{
    struct dialogue dialogue;
    if (!bench_start(b))
        return;
    bench_repeat(b, dialogue_block, &dialogue);
    bench_stop(b);
}
