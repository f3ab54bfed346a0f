/* SPDX-License-Identifier: MIT */
/* Two owners hand a letter to and fro and park in between, with and without an operation in flight,
 * with and without spinning first; a third thread sends wakes that mean nothing.
 *
 * A lost wake stops both, which the watchdog notices: an unpark that does not see the announced
 * sleep [PK3].  Weakened [PK1] or [PK2]: ThreadSanitizer reports the letter.
 */
#include <pthread.h>

#include "runtime/sched/parker.h"
#include "tests/driver_harness.h"
#include "tests/stress/stress.h"

enum { OWNERS = 2, CHANGE_TURNS = 64 };

struct owner {
    struct nio_parker parker;
    NIO_CACHE_ALIGNED struct nio_driver *driver;
    struct nio_rng rng;
    uint64_t turns, parks;
    struct numio_op op;
    bool is_in_flight;
    uint64_t letter; /* plain on purpose: written by the other owner before its wake */
    NIO_CACHE_ALIGNED _Atomic uint64_t woken; /* the last turn that the other has woken us for */
};

static struct owner owners[OWNERS];
static pthread_barrier_t barrier;
static _Atomic uint32_t is_over;
static uint64_t stop_ns;

static bool is_due(struct owner *self, uint64_t turn)
{
    /* relaxed on purpose: the parker alone orders the letter */
    return atomic_load_explicit(&self->woken, memory_order_relaxed) >= turn;
}

static void wait_for_turn(struct owner *self, uint64_t turn)
{
    while (!is_due(self, turn)) { /* other wakes mean nothing */
        if (nio_rng_below(&self->rng, 2)) {
            stress_jitter(&self->rng);
            (void)nio_parker_consume(&self->parker); /* `woken` says whether that was it */
        } else {
            nio_parker_park(&self->parker, self->driver, -1);
            self->parks++;
        }
    }
    /* The wake precedes `woken`: it was taken above, or it is taken here. */
    (void)nio_parker_consume(&self->parker);
}

static void wake(struct owner *other, uint64_t turn)
{
    other->letter = turn;
    (void)nio_parker_unpark(&other->parker, other->driver); /* whether it slept does not matter */
    /* relaxed on purpose: as above */
    atomic_store_explicit(&other->woken, turn, memory_order_relaxed);
    /* The sleeper may have looked between the two; a second wake makes it look again. */
    (void)nio_parker_unpark(&other->parker, other->driver);
}

/* Now and then an operation is in flight for some turns, so that the park is in the driver. */
static void change_flight(struct owner *self)
{
    if (self->is_in_flight) {
        nio_driver_cancel(self->driver, &self->op);
        STRESS_CHECK(harness_wait(self->driver, &self->op, 5000));
    } else {
        memset(&self->op, 0, sizeof self->op);
        numio_op_timeout(&self->op, UINT64_C(3600) * 1000000000);
        harness_submit(self->driver, &self->op);
    }
    self->is_in_flight = !self->is_in_flight;
}

static void *run_owner(void *arg)
{
    struct owner *self = arg;
    struct owner *other = self == &owners[0] ? &owners[1] : &owners[0];
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_EPOLL);
    STRESS_CHECK(nio_driver_create(&options, &self->driver) == 0);
    (void)pthread_barrier_wait(&barrier); /* both drivers are there */
    uint64_t turn = self == &owners[0] ? 1 : 2;
    if (turn == 1)
        wake(self, turn);
    for (;; turn += 2) { /* until the first owner says that it is over */
        wait_for_turn(self, turn);
        if (self->letter == UINT64_MAX)
            break;
        STRESS_CHECK(self->letter == turn);
        self->turns++;
        if (self->turns % CHANGE_TURNS == 0)
            change_flight(self);
        if (self->turns % CHANGE_TURNS == 1 && self == &owners[0] && nio_now_ns() > stop_ns)
            break;
        wake(other, turn + 1);
    }
    if (self->letter != UINT64_MAX) {
        other->letter = UINT64_MAX;
        (void)nio_parker_unpark(&other->parker, other->driver); /* as in wake() */
        /* relaxed on purpose: as above */
        atomic_store_explicit(&other->woken, UINT64_MAX, memory_order_relaxed);
        (void)nio_parker_unpark(&other->parker, other->driver); /* as in wake() */
    }
    if (self->is_in_flight)
        change_flight(self);
    /* relaxed: the third thread may hear it late */
    atomic_store_explicit(&is_over, 1, memory_order_relaxed);
    (void)pthread_barrier_wait(&barrier); /* nobody wakes any more */
    nio_driver_destroy(self->driver);
    return NULL;
}

static void *run_stray(void *arg)
{
    struct nio_rng *rng = arg;
    (void)pthread_barrier_wait(&barrier); /* both drivers are there */
    /* relaxed: as above */
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        struct owner *owner = &owners[nio_rng_below(rng, OWNERS)];
        (void)nio_parker_unpark(&owner->parker, owner->driver); /* means nothing */
        for (unsigned i = 0; i < 8; i++)
            (void)sched_yield();
    }
    (void)pthread_barrier_wait(&barrier); /* nobody wakes any more */
    return NULL;
}

int main(void)
{
    uint64_t seed;
    struct nio_rng rng;
    pthread_t threads[OWNERS + 1];
    stop_ns = stress_start(&seed);
    nio_rng_init(&rng, &seed);
    harness_init();
    STRESS_CHECK(pthread_barrier_init(&barrier, NULL, OWNERS + 1) == 0);
    for (unsigned i = 0; i < OWNERS; i++) {
        nio_parker_init(&owners[i].parker);
        nio_rng_init(&owners[i].rng, &seed);
    }
    for (unsigned i = 0; i < OWNERS + 1; i++)
        STRESS_CHECK(pthread_create(&threads[i], NULL, i < OWNERS ? run_owner : run_stray,
                                    i < OWNERS ? (void *)&owners[i] : (void *)&rng) == 0);
    for (unsigned i = 0; i < OWNERS + 1; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail: joined once */
    printf("stress_parker: %llu turns, %llu parks\n", (unsigned long long)owners[0].turns,
           (unsigned long long)(owners[0].parks + owners[1].parks));
    return owners[0].turns == 0 || owners[0].parks == 0;
}
