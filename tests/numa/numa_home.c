/* SPDX-License-Identifier: MIT */
/* A disk's home is the node that sysfs says, or the nearest with memory, and so is that of its
 * character devices and of a file on it; a connection made from a CPU of some node is accepted and
 * handled on that node, with a listener for each node and for each worker. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include <numio/io.h>
#include <numio/net.h>

#include "tests/numa/numa_disk.h"
#include "tests/numa/numa_runtime.h"

enum { CLIENTS = 25 }; /* from each CPU */

static struct numa_run run;

/* The home of what has the path is the NUMA node `wanted`; negative: it has none, which says little
 * where there is one node only. */
static void check_path(struct numio_handle *handle, const char *path, long wanted, const char *name)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        numa_check(false, name, "%s: %s", path, strerror(errno));
        return;
    }
    int node = numio_home_of_fd(handle, fd);
    struct numio_node_status status = { .os_node = -1 };
    if (node >= 0)
        numa_must(numio_node_status(handle, (unsigned)node, &status), "node status");
    bool is_right = node >= 0 && status.os_node == wanted;
    if (wanted < 0)
        is_right = node == (run.status.nodes == 1 ? 0 : -ENODATA);
    numa_check(is_right, name, "numio says node %d (NUMA %d), sysfs %ld", node, status.os_node,
               wanted);
    (void)close(fd);
}

static void check_file(struct numio_handle *handle, long wanted)
{
    static const char name[] = "the home of a file on a disk";
    if (!disk_may_be_spoiled()) {
        numa_skip(name, "the disk is not there to be formatted");
        return;
    }
    if (!disk_mount(name))
        return;
    int fd = open("/tmp/disk/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        (void)close(fd); /* opened again below */
    check_path(handle, "/tmp/disk/file", wanted, name);
    check_path(handle, "/tmp/disk", wanted, "the home of a folder on a disk");
    disk_unmount();
}

static void check_disk(struct numio_handle *handle)
{
    char line[KERNEL_LINE_BYTES];
    if (access("/dev/nvme0n1", R_OK) != 0) {
        numa_skip("a disk's home", "there is no NVMe disk");
        return;
    }
    kernel_read("/sys/block/nvme0n1/device/numa_node", line);
    long own = strtol(line, NULL, 10);
    long wanted = own < 0 ? own : kernel_home_of_node((int)own);
    check_path(handle, "/dev/nvme0n1", wanted, "a disk's home");
    if (access("/dev/ng0n1", R_OK) == 0) /* since Linux 5.13 */
        check_path(handle, "/dev/ng0n1", wanted, "the home of a disk's character device");
    check_path(handle, "/dev/nvme0", wanted, "the home of a disk's controller");
    check_file(handle, wanted);
}

static void check_pipe(struct numio_handle *handle, unsigned nodes)
{
    int ends[2];
    if (pipe(ends) != 0)
        kernel_fail("pipe");
    int node = numio_home_of_fd(handle, ends[0]);
    numa_check(node == (nodes == 1 ? 0 : -ENODATA), "a pipe has no home", "it has node %d", node);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* Answers with the home of the CPU that it runs on. */
static int64_t tell_home(int fd, void *arg)
{
    (void)arg;
    char home = (char)run.homes[sched_getcpu()];
    int64_t rc = numio_write_all(fd, &home, 1);
    (void)numio_close(fd); /* the client has the byte, or sees that it has not */
    return rc;
}

/* The home that the handler told, -1 if none came. */
static int ask(unsigned port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    char home = -1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        read(fd, &home, 1) != 1)
        home = -1;
    if (fd >= 0)
        (void)close(fd);
    return home;
}

static void check_group(struct numio_handle *handle, enum numio_listen_group group,
                        const char *name)
{
    struct numio_listen_opts opts;
    struct numio_listener *listener;
    cpu_set_t before, one;
    unsigned asked = 0, at_home = 0;
    numio_listen_opts_init(&opts, sizeof opts);
    opts.address = "127.0.0.1:0";
    opts.group = group;
    numa_must(numio_listener_open(handle, &opts, &listener), "listen");
    numa_must(numio_listener_serve(listener, tell_home, NULL), "serve");
    if (sched_getaffinity(0, sizeof before, &before) != 0)
        kernel_fail("sched_getaffinity");
    for (int cpu = 0; cpu < KERNEL_CPUS_MAX; cpu++) {
        if (!CPU_ISSET(cpu, &before))
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (sched_setaffinity(0, sizeof one, &one) != 0)
            kernel_fail("sched_setaffinity");
        for (unsigned i = 0; i < CLIENTS; i++) {
            asked++;
            at_home += ask(numio_listener_port(listener)) == run.homes[cpu];
        }
    }
    (void)sched_setaffinity(0, sizeof before, &before); /* it was so before */
    numa_check(at_home * 100 >= asked * 95, name, "%u of %u connections", at_home, asked);
    numa_must(numio_listener_close(listener), "close");
}

int main(void)
{
    numa_start(&run, NULL);
    struct numio_handle *handle = run.handle;
    check_disk(handle);
    check_pipe(handle, run.status.nodes);
    check_group(handle, NUMIO_LISTEN_PER_NODE, "with a listener a node, connections stay on it");
    check_group(handle, NUMIO_LISTEN_PER_WORKER,
                "with a listener a worker, connections stay on its node");
    numa_stop(&run);
    return numa_end();
}
