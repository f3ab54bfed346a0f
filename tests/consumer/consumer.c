/* SPDX-License-Identifier: MIT */
/* What somebody who uses the installed numio would write: a runtime, a coroutine that reads a file
 * through the ring, and a future.  Exits with 0 if all of it gives what it should.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <numio/numio.h>

static const char path[] = "/proc/self/comm";

/* A future that needs three polls and hands over their number. */
static enum numio_poll count_to_three(void *state, struct numio_context *cx)
{
    int *polls = state;
    if (++*polls < 3) {
        numio_context_yield(cx);
        return NUMIO_PENDING;
    }
    *(int *)numio_context_output(cx) = *polls;
    return NUMIO_READY;
}

/* A coroutine: reads a file into `arg`, and waits for a future. */
static int64_t read_and_count(void *arg)
{
    char *text = arg;
    struct numio_join *join = NULL;
    struct numio_future future = { .poll = count_to_three,
                                   .size = sizeof(int),
                                   .output_size = sizeof(int) };
    int polls = 0;
    int64_t err = numio_spawn(NULL, &future, NULL, &join);
    if (err == 0)
        err = numio_join_await_output(&join, &polls, sizeof polls);
    if (err < 0)
        return err;
    int64_t fd = numio_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    int64_t length = numio_read((int)fd, text, 63);
    (void)numio_close((int)fd); /* it was only read */
    return length < 0 ? length : polls * 1000 + length;
}

int main(void)
{
    char text[64] = "", expected[64] = "";
    struct numio_runtime *runtime = NULL;
    FILE *file = fopen(path, "r");
    if (!file || !fgets(expected, (int)sizeof expected, file))
        return 1;
    (void)fclose(file); /* it was only read */

    if (numio_runtime_create(NULL, &runtime) < 0) {
        (void)fprintf(stderr, "consumer: %s\n", numio_strerror_detail());
        return 1;
    }
    int64_t result = numio_block_on(numio_runtime_handle(runtime), read_and_count, text);
    numio_runtime_destroy(runtime);
    if (result != 3000 + (int64_t)strlen(expected) || strcmp(text, expected) != 0) {
        (void)fprintf(stderr, "consumer: result %lld, read '%s'\n", (long long)result, text);
        return 1;
    }
    return printf("consumer: numio %s\n", NUMIO_VERSION) < 0;
}
