/* SPDX-License-Identifier: MIT */
/* stress_driver_shim [SEED [COUNT]]: no operation is lost or completed twice, whatever the kernel
 * does.
 *
 * COUNT operations at random through drivers on the shim (tests/shim), in virtual time on one
 * thread, so that a seed replays a run to the last step.  Each life of a driver has a seed of its
 * own, SEED and up: what fails names the life's, and `stress_driver_shim THAT 1` begins with it.
 * A model knows of each operation what the shim decided, and checks
 *   - each is taken in the order of submission, and ends once, with that result, or unsubmitted
 * with -ECANCELED if it was asked to;
 *   - a timer not before its time;
 *   - what the driver says is in flight is what the model has, after every step (the credits);
 *   - what has ended is not touched: its memory is poisoned and looked at before it is used again;
 *   - the CQ never overflows unless the shim makes it, and all drains in the end.
 * Faults: any order and delay, completions with F_MORE, cancels that miss, come late or find
 * nothing, enters refused (-EAGAIN, -EBUSY, -EINTR) or partly done, a CQ that overflows, an SQ
 * thread that sleeps, starves or ends, a watch that the kernel gives up.
 *
 * Then the same with a real SQ thread and a sibling that reaps, in real time, for ThreadSanitizer:
 * [DU1], [DU2], [DU3] and [DU4] have their other ends in the shim; weakened, the first three show.
 * Exit status: 0 passed, 1 failed.
 */
#include "tests/shim/shim.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "runtime/driver/uring.h"
#include "runtime/task/op_done.h"
#include "runtime/task/state.h"
#include "tests/stress/stress.h"

enum {
    SLOTS = 700,
    OPS_PER_LIFE = 20000,
    DEFAULT_OPS = 200000,
    BURST_MAX = 40,
    POISON = 0xa5,
    DRAIN_STEPS_MAX = 100000,
    ENDLESS_MAX = 4,
    SHARED_SLOTS = 100,
    MET_SHARE = 1000
};

/* One operation's place.  `op` is poisoned while the slot is free. */
struct slot {
    struct numio_op op;
    struct nio_task task;
    unsigned place; /* in `order` */
    bool is_in_flight, is_timer, is_cancelled, is_posted, is_endless;
    uint64_t number; /* of its submission */
    int32_t result;  /* what was posted */
    uint64_t due_ns; /* of a timer */
};

static struct model {
    uint64_t seed;
    struct nio_rng rng;
    struct nio_driver *driver;
    struct nio_uring *uring;
    int ring_fd;
    unsigned in_flight, endless; /* the latter end only when they are cancelled */
    uint64_t last_taken;
    bool is_strict, will_die, is_dead, may_overflow; /* strict: nothing makes the CQ overflow */
    uint64_t submitted, ended, cancelled, late, multishot, dead, by_sibling, overflowed, lives;
    unsigned order[SLOTS]; /* slots in flight first, the free ones behind */
    struct slot slots[SLOTS];
} model;

static _Noreturn void fail(const char *what, int64_t a, int64_t b)
{
    (void)fprintf(stderr,
                  "stress_driver_shim: %s (%" PRId64 ", %" PRId64 ")\nreplay: "
                  "stress_driver_shim %" PRIu64 " 1\n",
                  what, a, b, model.seed); /* nothing to do if it fails */
    _exit(1);
}

#define HOLDS(e, a, b) ((e) ? (void)0 : fail("does not hold: " #e, (int64_t)(a), (int64_t)(b)))

static uint32_t below(uint32_t bound)
{
    return nio_rng_below(&model.rng, bound);
}

static bool one_in(uint32_t n)
{
    return below(n) == 0;
}

/* ---- the model ---------------------------------------------------------------------------- */

static void swap_places(unsigned i, unsigned j)
{
    unsigned kept = model.order[i];
    model.order[i] = model.order[j];
    model.order[j] = kept;
    model.slots[model.order[i]].place = i;
    model.slots[model.order[j]].place = j;
}

static bool is_poisoned(const struct numio_op *op)
{
    uint64_t words[sizeof *op / 8];
    memcpy(words, op, sizeof words);
    for (size_t i = 0; i < NIO_ARRAY_LEN(words); i++)
        if (words[i] != UINT64_C(0xa5a5a5a5a5a5a5a5))
            return false;
    return true;
}

/* The operation of this slot has ended; called from nio_op_done(), whose last access this is. */
static void on_end(const struct nio_schedule *self, struct nio_task *task)
{
    struct slot *slot = NIO_CONTAINER_OF(task, struct slot, task);
    int32_t result = slot->op._result;
    (void)self;
    HOLDS(slot->is_in_flight, slot - model.slots, result);
    if (slot->is_timer) {
        HOLDS(result == -ETIME || (result == -ECANCELED && slot->is_cancelled), result,
              slot->is_cancelled);
        HOLDS(result != -ETIME || shim_now_ns() >= slot->due_ns, shim_now_ns(), slot->due_ns);
    } else if (slot->is_posted) {
        HOLDS(result == slot->result, result, slot->result);
    } else if (result == -EOWNERDEAD) {
        HOLDS(model.is_dead, slot - model.slots, 0);
        model.dead++;
    } else {
        HOLDS(result == -ECANCELED && slot->is_cancelled, result, slot->is_cancelled);
    }
    model.cancelled += result == -ECANCELED;
    model.endless -= slot->is_endless;
    slot->is_in_flight = false;
    memset(&slot->op, POISON, sizeof slot->op);
    swap_places(slot->place, --model.in_flight);
    model.ended++;
}

static void on_release(const struct nio_schedule *self, struct nio_task *task)
{
    (void)self;
    fail("a task lost its last reference", (int64_t)(intptr_t)task, 0);
}

static const struct nio_schedule scheduler = { .schedule = on_end, .release = on_release };

static struct slot *slot_of(uint64_t user_data)
{
    struct slot *slot = NIO_CONTAINER_OF(nio_uring_op_of(user_data), struct slot, op);
    HOLDS(slot >= model.slots && slot < model.slots + SLOTS, slot - model.slots, user_data);
    return slot;
}

static const int32_t results[] = { 0,    1,      512,         4096,   -ENOBUFS, -EMFILE,  -ENOSPC,
                                   -EIO, -EPIPE, -ECONNRESET, -EINTR, -EAGAIN,  INT32_MAX };

static void decide(void *arg, const struct io_uring_sqe *sqe, struct shim_plan *plan)
{
    (void)arg;
    plan->is_given = true;
    plan->result = results[below(NIO_ARRAY_LEN(results))];
    /* at once, soon in any order, or long after everything else */
    unsigned kind = below(8);
    plan->delay_ns = kind < 3 ? 0 : kind < 7 ? below(20000) : below(5000000);
    if ((sqe->user_data & NIO_TAG_MASK) == NIO_TAG_WAKE) {
        plan->delay_ns = one_in(4) ? SHIM_NEVER : below(1000000);
        return;
    }
    struct slot *slot = slot_of(sqe->user_data);
    HOLDS(slot->is_in_flight && !slot->is_posted, slot->is_in_flight, slot->is_posted);
    HOLDS(slot->number > model.last_taken, slot->number, model.last_taken);
    model.last_taken = slot->number;
    if (model.endless < ENDLESS_MAX && one_in(32)) {
        model.endless++;
        slot->is_endless = true;
        plan->delay_ns = SHIM_NEVER;
        plan->on_cancel = one_in(2) ? SHIM_CANCEL_ENDS : SHIM_CANCEL_MISSES;
        return;
    }
    plan->on_cancel = one_in(2) ? SHIM_CANCEL_ENDS : (enum shim_cancel)below(4);
    model.late += plan->on_cancel != SHIM_CANCEL_ENDS;
    /* Counted in the CQ by nobody: it may overflow, and without an SQ thread the kernel gives what
     * overflowed to nobody. */
    if (!model.is_strict && one_in(64)) {
        plan->more = 1 + below(4);
        model.multishot++;
        model.may_overflow = true;
    }
}

static void posted(void *arg, uint64_t user_data, int32_t result)
{
    (void)arg;
    if ((user_data & NIO_TAG_MASK) != NIO_TAG_OP)
        return;
    struct slot *slot = slot_of(user_data);
    HOLDS(slot->is_in_flight && !slot->is_posted, slot->is_in_flight, slot->is_posted);
    slot->is_posted = true;
    slot->result = result;
}

/* ---- steps -------------------------------------------------------------------------------- */

static void submit_one(void)
{
    if (model.in_flight == SLOTS)
        return;
    struct slot *slot = &model.slots[model.order[model.in_flight++]];
    HOLDS(is_poisoned(&slot->op), slot - model.slots, slot->op._result);
    slot->is_in_flight = true;
    slot->is_cancelled = slot->is_posted = slot->is_endless = false;
    slot->number = model.submitted + 1;
    slot->is_timer = one_in(16);
    if (slot->is_timer) {
        uint64_t delay_ns = one_in(2) ? below(50000) : below(3000000);
        slot->due_ns = shim_now_ns() + delay_ns;
        numio_op_timeout(&slot->op, delay_ns);
    } else if (one_in(2)) {
        numio_op_recv(&slot->op, 3, slot, 1, 0);
    } else {
        numio_op_write(&slot->op, 3, slot, 1, 0);
    }
    slot->op._task = &slot->task;
    slot->op._state = NIO_OP_STARTED;
    /* relaxed: one thread.  Idle, with the task's own reference and the operation's: its end
     * schedules the task. */
    atomic_store_explicit(&slot->task.state, 2 * NIO_STATE_REF, memory_order_relaxed);
    model.submitted++;
    nio_driver_submit(model.driver, &slot->op);
}

static void cancel_one(void)
{
    if (model.in_flight == 0)
        return;
    struct slot *slot = &model.slots[model.order[below(model.in_flight)]];
    slot->is_cancelled = true;
    nio_driver_cancel(model.driver, &slot->op); /* it may be gone now */
}

static void reap_for(void)
{
    /* relaxed: one thread */
    bool waits =
        atomic_load_explicit(&model.uring->starved, memory_order_relaxed) == NIO_STARVED_WAITS;
    unsigned done = nio_driver_reap_for(model.driver, 1 + below(64));
    model.by_sibling += done;
    HOLDS(!waits || done == 0 || nio_driver_has_completions(model.driver), done, waits);
}

static void park(void)
{
    static const int64_t limits_ns[] = { 0, 100, 30000, 2000000 };
    /* Which ones are endless shows when they are taken. */
    bool is_sure = model.in_flight > ENDLESS_MAX && one_in(2);
    nio_driver_park(model.driver, is_sure ? -1 : limits_ns[below(NIO_ARRAY_LEN(limits_ns))]);
}

static void change_faults(void)
{
    static const int errors[] = { -EAGAIN, -EBUSY, -EINTR, -ENOMEM };
    struct shim_faults faults = { 0 };
    if (one_in(2)) {
        faults.enter_error = errors[below(NIO_ARRAY_LEN(errors))];
        faults.enter_errors = below(6);
    }
    if (one_in(3))
        faults.take_max = 1 + below(8);
    if (one_in(4))
        faults.starved_until_ns = shim_now_ns() + below(one_in(8) ? 20000000 : 200000);
    if (!model.is_strict && one_in(16)) {
        faults.cq_room = 1 + below(16);
        model.may_overflow = true;
    }
    shim_set_faults(model.ring_fd, &faults);
}

static void step(void)
{
    unsigned what = below(100);
    if (what < 30) {
        for (unsigned n = 1 + below(one_in(4) ? BURST_MAX : 4); n > 0; n--)
            submit_one();
    } else if (what < 40) {
        cancel_one();
    } else if (what < 50) {
        nio_driver_flush(model.driver);
    } else if (what < 65) {
        (void)nio_driver_reap(model.driver, 1 + below(one_in(4) ? 256 : 64));
    } else if (what < 73) {
        reap_for();
    } else if (what < 85) {
        park();
    } else if (what < 87) {
        nio_driver_unpark(model.driver);
    } else if (what < 97) {
        shim_pass(model.ring_fd, below(one_in(8) ? 200000 : 2000));
    } else if (what < 99) {
        shim_sleep(model.ring_fd);
    } else {
        change_faults();
    }
}

static void check(void)
{
    HOLDS(nio_driver_in_flight(model.driver) == model.in_flight, nio_driver_in_flight(model.driver),
          model.in_flight);
    HOLDS(nio_uring_cancels_in_flight(model.uring) <= model.uring->cancels_max,
          nio_uring_cancels_in_flight(model.uring), model.uring->cancels_max);
}

/* ---- one life of a driver ----------------------------------------------------------------- */

static void create(void)
{
    struct shim_config config = { .is_virtual = true,
                                  .has_message = one_in(2),
                                  .tick_ns = 1 + below(300),
                                  .decide = decide,
                                  .posted = posted };
    struct nio_driver_options options = { .profile =
                                              one_in(2) ? NUMIO_DRIVER_SQPOLL : NUMIO_DRIVER_DEFER,
                                          .entries = 8u << below(4),
                                          .attach_fd = -1,
                                          .sq_cpu = -1 };
    shim_begin(&config);
    int error = nio_driver_create(&options, &model.driver);
    HOLDS(error == 0, error, options.entries);
    model.uring = nio_uring_of(model.driver);
    model.ring_fd = nio_driver_ring_fd(model.driver);
    model.is_dead = model.may_overflow = false;
    model.in_flight = model.endless = 0;
    model.last_taken = 0;
    for (unsigned i = 0; i < SLOTS; i++) {
        model.order[i] = i;
        model.slots[i].place = i;
        model.slots[i].task.scheduler = &scheduler;
        model.slots[i].task.kind = NIO_TASK_FUTURE;
        memset(&model.slots[i].op, POISON, sizeof model.slots[i].op);
    }
}

static void drain(void)
{
    struct shim_faults none = { 0 };
    unsigned steps = 0;
    shim_set_faults(model.ring_fd, &none);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (!model.slots[i].is_in_flight)
            continue;
        model.slots[i].is_cancelled = true;
        nio_driver_cancel(model.driver, &model.slots[i].op);
    }
    while (model.in_flight > 0) {
        nio_driver_park(model.driver, -1);
        (void)nio_driver_reap(model.driver, 64);
        check();
        HOLDS(++steps < DRAIN_STEPS_MAX, steps, model.in_flight);
    }
    for (unsigned i = 0; i < SLOTS; i++)
        HOLDS(is_poisoned(&model.slots[i].op), i, model.slots[i].op._result);
    struct shim_counts counts = shim_counts(model.ring_fd);
    HOLDS(counts.overflowed == 0 || model.may_overflow, counts.overflowed, 0);
    HOLDS(counts.in_kernel <= 1, counts.in_kernel, 0); /* the watch */
    model.overflowed += counts.overflowed;
}

static void live(uint64_t seed, uint64_t count)
{
    model.seed = seed;
    nio_rng_init(&model.rng, &seed);
    create();
    uint64_t end = model.submitted + count;
    model.will_die = model.uring->is_sqpoll && one_in(8);
    model.is_strict = model.will_die || one_in(2);
    uint64_t death = model.submitted + below((uint32_t)count + 1);
    while (model.submitted < end) {
        if (model.will_die && !model.is_dead && model.submitted >= death) {
            model.is_dead = true;
            shim_kill(model.ring_fd);
        }
        step();
        check();
    }
    drain();
    nio_driver_destroy(model.driver);
    shim_end();
    model.lives++;
}

/* ---- threads ------------------------------------------------------------------------------ */

/* One operation of the threads' game: its result is in its image, so nobody but the owner and who
 * completes it knows of it. */
struct shared_slot {
    struct numio_op op;
    struct nio_task task;
    _Atomic bool has_ended; /* who completes it, for the owner */
    int32_t expected;
    bool is_cancelled;
};

static struct game {
    struct nio_driver *driver;
    struct nio_rng rng;        /* owner */
    struct nio_rng kernel_rng; /* under the ring's mutex */
    _Atomic bool is_over;
    uint64_t submitted, by_sibling;
    /* Operations that the late retry of an older one's cancel met: the same address, and by chance
     * the same twelve bits of the number, thousands of submissions later. */
    uint64_t cancels, met;
    struct shared_slot slots[SHARED_SLOTS];
} game;

static void decide_shared(void *arg, const struct io_uring_sqe *sqe, struct shim_plan *plan)
{
    (void)arg;
    if ((sqe->user_data & NIO_TAG_MASK) != NIO_TAG_OP)
        return; /* the watch: a real eventfd */
    plan->is_given = true;
    plan->result = (int32_t)sqe->off;
    if (nio_rng_below(&game.kernel_rng, 2))
        plan->delay_ns = nio_rng_below(&game.kernel_rng, 30000);
    plan->on_cancel = nio_rng_below(&game.kernel_rng, 4) ? SHIM_CANCEL_ENDS : SHIM_CANCEL_LATE;
}

/* The owner or the sibling. */
static void on_shared_end(const struct nio_schedule *self, struct nio_task *task)
{
    struct shared_slot *slot = NIO_CONTAINER_OF(task, struct shared_slot, task);
    (void)self;
    /* [SD1] acq_rel: publishes the result.  Pairs with [SD2]. */
    STRESS_CHECK(!atomic_exchange_explicit(&slot->has_ended, true, memory_order_acq_rel));
}

static const struct nio_schedule shared_scheduler = { .schedule = on_shared_end,
                                                      .release = on_release };

static void submit_shared(struct shared_slot *slot)
{
    slot->expected = (int32_t)nio_rng_below(&game.rng, 100000);
    slot->is_cancelled = false;
    /* relaxed: published with the operation */
    atomic_store_explicit(&slot->has_ended, false, memory_order_relaxed);
    numio_op_read(&slot->op, 3, slot, 1, slot->expected);
    slot->op._task = &slot->task;
    slot->op._state = NIO_OP_STARTED;
    /* relaxed: as above */
    atomic_store_explicit(&slot->task.state, 2 * NIO_STATE_REF, memory_order_relaxed);
    game.submitted++;
    nio_driver_submit(game.driver, &slot->op);
}

/* Looks at each operation; starts ended ones again unless it is over.  True: none is in flight. */
static bool look_at_all(bool is_over)
{
    bool none = true;
    for (unsigned i = 0; i < SHARED_SLOTS; i++) {
        struct shared_slot *slot = &game.slots[i];
        /* [SD2] acquire: sees the result.  Pairs with [SD1]. */
        if (!atomic_load_explicit(&slot->has_ended, memory_order_acquire)) {
            none = false;
            if (nio_rng_below(&game.rng, 64) == 0) {
                slot->is_cancelled = true;
                game.cancels++;
                nio_driver_cancel(game.driver, &slot->op);
            }
            continue;
        }
        if (slot->expected < 0)
            continue; /* it was looked at */
        STRESS_CHECK(slot->op._result == slot->expected || slot->op._result == -ECANCELED);
        game.met += slot->op._result == -ECANCELED && !slot->is_cancelled;
        memset(&slot->op, POISON, sizeof slot->op);
        slot->expected = -1;
        if (!is_over && nio_rng_below(&game.rng, 4)) {
            submit_shared(slot);
            none = false;
        }
    }
    return none;
}

static void start_some(void)
{
    for (unsigned i = 0; i < SHARED_SLOTS; i++) {
        struct shared_slot *slot = &game.slots[i];
        if (slot->expected >= 0 || nio_rng_below(&game.rng, 4))
            continue;
        STRESS_CHECK(is_poisoned(&slot->op));
        submit_shared(slot);
    }
}

static void *reap_behind(void *arg)
{
    (void)arg;
    /* relaxed: only ends the loop */
    while (!atomic_load_explicit(&game.is_over, memory_order_relaxed)) {
        unsigned done = nio_driver_reap_for(game.driver, 16);
        game.by_sibling += done;
        if (done)
            nio_driver_unpark(game.driver);
        else
            (void)usleep(10); /* a pace */
    }
    return NULL;
}

static void play(enum numio_driver profile, uint64_t seed, uint64_t end_ns)
{
    struct shim_config config = { .has_thread = true,
                                  .has_message = seed % 2 == 0,
                                  .decide = decide_shared };
    struct nio_driver_options options = {
        .profile = profile, .entries = 8u << seed % 3, .attach_fd = -1, .sq_cpu = -1
    };
    pthread_t sibling;
    bool is_over = false;
    memset(&game, 0, sizeof game);
    nio_rng_init(&game.rng, &seed);
    nio_rng_init(&game.kernel_rng, &seed);
    for (unsigned i = 0; i < SHARED_SLOTS; i++) {
        game.slots[i].task.scheduler = &shared_scheduler;
        game.slots[i].expected = -1;
        /* relaxed: before any thread */
        atomic_store_explicit(&game.slots[i].has_ended, true, memory_order_relaxed);
        memset(&game.slots[i].op, POISON, sizeof game.slots[i].op);
    }
    shim_begin(&config);
    STRESS_CHECK(nio_driver_create(&options, &game.driver) == 0);
    STRESS_CHECK(pthread_create(&sibling, NULL, reap_behind, NULL) == 0);
    while (!look_at_all(is_over) || !is_over) {
        is_over = nio_now_ns() > end_ns;
        if (!is_over)
            start_some();
        if (nio_driver_in_flight(game.driver) > 0)
            nio_driver_park(game.driver, -1); /* a lost wake is for ever */
        (void)nio_driver_reap(game.driver, 16);
    }
    /* relaxed: only ends the loop */
    atomic_store_explicit(&game.is_over, true, memory_order_relaxed);
    STRESS_CHECK(pthread_join(sibling, NULL) == 0);
    STRESS_CHECK(nio_driver_in_flight(game.driver) == 0);
    STRESS_CHECK(game.met * MET_SHARE <= game.cancels + MET_SHARE); /* three tries of 1 in 4096 */
    nio_driver_destroy(game.driver);
    shim_end();
    (void)printf("%s: %" PRIu64 " operations, %" PRIu64 " by the sibling, %" PRIu64 " of %" PRIu64
                 " cancels met another\n",
                 profile == NUMIO_DRIVER_DEFER ? "defer" : "sqpoll", game.submitted,
                 game.by_sibling, game.met, game.cancels);
}

static void on_abort(int number)
{
    static char text[] = "\nreplay: stress_driver_shim                      1\n";
    (void)number;
    char *digit = text + sizeof text - 5;
    for (uint64_t seed = model.seed; seed; seed /= 10)
        *--digit = (char)('0' + seed % 10);
    (void)!write(STDERR_FILENO, text, sizeof text - 1); /* nothing to do if it fails */
    _exit(1);
}

int main(int argc, char **argv)
{
    uint64_t seed;
    if (argc > 1)
        (void)setenv("NUMIO_TEST_SEED", argv[1], 1); /* no memory: another seed, which is printed */
    uint64_t end_ns = stress_start(&seed);           /* the first part is bounded by its count */
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : DEFAULT_OPS;
    if (argc > 2)
        (void)alarm(0); /* as long as it takes */
    (void)signal(SIGABRT, on_abort);
    uint64_t began_ns = nio_now_ns();
    for (uint64_t life = 0; model.submitted < count; life++)
        live(seed + life, OPS_PER_LIFE);
    (void)printf("seed %" PRIu64 ": %" PRIu64 " operations in %" PRIu64 " lives, %" PRIu64
                 " ms: %" PRIu64 " cancelled, %" PRIu64 " hard to cancel, %" PRIu64
                 " with F_MORE, %" PRIu64 " by the sibling, %" PRIu64 " completions overflowed, "
                 "%" PRIu64 " ended with a dead SQ thread\n",
                 seed, model.submitted, model.lives, (nio_now_ns() - began_ns) / 1000000,
                 model.cancelled, model.late, model.multishot, model.by_sibling, model.overflowed,
                 model.dead);
    if (argc > 1)
        return 0; /* what replays has no threads */
    uint64_t half_ns = (end_ns - began_ns) / 2;
    play(NUMIO_DRIVER_SQPOLL, seed, nio_now_ns() + half_ns);
    play(NUMIO_DRIVER_DEFER, seed, nio_now_ns() + half_ns);
    return 0;
}
