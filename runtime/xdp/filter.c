/* SPDX-License-Identifier: MIT */
#include "runtime/xdp/filter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/assert.h"
#include "runtime/base/error.h"

enum { DATA = BPF_REG_2, QUEUE = BPF_REG_6, SCRATCH = BPF_REG_5, JUMPS_MAX = 16 };

/* A program on its way: where it goes on, and which of its jumps lead to "pass". */
struct writer {
    struct bpf_insn *insns;
    unsigned count, jump_count;
    unsigned jumps[JUMPS_MAX];
};

static void put(struct writer *writer, uint8_t code, unsigned target, unsigned source, int16_t off,
                int32_t imm)
{
    NIO_ASSERT(writer->count < NIO_FILTER_INSNS_MAX);
    writer->insns[writer->count++] = (struct bpf_insn){
        .code = code, .dst_reg = target & 0xf, .src_reg = source & 0xf, .off = off, .imm = imm
    };
}

static void load_context(struct writer *writer, unsigned target, size_t offset)
{
    put(writer, BPF_LDX | BPF_MEM | BPF_W, target, BPF_REG_1, (int16_t)offset, 0);
}

static void jump_to_pass(struct writer *writer, uint8_t code, unsigned left, unsigned right,
                         int32_t imm)
{
    NIO_ASSERT(writer->jump_count < JUMPS_MAX);
    writer->jumps[writer->jump_count++] = writer->count;
    put(writer, code, left, right, 0, imm);
}

/* Passes unless the bytes of the packet at `offset` are `value`, as they stand in memory. */
static void expect(struct writer *writer, uint8_t size, unsigned offset, uint32_t value)
{
    put(writer, BPF_LDX | BPF_MEM | size, SCRATCH, DATA, (int16_t)offset, 0);
    jump_to_pass(writer, BPF_JMP32 | BPF_JNE | BPF_K, SCRATCH, 0, (int32_t)value);
}

static void expect_address(struct writer *writer, unsigned offset, const uint8_t *address,
                           unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 4) {
        uint32_t word;
        memcpy(&word, address + i, sizeof word);
        expect(writer, BPF_W, offset + i, word);
    }
}

static void expect_v4(struct writer *writer, const struct nio_packet_local *local)
{
    expect(writer, BPF_H, 12, htons(0x0800));
    expect(writer, BPF_B, 14, 0x45);
    put(writer, BPF_LDX | BPF_MEM | BPF_H, SCRATCH, DATA, 20, 0);
    put(writer, BPF_ALU | BPF_AND | BPF_K, SCRATCH, 0, 0, htons(0x3fff)); /* a fragment? */
    jump_to_pass(writer, BPF_JMP32 | BPF_JNE | BPF_K, SCRATCH, 0, 0);
    expect(writer, BPF_B, 23, IPPROTO_UDP);
    expect_address(writer, 30, local->address, 4);
    expect(writer, BPF_H, 36, htons(local->port));
}

static void expect_v6(struct writer *writer, const struct nio_packet_local *local)
{
    expect(writer, BPF_H, 12, htons(0x86dd));
    expect(writer, BPF_B, 20, IPPROTO_UDP);
    expect_address(writer, 38, local->address, 16);
    expect(writer, BPF_H, 56, htons(local->port));
}

unsigned nio_filter_write(const struct nio_packet_local *local, int map_fd,
                          struct bpf_insn *ret_insns)
{
    struct writer writer = { .insns = ret_insns };
    int32_t head_bytes = (int32_t)nio_packet_head_bytes(local->family);
    load_context(&writer, QUEUE, offsetof(struct xdp_md, rx_queue_index));
    load_context(&writer, DATA, offsetof(struct xdp_md, data));
    load_context(&writer, BPF_REG_3, offsetof(struct xdp_md, data_end));
    put(&writer, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_4, DATA, 0, 0);
    put(&writer, BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_4, 0, 0, head_bytes);
    jump_to_pass(&writer, BPF_JMP | BPF_JGT | BPF_X, BPF_REG_4, BPF_REG_3, 0);
    if (local->family == AF_INET)
        expect_v4(&writer, local);
    else
        expect_v6(&writer, local);
    put(&writer, BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map_fd);
    put(&writer, 0, 0, 0, 0, 0); /* the upper half of the constant */
    put(&writer, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, QUEUE, 0, 0);
    put(&writer, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_3, 0, 0, XDP_PASS); /* without a socket */
    put(&writer, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map);
    put(&writer, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    for (unsigned i = 0; i < writer.jump_count; i++)
        ret_insns[writer.jumps[i]].off = (int16_t)(writer.count - writer.jumps[i] - 1);
    put(&writer, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, XDP_PASS);
    put(&writer, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    return writer.count;
}

int nio_filter_attach(const struct nio_xsk_library *library, const struct nio_packet_local *local,
                      int ifindex, unsigned queues, bool in_driver, struct nio_filter *ret)
{
    struct bpf_insn insns[NIO_FILTER_INSNS_MAX];
    struct nio_filter filter = { -1, -1, -1 };
    LIBBPF_OPTS(bpf_link_create_opts, opts,
                .flags = in_driver ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE);
    const char *step = "a map of AF_XDP sockets";
    filter.map_fd = library->map_create(BPF_MAP_TYPE_XSKMAP, "numio_xdp", sizeof(uint32_t),
                                        sizeof(uint32_t), queues, NULL);
    int rc = filter.map_fd;
    if (rc >= 0) {
        step = "loading the program";
        unsigned count = nio_filter_write(local, filter.map_fd, insns);
        rc = filter.prog_fd =
            library->prog_load(BPF_PROG_TYPE_XDP, "numio_xdp", "MIT", insns, count, NULL);
    }
    if (rc >= 0) {
        step = in_driver ? "attaching the program in the driver (native mode)"
                         : "attaching the program (generic mode)";
        rc = filter.link_fd = library->link_create(filter.prog_fd, ifindex, BPF_XDP, &opts);
    }
    if (rc >= 0) {
        *ret = filter;
        return 0;
    }
    nio_filter_detach(&filter);
    return nio_error(rc, "xdp: %s: %s%s", step, strerror(-rc),
                     rc == -EPERM   ? "; it takes CAP_NET_ADMIN and CAP_BPF"
                     : rc == -EBUSY ? "; another program is attached"
                                    : "");
}

void nio_filter_detach(struct nio_filter *filter)
{
    int fds[] = { filter->link_fd, filter->prog_fd, filter->map_fd };
    for (size_t i = 0; i < NIO_ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            (void)close(fds[i]); /* nothing to lose */
    *filter = (struct nio_filter){ -1, -1, -1 };
}
