/* SPDX-License-Identifier: MIT */
/* The hot path of a server that spins: under sqpoll with the idle policy spin a worker echoes a
 * thousand messages without a system call.
 *
 * strace looks on from outside, and the client is a process of its own, so nothing in the server
 * takes part in the counting.  Only what happens between the client's first and its last message
 * counts.  How busy the machine is does not matter: the SQ thread may sleep only after more seconds
 * than a client or itself may have to wait for a CPU, and should one wait longer, the run is made
 * again.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <time.h>

#include "tests/runtime_fixture.h"

enum {
    MESSAGES = 1000,
    WARM_UP = 20,
    MESSAGE_BYTES = 64,
    PAUSE_INTERVAL = 100, /* after so many messages the client pauses: longer than ... */
    PAUSE_NS = 25000000,  /* ... an SQ thread stays awake whose workers do not spin */
    SQ_IDLE_MS = 20000,
    LONGEST_GAP_MS = 18000,
    ATTEMPTS = 5,
    LINE_BYTES = 512
};

/* What the client tells at its end. */
struct told {
    double first_s, last_s; /* when the first message was sent and the last echo came, wall clock */
    double longest_gap_ms;  /* between two echoes */
    unsigned echoed;
};

static double wall_clock_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail */
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- the client, a process ---------------------------------------------------------------- */

static bool exchange(int fd, unsigned number)
{
    unsigned char message[MESSAGE_BYTES], echo[MESSAGE_BYTES];
    memset(message, (int)(number % 251), sizeof message);
    return send(fd, message, sizeof message, MSG_NOSIGNAL) == MESSAGE_BYTES &&
           recv(fd, echo, sizeof echo, MSG_WAITALL) == MESSAGE_BYTES &&
           memcmp(message, echo, sizeof echo) == 0;
}

static void talk(int fd, struct told *told)
{
    double before_s = wall_clock_s();
    told->first_s = before_s;
    for (unsigned i = 0; i < MESSAGES; i++) {
        if (i % PAUSE_INTERVAL == PAUSE_INTERVAL - 1) {
            struct timespec pause = { .tv_nsec = PAUSE_NS };
            (void)nanosleep(&pause, NULL); /* shorter is as good */
        }
        if (!exchange(fd, i))
            return;
        told->echoed++;
        told->last_s = wall_clock_s();
        double gap_ms = (told->last_s - before_s) * 1e3;
        told->longest_gap_ms = gap_ms > told->longest_gap_ms ? gap_ms : told->longest_gap_ms;
        before_s = told->last_s;
    }
}

/* Reads a port, warms up, says so, and waits for the word to go and for the end. */
static int run_client(int in, int out)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct told told = { 0 };
    int one = 1;
    char word = 'w';
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (read(in, &address.sin_port, sizeof address.sin_port) != sizeof address.sin_port ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        connect(fd, (const struct sockaddr *)&address, sizeof address) != 0)
        return 1;
    for (unsigned i = 0; i < WARM_UP; i++)
        if (!exchange(fd, i))
            return 2;
    if (write(out, &word, 1) != 1 || read(in, &word, 1) != 1)
        return 3;
    talk(fd, &told);
    if (write(out, &told, sizeof told) != sizeof told)
        return 4;
    return read(in, &word, 1) == 0 ? 0 : 5; /* nothing is closed before the test has looked */
}

struct client {
    pid_t pid;
    int in, out; /* its ends, as the test sees them: what it writes, what it reads */
};

static struct client start_client(void)
{
    int in[2], out[2];
    cr_assert(pipe(in) == 0 && pipe(out) == 0);
    struct client client = { .pid = fork(), .in = out[0], .out = in[1] };
    cr_assert_geq(client.pid, 0);
    if (client.pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(in[1]);
        (void)close(out[0]);
        _exit(run_client(in[0], out[1]));
    }
    (void)close(in[0]);
    (void)close(out[1]);
    return client;
}

static void read_fully(int fd, void *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(fd, (char *)bytes + done, len - done);
        cr_assert_gt(n, 0, "the client has ended: %s", n < 0 ? strerror(errno) : "see above");
        done += (size_t)n;
    }
}

/* ---- the server, in this process ---------------------------------------------------------- */

static int64_t echo(void *arg)
{
    char buf[MESSAGE_BYTES];
    int64_t n, fd = numio_accept((int)(intptr_t)arg, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return fd;
    while ((n = numio_recv((int)fd, buf, sizeof buf, 0)) > 0)
        if ((n = numio_send_all((int)fd, buf, (size_t)n, MSG_NOSIGNAL)) < 0)
            break;
    (void)numio_close((int)fd); /* the client has gone */
    return n;
}

/* Two CPUs that this process may use.  False: there is one only. */
static bool find_cpus(int ret_cpus[2])
{
    cpu_set_t set;
    unsigned count = 0;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE && count < 2; cpu++)
        if (CPU_ISSET(cpu, &set))
            ret_cpus[count++] = cpu;
    return count == 2;
}

static struct numio_runtime *start_server(enum numio_driver driver, const int cpus[2])
{
    char list[32];
    struct numio_node_status node;
    struct numio_worker_status worker;
    struct numio_config config = fixture_config(driver, 1);
    (void)snprintf(list, sizeof list, "%d,%d", cpus[0], cpus[1]); /* fits */
    config.cpus = list;
    config.idle = NUMIO_IDLE_SPIN;
    config.sq_idle_ms = SQ_IDLE_MS;
    config.sq_thread_cpu = driver == NUMIO_DRIVER_SQPOLL ? cpus[1] : -1;
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    cr_assert_eq(numio_node_status(handle, 0, &node), 0);
    cr_assert_eq(numio_worker_status(handle, 0, &worker), 0);
    cr_assert(driver != NUMIO_DRIVER_SQPOLL || node.sq_cpu != worker.bind_cpu,
              "the worker and the SQ thread share CPU %d", node.sq_cpu);
    return runtime;
}

static uint64_t count_enters(struct numio_runtime *runtime)
{
    struct numio_worker_metrics metrics = { .size = sizeof metrics };
    cr_assert_eq(numio_worker_metrics(numio_runtime_handle(runtime), 0, &metrics), 0);
    return metrics.enters;
}

/* ---- strace ------------------------------------------------------------------------------- */

struct tracer {
    pid_t pid;
    char path[64];
};

/* A missing tool or right skips the test, unless NUMIO_REQUIRE names ptrace. */
static void cannot_trace(const char *what)
{
    const char *required = getenv("NUMIO_REQUIRE");
    cr_assert_not(required && strstr(required, "ptrace"), "%s, but NUMIO_REQUIRE wants ptrace",
                  what);
    cr_skip_test("%s", what);
}

static bool is_traced(int tid)
{
    char path[64], line[128];
    int tracer = 0;
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/status", tid); /* fits */
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "TracerPid: %d", &tracer) == 1)
            break;
    if (file)
        (void)fclose(file); /* only read from */
    return tracer != 0;
}

struct attaching {
    const struct tracer *tracer;
    int tid;
    bool has_ended;
};

static bool is_attached(void *arg)
{
    struct attaching *attaching = arg;
    attaching->has_ended = waitpid(attaching->tracer->pid, NULL, WNOHANG) != 0;
    return attaching->has_ended || is_traced(attaching->tid);
}

/* Starts strace for all threads of this process; every line begins with the thread and the time. */
static void start_tracer(struct tracer *tracer, int worker_tid)
{
    char pid[16];
    (void)snprintf(tracer->path, sizeof tracer->path, "/tmp/test_hot_path.%d", getpid());
    (void)snprintf(pid, sizeof pid, "%d", getpid());
    (void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* where Yama is: else a child may not */
    tracer->pid = fork();
    cr_assert_geq(tracer->pid, 0);
    if (tracer->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM); /* so that it detaches */
        (void)execlp("strace", "strace", "-f", "-qq", "-ttt", "-o", tracer->path, "-p", pid,
                     (char *)NULL);
        _exit(127);
    }
    struct attaching attaching = { .tracer = tracer, .tid = worker_tid };
    cr_assert(fixture_until(is_attached, &attaching), "strace does not attach");
    if (attaching.has_ended)
        cannot_trace("strace is missing or may not trace");
}

/* Ends strace and counts the system calls of one thread within a time; the first few are shown. */
static unsigned stop_tracer(const struct tracer *tracer, int tid, const struct told *told,
                            char *ret_calls, size_t calls_bytes)
{
    char line[LINE_BYTES];
    unsigned count = 0;
    int status, seen_tid, at;
    double when_s;
    *ret_calls = '\0';
    cr_assert_eq(kill(tracer->pid, SIGINT), 0);
    cr_assert_eq(waitpid(tracer->pid, &status, 0), tracer->pid);
    FILE *file = fopen(tracer->path, "re");
    cr_assert_not_null(file, "strace has written nothing");
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%d %lf %n", &seen_tid, &when_s, &at) != 2 || seen_tid != tid ||
            when_s < told->first_s || when_s > told->last_s || !strchr(line + at, '('))
            continue;
        count++;
        size_t used = strlen(ret_calls);
        (void)snprintf(ret_calls + used, calls_bytes - used, "%s", line + at); /* may be cut */
    }
    (void)fclose(file); /* only read from */
    (void)unlink(tracer->path);
    return count;
}

/* ---- the tests ---------------------------------------------------------------------------- */

struct outcome {
    struct told told;
    unsigned calls;  /* of the worker between the first and the last message */
    uint64_t enters; /* the same as its driver has counted */
    char shown[4 * LINE_BYTES];
};

static void run_once(enum numio_driver driver, const int cpus[2], struct outcome *outcome)
{
    struct client client = start_client();
    struct numio_runtime *runtime = start_server(driver, cpus);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    struct numio_worker_status worker;
    struct numio_join *join;
    struct numio_address address;
    struct tracer tracer;
    int status;
    char word;
    cr_assert_eq(numio_worker_status(handle, 0, &worker), 0);
    int listener = numio_tcp_listen("127.0.0.1:0", 1);
    cr_assert_geq(listener, 0, "%s", numio_strerror_detail());
    cr_assert_eq(numio_udp_local(listener, &address), 0);
    in_port_t port = ((const struct sockaddr_in *)(const void *)&address.storage)->sin_port;
    cr_assert_eq(numio_spawn_co(handle, echo, (void *)(intptr_t)listener, NULL, &join), 0);
    start_tracer(&tracer, worker.tid);
    cr_assert_eq(write(client.out, &port, sizeof port), sizeof port);
    read_fully(client.in, &word, 1); /* it is connected, and the SQ thread is awake */
    uint64_t enters = count_enters(runtime);
    cr_assert_eq(write(client.out, &word, 1), 1);
    read_fully(client.in, &outcome->told, sizeof outcome->told);
    outcome->enters = count_enters(runtime) - enters;
    outcome->calls =
        stop_tracer(&tracer, worker.tid, &outcome->told, outcome->shown, sizeof outcome->shown);
    (void)close(client.out); /* lets the client end, and with it the echo */
    cr_assert_eq(waitpid(client.pid, &status, 0), client.pid);
    cr_assert_eq(status, 0, "the client's wait status is 0x%x", (unsigned)status);
    cr_assert_eq(numio_join_wait(&join, -1), 0);
    (void)close(client.in);
    (void)close(listener);
    numio_runtime_destroy(runtime);
}

static void run(enum numio_driver driver, struct outcome *outcome)
{
    int cpus[2];
    if (!fixture_has_uring())
        cr_skip_test("no io_uring here");
    if (!find_cpus(cpus))
        cr_skip_test("a worker and an SQ thread need a CPU each");
    for (int i = 0; i < ATTEMPTS; i++) {
        *outcome = (struct outcome){ 0 };
        run_once(driver, cpus, outcome);
        if (outcome->told.longest_gap_ms < LONGEST_GAP_MS)
            break;
        (void)fprintf(stderr, "attempt %d: %.0f ms between two messages, again\n", i,
                      outcome->told.longest_gap_ms);
    }
    cr_assert_lt(outcome->told.longest_gap_ms, LONGEST_GAP_MS,
                 "the machine is too busy: the SQ thread sleeps between two messages");
    cr_assert_eq(outcome->told.echoed, MESSAGES);
}

Test(hot_path, a_worker_that_spins_under_sqpoll_echoes_without_a_system_call, .timeout = 60)
{
    struct outcome outcome;
    run(NUMIO_DRIVER_SQPOLL, &outcome);
    cr_assert_eq(outcome.calls, 0, "%u system calls in %d messages:\n%s", outcome.calls, MESSAGES,
                 outcome.shown);
    cr_assert_eq(outcome.enters, 0, "the driver has entered the kernel %llu times",
                 (unsigned long long)outcome.enters);
}

/* What the test above would see of a worker that makes system calls. */
Test(hot_path, the_same_under_defer_takes_a_system_call_for_each_message, .timeout = 60)
{
    struct outcome outcome;
    run(NUMIO_DRIVER_DEFER, &outcome);
    cr_assert_geq(outcome.calls, (unsigned)MESSAGES);
    cr_assert_geq(outcome.enters, (uint64_t)MESSAGES);
}

/* ---- the SQ thread ------------------------------------------------------------------------- */

static int64_t use_the_ring(void *arg)
{
    int64_t fd = numio_open("/dev/null", O_WRONLY | O_CLOEXEC, 0);
    (void)arg;
    return fd < 0 ? fd : numio_close((int)fd);
}

/* The state of a thread of this process as /proc has it: R, S and so on. */
static char state_of(int tid)
{
    char path[64], line[LINE_BYTES] = "";
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid); /* fits */
    FILE *file = fopen(path, "re");
    const char *comm_end = file && fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
    if (file)
        (void)fclose(file); /* only read from */
    return comm_end && comm_end[1] ? comm_end[2] : '?';
}

static bool is_asleep(void *arg)
{
    return state_of(*(int *)arg) == 'S';
}

/* How long the SQ thread stays awake after an operation; at most the fixture's patience. */
static double awake_ms(enum numio_idle_policy idle, const int cpus[2])
{
    char list[32];
    struct numio_node_status node;
    struct numio_config config = fixture_config(NUMIO_DRIVER_SQPOLL, 1);
    (void)snprintf(list, sizeof list, "%d,%d", cpus[0], cpus[1]); /* fits */
    config.cpus = list;
    config.idle = idle;
    config.sq_thread_cpu = cpus[1];
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    cr_assert_eq(numio_node_status(handle, 0, &node), 0);
    double begin_s = wall_clock_s(); /* before the operation, however long this thread then waits */
    cr_assert_eq(numio_block_on(handle, use_the_ring, NULL), 0);
    cr_assert(fixture_until(is_asleep, &node.sq_tid), "the SQ thread never sleeps");
    double end_s = wall_clock_s();
    numio_runtime_destroy(runtime);
    return (end_s - begin_s) * 1e3;
}

Test(hot_path, the_sq_thread_of_a_worker_that_spins_stays_awake_for_a_second, .timeout = 60)
{
    int cpus[2];
    if (!fixture_has_uring())
        cr_skip_test("no io_uring here");
    if (!find_cpus(cpus))
        cr_skip_test("a worker and an SQ thread need a CPU each");
    double spin_ms = awake_ms(NUMIO_IDLE_SPIN, cpus);
    cr_assert_geq(spin_ms, 990, "%.0f ms", spin_ms);
    double park_ms = awake_ms(NUMIO_IDLE_PARK, cpus);
    cr_assert_lt(park_ms, spin_ms, "%.0f ms", park_ms); /* 10 ms, where there is nothing to spare */
}
