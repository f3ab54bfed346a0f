/* SPDX-License-Identifier: MIT */
/* A race is a scope in which winning is an error: the winner's -ECANCELED makes the scope abort the
 * others, and its result stands in the race. */
#include <numio/scope.h>

#include <errno.h>
#include <stdatomic.h>

#include "runtime/base/error.h"
#include "runtime/base/mem.h"

struct race {
    _Atomic uint32_t winner; /* index + 1, 0: none yet */
    _Atomic int64_t last;    /* result of the last that did not win */
    unsigned flags;
};

struct entry {
    struct race *race;
    const struct numio_racer *racer;
    uint32_t number; /* index + 1 */
    int64_t result;  /* of the winner; the close publishes it */
};

static int64_t run_racer(void *arg)
{
    struct entry *entry = arg;
    struct race *race = entry->race;
    int64_t result = entry->racer->fn(entry->racer->arg);
    uint32_t nobody = 0;
    bool may_win = result >= 0 || !(race->flags & NUMIO_RACE_SUCCESS);
    /* relaxed: it decides, and publishes nothing: the end of the scope does */
    if (may_win &&
        atomic_compare_exchange_strong_explicit(&race->winner, &nobody, entry->number,
                                                memory_order_relaxed, memory_order_relaxed)) {
        entry->result = result;
        return -ECANCELED;
    }
    /* relaxed: as above */
    atomic_store_explicit(&race->last, result, memory_order_relaxed);
    return 0;
}

static int64_t run_race(const struct numio_site *site, struct race *race, struct entry *entries,
                        const struct numio_racer *racers, unsigned count, unsigned *ret_winner)
{
    struct numio_scope scope;
    int rc = numio_scope_open(&scope, 0);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < count && rc == 0; i++) {
        entries[i] = (struct entry){ race, &racers[i], i + 1, 0 };
        rc = numio_scope_spawn_co_at(site, &scope, run_racer, &entries[i], NULL);
    }
    /* relaxed: as in run_racer(); somebody may have won before all were spawned */
    bool is_over = atomic_load_explicit(&race->winner, memory_order_relaxed) != 0;
    if (rc < 0 && !is_over)
        (void)numio_scope_abort(&scope); /* it is this task's */
    int64_t error = numio_scope_close(&scope);
    /* relaxed: the close has ordered it, and what follows */
    uint32_t winner = atomic_load_explicit(&race->winner, memory_order_relaxed);
    if (winner == 0) {
        if (rc < 0 || error < 0)
            return rc < 0 ? rc : error;
        return atomic_load_explicit(&race->last, memory_order_relaxed); /* relaxed: as above */
    }
    if (ret_winner)
        *ret_winner = winner - 1;
    return entries[winner - 1].result;
}

int64_t numio_race_at(const struct numio_site *site, const struct numio_racer *racers,
                      unsigned count, unsigned flags, unsigned *ret_winner)
{
    struct race race = { .flags = flags };
    if (ret_winner)
        *ret_winner = count;
    if (count == 0 || (flags & ~(unsigned)NUMIO_RACE_SUCCESS))
        return nio_error(-EINVAL, "race: %u are to run, flags 0x%x", count, flags);
    struct entry *entries = nio_zalloc_array(count, sizeof *entries);
    if (!entries)
        return nio_error(-ENOMEM, "race: no memory for %u entries", count);
    int64_t result = run_race(site, &race, entries, racers, count, ret_winner);
    nio_free(entries);
    return result;
}
