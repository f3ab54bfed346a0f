/* SPDX-License-Identifier: MIT */
/* Cells travel between owners: every thread owns a slab, allocates cells, sends them to any
 * thread, checks those it receives and frees them: locally, through its outbox, or one by one.
 * Owners walk their live cells meanwhile.  At the end everything must be back in its slab.
 *
 * With [BM1] (the push) or [BM2] (the take) weakened to relaxed, ThreadSanitizer reports a race on
 * the cells' contents, which the next owner reads and writes without atomics.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "alloc/slab.h"
#include "runtime/base/mpsc.h"
#include "runtime/base/rng.h"

enum {
    THREADS = 4,
    ROUNDS = 15000, /* per thread */
    BURST_MAX = 24,
    CELL_BYTES_MAX = 6000 /* some get a chunk of their own */
};

/* What a cell carries. */
struct parcel {
    _Atomic uint64_t word; /* the slab's: not 0 while live */
    uint64_t stamp;
    struct nio_mpsc_node in_mail;
    size_t bytes;
    unsigned char filling[];
};

struct station {
    /* owner only */
    NIO_CACHE_ALIGNED struct nio_slab slab;
    struct nio_slab_outbox outbox;
    struct nio_rng rng;
    uint64_t sent, received, walked;
    unsigned index;
    const char *failure;
    /* any thread */
    NIO_CACHE_ALIGNED struct nio_mpsc mail;
};

static struct station stations[THREADS];
static pthread_barrier_t barrier;

static unsigned char filling_of(uint64_t stamp, size_t at)
{
    return (unsigned char)(stamp * 31 + at);
}

static bool send_one(struct station *self)
{
    bool is_large = nio_rng_below(&self->rng, 64) == 0;
    size_t room = is_large ? CELL_BYTES_MAX : 400;
    size_t bytes = sizeof(struct parcel) + nio_rng_below(&self->rng, (uint32_t)room);
    struct parcel *parcel = nio_slab_alloc(&self->slab, bytes);
    if (!parcel) {
        self->failure = "no memory for a cell";
        return false;
    }
    parcel->stamp = nio_rng_next(&self->rng);
    parcel->bytes = bytes;
    for (size_t i = 0; i < bytes - sizeof *parcel; i++)
        parcel->filling[i] = filling_of(parcel->stamp, i);
    /* relaxed: only the owner walks, and it is this thread */
    atomic_store_explicit(&parcel->word, 1, memory_order_relaxed);
    self->sent++;
    struct station *to = &stations[nio_rng_below(&self->rng, THREADS)];
    (void)nio_mpsc_push(&to->mail, &parcel->in_mail); /* everybody polls */
    return true;
}

static bool is_intact(const struct parcel *parcel)
{
    for (size_t i = 0; i < parcel->bytes - sizeof *parcel; i++)
        if (parcel->filling[i] != filling_of(parcel->stamp, i))
            return false;
    return true;
}

static void receive_all(struct station *self)
{
    struct nio_mpsc_node *node = nio_mpsc_take_fifo(&self->mail);
    while (node) {
        struct nio_mpsc_node *next = node->next;
        struct parcel *parcel = NIO_CONTAINER_OF(node, struct parcel, in_mail);
        if (!is_intact(parcel))
            self->failure = "a cell changed on its way";
        if (nio_rng_below(&self->rng, 8) == 0)
            nio_slab_free_remote(parcel);
        else
            nio_slab_free(&self->slab, &self->outbox, parcel);
        self->received++;
        node = next;
    }
}

static void count_cell(void *cell, void *arg)
{
    struct station *self = arg;
    self->walked++;
    if (nio_slab_of(cell) != &self->slab)
        self->failure = "a walk met a cell of another slab";
}

static void *run(void *arg)
{
    struct station *self = arg;
    for (unsigned round = 0; round < ROUNDS && !self->failure; round++) {
        unsigned burst = 1 + nio_rng_below(&self->rng, BURST_MAX);
        for (unsigned i = 0; i < burst && send_one(self); i++)
            continue;
        receive_all(self);
        if (round % 256 == 0)
            nio_slab_for_each_live(&self->slab, count_cell, self);
        if (round % 64 == 0)
            nio_slab_outbox_flush(&self->outbox);
    }
    (void)pthread_barrier_wait(&barrier); /* nobody sends any more */
    receive_all(self);
    nio_slab_outbox_flush(&self->outbox);
    (void)pthread_barrier_wait(&barrier); /* everything is on its way home or there */
    (void)nio_slab_drain(&self->slab);
    nio_slab_check(&self->slab);
    return NULL;
}

static int report(void)
{
    uint64_t sent = 0, received = 0;
    int status = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        struct nio_slab_stats stats;
        nio_slab_stats(&stations[i].slab, &stats);
        sent += stations[i].sent;
        received += stations[i].received;
        if (stations[i].failure || stats.cells_live != 0) {
            fprintf(stderr, "thread %u: %s, %llu cells live\n", i,
                    stations[i].failure ? stations[i].failure : "not all came home",
                    (unsigned long long)stats.cells_live);
            status = 1;
        }
    }
    printf("stress_slab: %llu cells sent, %llu received\n", (unsigned long long)sent,
           (unsigned long long)received);
    return status || sent != received;
}

int main(void)
{
    const char *text = getenv("NUMIO_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 7;
    printf("NUMIO_TEST_SEED=%llu\n", (unsigned long long)seed);
    struct nio_node_arena_options options = { .os_node = -1 };
    struct nio_node_arena *arena;
    if (nio_node_arena_create(&options, &arena) != 0)
        return 1;
    if (pthread_barrier_init(&barrier, NULL, THREADS) != 0)
        return 1;
    for (unsigned i = 0; i < THREADS; i++) {
        stations[i].index = i;
        nio_mpsc_init(&stations[i].mail);
        nio_slab_outbox_init(&stations[i].outbox);
        nio_rng_init(&stations[i].rng, &seed);
        if (nio_slab_init(&stations[i].slab, arena) != 0)
            return 1;
    }
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, &stations[i]) != 0)
            return 1;
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail: joined once */
    int status = report();
    for (unsigned i = 0; i < THREADS && status == 0; i++)
        nio_slab_fini(&stations[i].slab);
    if (status == 0)
        nio_node_arena_destroy(arena); /* asserts that allocated == freed */
    return status;
}
