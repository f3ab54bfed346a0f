/* SPDX-License-Identifier: MIT */
/* multicast_relay GROUP:PORT FROM_INTERFACE TO_INTERFACE TO:PORT...: sends whatever comes to a
 * group on an interface on to each of the addresses, in order (IPv4).  SIGUSR1 prints what it has
 * counted; so do SIGTERM and SIGINT, after which it sends on what has come by then, and ends. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <numio/numio.h>

enum { TARGETS_MAX = 16, BYTES_MAX = 65535, QUEUE_BYTES = 16 << 20, LOOK_NS = 100000000 };

struct relay {
    char group[NUMIO_ADDRESS_TEXT_BYTES];
    const char *interface;
    struct numio_address targets[TARGETS_MAX];
    unsigned target_count;
    int in, out;
    char buffer[BYTES_MAX];
    _Atomic uint64_t datagrams, bytes; /* that came to the group */
    _Atomic uint64_t unsent;           /* of all targets together */
    _Atomic uint64_t is_ending;
};

static struct numio_signals *signals;

/* relaxed: figures, which order nothing, and a flag that is looked at again */
static void add(_Atomic uint64_t *counter, uint64_t count)
{
    (void)atomic_fetch_add_explicit(counter, count, memory_order_relaxed);
}

static uint64_t get(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed); /* relaxed: as above */
}

static void print_counters(struct relay *relay)
{
    printf("%" PRIu64 " datagrams, %" PRIu64 " bytes, %" PRId64 " dropped by the kernel, %" PRIu64
           " not sent\n",
           get(&relay->datagrams), get(&relay->bytes), numio_udp_drops(relay->in),
           get(&relay->unsent));
    fflush(stdout);
}

/* Sends on what has come, several datagrams at a time where the kernel has joined them. */
static void send_on(struct relay *relay, size_t len, unsigned segment_bytes)
{
    uint64_t count = segment_bytes > 0 ? (len + segment_bytes - 1) / segment_bytes : 1;
    add(&relay->datagrams, count);
    add(&relay->bytes, len);
    for (unsigned i = 0; i < relay->target_count; i++) {
        const struct numio_address *to = &relay->targets[i];
        int64_t n =
            len == 0 ? numio_udp_send(relay->out, relay->buffer, 0, to)
                     : numio_udp_send_segments(relay->out, relay->buffer, len, segment_bytes, to);
        if (n < (int64_t)len) /* those that were sent before an error are whole */
            add(&relay->unsent, count - (n > 0 ? (uint64_t)n / segment_bytes : 0));
    }
}

/* Short waits, so that the end is noticed; a deadline loses nothing that has come. */
static int64_t run(void *arg)
{
    struct relay *relay = arg;
    for (;;) {
        unsigned segment_bytes = 0;
        bool is_last =
            get(&relay->is_ending); /* before the look: what came before it is in the queue */
        int64_t n = numio_within(LOOK_NS, numio_udp_recv_segments(relay->in, relay->buffer,
                                                                  BYTES_MAX, &segment_bytes, NULL));
        if (n >= 0)
            send_on(relay, (size_t)n, segment_bytes);
        else if (n != -ETIMEDOUT || is_last)
            return n == -ETIMEDOUT ? 0 : n;
    }
}

/* Opens the sockets.   Errors: -EINVAL an address; those of the calls, which leave the detail. */
static int64_t start(struct relay *relay, char **argv)
{
    int size = QUEUE_BYTES, rc = 0;
    (void)snprintf(relay->group, sizeof relay->group, "%s", argv[1]);
    relay->group[strcspn(argv[1], ":")] = '\0';
    relay->interface = argv[2];
    for (char **to = argv + 4; *to && rc == 0 && relay->target_count < TARGETS_MAX; to++)
        rc = strcmp(*to, argv[1]) != 0 /* else it would hear itself */
                 ? numio_address_parse(*to, &relay->targets[relay->target_count++])
                 : -ELOOP;
    if (rc < 0 || (rc = relay->in = numio_udp_bind(argv[1])) < 0 ||
        (rc = relay->out = numio_udp_bind("0.0.0.0:0")) < 0 ||
        (rc = numio_udp_set_multicast(relay->out, argv[3], 1, true)) < 0)
        return rc;
    if (setsockopt(relay->in, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0)
        (void)setsockopt(relay->in, SOL_SOCKET, SO_RCVBUF, &size, sizeof size); /* to rmem_max */
    if (numio_udp_set_gro(relay->in, true) < 0)
        fprintf(stderr, "multicast_relay: one datagram at a time: %s\n", numio_strerror_detail());
    return numio_udp_join(relay->in, relay->group, relay->interface);
}

static int64_t relay_main(void *arg)
{
    static struct relay relay;
    struct numio_signal signal = { .number = SIGUSR1 };
    struct numio_join *join;
    int64_t rc = start(&relay, arg);
    if (rc < 0 || (rc = numio_spawn_co(NULL, run, &relay, NULL, &join)) < 0) {
        fprintf(stderr, "multicast_relay: %s: %s\n", strerror((int)-rc), numio_strerror_detail());
        return rc;
    }
    printf("relaying %s to %u addresses\n", relay.group, relay.target_count);
    fflush(stdout);
    while ((rc = numio_signals_next(signals, &signal)) == 0 && signal.number == SIGUSR1)
        print_counters(&relay);
    rc = numio_udp_leave(relay.in, relay.group, relay.interface); /* nothing comes any more */
    add(&relay.is_ending, 1);
    rc = numio_join_await(&join) < 0 ? -EIO : rc;
    print_counters(&relay);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr,
                "usage: multicast_relay GROUP:PORT FROM_INTERFACE TO_INTERFACE TO:PORT...\n");
        return 2;
    }
    if (numio_signals_open((int[]){ SIGUSR1, SIGTERM, SIGINT }, 3, &signals) < 0)
        return 1;
    return numio_main(NULL, relay_main, argv) < 0;
}
