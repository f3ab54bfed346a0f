/* SPDX-License-Identifier: MIT */
/* A counted loop for a tool that counts instructions: see scripts/instructions.sh. */
#include <inttypes.h>
#include <stdio.h>

#include "perf/bench/bench_join.h"
#include "perf/bench/bench_scenarios.h"

int bench_instructions(const struct bench_options *options)
{
    const struct bench_scenario scenario = { .name = "instructions", .flavor = options->flavor };
    struct bench b = { .options = options, .scenario = &scenario };
    struct numio_config config;
    bench_options_config(options, &config);
    bench_must(numio_runtime_create(&config, &b.runtime), "numio_runtime_create");
    b.handle = numio_runtime_handle(b.runtime);
    struct bench_block block = bench_join_each(&b, options->count);
    if (block.ops != options->count)
        bench_fail("%" PRIu64 " tasks were joined, not %" PRIu64, block.ops, options->count);
    numio_runtime_destroy(b.runtime);
    printf("%" PRIu64 " tasks spawned, run and joined\n", block.ops);
    return 0;
}
