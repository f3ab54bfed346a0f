/* SPDX-License-Identifier: MIT */
/* Messages move through channels of every kind: coroutines that are aborted or run out of time,
 * selections, futures that are aborted after they were told, and plain threads, all at once.  Each
 * message that a sender knows to have gone arrives once; with all at rest the channel is empty, and
 * nobody waits for ever, which the watchdog would notice.
 *
 * Weakened [CN1] or [CN4]: ThreadSanitizer reports the message; [CN5] or [CN6]: the block.  Without
 * the last look of a sender, or the look of the one receiver after it has made a place, a sender
 * waits for ever.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { THREADS = 2, TASKS = 4, ROUNDS_MIN = 20, MESSAGES = 200, TIMEOUT_NS_MAX = 40000, MANY = 5 };

struct letter {
    uint64_t *target; /* what the sender sees raised when it has arrived */
    uint64_t check;
};

struct side {
    struct numio_channel *channel;
    struct nio_rng rng;
    uint64_t arrived[MESSAGES]; /* how often each of this sender's messages came */
    bool has_gone[MESSAGES];
    bool is_alone; /* the channel's only receiver */
    uint64_t received, stopped;
};

static void prepare(struct side *s, unsigned n, struct letter *letter)
{
    letter->target = &s->arrived[n];
    letter->check = (uintptr_t)letter->target ^ 0x5a5a;
}

static void open_letter(struct side *s, const struct letter *letter)
{
    STRESS_CHECK(letter->check == ((uintptr_t)letter->target ^ 0x5a5a));
    (*letter->target)++; /* the sender reads it after all have ended */
    s->received++;
}

static uint64_t draw_timeout(struct side *s)
{
    return nio_rng_below(&s->rng, TIMEOUT_NS_MAX);
}

static int send_selected(struct side *s, const struct letter *letter)
{
    struct numio_op ops[2];
    struct numio_semaphore never = NUMIO_SEMAPHORE_INIT(0);
    numio_op_channel_send(&ops[0], s->channel, letter);
    numio_op_semaphore_acquire(&ops[1], &never, 1);
    int64_t index = numio_within(draw_timeout(s), numio_select(ops, 2, NUMIO_SELECT_FAIR));
    STRESS_CHECK(index == 0 || index < 0);
    return index == 0 ? (int)numio_op_result(&ops[0]) : (int)index;
}

static int send_reserved(struct side *s, const struct letter *letter)
{
    int rc = numio_within(draw_timeout(s), numio_channel_reserve(s->channel));
    if (rc == -EINVAL)
        return numio_channel_send(s->channel, letter);
    if (rc == 0 && nio_rng_below(&s->rng, 4) == 0) {
        STRESS_CHECK(numio_channel_release(s->channel) == 0);
        return -ETIMEDOUT;
    }
    return rc ? rc : numio_channel_send_reserved(s->channel, letter);
}

static int send_once(struct side *s, const struct letter *letter)
{
    switch (nio_rng_below(&s->rng, 5)) {
    case 0:
        return send_selected(s, letter);
    case 1:
        return send_reserved(s, letter);
    case 2:
        return numio_channel_try_send(s->channel, letter);
    case 3:
        return numio_within(draw_timeout(s), numio_channel_send(s->channel, letter));
    default:
        return numio_channel_send(s->channel, letter);
    }
}

static int64_t run_sender(void *arg)
{
    struct side *s = arg;
    bool is_aborted = false;
    for (unsigned n = 0; n < MESSAGES && !is_aborted; n++) {
        struct letter letter;
        prepare(s, n, &letter);
        int rc = send_once(s, &letter);
        STRESS_CHECK(rc == 0 || rc == -ETIMEDOUT || rc == -ECANCELED || rc == -EAGAIN);
        s->has_gone[n] = rc == 0;
        s->stopped += rc != 0;
        is_aborted = rc == -ECANCELED;
        if (nio_rng_below(&s->rng, 4) == 0)
            stress_jitter(&s->rng);
    }
    return 0;
}

static void *run_sender_thread(void *arg)
{
    (void)run_sender(arg);
    return NULL;
}

static int64_t receive_selected(struct side *s, struct letter *letter)
{
    struct numio_op ops[2];
    struct numio_semaphore never = NUMIO_SEMAPHORE_INIT(0);
    numio_op_channel_recv(&ops[0], s->channel, letter);
    numio_op_semaphore_acquire(&ops[1], &never, 1);
    int64_t index = numio_within(draw_timeout(s), numio_select(ops, 2, NUMIO_SELECT_FAIR));
    STRESS_CHECK(index == 0 || index < 0);
    return index == 0 ? numio_op_result(&ops[0]) : index;
}

/* How many came, or an error. */
static int64_t receive_once(struct side *s, struct letter *letters)
{
    int64_t n;
    switch (nio_rng_below(&s->rng, 4)) {
    case 0:
        n = receive_selected(s, letters);
        break;
    case 1:
        return numio_channel_recv_many(s->channel, letters, MANY);
    case 2:
        n = numio_channel_try_recv(s->channel, letters);
        break;
    default:
        n = numio_within(draw_timeout(s), numio_channel_recv(s->channel, letters));
        break;
    }
    return n == 0 ? 1 : n;
}

static int64_t run_receiver(void *arg)
{
    struct side *s = arg;
    struct letter letters[MANY];
    for (;;) {
        int64_t n = receive_once(s, letters);
        if (n == -EPIPE || (n == -ECANCELED && !s->is_alone))
            return 0;
        STRESS_CHECK(n > 0 || n == -ETIMEDOUT || n == -EAGAIN || n == -ECANCELED);
        s->stopped += n < 0;
        for (int64_t i = 0; i < n; i++)
            open_letter(s, &letters[i]);
        if (nio_rng_below(&s->rng, 8) == 0)
            s->stopped += numio_yield_now() < 0; /* aborted, and goes on if it is alone */
    }
}

/* A future that receives, and after `polls` of it looks at nothing any more. */
struct dozer {
    struct side *side;
    struct numio_op op;
    struct letter letter;
    unsigned polls;
    bool is_waiting;
};

static enum numio_poll poll_dozer(void *state, struct numio_context *cx)
{
    struct dozer *d = state;
    int64_t result;
    while (d->polls-- > 0) {
        if (!d->is_waiting) {
            numio_op_channel_recv(&d->op, d->side->channel, &d->letter);
            if (numio_op_start(&d->op, cx) != 0)
                return NUMIO_READY;
            d->is_waiting = true;
        }
        if (numio_op_poll(&d->op, cx, &result) == NUMIO_PENDING)
            return NUMIO_PENDING;
        d->is_waiting = false;
        if (result == -EPIPE)
            return NUMIO_READY;
        STRESS_CHECK(result == 0);
        open_letter(d->side, &d->letter);
    }
    d->polls = 0;
    return NUMIO_PENDING;
}

struct round {
    struct numio_channel *channel;
    struct side senders[TASKS + 1], receivers[TASKS], dozers[TASKS];
    struct nio_rng rng;
};

static void start_side(struct round *r, struct side *s)
{
    memset(s, 0, sizeof *s);
    s->channel = r->channel;
    uint64_t seed = nio_rng_next(&r->rng);
    nio_rng_init(&s->rng, &seed);
}

static struct numio_join *spawn(struct numio_handle *handle, int64_t (*fn)(void *arg), void *arg)
{
    struct numio_join *join;
    STRESS_CHECK(numio_spawn_co(handle, fn, arg, NULL, &join) == 0);
    return join;
}

static struct numio_join *spawn_dozer(struct numio_handle *handle, struct round *r, struct side *s)
{
    struct dozer d = { .side = s, .polls = nio_rng_below(&r->rng, MESSAGES / 2) };
    struct numio_future future = { .poll = poll_dozer, .state = &d, .size = sizeof d };
    struct numio_join *join;
    STRESS_CHECK(numio_spawn(handle, &future, NULL, &join) == 0);
    return join;
}

static void check_round(struct round *r)
{
    for (unsigned i = 0; i < TASKS + 1; i++)
        for (unsigned n = 0; n < MESSAGES; n++)
            STRESS_CHECK(r->senders[i].arrived[n] == r->senders[i].has_gone[n]);
    STRESS_CHECK(numio_channel_len(r->channel) == 0);
}

static void run_round(struct numio_handle *handle, struct round *r, uint64_t capacity,
                      unsigned flags)
{
    struct numio_join *senders[TASKS], *receivers[TASKS], *dozers[TASKS];
    pthread_t thread;
    bool is_alone = flags & NUMIO_CHANNEL_ONE_RECEIVER;
    unsigned count = is_alone ? 1 : TASKS;
    STRESS_CHECK(numio_channel_create(sizeof(struct letter), capacity, flags, &r->channel) == 0);
    for (unsigned i = 0; i < count; i++) {
        start_side(r, &r->receivers[i]);
        start_side(r, &r->dozers[i]);
        r->receivers[i].is_alone = is_alone || i == 0;
        receivers[i] = spawn(handle, run_receiver, &r->receivers[i]);
        dozers[i] = is_alone ? NULL : spawn_dozer(handle, r, &r->dozers[i]);
    }
    for (unsigned i = 0; i < TASKS + 1; i++)
        start_side(r, &r->senders[i]);
    STRESS_CHECK(pthread_create(&thread, NULL, run_sender_thread, &r->senders[TASKS]) == 0);
    for (unsigned i = 0; i < TASKS; i++)
        senders[i] = spawn(handle, run_sender, &r->senders[i]);
    stress_jitter(&r->rng);
    numio_join_abort(senders[0]);
    for (unsigned i = 0; !is_alone && i < count; i++) {
        stress_jitter(&r->rng);
        numio_join_abort(dozers[i]);
        if (i > 0)
            numio_join_abort(receivers[i]);
    }
    (void)pthread_join(thread, NULL); /* cannot fail: joined once */
    for (unsigned i = 0; i < TASKS; i++)
        STRESS_CHECK(numio_join_wait(&senders[i], -1) == 0 || i == 0);
    numio_channel_close(r->channel);
    for (unsigned i = 0; !is_alone && i < count; i++)
        STRESS_CHECK(numio_join_wait(&dozers[i], -1) <= 0); /* aborted, or saw the close */
    for (unsigned i = 0; i < count; i++)
        STRESS_CHECK(numio_join_wait(&receivers[i], -1) <= 0);
    check_round(r);
    numio_channel_destroy(r->channel);
}

/* One place, one receiver, and nobody who gives up: whoever is forgotten waits for ever. */
enum { DUEL_MESSAGES = 500 };

static void *duel_in_thread(void *channel)
{
    for (uint64_t i = 0; i < DUEL_MESSAGES; i++)
        STRESS_CHECK(numio_channel_send(channel, &i) == 0);
    return NULL;
}

static int64_t duel_in_task(void *channel)
{
    uint64_t message;
    for (uint64_t i = 0; i < DUEL_MESSAGES; i++)
        STRESS_CHECK(numio_channel_recv(channel, &message) == 0 && message == i);
    return 0;
}

static void run_duel(struct numio_handle *handle)
{
    struct numio_channel *channel;
    pthread_t thread;
    STRESS_CHECK(numio_channel_create(8, 1, NUMIO_CHANNEL_ONE_RECEIVER, &channel) == 0);
    struct numio_join *join = spawn(handle, duel_in_task, channel);
    STRESS_CHECK(pthread_create(&thread, NULL, duel_in_thread, channel) == 0);
    (void)pthread_join(thread, NULL); /* cannot fail: joined once */
    STRESS_CHECK(numio_join_wait(&join, -1) == 0);
    numio_channel_destroy(channel);
}

int main(void)
{
    static const uint64_t capacities[] = { 1, 2, 7, NUMIO_CHANNEL_UNBOUNDED };
    static struct round round;
    uint64_t seed, stop_ns = stress_start(&seed), rounds = 0, stopped = 0;
    struct numio_config config;
    struct numio_runtime *runtime;
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:1 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    nio_rng_init(&round.rng, &seed);
    for (; rounds < ROUNDS_MIN || nio_now_ns() < stop_ns; rounds++) {
        if (rounds % 4 == 3)
            run_duel(numio_runtime_handle(runtime));
        run_round(numio_runtime_handle(runtime), &round, capacities[rounds % 4],
                  rounds % 8 < 4 ? 0 : NUMIO_CHANNEL_ONE_RECEIVER);
        for (unsigned i = 0; i < TASKS; i++)
            stopped += round.senders[i].stopped + round.receivers[i].stopped;
    }
    numio_runtime_destroy(runtime); /* asserts that every cell came home */
    printf("stress_channel: %llu rounds, %llu sends and receives stopped\n",
           (unsigned long long)rounds, (unsigned long long)stopped);
    return stopped == 0;
}
