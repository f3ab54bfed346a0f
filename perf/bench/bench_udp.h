/* SPDX-License-Identifier: MIT */
/* bench_udp.h: what tells the scenarios udp_echo_* apart.  Constant. */
#ifndef BENCH_UDP_H
#define BENCH_UDP_H

#include <numio/config.h>

struct bench_udp_shape {
    enum numio_idle_policy idle; /* of both runtimes, whatever --idle says */
};

#endif
