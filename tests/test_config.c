/* SPDX-License-Identifier: MIT */
/* Promises of numio/config.h: defaults, every field checked, every NUMIO_* variable. */
#include "tests/runtime_fixture.h"

#include <stdio.h>

#include "runtime/base/compiler.h"
#include "runtime/config_check.h"

static struct numio_config defaults(void)
{
    return fixture_config(NUMIO_DRIVER_AUTO, 0);
}

Test(config, init_sets_the_documented_defaults)
{
    struct numio_config c = defaults();
    cr_assert_eq(c.size, sizeof c);
    cr_assert_str_eq(c.name, "numio");
    cr_assert_eq(c.sq_thread_cpu, -1);
    cr_assert_eq(c.cpu_dma_latency_us, -1);
    cr_assert_eq(c.napi_busy_poll_us, 0);
    cr_assert(c.report_overflow);
    cr_assert_eq(nio_config_complete(&c), 0);
    cr_assert_eq(c.ring_entries, 1024);
    cr_assert_eq(c.spin_ns, 50000);
    cr_assert_eq(c.inject_interval, 0); /* tuned */
    cr_assert_eq(c.driver_interval, 0); /* likewise */
    cr_assert_eq(c.share_latency, 64);
    cr_assert_eq(c.share_normal, 16);
    cr_assert_eq(c.share_background, 1);
    cr_assert_eq(c.stack_bytes, 64 << 10);
    cr_assert_eq(c.blocking_threads, 64);
    cr_assert_eq(c.blocking_queue, 16384);
    cr_assert_eq(c.blocking_keep_alive_ns, 10000000000ull);
    cr_assert_neq(c.rng_seed, 0);
}

Test(config, init_refuses_a_size_it_does_not_know)
{
    struct numio_config c;
    memset(&c, 0x5a, sizeof c);
    cr_assert_eq(numio_config_init(&c, sizeof c - 8), -EINVAL);
    cr_assert_eq(numio_config_init(&c, 0), -EINVAL);
    cr_assert_eq(*(unsigned char *)&c, 0x5a, "a failed init leaves the struct alone");
}

/* As a program has it that was built for a newer numio. */
struct newer_config {
    struct numio_config known;
    uint64_t unknown[2];
};

Test(config, a_newer_programs_struct_is_taken_unless_it_says_what_is_not_known)
{
    struct newer_config c;
    struct numio_runtime *runtime = NULL;
    memset(&c, 0x5a, sizeof c);
    cr_assert_eq(numio_config_init(&c.known, sizeof c), 0);
    cr_assert(c.unknown[0] == 0 && c.unknown[1] == 0);
    cr_assert_eq(c.known.size, sizeof c);
    c.known.workers = 1;
    c.known.driver = NUMIO_DRIVER_EPOLL;
    cr_assert_eq(numio_runtime_create(&c.known, &runtime), 0, "%s", numio_strerror_detail());
    numio_runtime_destroy(runtime);
    c.unknown[1] = 1;
    cr_assert_eq(numio_runtime_create(&c.known, &runtime), -E2BIG);
    cr_assert(strstr(numio_strerror_detail(), "numio_config"), "%s", numio_strerror_detail());
}

Test(config, create_refuses_a_struct_that_was_not_initialised)
{
    struct numio_config c = { 0 };
    struct numio_runtime *runtime = (struct numio_runtime *)&c;
    cr_assert_eq(numio_runtime_create(&c, &runtime), -EINVAL);
    cr_assert(strstr(numio_strerror_detail(), "size"));
    cr_assert_eq((void *)runtime, (void *)&c, "ret_runtime is untouched on failure");
}

enum member_kind { MEMBER_TEXT, MEMBER_U8, MEMBER_U32, MEMBER_U64 };

struct member {
    const char *name; /* as the error must spell it */
    enum member_kind kind;
    size_t offset;
};

#define MEMBER(name, kind)                                                                         \
    {                                                                                              \
#name, kind, offsetof(struct numio_config, name)                                           \
    }

static void put(struct numio_config *c, const struct member *member, uint64_t value,
                const char *text)
{
    char *at = (char *)c + member->offset;
    switch (member->kind) {
    case MEMBER_TEXT:
        memcpy(at, &text, sizeof text);
        break;
    case MEMBER_U8:
        *(uint8_t *)at = (uint8_t)value;
        break;
    case MEMBER_U32:
        *(uint32_t *)at = (uint32_t)value;
        break;
    case MEMBER_U64:
        *(uint64_t *)at = value;
        break;
    }
}

static uint64_t get(const struct numio_config *c, const struct member *member)
{
    const char *at = (const char *)c + member->offset;
    switch (member->kind) {
    case MEMBER_U8:
        return *(const uint8_t *)at;
    case MEMBER_U32:
        return *(const uint32_t *)at;
    case MEMBER_U64:
        return *(const uint64_t *)at;
    case MEMBER_TEXT:
        break;
    }
    return 0;
}

struct bad_value {
    struct member member;
    uint64_t value;
    const char *text;
};

static const struct bad_value bad_values[] = {
    { MEMBER(name, MEMBER_TEXT), 0, "" },
    { MEMBER(name, MEMBER_TEXT), 0, "ninechars" },
    { MEMBER(shard_by, MEMBER_U32), 3, NULL },
    { MEMBER(shard_by, MEMBER_U32), (uint64_t)-1, NULL },
    { MEMBER(driver, MEMBER_U32), 5, NULL },
    { MEMBER(driver, MEMBER_U32), (uint64_t)-1, NULL },
    { MEMBER(idle, MEMBER_U32), 3, NULL },
    { MEMBER(sq_thread_cpu, MEMBER_U32), (uint64_t)-2, NULL },
    { MEMBER(ring_entries, MEMBER_U32), 4, NULL },
    { MEMBER(ring_entries, MEMBER_U32), 100, NULL },
    { MEMBER(ring_entries, MEMBER_U32), 65536, NULL },
    { MEMBER(spin_ns, MEMBER_U64), 1000000001, NULL },
    { MEMBER(stack_bytes, MEMBER_U64), 4096, NULL },
    { MEMBER(stack_bytes, MEMBER_U64), (64u << 20) + 1, NULL },
    { MEMBER(blocking_threads, MEMBER_U32), 4097, NULL },
    { MEMBER(sq_idle_ms, MEMBER_U32), 3600001, NULL },
    { MEMBER(napi_busy_poll_us, MEMBER_U32), 1000001, NULL },
    { MEMBER(napi_prefer_busy_poll, MEMBER_U8), 1, NULL }, /* without a time */
    { MEMBER(cpu_dma_latency_us, MEMBER_U32), (uint64_t)-2, NULL },
    { MEMBER(inject_interval, MEMBER_U32), 65537, NULL },
    { MEMBER(driver_interval, MEMBER_U32), 65537, NULL },
    { MEMBER(share_latency, MEMBER_U32), 10001, NULL },
    { MEMBER(share_normal, MEMBER_U32), 10001, NULL },
    { MEMBER(share_background, MEMBER_U32), 10001, NULL },
    /* these are found out when the plan is made */
    { MEMBER(topology, MEMBER_TEXT), 0, "pack:two" },
    { MEMBER(topology, MEMBER_TEXT), 0, "/nowhere/machine.xml" },
    { MEMBER(cpus, MEMBER_TEXT), 0, "0-" },
    { MEMBER(cpus, MEMBER_TEXT), 0, "3-1" },
    { MEMBER(cpus, MEMBER_TEXT), 0, "zero" },
    { MEMBER(cpus, MEMBER_TEXT), 0, "60000" },
    { MEMBER(workers, MEMBER_U32), UINT32_MAX, NULL },
    { MEMBER(workers, MEMBER_U32), 65535, NULL },
};

Test(config, a_value_out_of_range_is_refused_by_the_name_of_its_field, .timeout = 30)
{
    for (size_t i = 0; i < NIO_ARRAY_LEN(bad_values); i++) {
        const struct bad_value *bad = &bad_values[i];
        struct numio_config c = defaults();
        struct numio_runtime *runtime = NULL;
        put(&c, &bad->member, bad->value, bad->text);
        int rc = numio_runtime_create(&c, &runtime);
        cr_expect_lt(rc, 0, "%s: case %zu was accepted", bad->member.name, i);
        cr_expect(rc == -EINVAL || rc == -E2BIG || rc == -ENOENT, "%s: %s", bad->member.name,
                  strerrorname_np(-rc));
        cr_expect(strstr(numio_strerror_detail(), bad->member.name), "%s: the detail is \"%s\"",
                  bad->member.name, numio_strerror_detail());
        cr_expect_null(runtime);
        if (rc == 0)
            numio_runtime_destroy(runtime);
    }
}

struct variable {
    const char *name;
    struct member member;
    const char *good;
    uint64_t value;
    const char *bad; /* NULL: any text is good here and judged later */
};

static const struct variable variables[] = {
    { "NUMIO_NAME", MEMBER(name, MEMBER_TEXT), "quotes", 0, NULL },
    { "NUMIO_TOPOLOGY", MEMBER(topology, MEMBER_TEXT), "pack:2 core:1", 0, NULL },
    { "NUMIO_CPUS", MEMBER(cpus, MEMBER_TEXT), "0-1", 0, NULL },
    { "NUMIO_WORKERS", MEMBER(workers, MEMBER_U32), "3", 3, "-1" },
    { "NUMIO_WORKER_PER_PU", MEMBER(worker_per_pu, MEMBER_U8), "yes", 1, "2" },
    { "NUMIO_SHARD_BY", MEMBER(shard_by, MEMBER_U32), "l3", NUMIO_SHARD_L3, "L3" },
    { "NUMIO_DRIVER", MEMBER(driver, MEMBER_U32), "iopoll", NUMIO_DRIVER_IOPOLL, "kqueue" },
    { "NUMIO_SQ_THREAD_CPU", MEMBER(sq_thread_cpu, MEMBER_U32), "1", 1, "-2" },
    { "NUMIO_SQ_IDLE_MS", MEMBER(sq_idle_ms, MEMBER_U32), "7", 7, "7ms" },
    { "NUMIO_RING_ENTRIES", MEMBER(ring_entries, MEMBER_U32), "0x40", 64, "64 " },
    { "NUMIO_IDLE", MEMBER(idle, MEMBER_U32), "park", NUMIO_IDLE_PARK, "par" },
    { "NUMIO_SPIN_NS", MEMBER(spin_ns, MEMBER_U64), "1234", 1234, "1e3" },
    { "NUMIO_NAPI_BUSY_POLL_US", MEMBER(napi_busy_poll_us, MEMBER_U32), "50", 50, "50us" },
    { "NUMIO_NAPI_PREFER_BUSY_POLL", MEMBER(napi_prefer_busy_poll, MEMBER_U8), "1", 1, "maybe" },
    { "NUMIO_CPU_DMA_LATENCY_US", MEMBER(cpu_dma_latency_us, MEMBER_U32), "0", 0, "-2" },
    { "NUMIO_INJECT_INTERVAL", MEMBER(inject_interval, MEMBER_U32), "31", 31, "x" },
    { "NUMIO_DRIVER_INTERVAL", MEMBER(driver_interval, MEMBER_U32), "32", 32, "4294967296" },
    { "NUMIO_STACK_BYTES", MEMBER(stack_bytes, MEMBER_U64), "131072", 131072, "128K" },
    { "NUMIO_BLOCKING_THREADS", MEMBER(blocking_threads, MEMBER_U32), "5", 5, "+5" },
    { "NUMIO_BLOCKING_KEEP_ALIVE_NS", MEMBER(blocking_keep_alive_ns, MEMBER_U64),
      "18446744073709551615", UINT64_MAX, "18446744073709551616" },
    { "NUMIO_BLOCKING_QUEUE", MEMBER(blocking_queue, MEMBER_U32), "9", 9, "0x" },
    { "NUMIO_BLOCKING_ON_WORKER_CPUS", MEMBER(blocking_on_worker_cpus, MEMBER_U8), "true", 1,
      "TRUE" },
    { "NUMIO_MEMORY_STRICT", MEMBER(memory_strict, MEMBER_U8), "on", 1, "o" },
    { "NUMIO_HUGE_PAGES", MEMBER(huge_pages, MEMBER_U8), "1", 1, "10" },
    { "NUMIO_REPORT_OVERFLOW", MEMBER(report_overflow, MEMBER_U8), "off", 0, "-" },
    { "NUMIO_RNG_SEED", MEMBER(rng_seed, MEMBER_U64), "42", 42, "-42" },
    /* here stand the hooks, which have no variable */
    { "NUMIO_CPU_CHECK_MS", MEMBER(cpu_check_ms, MEMBER_U32), "20", 20, "often" },
    { "NUMIO_RECV_BUFFERS", MEMBER(recv_buffers, MEMBER_U32), "64", 64, "1.5" },
    { "NUMIO_REGISTERED_BYTES", MEMBER(registered_bytes, MEMBER_U64), "4096", 4096, "-1" },
    { "NUMIO_DIRECT_DESCRIPTORS", MEMBER(direct_descriptors, MEMBER_U32), "7", 7, "many" },
    { "NUMIO_RECV_BUFFER_BYTES", MEMBER(recv_buffer_bytes, MEMBER_U64), "512", 512, "half" },
    { "NUMIO_SHARE_LATENCY", MEMBER(share_latency, MEMBER_U32), "5", 5, "4294967296" },
    { "NUMIO_SHARE_NORMAL", MEMBER(share_normal, MEMBER_U32), "6", 6, "-1" },
    { "NUMIO_SHARE_BACKGROUND", MEMBER(share_background, MEMBER_U32), "7", 7, "x" },
    { "NUMIO_CLOCK", MEMBER(clock, MEMBER_U32), "system", NUMIO_CLOCK_SYSTEM, "sundial" },
};

Test(config, every_variable_overrides_its_field)
{
    for (size_t i = 0; i < NIO_ARRAY_LEN(variables); i++) {
        const struct variable *v = &variables[i];
        struct numio_config c = defaults();
        cr_assert_eq(setenv(v->name, v->good, 1), 0);
        cr_assert_eq(numio_config_from_env(&c), 0, "%s: %s", v->name, numio_strerror_detail());
        const char *text = NULL;
        if (v->member.kind == MEMBER_TEXT)
            memcpy(&text, (char *)&c + v->member.offset, sizeof text);
        if (text)
            cr_assert_str_eq(text, v->good, "%s", v->name);
        else
            cr_assert_eq(get(&c, &v->member), v->value, "%s", v->name);
        cr_assert_eq(unsetenv(v->name), 0);
    }
}

Test(config, a_bad_variable_is_refused_by_its_name)
{
    for (size_t i = 0; i < NIO_ARRAY_LEN(variables); i++) {
        const struct variable *v = &variables[i];
        struct numio_config c = defaults();
        uint64_t before = get(&c, &v->member);
        if (!v->bad)
            continue;
        cr_assert_eq(setenv(v->name, v->bad, 1), 0);
        cr_assert_eq(numio_config_from_env(&c), -EINVAL, "%s=%s was accepted", v->name, v->bad);
        cr_assert(strstr(numio_strerror_detail(), v->name), "%s: the detail is \"%s\"", v->name,
                  numio_strerror_detail());
        cr_assert(strstr(numio_strerror_detail(), v->bad), "%s: the detail is \"%s\"", v->name,
                  numio_strerror_detail());
        cr_assert_eq(get(&c, &v->member), before, "%s: the field was changed", v->name);
        cr_assert_eq(unsetenv(v->name), 0);
    }
}

/* A field that is added later needs a variable and a line in the table, which has the order of the
 * struct: between two members there is nothing but alignment. */
Test(config, every_scalar_field_has_a_variable)
{
    static const size_t bytes[] = { sizeof(char *), 1, 4, 8 };
    size_t end = sizeof(size_t);
    for (size_t i = 0; i < NIO_ARRAY_LEN(variables); i++) {
        const struct member *member = &variables[i].member;
        if (nio_align_up(end, sizeof(void *)) == offsetof(struct numio_config, hooks))
            end = offsetof(struct numio_config, hooks) + sizeof(struct numio_hooks);
        cr_assert_eq(member->offset, nio_align_up(end, bytes[member->kind]),
                     "something without a variable stands before %s", member->name);
        end = member->offset + bytes[member->kind];
    }
    cr_assert_eq(nio_align_up(end, sizeof(void *)), sizeof(struct numio_config));
}

Test(config, an_empty_variable_counts_as_not_set)
{
    struct numio_config c = defaults();
    cr_assert_eq(setenv("NUMIO_WORKERS", "", 1), 0);
    c.workers = 5;
    cr_assert_eq(numio_config_from_env(&c), 0);
    cr_assert_eq(c.workers, 5);
}

Test(config, create_obeys_the_environment, .timeout = 10)
{
    cr_assert_eq(setenv("NUMIO_WORKERS", "1", 1), 0);
    cr_assert_eq(setenv("NUMIO_DRIVER", "epoll", 1), 0);
    cr_assert_eq(setenv("NUMIO_IDLE", "park", 1), 0);
    struct numio_config c = fixture_config(NUMIO_DRIVER_AUTO, 2);
    struct numio_runtime *runtime = fixture_create(&c);
    struct numio_status status;
    cr_assert_eq(numio_status(numio_runtime_handle(runtime), &status), 0);
    cr_assert_eq(status.workers, 1);
    cr_assert_str_eq(status.driver, "epoll");
    cr_assert_str_eq(status.idle, "park");
    numio_runtime_destroy(runtime);
}

Test(config, create_checks_what_the_environment_said, .timeout = 10)
{
    struct numio_runtime *runtime = NULL;
    cr_assert_eq(setenv("NUMIO_RING_ENTRIES", "7", 1), 0);
    cr_assert_eq(numio_runtime_create(NULL, &runtime), -EINVAL);
    cr_assert(strstr(numio_strerror_detail(), "ring_entries"));
}

Test(config, the_largest_values_work, .timeout = 20)
{
    struct numio_config c = fixture_config(NUMIO_DRIVER_AUTO, 2);
    c.name = "eightchr";
    c.sq_idle_ms = 3600000;
    c.napi_busy_poll_us = 1000000;
    c.napi_prefer_busy_poll = true;
    c.cpu_dma_latency_us = INT32_MAX;
    c.spin_ns = 1000000000;
    c.inject_interval = 65536;
    c.driver_interval = 65536;
    c.stack_bytes = 64 << 20;
    c.blocking_threads = 4096;
    c.blocking_keep_alive_ns = UINT64_MAX;
    c.blocking_queue = UINT32_MAX;
    c.blocking_on_worker_cpus = true;
    c.huge_pages = true;
    c.rng_seed = UINT64_MAX;
    numio_runtime_destroy(fixture_create(&c));
}

Test(config, the_smallest_values_work, .timeout = 20)
{
    struct numio_config c = fixture_config(NUMIO_DRIVER_AUTO, 1);
    c.name = "n";
    c.sq_idle_ms = 1;
    c.ring_entries = 8;
    c.spin_ns = 1;
    c.inject_interval = 1;
    c.driver_interval = 1;
    c.stack_bytes = 8 << 10;
    c.blocking_threads = 1;
    c.blocking_keep_alive_ns = 1;
    c.blocking_queue = 1;
    numio_runtime_destroy(fixture_create(&c));
}
