/* SPDX-License-Identifier: MIT */
/* Huge pages where the configuration asks for them: I/O buffers and registered memory lie in them,
 * as the kernel tells, and a kernel that grants none is a reason of the status. */
#include "tests/runtime_fixture.h"

#include <stdio.h>
#include <sys/stat.h>

#include "alloc/huge_pages.h"

enum { HUGE_BYTES = 2 << 20, BUFFER_BYTES = 8 << 20 };

/* How many bytes of the mapping that `memory` lies in are huge pages: /proc/self/smaps. */
static size_t huge_bytes_at(const void *memory)
{
    unsigned long long first, end, kib;
    bool is_there = false;
    char line[512];
    size_t bytes = 0;
    FILE *file = fopen("/proc/self/smaps", "re");
    cr_assert_not_null(file);
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%llx-%llx ", &first, &end) == 2)
            is_there = (uintptr_t)memory >= first && (uintptr_t)memory < end;
        else if (is_there && sscanf(line, "AnonHugePages: %llu kB", &kib) == 1)
            bytes = (size_t)kib << 10;
    }
    (void)fclose(file); /* only read from */
    return bytes;
}

static void touch(char *memory, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 4096)
        memory[i] = 1;
}

static void check_buffers(bool use_huge_pages, size_t registered_bytes)
{
    struct numio_config config = fixture_config(NUMIO_DRIVER_AUTO, 1);
    config.huge_pages = use_huge_pages;
    config.registered_bytes = registered_bytes;
    struct numio_runtime *runtime = fixture_create(&config);
    struct numio_handle *handle = numio_runtime_handle(runtime);
    char *buffer = numio_io_buffer_alloc(handle, 0, BUFFER_BYTES);
    cr_assert_not_null(buffer);
    touch(buffer, BUFFER_BYTES);
    size_t bytes = huge_bytes_at(buffer);
    if (use_huge_pages)
        cr_assert_geq(bytes, BUFFER_BYTES - 2 * HUGE_BYTES, "%zu bytes of huge pages", bytes);
    else
        cr_assert_eq(bytes, 0, "%zu bytes of huge pages", bytes);
    numio_io_buffer_free(handle, 0, buffer, BUFFER_BYTES);
    numio_runtime_destroy(runtime);
}

static bool are_always_there(void)
{
    char text[128] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    if (file) {
        cr_assert_not_null(fgets(text, sizeof text, file));
        (void)fclose(file); /* only read from */
    }
    return strstr(text, "[always]") != NULL;
}

Test(huge_pages, buffers_have_them_where_they_are_asked_for, .timeout = 30)
{
    if (nio_huge_pages_objection(""))
        cr_skip_test("the kernel grants no huge pages");
    check_buffers(true, 0);
    check_buffers(true, 2 * BUFFER_BYTES);
    if (!are_always_there())
        check_buffers(false, 0);
}

static void say(const char *root, const char *text)
{
    static const char *const folders[] = { "", "/sys", "/sys/kernel", "/sys/kernel/mm",
                                           "/sys/kernel/mm/transparent_hugepage" };
    char path[256];
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        (void)snprintf(path, sizeof path, "%s%s", root, folders[i]); /* fits */
        (void)mkdir(path, 0700); /* there from the call before */
    }
    (void)snprintf(path, sizeof path, "%s/sys/kernel/mm/transparent_hugepage/enabled", root);
    FILE *file = fopen(path, "we");
    cr_assert_not_null(file);
    cr_assert_geq(fputs(text, file), 0);
    cr_assert_eq(fclose(file), 0);
}

Test(huge_pages, a_kernel_that_grants_none_is_told)
{
    char root[] = "/tmp/numio-huge-XXXXXX", command[64];
    cr_assert_not_null(mkdtemp(root));
    cr_assert_not_null(strstr(nio_huge_pages_objection(root), "built without"));
    say(root, "always madvise [never]\n");
    cr_assert_not_null(strstr(nio_huge_pages_objection(root), "says never"));
    say(root, "always [madvise] never\n");
    cr_assert_null(nio_huge_pages_objection(root));
    (void)snprintf(command, sizeof command, "rm -r %s", root); /* fits */
    cr_assert_eq(system(command), 0);
}
