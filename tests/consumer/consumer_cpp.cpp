// SPDX-License-Identifier: MIT
// The same from C++: spawns two coroutines and adds up what they return.
#include <cstdint>
#include <cstdio>

#include <numio/numio.h>

static std::int64_t twice(void *arg)
{
    return 2 * *static_cast<std::int64_t *>(arg);
}

static std::int64_t sum(void *)
{
    std::int64_t numbers[2] = { 3, 4 };
    std::int64_t total = 0;
    numio_join *joins[2] = {};
    for (int i = 0; i < 2; i++)
        if (numio_spawn_co(nullptr, twice, &numbers[i], nullptr, &joins[i]) < 0)
            return -1;
    for (auto &join : joins)
        total += numio_join_await(&join);
    return total;
}

int main()
{
    const std::int64_t total = numio_main(nullptr, sum, nullptr);
    if (total != 14)
        return 1;
    return std::printf("consumer_cpp: numio %s\n", NUMIO_VERSION) < 0;
}
