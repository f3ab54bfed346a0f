/* SPDX-License-Identifier: MIT */
/* Promises of the channel: every message arrives once, in order; the limit holds; senders and
 * receivers are served in the order they came; reserved places; closing; misuse; memory that fails.
 */
#include "tests/runtime_fixture.h"
#include "tests/seeded.h"
#include "tests/steps.h"

#include <pthread.h>

#include "runtime/base/mem.h"

enum { MODEL_MAX = 4096, MODEL_STEPS = 20000, MESSAGE_MAX = 104, MANY = 9 };

static int64_t last_line;

static int64_t run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    return last_line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
}

static struct numio_channel *create(size_t bytes, uint64_t capacity, unsigned flags)
{
    struct numio_channel *channel = NULL;
    return numio_channel_create(bytes, capacity, flags, &channel) == 0 ? channel : NULL;
}

/* ---- the model ----------------------------------------------------------------------------- */

struct model {
    struct numio_channel *channel;
    struct nio_rng rng;
    size_t bytes;
    uint64_t capacity, reserved, first, next; /* numbers of messages */
    bool is_closed;
};

/* Message number n, in as many bytes as there are. */
static void make(const struct model *m, uint64_t n, unsigned char *message)
{
    for (size_t i = 0; i < m->bytes; i++)
        message[i] = (unsigned char)(n * 31 + i * 7 + (n >> 8));
}

static bool is_made(const struct model *m, uint64_t n, const unsigned char *message)
{
    unsigned char expected[MESSAGE_MAX];
    make(m, n, expected);
    return memcmp(expected, message, m->bytes) == 0;
}

static uint64_t model_room(const struct model *m)
{
    uint64_t used = m->next - m->first + m->reserved;
    uint64_t limit = m->capacity < MODEL_MAX ? m->capacity : MODEL_MAX;
    return used < limit ? limit - used : 0;
}

static int64_t model_send(struct model *m)
{
    unsigned char message[MESSAGE_MAX];
    make(m, m->next, message);
    bool is_full = m->next - m->first + m->reserved >= m->capacity;
    int expected = m->is_closed ? -EPIPE : is_full ? -EAGAIN : 0;
    EXPECT(numio_channel_try_send(m->channel, message) == expected);
    m->next += expected == 0;
    return 0;
}

static int64_t model_send_many(struct model *m)
{
    unsigned char messages[MANY * MESSAGE_MAX];
    uint64_t count = nio_rng_below(&m->rng, MANY + 1);
    if (count > model_room(m))
        count = model_room(m);
    for (uint64_t i = 0; i < count; i++)
        make(m, m->next + i, messages + i * m->bytes);
    int64_t expected = m->is_closed && count ? -EPIPE : (int64_t)count;
    EXPECT(numio_channel_send_many(m->channel, messages, count) == expected);
    m->next += expected > 0 ? count : 0;
    return 0;
}

static int64_t model_recv(struct model *m)
{
    unsigned char message[MESSAGE_MAX];
    bool is_empty = m->next == m->first;
    int expected = !is_empty ? 0 : m->is_closed && m->reserved == 0 ? -EPIPE : -EAGAIN;
    EXPECT(numio_channel_try_recv(m->channel, message) == expected);
    if (expected)
        return 0;
    EXPECT(is_made(m, m->first, message));
    m->first++;
    return 0;
}

static int64_t model_recv_many(struct model *m)
{
    unsigned char messages[MANY * MESSAGE_MAX];
    uint64_t count = nio_rng_below(&m->rng, MANY + 1), there = m->next - m->first;
    if (there == 0 && count > 0 && !(m->is_closed && m->reserved == 0))
        return 0; /* it would wait */
    int64_t expected = (int64_t)(count < there ? count : there);
    if (there == 0 && count > 0)
        expected = -EPIPE;
    EXPECT(numio_channel_recv_many(m->channel, messages, count) == expected);
    for (int64_t i = 0; i < expected; i++)
        EXPECT(is_made(m, m->first + (uint64_t)i, messages + (size_t)i * m->bytes));
    m->first += expected > 0 ? (uint64_t)expected : 0;
    return 0;
}

static int64_t model_reserve(struct model *m)
{
    int expected = m->capacity == NUMIO_CHANNEL_UNBOUNDED ? -EINVAL
                   : m->is_closed                         ? -EPIPE
                   : model_room(m) == 0                   ? -EAGAIN
                                                          : 0;
    EXPECT(numio_channel_try_reserve(m->channel) == expected);
    m->reserved += expected == 0;
    return 0;
}

static int64_t model_use_place(struct model *m)
{
    unsigned char message[MESSAGE_MAX];
    make(m, m->next, message);
    bool does_send = nio_rng_below(&m->rng, 2);
    int expected = m->reserved > 0 ? 0 : -EPERM;
    if (does_send)
        EXPECT(numio_channel_send_reserved(m->channel, message) == expected);
    else
        EXPECT(numio_channel_release(m->channel) == expected);
    m->reserved -= expected == 0;
    m->next += expected == 0 && does_send;
    return 0;
}

static int64_t model_step(struct model *m)
{
    switch (nio_rng_below(&m->rng, 7)) {
    case 0:
    case 1:
        return model_send(m);
    case 2:
        return model_recv(m);
    case 3:
        return model_send_many(m);
    case 4:
        return model_recv_many(m);
    case 5:
        return model_reserve(m);
    default:
        return model_use_place(m);
    }
}

static int64_t run_model(struct model *m, unsigned flags)
{
    EXPECT(numio_channel_create(m->bytes, m->capacity, flags, &m->channel) == 0);
    for (int i = 0; i < MODEL_STEPS; i++) {
        int64_t line = model_step(m);
        if (line)
            return line;
        if (i == MODEL_STEPS - 500) {
            numio_channel_close(m->channel);
            m->is_closed = true;
        }
        EXPECT(numio_channel_len(m->channel) == m->next - m->first);
        EXPECT(numio_channel_is_closed(m->channel) == m->is_closed);
    }
    EXPECT(numio_channel_capacity(m->channel) == m->capacity);
    numio_channel_destroy(m->channel);
    return 0;
}

Test(channel, agrees_with_a_naive_model, .timeout = 60)
{
    static const size_t bytes[] = { 1, 4, 8, 16, 24, 100 };
    static const uint64_t capacities[] = { 1, 2, 3, 7, 64, 1000, NUMIO_CHANNEL_UNBOUNDED };
    struct nio_rng rng = seeded_rng(17);
    for (size_t b = 0; b < NIO_ARRAY_LEN(bytes); b++)
        for (size_t c = 0; c < NIO_ARRAY_LEN(capacities); c++)
            for (unsigned flags = 0; flags <= NUMIO_CHANNEL_ONE_RECEIVER; flags++) {
                struct model m = { .rng = rng, .bytes = bytes[b], .capacity = capacities[c] };
                int64_t line = run_model(&m, flags);
                cr_assert_eq(line, 0, "line %ld: %zu bytes, capacity %lu, flags %u", (long)line,
                             bytes[b], (unsigned long)capacities[c], flags);
                rng = m.rng;
            }
}

/* ---- many senders, many receivers ---------------------------------------------------------- */

enum { PAIRS = 4, EACH = 3000, SENDERS = PAIRS + 1, RECEIVERS_MAX = PAIRS + 1 };

/* A message is who sent it, and its number. */
struct letter {
    uint32_t sender, number;
};

struct crowd {
    struct numio_channel *channel;
    bool is_shared; /* several receive */
    uint64_t sent[SENDERS][EACH];
    _Atomic uint32_t senders_left; /* [XC1] */
};

struct worker {
    struct crowd *crowd;
    uint32_t index;
    uint64_t got[SENDERS][EACH];
    int64_t count;
};

static int64_t send_letters(void *arg)
{
    struct worker *w = arg;
    struct numio_channel *channel = w->crowd->channel;
    struct letter letters[MANY];
    for (uint32_t n = 0; n < EACH;) {
        uint32_t count = n % MANY + 1;
        for (uint32_t i = 0; i < count; i++)
            letters[i] = (struct letter){ w->index, n + i };
        if (n + count > EACH)
            count = EACH - n;
        if (n % 3 == 0)
            EXPECT(numio_channel_send_many(channel, letters, count) == count);
        else if (n % 3 == 1)
            for (uint32_t i = 0; i < count; i++)
                EXPECT(numio_channel_send(channel, &letters[i]) == 0);
        else
            for (uint32_t i = 0; i < count; i++) {
                int rc = numio_channel_reserve(channel);
                EXPECT(rc == 0 || rc == -EINVAL);
                EXPECT((rc ? numio_channel_send(channel, &letters[i])
                           : numio_channel_send_reserved(channel, &letters[i])) == 0);
            }
        n += count;
    }
    /* [XC1] acq_rel: the last closes when all have sent.  Pairs with itself. */
    if (atomic_fetch_sub_explicit(&w->crowd->senders_left, 1, memory_order_acq_rel) == 1)
        numio_channel_close(channel);
    return 0;
}

static int64_t receive_letters(void *arg)
{
    struct worker *w = arg;
    struct letter letters[MANY];
    uint32_t next[SENDERS] = { 0 };
    for (;;) {
        int64_t n = w->count % 2 ? numio_channel_recv_many(w->crowd->channel, letters, MANY)
                                 : numio_channel_recv(w->crowd->channel, letters);
        n = n == 0 ? 1 : n;
        if (n == -EPIPE)
            return 0;
        EXPECT(n > 0);
        for (int64_t i = 0; i < n; i++) {
            EXPECT(letters[i].sender < SENDERS && letters[i].number < EACH);
            EXPECT(letters[i].number >= next[letters[i].sender]); /* in order */
            next[letters[i].sender] = letters[i].number + 1;
            w->got[letters[i].sender][letters[i].number]++;
        }
        w->count += n;
    }
}

struct crowd_run {
    struct crowd crowd;
    struct worker senders[SENDERS], receivers[RECEIVERS_MAX];
};

static int64_t spawn_crowd(void *arg)
{
    struct crowd_run *r = arg;
    int receivers = r->crowd.is_shared ? PAIRS : 1;
    struct numio_join *joins[2 * PAIRS];
    for (int i = 0; i < PAIRS; i++)
        EXPECT(numio_spawn_co(NULL, send_letters, &r->senders[i], NULL, &joins[i]) == 0);
    for (int i = 0; i < receivers; i++)
        EXPECT(numio_spawn_co(NULL, receive_letters, &r->receivers[i], NULL, &joins[PAIRS + i]) ==
               0);
    for (int i = 0; i < PAIRS + receivers; i++) {
        int64_t line = numio_join_await(&joins[i]);
        if (line)
            return line;
    }
    return 0;
}

static void *send_in_thread(void *arg)
{
    return (void *)(intptr_t)send_letters(arg);
}

static void *receive_in_thread(void *arg)
{
    return (void *)(intptr_t)receive_letters(arg);
}

static void check_crowd(const struct crowd_run *r)
{
    for (int s = 0; s < SENDERS; s++)
        for (int n = 0; n < EACH; n++) {
            uint64_t got = 0;
            for (int i = 0; i < RECEIVERS_MAX; i++)
                got += r->receivers[i].got[s][n];
            cr_assert_eq(got, 1u, "message %d of sender %d came %lu times", n, s,
                         (unsigned long)got);
        }
}

/* A plain thread sends beside the tasks, and one receives where several may. */
static void crowd(struct numio_runtime *runtime, uint64_t capacity, unsigned flags)
{
    struct crowd_run *r = calloc(1, sizeof *r);
    pthread_t sender, receiver;
    void *line = NULL;
    cr_assert_not_null(r);
    r->crowd.channel = create(sizeof(struct letter), capacity, flags);
    cr_assert_not_null(r->crowd.channel);
    r->crowd.is_shared = !(flags & NUMIO_CHANNEL_ONE_RECEIVER);
    /* relaxed: the senders start later */
    atomic_store_explicit(&r->crowd.senders_left, SENDERS, memory_order_relaxed);
    for (uint32_t i = 0; i < SENDERS; i++)
        r->senders[i] = (struct worker){ .crowd = &r->crowd, .index = i };
    for (uint32_t i = 0; i < RECEIVERS_MAX; i++)
        r->receivers[i] = (struct worker){ .crowd = &r->crowd, .index = i };
    cr_assert_eq(pthread_create(&sender, NULL, send_in_thread, &r->senders[PAIRS]), 0);
    if (r->crowd.is_shared)
        cr_assert_eq(pthread_create(&receiver, NULL, receive_in_thread, &r->receivers[PAIRS]), 0);
    cr_assert_eq(run(runtime, spawn_crowd, r), 0, "line %ld", (long)last_line);
    cr_assert_eq(pthread_join(sender, &line), 0);
    cr_assert_null(line, "line %ld", (long)(intptr_t)line);
    if (r->crowd.is_shared)
        cr_assert_eq(pthread_join(receiver, &line), 0);
    cr_assert_null(line, "line %ld", (long)(intptr_t)line);
    check_crowd(r);
    numio_channel_destroy(r->crowd.channel);
    free(r);
}

FIXTURE_EACH(channel, every_message_arrives_once_and_in_order, .timeout = 100)
{
    crowd(runtime, 3, 0);
    crowd(runtime, 100, 0);
    crowd(runtime, NUMIO_CHANNEL_UNBOUNDED, 0);
}

FIXTURE_EACH(channel, one_receiver_gets_every_message_in_order, .timeout = 100)
{
    crowd(runtime, 1, NUMIO_CHANNEL_ONE_RECEIVER);
    crowd(runtime, 100, NUMIO_CHANNEL_ONE_RECEIVER);
    crowd(runtime, NUMIO_CHANNEL_UNBOUNDED, NUMIO_CHANNEL_ONE_RECEIVER);
}

/* ---- turns --------------------------------------------------------------------------------- */

enum { TURNS = 8 };

struct turn {
    struct numio_channel *channel;
    int index, rc;
    uint64_t message;
};

static int64_t send_turn(void *arg)
{
    struct turn *t = arg;
    uint64_t message = (uint64_t)t->index;
    if (t->index % 3 != 2)
        return numio_channel_send(t->channel, &message);
    int rc = numio_channel_reserve(t->channel);
    return rc ? rc : numio_channel_send_reserved(t->channel, &message);
}

static int64_t receive_turn(void *arg)
{
    struct turn *t = arg;
    return numio_channel_recv(t->channel, &t->message);
}

static int64_t spawn_turns(struct numio_channel *channel, int64_t (*fn)(void *arg),
                           struct turn *turns, struct numio_join **joins)
{
    for (int i = 0; i < TURNS; i++) {
        turns[i] = (struct turn){ .channel = channel, .index = i };
        EXPECT(numio_spawn_co(NULL, fn, &turns[i], NULL, &joins[i]) == 0);
        EXPECT(numio_yield_now() == 0);
    }
    return 0;
}

static int64_t take_turns(void *arg)
{
    struct turn turns[TURNS];
    struct numio_join *joins[TURNS];
    uint64_t message = 99;
    EXPECT(numio_channel_send(arg, &message) == 0);
    EXPECT(spawn_turns(arg, send_turn, turns, joins) == 0);
    EXPECT(numio_channel_try_send(arg, &message) == -EAGAIN);
    EXPECT(numio_channel_recv(arg, &message) == 0 && message == 99);
    for (uint64_t i = 0; i < TURNS; i++) {
        EXPECT(numio_channel_try_send(arg, &message) == -EAGAIN); /* others were first */
        EXPECT(numio_channel_recv(arg, &message) == 0 && message == i);
    }
    for (int i = 0; i < TURNS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    EXPECT(numio_channel_len(arg) == 0);
    EXPECT(spawn_turns(arg, receive_turn, turns, joins) == 0);
    for (uint64_t i = 0; i < TURNS; i++)
        EXPECT(numio_channel_send(arg, &i) == 0);
    for (int i = 0; i < TURNS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0 && turns[i].message == (uint64_t)i);
    return 0;
}

Test(channel, senders_and_receivers_are_served_in_their_order, .timeout = 30)
{
    struct numio_channel *channel = create(8, 1, 0);
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, take_turns, channel), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
    numio_channel_destroy(channel);
}

/* ---- closing ------------------------------------------------------------------------------- */

static int64_t close_with_waiters(void *arg)
{
    struct turn turns[TURNS];
    struct numio_join *joins[TURNS];
    uint64_t message = 5;
    EXPECT(numio_channel_send(arg, &message) == 0);
    EXPECT(spawn_turns(arg, send_turn, turns, joins) == 0);
    numio_channel_close(arg);
    numio_channel_close(arg);
    for (int i = 0; i < TURNS; i++)
        EXPECT(numio_join_await(&joins[i]) == -EPIPE);
    EXPECT(numio_channel_send(arg, &message) == -EPIPE);
    EXPECT(numio_channel_send_many(arg, &message, 1) == -EPIPE);
    EXPECT(numio_channel_reserve(arg) == -EPIPE);
    EXPECT(numio_channel_recv(arg, &message) == 0 && message == 5); /* what is left */
    EXPECT(numio_channel_recv(arg, &message) == -EPIPE);
    EXPECT(numio_channel_try_recv(arg, &message) == -EPIPE);
    EXPECT(numio_channel_recv_many(arg, &message, 1) == -EPIPE);
    return 0;
}

FIXTURE_EACH(channel, after_the_close_the_rest_is_received, .timeout = 30)
{
    for (unsigned flags = 0; flags <= NUMIO_CHANNEL_ONE_RECEIVER; flags++) {
        struct numio_channel *channel = create(8, 1, flags);
        cr_assert_eq(run(runtime, close_with_waiters, channel), 0, "line %ld", (long)last_line);
        numio_channel_destroy(channel);
    }
}

static int64_t close_on_receivers(void *arg)
{
    struct turn turns[TURNS];
    struct numio_join *joins[TURNS];
    uint64_t message = 7;
    EXPECT(numio_channel_reserve(arg) == 0);
    EXPECT(spawn_turns(arg, receive_turn, turns, joins) == 0);
    numio_channel_close(arg);
    EXPECT(numio_yield_now() == 0);
    EXPECT(numio_join_try(&joins[0]) == -EAGAIN); /* one more may come */
    EXPECT(numio_channel_send_reserved(arg, &message) == 0);
    EXPECT(numio_join_await(&joins[0]) == 0 && turns[0].message == 7);
    for (int i = 1; i < TURNS; i++)
        EXPECT(numio_join_await(&joins[i]) == -EPIPE);
    return 0;
}

Test(channel, a_reserved_place_outlives_the_close, .timeout = 30)
{
    struct numio_channel *channel = create(8, 1, 0);
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, close_on_receivers, channel), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
    numio_channel_destroy(channel);
}

static int64_t release_on_senders(void *arg)
{
    struct turn turns[TURNS];
    struct numio_join *joins[TURNS];
    uint64_t message, sum = 0;
    EXPECT(numio_channel_reserve(arg) == 0);
    EXPECT(spawn_turns(arg, send_turn, turns, joins) == 0);
    EXPECT(numio_channel_len(arg) == 0);
    EXPECT(numio_channel_release(arg) == 0);
    for (uint64_t i = 0; i < TURNS; i++, sum += message)
        EXPECT(numio_channel_recv(arg, &message) == 0);
    EXPECT(sum == TURNS * (TURNS - 1) / 2);
    for (int i = 0; i < TURNS; i++)
        EXPECT(numio_join_await(&joins[i]) == 0);
    return 0;
}

FIXTURE_EACH(channel, a_place_that_is_released_goes_to_a_sender, .timeout = 30)
{
    for (unsigned flags = 0; flags <= NUMIO_CHANNEL_ONE_RECEIVER; flags++) {
        struct numio_channel *channel = create(8, 1, flags);
        cr_assert_eq(run(runtime, release_on_senders, channel), 0, "line %ld", (long)last_line);
        numio_channel_destroy(channel);
    }
}

/* ---- misuse, memory ------------------------------------------------------------------------ */

static int64_t receive_beside(void *arg)
{
    struct turn turns[TURNS];
    struct numio_join *joins[TURNS];
    uint64_t message = 1;
    EXPECT(spawn_turns(arg, receive_turn, turns, joins) == 0);
    for (int i = 1; i < TURNS; i++)
        EXPECT(numio_join_await(&joins[i]) == -EBUSY);
    EXPECT(numio_channel_recv(arg, &message) == -EBUSY);
    EXPECT(strstr(numio_strerror_detail(), "made for one"));
    EXPECT(numio_channel_send(arg, &message) == 0);
    EXPECT(numio_join_await(&joins[0]) == 0 && turns[0].message == 1);
    return 0;
}

Test(channel, a_second_receiver_is_told, .timeout = 30)
{
    struct numio_channel *channel = create(8, 4, NUMIO_CHANNEL_ONE_RECEIVER);
    struct numio_runtime *runtime = fixture_start(1);
    cr_assert_eq(run(runtime, receive_beside, channel), 0, "line %ld", (long)last_line);
    numio_runtime_destroy(runtime);
    numio_channel_destroy(channel);
}

Test(channel, refuses_what_it_cannot_be)
{
    struct numio_channel *none = NULL;
    cr_assert_eq(numio_channel_create(0, 1, 0, &none), -EINVAL);
    cr_assert_eq(numio_channel_create(NUMIO_MESSAGE_BYTES_MAX + 1, 1, 0, &none), -EINVAL);
    cr_assert_eq(numio_channel_create(8, 0, 0, &none), -EINVAL);
    cr_assert_eq(numio_channel_create(8, 1, 2, &none), -EINVAL);
    cr_assert_eq(numio_channel_create(8, UINT64_MAX - 1, 0, &none), -ENOMEM);
    cr_assert_eq(numio_channel_create(8, UINT64_C(1) << 61, 0, &none), -ENOMEM);
    cr_assert_null(none);
    numio_channel_destroy(none);
}

/* Until the creation, then sending, goes through without meeting a fault. */
static int64_t fill(struct numio_channel **ret_channel)
{
    uint64_t message = 0;
    int rc = numio_channel_create(8, NUMIO_CHANNEL_UNBOUNDED, 0, ret_channel);
    for (int i = 0; rc == 0 && i < 2000; i++) {
        rc = numio_channel_try_send(*ret_channel, &message);
        message += rc == 0;
    }
    return rc;
}

Test(channel, every_failing_allocation_is_told_and_loses_nothing, .timeout = 30)
{
    int64_t rc = -ENOMEM;
    for (long nth = 1; rc == -ENOMEM; nth++) {
        struct numio_channel *channel = NULL;
        uint64_t message;
        cr_assert_lt(nth, 100);
        nio_fault_arm(nth);
        rc = fill(&channel);
        bool has_struck = nio_fault_struck();
        nio_fault_arm(0);
        cr_assert_eq(rc, has_struck ? -ENOMEM : 0);
        uint64_t count = channel ? numio_channel_len(channel) : 0;
        for (uint64_t i = 0; i < count; i++)
            cr_assert(numio_channel_try_recv(channel, &message) == 0 && message == i);
        if (channel)
            cr_assert_eq(numio_channel_try_send(channel, &message), 0); /* as if nothing was */
        numio_channel_destroy(channel);
    }
}
