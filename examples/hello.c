/* SPDX-License-Identifier: MIT */
/* hello: a coroutine that spawns others and adds up what they return. */
#include <inttypes.h>
#include <stdio.h>

#include <numio/numio.h>

enum { GREETERS = 4 };

static int64_t greet(void *arg)
{
    int64_t number = *(const int64_t *)arg;
    printf("hello from task %" PRId64 " on worker %d\n", number, numio_current_worker());
    return number;
}

static int64_t hello(void *arg)
{
    struct numio_join *joins[GREETERS] = { NULL };
    int64_t numbers[GREETERS], sum = 0;
    int err = 0;
    (void)arg; /* nothing to be told */
    for (int i = 0; i < GREETERS && err == 0; i++) {
        numbers[i] = i + 1;
        err = numio_spawn_co(NULL, greet, &numbers[i], NULL, &joins[i]);
    }
    for (int i = 0; i < GREETERS; i++)
        if (joins[i])
            sum += numio_join_await(&joins[i]);
    return err < 0 ? err : sum;
}

int main(void)
{
    int64_t sum = numio_main(NULL, hello, NULL);
    if (sum < 0)
        return 1;
    printf("their sum is %" PRId64 "\n", sum);
    return 0;
}
