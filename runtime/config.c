/* SPDX-License-Identifier: MIT */
/* Defaults, overrides from the environment, and validation of struct numio_config. */
#include "runtime/config_check.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/sched/handle.h"

enum {
    NAME_BYTES_MAX = 8,
    RING_ENTRIES_MIN = 8,
    RING_ENTRIES_MAX = 32768,
    RING_ENTRIES_DEFAULT = 1024,
    SPIN_NS_DEFAULT = 50000,
    STACK_BYTES_MIN = 8 << 10,
    STACK_BYTES_MAX = 64 << 20,
    STACK_BYTES_DEFAULT = 64 << 10,
    BLOCKING_THREADS_DEFAULT = 64,
    BLOCKING_THREADS_MAX = 4096,
    BLOCKING_QUEUE_DEFAULT = 16384,
    RECV_BUFFERS_MIN = 16,
    RECV_BUFFERS_MAX = 32768, /* the kernel's */
    RECV_BUFFERS_DEFAULT = 512,
    RECV_BUFFER_BYTES_MIN = 128,
    RECV_BUFFER_BYTES_MAX = 16 << 20,
    RECV_BUFFER_BYTES_DEFAULT = 4096,
    DIRECT_DESCRIPTORS_DEFAULT = 8192,
    REGISTERED_BYTES_MAX = 1 << 30,
    DIRECT_DESCRIPTORS_MAX = 1 << 18, /* what the number of one has room for */
    CPU_CHECK_MS_DEFAULT = 1000,
    CPU_CHECK_MS_MAX = 60000,
    SHARE_MAX = 10000,
    SHARE_LATENCY_DEFAULT = 64,
    SHARE_NORMAL_DEFAULT = 16,
    SHARE_BACKGROUND_DEFAULT = 1,
};

/* The largest values that make sense: an hour of an idle SQ thread's core; ticks of some 20 ns
 * that together take a millisecond or two. */
enum { SQ_IDLE_MS_MAX = 3600000, INTERVAL_MAX = 65536, NAPI_US_MAX = 1000000 };

static const uint64_t keep_alive_ns_default = 10000000000u;
static const uint64_t spin_ns_max = 1000000000u;

int numio_config_init(struct numio_config *config, size_t size)
{
    if (size < sizeof *config)
        return nio_error(-EINVAL, "numio_config: size is %zu, expected %zu", size, sizeof *config);
    memset(config, 0, size); /* also what this library does not know */
    *config = (struct numio_config){
        .size = size,
        .name = "numio",
        .sq_thread_cpu = -1,
        .cpu_dma_latency_us = -1,
        .report_overflow = true,
        .cpu_check_ms = CPU_CHECK_MS_DEFAULT,
    };
    return 0;
}

enum field_kind {
    FIELD_TEXT,
    FIELD_UINT,
    FIELD_INT,
    FIELD_U64,
    FIELD_SIZE,
    FIELD_BOOL,
    FIELD_WORD
};

struct field {
    const char *variable;
    enum field_kind kind;
    size_t offset;
    const char *words; /* FIELD_WORD: the enum's names in the order of their values */
};

#define FIELD(variable, kind, member, words)                                                       \
    {                                                                                              \
        "NUMIO_" variable, kind, offsetof(struct numio_config, member), words                      \
    }

static const struct field fields[] = {
    FIELD("NAME", FIELD_TEXT, name, NULL),
    FIELD("TOPOLOGY", FIELD_TEXT, topology, NULL),
    FIELD("CPUS", FIELD_TEXT, cpus, NULL),
    FIELD("WORKERS", FIELD_UINT, workers, NULL),
    FIELD("WORKER_PER_PU", FIELD_BOOL, worker_per_pu, NULL),
    FIELD("SHARD_BY", FIELD_WORD, shard_by, "numa package l3"),
    FIELD("DRIVER", FIELD_WORD, driver, "auto sqpoll defer epoll iopoll"),
    FIELD("SQ_THREAD_CPU", FIELD_INT, sq_thread_cpu, NULL),
    FIELD("SQ_IDLE_MS", FIELD_UINT, sq_idle_ms, NULL),
    FIELD("RING_ENTRIES", FIELD_UINT, ring_entries, NULL),
    FIELD("IDLE", FIELD_WORD, idle, "balanced spin park"),
    FIELD("SPIN_NS", FIELD_U64, spin_ns, NULL),
    FIELD("NAPI_BUSY_POLL_US", FIELD_UINT, napi_busy_poll_us, NULL),
    FIELD("NAPI_PREFER_BUSY_POLL", FIELD_BOOL, napi_prefer_busy_poll, NULL),
    FIELD("CPU_DMA_LATENCY_US", FIELD_INT, cpu_dma_latency_us, NULL),
    FIELD("INJECT_INTERVAL", FIELD_UINT, inject_interval, NULL),
    FIELD("DRIVER_INTERVAL", FIELD_UINT, driver_interval, NULL),
    FIELD("STACK_BYTES", FIELD_SIZE, stack_bytes, NULL),
    FIELD("BLOCKING_THREADS", FIELD_UINT, blocking_threads, NULL),
    FIELD("BLOCKING_KEEP_ALIVE_NS", FIELD_U64, blocking_keep_alive_ns, NULL),
    FIELD("BLOCKING_QUEUE", FIELD_UINT, blocking_queue, NULL),
    FIELD("BLOCKING_ON_WORKER_CPUS", FIELD_BOOL, blocking_on_worker_cpus, NULL),
    FIELD("MEMORY_STRICT", FIELD_BOOL, memory_strict, NULL),
    FIELD("HUGE_PAGES", FIELD_BOOL, huge_pages, NULL),
    FIELD("REPORT_OVERFLOW", FIELD_BOOL, report_overflow, NULL),
    FIELD("RNG_SEED", FIELD_U64, rng_seed, NULL),
    FIELD("CPU_CHECK_MS", FIELD_UINT, cpu_check_ms, NULL),
    FIELD("REGISTERED_BYTES", FIELD_SIZE, registered_bytes, NULL),
    FIELD("DIRECT_DESCRIPTORS", FIELD_UINT, direct_descriptors, NULL),
    FIELD("RECV_BUFFERS", FIELD_UINT, recv_buffers, NULL),
    FIELD("RECV_BUFFER_BYTES", FIELD_SIZE, recv_buffer_bytes, NULL),
    FIELD("SHARE_LATENCY", FIELD_UINT, share_latency, NULL),
    FIELD("SHARE_NORMAL", FIELD_UINT, share_normal, NULL),
    FIELD("SHARE_BACKGROUND", FIELD_UINT, share_background, NULL),
    FIELD("CLOCK", FIELD_WORD, clock, "auto system"),
};

/* Index of `text` among the words, -1 if it is none of them. */
static int word_index(const char *words, const char *text)
{
    size_t length = strlen(text);
    int index = 0;
    for (const char *word = words; *word; index++) {
        size_t word_length = strcspn(word, " ");
        if (length == word_length && strncmp(word, text, length) == 0)
            return index;
        word += word_length + strspn(word + word_length, " ");
    }
    return -1;
}

static int parse_number(const struct field *field, const char *text, int64_t min, uint64_t max,
                        uint64_t *ret_value)
{
    char *end;
    errno = 0;
    bool is_negative = text[0] == '-';
    unsigned long long value = strtoull(is_negative ? text + 1 : text, &end, 0);
    bool is_number = isdigit((unsigned char)text[is_negative ? 1 : 0]) && *end == '\0';
    if (!is_number || errno != 0 || (is_negative && (min >= 0 || value > 1)) || value > max)
        return nio_error(-EINVAL, "%s: \"%s\" is not a number from %lld to %llu", field->variable,
                         text, (long long)min, (unsigned long long)max);
    *ret_value = is_negative ? (uint64_t) - (int64_t)value : value;
    return 0;
}

static int set_bool(const struct field *field, bool *member, const char *text)
{
    int index = word_index("0 1 no yes false true off on", text);
    if (index < 0)
        return nio_error(-EINVAL, "%s: \"%s\" is neither 0 nor 1", field->variable, text);
    *member = index % 2 == 1;
    return 0;
}

static int set_field(struct numio_config *config, const struct field *field, const char *text)
{
    void *member = (char *)config + field->offset;
    uint64_t value = 0;
    int rc = 0;
    switch (field->kind) {
    case FIELD_TEXT:
        *(const char **)member = text;
        return 0;
    case FIELD_BOOL:
        return set_bool(field, member, text);
    case FIELD_WORD: {
        int index = word_index(field->words, text);
        if (index < 0)
            return nio_error(-EINVAL, "%s: \"%s\" is none of: %s", field->variable, text,
                             field->words);
        *(int *)member = index;
        return 0;
    }
    case FIELD_UINT:
        rc = parse_number(field, text, 0, UINT32_MAX, &value);
        if (rc == 0)
            *(unsigned *)member = (unsigned)value;
        return rc;
    case FIELD_INT:
        rc = parse_number(field, text, -1, INT32_MAX, &value);
        if (rc == 0)
            *(int *)member = (int)(int64_t)value;
        return rc;
    case FIELD_SIZE:
    case FIELD_U64:
        rc = parse_number(field, text, 0, UINT64_MAX, &value);
        if (rc == 0)
            *(uint64_t *)member = value;
        return rc;
    }
    return rc;
}

_Static_assert(sizeof(size_t) == sizeof(uint64_t), "FIELD_SIZE is stored as 64 bits");

int numio_config_from_env(struct numio_config *config)
{
    for (size_t i = 0; i < NIO_ARRAY_LEN(fields); i++) {
        const char *text = getenv(fields[i].variable);
        if (!text || !*text)
            continue;
        int rc = set_field(config, &fields[i], text);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static unsigned default_direct_descriptors(void)
{
    struct rlimit files = { 0 };
    (void)getrlimit(RLIMIT_NOFILE, &files); /* cannot fail */
    return files.rlim_cur < DIRECT_DESCRIPTORS_DEFAULT ? (unsigned)files.rlim_cur
                                                       : DIRECT_DESCRIPTORS_DEFAULT;
}

static void fill_defaults(struct numio_config *config)
{
    if (!config->name)
        config->name = "numio";
    if (config->ring_entries == 0)
        config->ring_entries = RING_ENTRIES_DEFAULT;
    if (config->spin_ns == 0)
        config->spin_ns = SPIN_NS_DEFAULT;
    if (config->stack_bytes == 0)
        config->stack_bytes = STACK_BYTES_DEFAULT;
    /* Tuned by the clock unless the schedule is to be the same again. */
    if (config->inject_interval == 0 && config->rng_seed != 0)
        config->inject_interval = NIO_INJECT_INTERVAL;
    if (config->driver_interval == 0 && config->rng_seed != 0)
        config->driver_interval = NIO_DRIVER_INTERVAL;
    if (config->share_latency == 0)
        config->share_latency = SHARE_LATENCY_DEFAULT;
    if (config->share_normal == 0)
        config->share_normal = SHARE_NORMAL_DEFAULT;
    if (config->share_background == 0)
        config->share_background = SHARE_BACKGROUND_DEFAULT;
    if (config->blocking_threads == 0)
        config->blocking_threads = BLOCKING_THREADS_DEFAULT;
    if (config->blocking_queue == 0)
        config->blocking_queue = BLOCKING_QUEUE_DEFAULT;
    if (config->blocking_keep_alive_ns == 0)
        config->blocking_keep_alive_ns = keep_alive_ns_default;
    if (config->recv_buffers == 0)
        config->recv_buffers = RECV_BUFFERS_DEFAULT;
    if (config->direct_descriptors == 0)
        config->direct_descriptors = default_direct_descriptors();
    if (config->recv_buffer_bytes == 0)
        config->recv_buffer_bytes = RECV_BUFFER_BYTES_DEFAULT;
    if (config->rng_seed == 0)
        config->rng_seed = nio_now_ns() | 1;
}

static int check_enums(const struct numio_config *c)
{
    if ((unsigned)c->shard_by > NUMIO_SHARD_L3)
        return nio_error(-EINVAL, "shard_by: %d is no enum numio_shard_by", (int)c->shard_by);
    if ((unsigned)c->driver > NUMIO_DRIVER_IOPOLL)
        return nio_error(-EINVAL, "driver: %d is no enum numio_driver", (int)c->driver);
    if ((unsigned)c->idle > NUMIO_IDLE_PARK)
        return nio_error(-EINVAL, "idle: %d is no enum numio_idle_policy", (int)c->idle);
    if ((unsigned)c->clock > NUMIO_CLOCK_SYSTEM)
        return nio_error(-EINVAL, "clock: %d is no enum numio_clock", (int)c->clock);
    return 0;
}

static int check_buffers(const struct numio_config *c)
{
    if (c->recv_buffers < RECV_BUFFERS_MIN || c->recv_buffers > RECV_BUFFERS_MAX ||
        (c->recv_buffers & (c->recv_buffers - 1)) != 0)
        return nio_error(-EINVAL, "recv_buffers: %u is no power of two from %d to %d",
                         c->recv_buffers, (int)RECV_BUFFERS_MIN, (int)RECV_BUFFERS_MAX);
    if (c->registered_bytes > REGISTERED_BYTES_MAX)
        return nio_error(-EINVAL,
                         "registered_bytes: %zu is more than %d, the most that a ring takes "
                         "as one buffer",
                         c->registered_bytes, (int)REGISTERED_BYTES_MAX);
    if (c->direct_descriptors > DIRECT_DESCRIPTORS_MAX)
        return nio_error(-EINVAL, "direct_descriptors: %u is more than %d", c->direct_descriptors,
                         (int)DIRECT_DESCRIPTORS_MAX);
    if (c->recv_buffer_bytes < RECV_BUFFER_BYTES_MIN ||
        c->recv_buffer_bytes > RECV_BUFFER_BYTES_MAX)
        return nio_error(-EINVAL, "recv_buffer_bytes: %zu is not from %d to %d",
                         c->recv_buffer_bytes, (int)RECV_BUFFER_BYTES_MIN,
                         (int)RECV_BUFFER_BYTES_MAX);
    return 0;
}

static int check_busy_poll(const struct numio_config *c)
{
    if (c->napi_busy_poll_us > NAPI_US_MAX)
        return nio_error(-EINVAL, "napi_busy_poll_us: %u is more than %d", c->napi_busy_poll_us,
                         (int)NAPI_US_MAX);
    if (c->napi_prefer_busy_poll && c->napi_busy_poll_us == 0)
        return nio_error(-EINVAL, "napi_prefer_busy_poll: without napi_busy_poll_us nothing polls");
    if (c->cpu_dma_latency_us < -1)
        return nio_error(-EINVAL, "cpu_dma_latency_us: %d is no time; -1 leaves it alone",
                         c->cpu_dma_latency_us);
    return 0;
}

int nio_config_complete(struct numio_config *c)
{
    if (c->size != sizeof *c)
        return nio_error(-EINVAL, "numio_config: size is %zu; use numio_config_init()", c->size);
    fill_defaults(c);
    size_t name_bytes = strlen(c->name);
    if (name_bytes == 0 || name_bytes > NAME_BYTES_MAX)
        return nio_error(-EINVAL, "name: \"%.32s\" must have 1 to %d characters", c->name,
                         (int)NAME_BYTES_MAX);
    for (size_t i = 0; i < name_bytes; i++)
        if (!isgraph((unsigned char)c->name[i]) || c->name[i] == '/')
            return nio_error(-EINVAL,
                             "name: \"%.32s\" has a character that thread names cannot "
                             "show: letters, digits and signs but / are allowed",
                             c->name);
    if (c->ring_entries < RING_ENTRIES_MIN || c->ring_entries > RING_ENTRIES_MAX ||
        (c->ring_entries & (c->ring_entries - 1)) != 0)
        return nio_error(-EINVAL, "ring_entries: %u is no power of two from %d to %d",
                         c->ring_entries, (int)RING_ENTRIES_MIN, (int)RING_ENTRIES_MAX);
    if (c->stack_bytes < STACK_BYTES_MIN || c->stack_bytes > STACK_BYTES_MAX)
        return nio_error(-EINVAL, "stack_bytes: %zu is not from %d to %d", c->stack_bytes,
                         (int)STACK_BYTES_MIN, (int)STACK_BYTES_MAX);
    if (c->blocking_threads > BLOCKING_THREADS_MAX)
        return nio_error(-EINVAL, "blocking_threads: %u is more than %d", c->blocking_threads,
                         (int)BLOCKING_THREADS_MAX);
    if (c->spin_ns > spin_ns_max)
        return nio_error(-EINVAL, "spin_ns: %llu is more than a second; use idle = spin",
                         (unsigned long long)c->spin_ns);
    if (c->sq_idle_ms > SQ_IDLE_MS_MAX)
        return nio_error(-EINVAL, "sq_idle_ms: %u is more than %d", c->sq_idle_ms,
                         (int)SQ_IDLE_MS_MAX);
    if (c->inject_interval > INTERVAL_MAX || c->driver_interval > INTERVAL_MAX)
        return nio_error(-EINVAL, "%s_interval: %u is more than %d",
                         c->inject_interval > INTERVAL_MAX ? "inject" : "driver",
                         c->inject_interval > INTERVAL_MAX ? c->inject_interval
                                                           : c->driver_interval,
                         (int)INTERVAL_MAX);
    if (c->share_latency > SHARE_MAX || c->share_normal > SHARE_MAX ||
        c->share_background > SHARE_MAX)
        return nio_error(-EINVAL, "share_%s: more than %d",
                         c->share_latency > SHARE_MAX  ? "latency"
                         : c->share_normal > SHARE_MAX ? "normal"
                                                       : "background",
                         (int)SHARE_MAX);
    if (c->cpu_check_ms > CPU_CHECK_MS_MAX)
        return nio_error(-EINVAL, "cpu_check_ms: %u is more than %d", c->cpu_check_ms,
                         (int)CPU_CHECK_MS_MAX);
    if (c->sq_thread_cpu < -1)
        return nio_error(-EINVAL, "sq_thread_cpu: %d is no CPU; -1 lets the plan choose",
                         c->sq_thread_cpu);
    int rc = check_busy_poll(c);
    if (rc == 0)
        rc = check_buffers(c);
    return rc < 0 ? rc : check_enums(c);
}
