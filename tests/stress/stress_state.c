/* SPDX-License-Identifier: MIT */
/* The state word under fire, without a scheduler: in each round three threads meet on one task.
 *
 * wakes: two threads leave a letter and wake by value; whoever is told to queue hands the task to
 *        the poller.  Once the word says that both references are gone, both letters must be
 *        there.  Weakened [TS1] or [TS2]: ThreadSanitizer reports the letters; weakened [TS3]: the
 *        poll count, which the pollers of two threads write in turn.
 * ends:  one thread completes the task while another leaves wakers, takes them back and moves them,
 *        and a third drops a reference.  Exactly one of completer and joiner has the last waker,
 * and exactly one thread releases.  Weakened [TS7] or [TS6]: the waker's contents; [TS4] or [TS5]:
 * the result; [TS8]: the contents of the released cell.
 */
#include <pthread.h>

#include "runtime/task/state.h"
#include "tests/stress/stress.h"

enum { THREADS = 3, MOVES_MAX = 4, BATCH = 64 };

struct waker {
    uint64_t value; /* written by the joiner before it leaves the waker */
};

static struct stress_barrier barrier = { .threads = THREADS };
static struct nio_task task;
static uint64_t letters[2];    /* plain on purpose */
static uint64_t poll_count;    /* plain on purpose: the running task's */
static uint64_t result;        /* plain on purpose: the completer's, then the joiner's */
static uint64_t released;      /* plain on purpose: whoever drops the last reference */
static _Atomic uint32_t ready; /* how often the task was queued and not yet taken */
static struct waker wakers[MOVES_MAX + 1];
static struct waker *completer_has, *joiner_has;
static uint64_t end_ns, seed;
static bool is_over;

static void set_up(uint64_t word)
{
    /* relaxed: before the meeting */
    atomic_store_explicit(&task.state, word, memory_order_relaxed);
    completer_has = joiner_has = NULL;
    released = 0;
}

static void queue_it(void)
{
    /* [SS1] release: as a run queue does.  Pairs with [SS2]. */
    (void)atomic_fetch_add_explicit(&ready, 1, memory_order_release);
}

/* Polls as often as the task is queued, until both letters are there. */
static void poll_until_both(uint64_t round)
{
    unsigned spins = 0;
    for (bool has_both = false; !has_both;) {
        uint32_t one = 1;
        /* [SS2] acquire: pairs with [SS1]; relaxed on failure: retried */
        if (!atomic_compare_exchange_strong_explicit(&ready, &one, 0, memory_order_acquire,
                                                     memory_order_relaxed)) {
            stress_pause(&spins);
            continue;
        }
        uint64_t before = nio_state_start(&task);
        poll_count++;
        has_both = nio_state_refs(before) == 1;
        if (has_both)
            STRESS_CHECK(letters[0] == round && letters[1] == round);
        if (nio_state_idle(&task))
            queue_it();
        else
            STRESS_CHECK(has_both || nio_state_refs(nio_state_load(&task)) > 0);
    }
}

static void round_of_wakes(unsigned self, uint64_t round, struct nio_rng *rng)
{
    if (self == round % THREADS) {
        poll_until_both(round);
        return;
    }
    stress_jitter(rng);
    letters[(self + THREADS - round % THREADS) % THREADS - 1] = round;
    if (nio_state_wake_by_value(&task) == NIO_WAKE_QUEUE)
        queue_it();
}

static void release_it(void)
{
    STRESS_CHECK(released == 0);
    released = 1;
    task.id = 0; /* the cell is nobody's any more */
}

static void complete_it(struct nio_rng *rng, uint64_t round)
{
    uintptr_t waker;
    stress_jitter(rng);
    result = round;
    if (nio_state_complete(&task, &waker))
        release_it();
    completer_has = (struct waker *)waker;
    if (completer_has)
        STRESS_CHECK(completer_has->value == round);
}

static void join_it(struct nio_rng *rng, uint64_t round)
{
    unsigned moves = nio_rng_below(rng, MOVES_MAX + 1);
    bool is_complete = false;
    for (unsigned i = 0; i <= moves && !is_complete; i++) {
        wakers[i].value = round;
        is_complete = !nio_state_set_join_waker(&task, (uintptr_t)&wakers[i]);
        if (is_complete)
            break;
        joiner_has = &wakers[i];
        if (nio_rng_below(rng, 4) == 0)
            stress_jitter(rng);
        if (i == moves)
            break;
        is_complete = !nio_state_unset_join_waker(&task);
        if (!is_complete)
            joiner_has = NULL;
    }
    unsigned spins = 0;
    while (!(nio_state_load(&task) & NIO_STATE_COMPLETE))
        stress_pause(&spins); /* until the completer is done */
    STRESS_CHECK(result == round);
    task.id++; /* a holder may use the cell */
    if (nio_state_drop_join(&task))
        release_it();
}

static void drop_it(struct nio_rng *rng)
{
    stress_jitter(rng);
    bool by_value = nio_rng_below(rng, 2);
    if (by_value ? nio_state_wake_by_value(&task) == NIO_WAKE_RELEASE : nio_state_unref(&task))
        release_it();
}

static void round_of_ends(unsigned self, uint64_t round, struct nio_rng *rng)
{
    unsigned role = (unsigned)((self + round) % THREADS);
    if (role == 0)
        complete_it(rng, round);
    else if (role == 1)
        join_it(rng, round);
    else
        drop_it(rng);
}

static void check_round(bool is_end)
{
    if (!is_end)
        return;
    STRESS_CHECK(released == 1);
    STRESS_CHECK(completer_has == joiner_has);
}

static void *run(void *arg)
{
    unsigned self = (unsigned)(uintptr_t)arg;
    uint64_t own_seed = seed + self;
    struct nio_rng rng;
    nio_rng_init(&rng, &own_seed);
    for (uint64_t round = 1;; round++) { /* until the time is up */
        bool is_end = round / BATCH % 2;
        if (self == 0) {
            is_over = round % BATCH == 0 && nio_now_ns() > end_ns;
            set_up(is_end ? NIO_STATE_WAKE | NIO_STATE_JOIN_INTEREST | 3 * NIO_STATE_REF
                          : 3 * NIO_STATE_REF);
        }
        stress_meet(&barrier);
        if (is_over)
            return (void *)(uintptr_t)round;
        if (is_end)
            round_of_ends(self, round, &rng);
        else
            round_of_wakes(self, round, &rng);
        stress_meet(&barrier);
        if (self == 0)
            check_round(is_end);
    }
}

int main(void)
{
    end_ns = stress_start(&seed);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        STRESS_CHECK(pthread_create(&threads[i], NULL, run, (void *)i) == 0);
    void *rounds = NULL;
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], &rounds); /* cannot fail: joined once */
    printf("stress_state: %llu rounds, %llu polls\n", (unsigned long long)(uintptr_t)rounds,
           (unsigned long long)poll_count);
    return poll_count == 0;
}
