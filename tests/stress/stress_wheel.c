/* SPDX-License-Identifier: MIT */
/* A wheel under fire: its owner arms, advances and takes, the others arm and cancel timers of their
 * own.  Every timer ends exactly once, by its owner's take or by a cancel that says so, never
 * before its deadline, and then its memory is the helper's again, who overwrites it before the next
 * arming.
 *
 * Weakened [BL1], [BL2] in nio_lock_spin(): ThreadSanitizer reports the links.  Without the lock in
 * nio_wheel_cancel(): the same, the pattern, or the check of the whole wheel. */
#include <pthread.h>

#include "runtime/time/wheel.h"
#include "tests/stress/stress.h"

enum { HELPERS = 3, TIMERS = 400, CHECK_TURNS = 512 };

/* Whose turn it is; a timer is armed again only by the helper that it belongs to. */
enum { FREE, ARMED, TAKEN };

struct timer {
    struct numio_op op;
    _Atomic uint32_t state;
};

struct helper {
    struct timer timers[TIMERS];
    pthread_t thread;
    uint64_t seed, armed, cancelled;
};

static struct helper helpers[HELPERS];
static struct nio_wheel wheel;
static _Atomic uint64_t clock_ns; /* goes in jumps of all lengths */
static _Atomic uint32_t is_over;

/* relaxed: a clock, which orders nothing */
static uint64_t now(void)
{
    /* relaxed: as above */
    return atomic_load_explicit(&clock_ns, memory_order_relaxed);
}

/* The last access of whoever ended it. */
static void give_back(struct timer *timer, uint32_t state)
{
    /* [XW1] release: the memory is the helper's again.  Pairs with [XW2]. */
    atomic_store_explicit(&timer->state, state, memory_order_release);
}

static void arm(struct nio_rng *rng, struct helper *self, struct timer *timer)
{
    memset(&timer->op, 0xa5, sizeof timer->op);
    numio_op_timeout(&timer->op, 0);
    /* relaxed: the lock of the wheel publishes it */
    atomic_store_explicit(&timer->state, ARMED, memory_order_relaxed);
    uint64_t delay_ns = nio_rng_next(rng) >> (20 + nio_rng_below(rng, 40));
    (void)nio_wheel_arm(&wheel, &timer->op, now() + delay_ns, now()); /* the owner is awake */
    self->armed++;
}

static void *help(void *arg)
{
    struct helper *self = arg;
    struct nio_rng rng;
    nio_rng_init(&rng, &self->seed);
    /* relaxed: only says when to stop */
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        struct timer *timer = &self->timers[nio_rng_below(&rng, TIMERS)];
        /* [XW2] acquire: pairs with [XW1] */
        uint32_t state = atomic_load_explicit(&timer->state, memory_order_acquire);
        if (state != ARMED) {
            arm(&rng, self, timer);
        } else if (nio_wheel_cancel(&wheel, &timer->op)) {
            give_back(timer, FREE);
            self->cancelled++;
        } else {
            while (state == ARMED) { /* it is being taken at this moment */
                /* [XW2] acquire: as above */
                state = atomic_load_explicit(&timer->state, memory_order_acquire);
                nio_cpu_relax();
            }
        }
        stress_jitter(&rng);
    }
    return NULL;
}

static uint64_t take_due(void)
{
    uint64_t taken = 0, now_ns = now();
    struct numio_op *op;
    while ((op = nio_wheel_take_due(&wheel, now_ns))) {
        struct timer *timer = NIO_CONTAINER_OF(op, struct timer, op);
        /* relaxed: the wheel's lock has ordered it */
        STRESS_CHECK(atomic_load_explicit(&timer->state, memory_order_relaxed) == ARMED);
        STRESS_CHECK(nio_timer_deadline_ns(op) <= now_ns);
        give_back(timer, TAKEN);
        taken++;
    }
    return taken;
}

int main(void)
{
    uint64_t seed, stop_ns = stress_start(&seed), taken = 0, armed = 0, cancelled = 0;
    struct nio_rng rng;
    nio_rng_init(&rng, &seed);
    STRESS_CHECK(nio_wheel_init(&wheel) == 0);
    for (unsigned i = 0; i < HELPERS; i++) {
        helpers[i].seed = seed + i;
        STRESS_CHECK(pthread_create(&helpers[i].thread, NULL, help, &helpers[i]) == 0);
    }
    for (uint64_t turn = 0; turn % CHECK_TURNS || nio_now_ns() < stop_ns; turn++) {
        uint64_t jump_ns = nio_rng_next(&rng) >> (24 + nio_rng_below(&rng, 40));
        /* relaxed: as in now() */
        atomic_store_explicit(&clock_ns, now() + jump_ns, memory_order_relaxed);
        taken += take_due();
        if (turn % 3 == 0)
            (void)nio_wheel_settle(&wheel, now()); /* others make it old at once */
        if (turn % CHECK_TURNS == 0)
            STRESS_CHECK(nio_wheel_check(&wheel));
        stress_jitter(&rng);
    }
    /* relaxed: as above */
    atomic_store_explicit(&is_over, 1, memory_order_relaxed);
    for (unsigned i = 0; i < HELPERS; i++) {
        STRESS_CHECK(pthread_join(helpers[i].thread, NULL) == 0);
        armed += helpers[i].armed;
        cancelled += helpers[i].cancelled;
    }
    /* relaxed: as in now(); the others have ended */
    atomic_store_explicit(&clock_ns, NIO_TIME_FAR, memory_order_relaxed);
    taken += take_due();
    STRESS_CHECK(nio_wheel_check(&wheel) && nio_wheel_count(&wheel) == 0);
    STRESS_CHECK(armed == taken + cancelled);
    printf("%llu armed, %llu taken, %llu cancelled\n", (unsigned long long)armed,
           (unsigned long long)taken, (unsigned long long)cancelled);
    return 0;
}
