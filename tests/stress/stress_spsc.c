/* SPDX-License-Identifier: MIT */
/* Pairs of a sender and a receiver, coroutines on several workers and plain threads, move messages
 * through small rings, one by one, many at once, and by selections, and give up waiting all the
 * time.  Every message arrives once and in order; nobody waits for ever, which the watchdog would
 * notice.
 *
 * Weakened [SP1] or [SP3]: ThreadSanitizer reports the message; [SP2] or [SP4]: the wait.  Without
 * the last look before a wait, or the look whether the other waits, a side waits for ever.
 */
#include <errno.h>
#include <pthread.h>

#include <numio/numio.h>

#include "tests/stress/stress.h"

enum { PAIRS = 3, MESSAGES = 2000, ROUNDS_MIN = 3, MANY = 5, TIMEOUT_NS_MAX = 20000 };

struct message {
    uint64_t number;
    const uint64_t *check; /* written by the sender before it sends */
};

struct side {
    struct numio_spsc *spsc;
    struct nio_rng rng;
    uint64_t stopped;
    uint64_t checks[MESSAGES]; /* the sender's */
};

struct pair {
    struct side sender, receiver;
};

static bool is_stop(struct side *s, int64_t rc)
{
    s->stopped += rc == -ETIMEDOUT || rc == -EAGAIN;
    return rc == -ETIMEDOUT || rc == -EAGAIN;
}

static int64_t selected(struct side *s, struct numio_op *op)
{
    struct numio_op ops[2];
    struct numio_semaphore never = NUMIO_SEMAPHORE_INIT(0);
    ops[0] = *op;
    numio_op_semaphore_acquire(&ops[1], &never, 1);
    int64_t index = numio_within(nio_rng_below(&s->rng, TIMEOUT_NS_MAX),
                                 numio_select(ops, 2, NUMIO_SELECT_FAIR));
    STRESS_CHECK(index == 0 || index == -ETIMEDOUT);
    return index == 0 ? numio_op_result(&ops[0]) : index;
}

/* How many have gone, or why not. */
static int64_t send_once(struct side *s, const struct message *messages, uint64_t count)
{
    struct numio_op op;
    int64_t rc;
    uint64_t timeout_ns = nio_rng_below(&s->rng, TIMEOUT_NS_MAX);
    switch (nio_rng_below(&s->rng, 5)) {
    case 0:
        rc = numio_spsc_try_send(s->spsc, messages);
        break;
    case 1:
        rc = numio_within(timeout_ns, numio_spsc_send(s->spsc, messages));
        break;
    case 2:
        return numio_within(timeout_ns, numio_spsc_send_many(s->spsc, messages, count));
    case 3:
        numio_op_spsc_send(&op, s->spsc, messages);
        rc = selected(s, &op);
        break;
    default:
        rc = numio_spsc_send(s->spsc, messages);
        break;
    }
    return rc ? rc : 1;
}

static int64_t run_sender(void *arg)
{
    struct side *s = arg;
    struct message messages[MANY];
    for (uint64_t n = 0; n < MESSAGES;) {
        uint64_t count = MESSAGES - n < MANY ? MESSAGES - n : MANY;
        for (uint64_t i = 0; i < count; i++) {
            s->checks[n + i] = n + i + 7;
            messages[i] = (struct message){ n + i, &s->checks[n + i] };
        }
        int64_t sent = send_once(s, messages, count);
        if (is_stop(s, sent))
            continue;
        STRESS_CHECK(sent > 0);
        n += (uint64_t)sent;
        if (nio_rng_below(&s->rng, 8) == 0)
            stress_jitter(&s->rng);
    }
    numio_spsc_close(s->spsc);
    return 0;
}

static int64_t receive_once(struct side *s, struct message *messages)
{
    struct numio_op op;
    int64_t rc;
    uint64_t timeout_ns = nio_rng_below(&s->rng, TIMEOUT_NS_MAX);
    switch (nio_rng_below(&s->rng, 5)) {
    case 0:
        rc = numio_spsc_try_recv(s->spsc, messages);
        break;
    case 1:
        rc = numio_within(timeout_ns, numio_spsc_recv(s->spsc, messages));
        break;
    case 2:
        return numio_within(timeout_ns, numio_spsc_recv_many(s->spsc, messages, MANY));
    case 3:
        numio_op_spsc_recv(&op, s->spsc, messages);
        rc = selected(s, &op);
        break;
    default:
        rc = numio_spsc_recv(s->spsc, messages);
        break;
    }
    return rc ? rc : 1;
}

static int64_t run_receiver(void *arg)
{
    struct side *s = arg;
    struct message messages[MANY];
    uint64_t next = 0;
    int64_t n;
    while ((n = receive_once(s, messages)) != -EPIPE) {
        if (is_stop(s, n))
            continue;
        STRESS_CHECK(n > 0 && n <= MANY);
        for (int64_t i = 0; i < n; i++) {
            STRESS_CHECK(messages[i].number == next++);
            STRESS_CHECK(*messages[i].check == messages[i].number + 7);
        }
        if (nio_rng_below(&s->rng, 8) == 0)
            stress_jitter(&s->rng);
    }
    STRESS_CHECK(next == MESSAGES);
    return 0;
}

static void *receive_in_thread(void *arg)
{
    (void)run_receiver(arg);
    return NULL;
}

static void *send_in_thread(void *arg)
{
    (void)run_sender(arg);
    return NULL;
}

static struct numio_join *spawn(struct numio_handle *handle, int64_t (*fn)(void *arg), void *arg)
{
    struct numio_join *join;
    STRESS_CHECK(numio_spawn_co(handle, fn, arg, NULL, &join) == 0);
    return join;
}

/* The first pair has a receiving thread, the second a sending one. */
static void run_round(struct numio_handle *handle, struct pair *pairs, struct nio_rng *rng)
{
    struct numio_join *senders[PAIRS] = { NULL }, *receivers[PAIRS] = { NULL };
    pthread_t receiver, sender;
    for (unsigned i = 0; i < PAIRS; i++) {
        struct numio_spsc *spsc;
        uint64_t seeds[2] = { nio_rng_next(rng), nio_rng_next(rng) };
        STRESS_CHECK(numio_spsc_create(handle, (int)(i % 2), sizeof(struct message),
                                       1 + nio_rng_below(rng, 6), &spsc) == 0);
        pairs[i].sender.spsc = pairs[i].receiver.spsc = spsc;
        nio_rng_init(&pairs[i].sender.rng, &seeds[0]);
        nio_rng_init(&pairs[i].receiver.rng, &seeds[1]);
    }
    STRESS_CHECK(pthread_create(&receiver, NULL, receive_in_thread, &pairs[0].receiver) == 0);
    STRESS_CHECK(pthread_create(&sender, NULL, send_in_thread, &pairs[1].sender) == 0);
    for (unsigned i = 0; i < PAIRS; i++) {
        senders[i] = i == 1 ? NULL : spawn(handle, run_sender, &pairs[i].sender);
        receivers[i] = i == 0 ? NULL : spawn(handle, run_receiver, &pairs[i].receiver);
    }
    for (unsigned i = 0; i < PAIRS; i++) {
        STRESS_CHECK(!senders[i] || numio_join_wait(&senders[i], -1) == 0);
        STRESS_CHECK(!receivers[i] || numio_join_wait(&receivers[i], -1) == 0);
    }
    (void)pthread_join(receiver, NULL); /* cannot fail: joined once */
    (void)pthread_join(sender, NULL);   /* likewise */
    for (unsigned i = 0; i < PAIRS; i++)
        numio_spsc_destroy(pairs[i].sender.spsc);
}

int main(void)
{
    static struct pair pairs[PAIRS];
    uint64_t seed, stop_ns = stress_start(&seed), rounds = 0, stopped = 0;
    struct nio_rng rng;
    struct numio_config config;
    struct numio_runtime *runtime;
    STRESS_CHECK(numio_config_init(&config, sizeof config) == 0);
    config.topology = "pack:2 numa:1 core:1 pu:1";
    STRESS_CHECK(numio_runtime_create(&config, &runtime) == 0);
    nio_rng_init(&rng, &seed);
    for (; rounds < ROUNDS_MIN || nio_now_ns() < stop_ns; rounds++)
        run_round(numio_runtime_handle(runtime), pairs, &rng);
    numio_runtime_destroy(runtime); /* asserts that every cell and every ring came home */
    for (unsigned i = 0; i < PAIRS; i++)
        stopped += pairs[i].sender.stopped + pairs[i].receiver.stopped;
    printf("stress_spsc: %llu rounds, %llu sends and receives stopped\n",
           (unsigned long long)rounds, (unsigned long long)stopped);
    return stopped == 0;
}
