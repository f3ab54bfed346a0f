/* SPDX-License-Identifier: MIT */
/* bench_signal.h: a wake for one waiting future, and a counter that ends in one.
 *
 * A signal is one word: empty, raised, or the waker of the future that waits.  Raising is the last
 * time the raiser touches the word, so that the signal may sit in the waiter's own state and go
 * away with it.  One future waits at a time; anybody may raise.  It serves as one-shot channel
 * without a value and as notification: what the peers take from their libraries.
 */
#ifndef BENCH_SIGNAL_H
#define BENCH_SIGNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <numio/task.h>

#define BENCH_SIGNAL_EMPTY ((uintptr_t)0)
#define BENCH_SIGNAL_RAISED ((uintptr_t)1)

struct bench_signal {
    _Atomic uintptr_t word;
};

_Static_assert(sizeof(struct numio_waker) == sizeof(uintptr_t), "a waker fits the signal's word");

/* A raised signal that nobody waited for stays raised; raising it again changes nothing. */
static inline void bench_signal_raise(struct bench_signal *s)
{
    /* [BS1] acq_rel: what the raiser did goes to the waiter, which takes it with [BS2]; the
     * waker that the waiter left with [BS3] comes from it. */
    uintptr_t old = atomic_exchange_explicit(&s->word, BENCH_SIGNAL_RAISED, memory_order_acq_rel);
    if (old > BENCH_SIGNAL_RAISED) {
        struct numio_waker waker;
        memcpy(&waker, &old, sizeof waker);
        numio_waker_wake(&waker);
    }
}

/* True: the signal was raised and is empty again.  False: the future is woken when it is. */
static inline bool bench_signal_poll(struct bench_signal *s, struct numio_context *cx)
{
    /* relaxed: only a guess at which of the exchanges below will succeed. */
    uintptr_t word = atomic_load_explicit(&s->word, memory_order_relaxed);
    if (word == BENCH_SIGNAL_EMPTY) {
        struct numio_waker waker = numio_context_waker(cx);
        uintptr_t mine;
        memcpy(&mine, &waker, sizeof mine);
        /* [BS3] release: hands the waker to [BS1].  relaxed on failure: [BS2] follows. */
        if (atomic_compare_exchange_strong_explicit(&s->word, &word, mine, memory_order_release,
                                                    memory_order_relaxed))
            return false;
        numio_waker_drop(&waker);
    } else if (word != BENCH_SIGNAL_RAISED) {
        return false; /* polled for another reason; the waker is still in place */
    }
    /* [BS2] acquire: pairs with [BS1], whose raiser's writes are now visible. */
    (void)atomic_exchange_explicit(&s->word, BENCH_SIGNAL_EMPTY, memory_order_acquire);
    return true;
}

/* Waiting for many: the task that is the last to leave wakes the one that waits. */
struct bench_gate {
    _Alignas(64) atomic_size_t left;
    _Alignas(64) struct bench_signal open;
};

static inline void bench_gate_arm(struct bench_gate *gate, size_t count)
{
    /* relaxed: the tasks that leave are spawned later, which publishes it to them. */
    atomic_store_explicit(&gate->left, count, memory_order_relaxed);
}

static inline void bench_gate_leave(struct bench_gate *gate)
{
    /* [BS4] acq_rel: the last to leave has seen what all others [BS4] did before they left,
     * and so has who reads 0 with [BS5]. */
    if (atomic_fetch_sub_explicit(&gate->left, 1, memory_order_acq_rel) == 1)
        bench_signal_raise(&gate->open);
}

/* The number of tasks that have not left. */
static inline size_t bench_gate_left(const struct bench_gate *gate)
{
    /* [BS5] acquire: pairs with [BS4]. */
    return atomic_load_explicit(&gate->left, memory_order_acquire);
}

#endif
