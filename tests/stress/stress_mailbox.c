/* SPDX-License-Identifier: MIT */
/* Two owners send each other one letter at a time through mailboxes.  A sender wakes the other only
 * if it finds it asleep; an owner looks at its mailbox, spins for a random while, and then parks
 * unless something has come.
 *
 * A lost letter stops both, which the watchdog notices: if the owner does not look again once its
 * sleep is announced [PK3], or if the sender looks before it has sent [PK4] [BM1].
 */
#include <pthread.h>

#include "runtime/sched/parker.h"
#include "tests/driver_harness.h"
#include "tests/stress/stress.h"

enum { OWNERS = 2, LETTERS = 2 };

struct letter {
    struct nio_mpsc_node link;
    uint64_t turn; /* plain on purpose: the mailbox orders it */
};

struct owner {
    NIO_CACHE_ALIGNED struct nio_mpsc mailbox;
    struct nio_parker parker;
    NIO_CACHE_ALIGNED struct nio_driver *driver;
    struct nio_rng rng;
    uint64_t turns, parks, spared;
    struct letter letters[LETTERS]; /* in turns, so that the last one sent may still be read */
};

static struct owner owners[OWNERS];
static pthread_barrier_t barrier;
static uint64_t stop_ns;

static uint64_t receive_letter(struct owner *self)
{
    for (;;) { /* until a letter comes; the watchdog ends it otherwise */
        struct nio_mpsc_node *node = nio_mpsc_take(&self->mailbox);
        if (node) {
            STRESS_CHECK(node->next == NULL);
            return NIO_CONTAINER_OF(node, struct letter, link)->turn;
        }
        if (nio_rng_below(&self->rng, 4)) {
            stress_jitter(&self->rng);
            continue;
        }
        nio_parker_park_unless(&self->parker, self->driver, -1, &self->mailbox);
        self->parks++;
    }
}

static void send_letter(struct owner *self, struct owner *other, uint64_t turn)
{
    struct letter *letter = &self->letters[turn / OWNERS % LETTERS];
    letter->turn = turn;
    (void)nio_mpsc_push(&other->mailbox, &letter->link); /* woken in any case */
    if (nio_parker_is_awake(&other->parker))
        self->spared++;
    else
        (void)nio_parker_unpark(&other->parker, other->driver); /* it may be awake by now */
}

static void *run_owner(void *arg)
{
    struct owner *self = arg;
    bool is_first = self == &owners[0];
    struct owner *other = is_first ? &owners[1] : &owners[0];
    struct nio_driver_options options = harness_options(NUMIO_DRIVER_EPOLL);
    STRESS_CHECK(nio_driver_create(&options, &self->driver) == 0);
    (void)pthread_barrier_wait(&barrier); /* both drivers are there */
    if (is_first)
        send_letter(self, other, 1);
    for (uint64_t turn = is_first ? 2 : 1;; turn += OWNERS) { /* until the first says it is over */
        uint64_t got = receive_letter(self);
        if (got == UINT64_MAX)
            break;
        STRESS_CHECK(got == turn);
        self->turns++;
        bool is_over = is_first && turn % 64 == 0 && nio_now_ns() > stop_ns;
        if (is_over) {
            self->letters[0].turn = UINT64_MAX;
            (void)nio_mpsc_push(&other->mailbox, &self->letters[0].link); /* woken in any case */
            (void)nio_parker_unpark(&other->parker, other->driver);       /* awake or not */
            break;
        }
        send_letter(self, other, turn + 1);
    }
    (void)pthread_barrier_wait(&barrier); /* nobody wakes any more */
    nio_driver_destroy(self->driver);
    return NULL;
}

int main(void)
{
    uint64_t seed;
    pthread_t threads[OWNERS];
    stop_ns = stress_start(&seed);
    harness_init();
    STRESS_CHECK(pthread_barrier_init(&barrier, NULL, OWNERS) == 0);
    for (unsigned i = 0; i < OWNERS; i++) {
        nio_mpsc_init(&owners[i].mailbox);
        nio_parker_init(&owners[i].parker);
        nio_rng_init(&owners[i].rng, &seed);
    }
    for (unsigned i = 0; i < OWNERS; i++)
        STRESS_CHECK(pthread_create(&threads[i], NULL, run_owner, &owners[i]) == 0);
    for (unsigned i = 0; i < OWNERS; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail: joined once */
    printf("stress_mailbox: %llu turns, %llu parks, %llu wakes spared\n",
           (unsigned long long)owners[0].turns,
           (unsigned long long)(owners[0].parks + owners[1].parks),
           (unsigned long long)(owners[0].spared + owners[1].spared));
    return owners[0].turns == 0 || owners[0].parks == 0 || owners[0].spared == 0;
}
