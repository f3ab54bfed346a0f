/* SPDX-License-Identifier: MIT */
/* perf/load/load_run.h: drives a set of connections in a closed loop and measures spans of it.
 * One thread, the caller's.  A span ends after a time or after a number of answers.
 */
#ifndef NIO_PERF_LOAD_RUN_H
#define NIO_PERF_LOAD_RUN_H

#include "perf/load/load_conn.h"

#include <sys/types.h>

struct load_plan {
    struct sockaddr_in server;
    size_t conns;
    size_t depth;
    size_t message_bytes;
    bool is_spinning; /* never sleep while waiting for answers */
    pid_t server_pid; /* whose CPU time is read; 0 = nobody's */
};

/* What one span showed; cpu_us is 0 without a server_pid. */
struct load_span {
    double requests_per_s;
    double p50_us;
    double p99_us;
    double p999_us;
    double cpu_us_per_request;
};

struct load_run;

/* Connects everything and sends the first messages.  0 or -errno. */
int load_run_create(const struct load_plan *plan, struct load_run **ret_run);
void load_run_destroy(struct load_run *run);

/* Runs until `seconds` have passed or, when `answers` is not 0, that many messages came back.
 * 0 or -errno: -EBADMSG a wrong answer, -ETIMEDOUT no answer at all for five seconds, -ESRCH the
 * server process is gone. */
int load_run_span(struct load_run *run, double seconds, uint64_t answers,
                  struct load_span *ret_span);

#endif
