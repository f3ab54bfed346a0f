/* SPDX-License-Identifier: MIT */
/* bench_timer.h: the kinds of the scenarios of bench_timer.c, for the table in bench_main.c. */
#ifndef BENCH_TIMER_H
#define BENCH_TIMER_H

#include <stddef.h>
#include <stdint.h>

struct bench_cancel_shape {
    size_t outstanding; /* timers that are armed meanwhile */
};

struct bench_fire_shape {
    uint64_t tolerance_ns; /* a timer may end so much later, for the sake of others */
};

struct bench_sleep_shape {
    uint64_t delay_ns;
    size_t sleeps; /* in a block */
};

#endif
