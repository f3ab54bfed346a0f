/* SPDX-License-Identifier: MIT */
/* Pipes, forwarding that ends early and goes on, and terminals that do not hold up others. */
#include "tests/runtime_fixture.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <termios.h>

#include "tests/steps.h"

enum { BUFFER_BYTES = 512, SOON_NS = 2000000, MANY_BYTES = 200000, TERMINAL_BYTES = 65536 };
enum { NOBODY = 65534, PIPES_MAX = 400, SKIP = 77 };

static void run(struct numio_runtime *runtime, int64_t (*fn)(void *arg), void *arg)
{
    int64_t line = numio_block_on(numio_runtime_handle(runtime), fn, arg);
    cr_assert_eq(line, 0, "line %ld: %s", (long)line, numio_strerror_detail());
}

static void fill_pattern(char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char)(i * 7 + i / 251);
}

Test(pipe, it_has_the_room_that_was_asked_for_and_is_closed_on_exec)
{
    int fds[2] = { -1, -1 };
    cr_assert_eq(numio_pipe(fds, 100000), 0);
    cr_assert_geq(fcntl(fds[0], F_GETPIPE_SZ), 100000);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
        cr_assert_eq(close(fds[i]), 0);
    }
}

Test(pipe, a_refused_room_is_told_and_leaves_nothing)
{
    int fds[2] = { -1, -1 };
    unsigned before = fixture_count_fds();
    cr_assert_eq(numio_pipe(fds, (size_t)1 << 40), -EINVAL);
    cr_assert_not_null(strstr(numio_strerror_detail(), "pipe"));
    cr_assert_eq(numio_pipe(fds, (size_t)0x7fffffff) < 0, 1);
    cr_assert_not_null(strstr(numio_strerror_detail(), "/proc/sys/fs/pipe-max-size"));
    cr_assert_eq(fds[0], -1);
    cr_assert_eq(fixture_count_fds(), before);
}

/* ---- what an ordinary user may have ------------------------------------------------------- */

/* In a child: gives up what root may.  Returns 0, or the child's exit status after saying why. */
static int become_ordinary(void)
{
    if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)) {
        (void)fprintf(stderr, "this root may not become another user: %s", strerror(errno));
        return SKIP;
    }
    return 0;
}

static long read_limit(const char *path)
{
    char line[32] = "";
    FILE *file = fopen(path, "re");
    if (!file || !fgets(line, sizeof line, file))
        line[0] = '\0';
    if (file)
        (void)fclose(file); /* only read from */
    return strtol(line, NULL, 10);
}

static int asks_for_more_than_the_limit(void)
{
    int fds[2] = { -1, -1 }, rc = become_ordinary();
    if (rc != 0)
        return rc;
    long bytes_max = read_limit("/proc/sys/fs/pipe-max-size");
    FIXTURE_CHILD_CHECK(bytes_max > 0, "no /proc/sys/fs/pipe-max-size");
    unsigned before = fixture_count_fds();
    rc = numio_pipe(fds, (size_t)bytes_max + 1);
    FIXTURE_CHILD_CHECK(rc == -EPERM, "%d", rc);
    FIXTURE_CHILD_CHECK(strstr(numio_strerror_detail(), "/proc/sys/fs/pipe-max-size"));
    FIXTURE_CHILD_CHECK(fds[0] == -1 && fds[1] == -1 && fixture_count_fds() == before);
    rc = numio_pipe(fds, (size_t)bytes_max); /* all that is allowed */
    FIXTURE_CHILD_CHECK(rc == 0, "%d", rc);
    FIXTURE_CHILD_CHECK(fcntl(fds[1], F_GETPIPE_SZ) >= bytes_max);
    return 0;
}

Test(pipe, an_ordinary_user_is_refused_more_than_the_limit_of_a_pipe, .timeout = 20)
{
    fixture_expect_child(asks_for_more_than_the_limit);
}

/* Each of the size that is allowed, until all together are too many. */
static int asks_for_too_many(void)
{
    int fds[2], rc = become_ordinary();
    if (rc != 0)
        return rc;
    long bytes_max = read_limit("/proc/sys/fs/pipe-max-size");
    FIXTURE_CHILD_CHECK(bytes_max > 0, "no /proc/sys/fs/pipe-max-size");
    long pages_soft = read_limit("/proc/sys/fs/pipe-user-pages-soft");
    long enough = pages_soft * sysconf(_SC_PAGESIZE) / bytes_max + 1;
    if (pages_soft == 0 || enough > PIPES_MAX) {
        (void)fprintf(stderr, "pipe-user-pages-soft is %ld: not to be reached", pages_soft);
        return SKIP;
    }
    long count = 0;
    while (count < enough && (rc = numio_pipe(fds, (size_t)bytes_max)) == 0)
        count++;
    FIXTURE_CHILD_CHECK(rc == -EPERM, "%d after %ld of %ld pipes", rc, count, enough);
    FIXTURE_CHILD_CHECK(strstr(numio_strerror_detail(), "/proc/sys/fs/pipe-user-pages-soft"));
    unsigned before = fixture_count_fds();
    FIXTURE_CHILD_CHECK(numio_pipe(fds, (size_t)bytes_max) == -EPERM);
    FIXTURE_CHILD_CHECK(fixture_count_fds() == before);
    rc = numio_pipe(fds, 0); /* a small one is not refused */
    FIXTURE_CHILD_CHECK(rc == 0, "%d", rc);
    return 0;
}

Test(pipe, an_ordinary_user_is_refused_more_than_all_its_pipes_may_have, .timeout = 20)
{
    fixture_expect_child(asks_for_too_many);
}

/* ---- writing for nobody ------------------------------------------------------------------- */

static int64_t write_for_nobody(void *arg)
{
    int *fds = arg;
    EXPECT(numio_close(fds[0]) == 0);
    EXPECT(numio_write(fds[1], "x", 1) == -EPIPE);
    EXPECT(numio_close(fds[1]) == 0);
    return 0;
}

FIXTURE_EACH(pipe, without_a_reader_a_write_fails_and_nobody_dies, .timeout = 20)
{
    int fds[2];
    (void)signal(SIGPIPE, SIG_DFL); /* it cannot fail */
    cr_assert_eq(numio_pipe(fds, 0), 0);
    run(runtime, write_for_nobody, fds);
}

/* ---- forwarding --------------------------------------------------------------------------- */

static int64_t forward_file_socket_file(void *arg)
{
    (void)arg;
    static char bytes[3000], got[3000];
    char in[BUFFER_BYTES], out[BUFFER_BYTES];
    struct numio_reader reader;
    struct numio_writer writer;
    uint64_t done = 0;
    int ends[2], source = memfd_create("source", MFD_CLOEXEC);
    int target = memfd_create("target", MFD_CLOEXEC);
    EXPECT(source >= 0 && target >= 0);
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    fill_pattern(bytes, sizeof bytes);
    EXPECT(numio_pwrite_all(source, bytes, sizeof bytes, 0) == sizeof bytes);
    numio_reader_init(&reader, source, 0, in, sizeof in);
    numio_writer_init(&writer, ends[0], -1, out, sizeof out);
    EXPECT(numio_forward(&reader, &writer, 1000, &done) == 0 && done == 1000);
    EXPECT(numio_forward(&reader, &writer, UINT64_MAX, &done) == 0 && done == sizeof bytes);
    EXPECT(numio_shutdown(ends[0], SHUT_WR) == 0);
    done = 0;
    numio_reader_init(&reader, ends[1], -1, in, sizeof in);
    numio_writer_init(&writer, target, 0, out, sizeof out);
    EXPECT(numio_forward(&reader, &writer, UINT64_MAX, &done) == 0 && done == sizeof bytes);
    EXPECT(numio_pread_all(target, got, sizeof got, 0) == sizeof got);
    EXPECT(memcmp(bytes, got, sizeof got) == 0);
    EXPECT(close(source) == 0 && close(target) == 0 && close(ends[0]) == 0 && close(ends[1]) == 0);
    return 0;
}

FIXTURE_EACH(pipe, a_file_goes_through_a_socket_to_a_file_by_the_limit, .timeout = 20)
{
    run(runtime, forward_file_socket_file, NULL);
}

/* Deadlines strike while the target is full; what was moved is as it was. */
static int64_t forward_by_deadlines(void *arg)
{
    (void)arg;
    static char bytes[MANY_BYTES], got[MANY_BYTES];
    char in[BUFFER_BYTES], out[100];
    struct numio_reader reader;
    struct numio_writer writer;
    uint64_t done = 0;
    size_t came = 0;
    int64_t rc, strikes = 0;
    int from[2], to[2];
    EXPECT(numio_pipe(from, MANY_BYTES) == 0 && numio_pipe(to, 4096) == 0);
    fill_pattern(bytes, sizeof bytes);
    EXPECT(numio_write_all(from[1], bytes, sizeof bytes) == sizeof bytes);
    EXPECT(numio_close(from[1]) == 0);
    numio_reader_init(&reader, from[0], -1, in, sizeof in);
    numio_writer_init(&writer, to[1], -1, out, sizeof out);
    do {
        rc = numio_within(SOON_NS, numio_forward(&reader, &writer, UINT64_MAX, &done));
        EXPECT(rc == 0 || rc == -ETIMEDOUT);
        strikes += rc != 0;
        int64_t n = numio_within(SOON_NS, numio_read(to[0], got + came, 3000));
        EXPECT(n > 0 || n == -ETIMEDOUT); /* on a busy machine nothing may have moved */
        came += n > 0 ? (size_t)n : 0;
    } while (rc != 0);
    EXPECT(numio_close(to[1]) == 0);
    EXPECT(strikes > 10 && done == sizeof bytes);
    EXPECT(numio_pread_all(to[0], got + came, sizeof got - came, -1) ==
           (int64_t)(MANY_BYTES - came));
    EXPECT(memcmp(bytes, got, sizeof got) == 0);
    EXPECT(numio_close(from[0]) == 0 && numio_close(to[0]) == 0);
    return 0;
}

FIXTURE_EACH(pipe, a_deadline_ends_forwarding_and_the_next_call_loses_nothing, .timeout = 60)
{
    run(runtime, forward_by_deadlines, NULL);
}

/* An aborted task leaves reader and writer as they are for the next one. */
struct relay {
    struct numio_reader reader;
    struct numio_writer writer;
    char in[BUFFER_BYTES], out[100];
    uint64_t done;
};

static int64_t forward_on(void *arg)
{
    struct relay *relay = arg;
    return numio_forward(&relay->reader, &relay->writer, UINT64_MAX, &relay->done);
}

static int64_t forward_by_aborts(void *arg)
{
    static char bytes[MANY_BYTES], got[MANY_BYTES];
    static struct relay relay;
    size_t came = 0;
    int64_t rc, aborts = 0;
    int from[2], to[2];
    (void)arg;
    memset(&relay, 0, sizeof relay);
    EXPECT(numio_pipe(from, MANY_BYTES) == 0 && numio_pipe(to, 4096) == 0);
    fill_pattern(bytes, sizeof bytes);
    EXPECT(numio_write_all(from[1], bytes, sizeof bytes) == sizeof bytes);
    EXPECT(numio_close(from[1]) == 0);
    numio_reader_init(&relay.reader, from[0], -1, relay.in, sizeof relay.in);
    numio_writer_init(&relay.writer, to[1], -1, relay.out, sizeof relay.out);
    do {
        struct numio_join *join;
        EXPECT(numio_spawn_co(NULL, forward_on, &relay, NULL, &join) == 0);
        rc = numio_within(SOON_NS, numio_join_await(&join));
        if (join) {
            numio_join_abort(join);
            rc = numio_join_await(&join);
        }
        EXPECT(rc == 0 || rc == -ECANCELED);
        aborts += rc != 0;
        int64_t n = numio_within(SOON_NS, numio_read(to[0], got + came, 3000));
        EXPECT(n > 0 || n == -ETIMEDOUT); /* a task that has never run moves nothing */
        came += n > 0 ? (size_t)n : 0;
    } while (rc != 0);
    EXPECT(numio_close(to[1]) == 0);
    EXPECT(aborts > 10 && relay.done == sizeof bytes);
    EXPECT(numio_pread_all(to[0], got + came, sizeof got - came, -1) ==
           (int64_t)(MANY_BYTES - came));
    EXPECT(memcmp(bytes, got, sizeof got) == 0);
    EXPECT(numio_close(from[0]) == 0 && numio_close(to[0]) == 0);
    return 0;
}

FIXTURE_EACH(pipe, an_abort_ends_forwarding_and_the_next_task_loses_nothing, .timeout = 60)
{
    run(runtime, forward_by_aborts, NULL);
}

/* ---- standard input ----------------------------------------------------------------------- */

static int64_t read_standard_input(void *arg)
{
    char buf[64];
    const char *text;
    struct numio_reader reader;
    numio_reader_init(&reader, STDIN_FILENO, -1, buf, sizeof buf);
    EXPECT(numio_reader_line(&reader, &text) == 5 && memcmp(text, "first", 5) == 0);
    EXPECT(numio_reader_line(&reader, &text) == 0);
    EXPECT(numio_reader_line(&reader, &text) == 4 && memcmp(text, "last", 4) == 0);
    EXPECT(numio_reader_line(&reader, &text) == -ENODATA);
    (void)arg;
    return 0;
}

static void give(int fd)
{
    cr_assert_eq(write(fd, "first\n\nlast", 11), 11);
}

FIXTURE_EACH(pipe, lines_come_from_standard_input_whatever_it_is, .timeout = 20)
{
    int ends[2], file = memfd_create("input", 0);
    give(file);
    cr_assert_eq(lseek(file, 0, SEEK_SET), 0);
    cr_assert_eq(dup2(file, STDIN_FILENO), STDIN_FILENO);
    run(runtime, read_standard_input, NULL);
    cr_assert_eq(numio_pipe(ends, 0), 0);
    give(ends[1]);
    cr_assert_eq(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    cr_assert_eq(close(ends[1]), 0);
    run(runtime, read_standard_input, NULL);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    give(ends[1]);
    cr_assert_eq(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    cr_assert_eq(close(ends[1]), 0);
    run(runtime, read_standard_input, NULL);
    file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert_eq(dup2(file, STDIN_FILENO), STDIN_FILENO);
    cr_assert_eq(numio_block_on(numio_runtime_handle(runtime), read_standard_input, NULL) > 0, 1,
                 "/dev/null has lines");
}

/* ---- O_NONBLOCK --------------------------------------------------------------------------- */

static int64_t write_lines(void *arg)
{
    int *fds = arg;
    char buf[64];
    struct numio_writer writer;
    numio_writer_init(&writer, fds[1], -1, buf, sizeof buf);
    EXPECT(numio_sleep_ns(SOON_NS) == 0); /* the reader is likely to wait by then */
    for (int i = 0; i < 3000; i++)
        EXPECT(numio_writer_printf(&writer, "line %d\n", i) == 0);
    EXPECT(numio_writer_flush(&writer) == 0);
    return numio_close(fds[1]);
}

static int64_t read_lines(void *arg)
{
    int *fds = arg;
    char buf[64], wanted[32];
    const char *text;
    struct numio_reader reader;
    struct numio_join *join;
    EXPECT(numio_spawn_co(NULL, write_lines, fds, NULL, &join) == 0);
    numio_reader_init(&reader, fds[0], -1, buf, sizeof buf);
    for (int i = 0; i < 3000; i++) {
        int len = snprintf(wanted, sizeof wanted, "line %d", i);
        EXPECT(numio_reader_line(&reader, &text) == len);
        EXPECT(memcmp(text, wanted, (size_t)len) == 0);
    }
    EXPECT(numio_reader_line(&reader, &text) == -ENODATA);
    EXPECT((fcntl(fds[0], F_GETFL) & O_NONBLOCK) != 0);
    return numio_join_await(&join);
}

FIXTURE_EACH(pipe, lines_come_through_a_pipe_that_does_not_block, .timeout = 20)
{
    int fds[2];
    cr_assert_eq(numio_pipe(fds, 4096), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(fcntl(fds[i], F_SETFL, O_NONBLOCK), 0);
    run(runtime, read_lines, fds);
    cr_assert_eq(close(fds[0]), 0);
}

/* ---- terminals ---------------------------------------------------------------------------- */

struct terminal {
    int master, slave;
    enum numio_driver driver;
};

static struct terminal open_terminal(void)
{
    struct terminal terminal = { .master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC) };
    struct termios mode;
    cr_assert_geq(terminal.master, 0);
    cr_assert_eq(grantpt(terminal.master), 0);
    cr_assert_eq(unlockpt(terminal.master), 0);
    terminal.slave = open(ptsname(terminal.master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    cr_assert_geq(terminal.slave, 0);
    cr_assert_eq(tcgetattr(terminal.slave, &mode), 0);
    cfmakeraw(&mode);
    cr_assert_eq(tcsetattr(terminal.slave, TCSANOW, &mode), 0);
    return terminal;
}

static int64_t write_much(void *arg)
{
    static char bytes[TERMINAL_BYTES];
    const struct terminal *terminal = arg;
    char buf[64];
    struct numio_writer writer;
    numio_writer_init(&writer, terminal->slave, -1, buf, sizeof buf);
    EXPECT(numio_writer_write(&writer, bytes, sizeof bytes, NULL) == 0);
    EXPECT(numio_writer_flush(&writer) == 0);
    return 0;
}

/* With one worker, nobody drains the terminal if the writer has it. */
static int64_t drain_beside_a_writer(void *arg)
{
    struct terminal *terminal = arg;
    struct numio_join *join;
    char bytes[1024];
    EXPECT(numio_spawn_co(NULL, write_much, terminal, NULL, &join) == 0);
    for (int i = 0; i < 20; i++)
        EXPECT(numio_sleep_ns(SOON_NS) == 0);
    for (size_t came = 0; came < TERMINAL_BYTES;) {
        int64_t n = numio_read(terminal->master, bytes, sizeof bytes);
        EXPECT(n > 0);
        came += (size_t)n;
    }
    return numio_join_await(&join);
}

static int64_t write_until_told(void *arg)
{
    static const char bytes[TERMINAL_BYTES];
    const struct terminal *terminal = arg;
    struct numio_writer writer;
    numio_writer_init(&writer, terminal->slave, -1, NULL, 0);
    return numio_writer_write(&writer, bytes, sizeof bytes, NULL);
}

/* On a thread of the pool (epoll, a terminal that blocks) it ends once there is room. */
static int64_t abort_a_writer(void *arg)
{
    const struct terminal *terminal = arg;
    struct numio_join *join;
    char bytes[1024];
    bool is_blocking = !(fcntl(terminal->slave, F_GETFL) & O_NONBLOCK);
    EXPECT(numio_spawn_co(NULL, write_until_told, arg, NULL, &join) == 0);
    EXPECT(numio_within(SOON_NS * 10, numio_join_await(&join)) == -ETIMEDOUT);
    numio_join_abort(join);
    int64_t rc = numio_within(UINT64_C(1000) * SOON_NS, numio_join_await(&join));
    bool has_waited = join != NULL;
    EXPECT(!has_waited || (is_blocking && terminal->driver == NUMIO_DRIVER_EPOLL));
    while (join) {
        EXPECT(numio_within(SOON_NS, numio_read(terminal->master, bytes, sizeof bytes)) != 0);
        rc = numio_within(SOON_NS, numio_join_await(&join));
    }
    EXPECT(rc == -ECANCELED || (has_waited && rc == 0));
    return 0;
}

static int64_t read_a_line(void *arg)
{
    const struct terminal *terminal = arg;
    char buf[64];
    const char *text;
    struct numio_reader reader;
    numio_reader_init(&reader, terminal->slave, -1, buf, sizeof buf);
    EXPECT(numio_reader_line(&reader, &text) == 5 && memcmp(text, "hello", 5) == 0);
    return 0;
}

static int64_t type_beside_a_reader(void *arg)
{
    struct terminal *terminal = arg;
    struct numio_join *join;
    EXPECT(numio_spawn_co(NULL, read_a_line, terminal, NULL, &join) == 0);
    for (int i = 0; i < 20; i++)
        EXPECT(numio_sleep_ns(SOON_NS) == 0);
    EXPECT(numio_write_all(terminal->master, "hello\n", 6) == 6);
    return numio_join_await(&join);
}

static void beside_a_terminal(enum numio_driver driver, int status_flag, int64_t (*fn)(void *arg))
{
    if (driver != NUMIO_DRIVER_EPOLL && !fixture_has_uring())
        cr_skip_test("no io_uring here");
    struct numio_config config = fixture_config(driver, 1);
    struct numio_runtime *runtime = fixture_create(&config);
    struct terminal terminal = open_terminal();
    terminal.driver = driver;
    int flags = fcntl(terminal.slave, F_GETFL) | status_flag;
    cr_assert_eq(fcntl(terminal.slave, F_SETFL, flags), 0);
    run(runtime, fn, &terminal);
    cr_assert_eq(fcntl(terminal.slave, F_GETFL), flags);
    cr_assert_eq(close(terminal.slave), 0);
    cr_assert_eq(close(terminal.master), 0);
    numio_runtime_destroy(runtime);
}

#define TERMINAL_EACH(suite, name, fn)                                                             \
    static void name(enum numio_driver driver)                                                     \
    {                                                                                              \
        beside_a_terminal(driver, 0, fn);                                                          \
        beside_a_terminal(driver, O_NONBLOCK, fn);                                                 \
    }                                                                                              \
    Test(suite, name##_sqpoll, .timeout = 20)                                                      \
    {                                                                                              \
        name(NUMIO_DRIVER_SQPOLL);                                                                 \
    }                                                                                              \
    Test(suite, name##_defer, .timeout = 20)                                                       \
    {                                                                                              \
        name(NUMIO_DRIVER_DEFER);                                                                  \
    }                                                                                              \
    Test(suite, name##_epoll, .timeout = 20)                                                       \
    {                                                                                              \
        name(NUMIO_DRIVER_EPOLL);                                                                  \
    }

TERMINAL_EACH(pipe, a_full_terminal_does_not_hold_up_others, drain_beside_a_writer)
TERMINAL_EACH(pipe, a_silent_terminal_does_not_hold_up_others, type_beside_a_reader)
TERMINAL_EACH(pipe, a_write_to_a_full_terminal_can_be_aborted, abort_a_writer)
