#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds the coroutines for aarch64 and runs their checks and their stress test under user-mode
# emulation, with and without branch protection, and looks at the marks of the assembly objects.
# Usage: scripts/cross_coro.sh
# Exit status: 0 passed, 1 failed, 77 a tool is missing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cc=${NUMIO_CROSS_CC:-aarch64-linux-gnu-gcc}

fail() {
    echo "cross_coro: $*" >&2
    exit 1
}

skip() {
    echo "cross_coro: skipped: $*" >&2
    exit 77
}

qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) ||
    skip "no qemu-aarch64 (Debian package qemu-user or qemu-user-static)"
command -v "$cc" > /dev/null ||
    skip "no $cc (Debian packages gcc-aarch64-linux-gnu and libc6-dev-arm64-cross)"
command -v readelf > /dev/null || skip "no readelf (Debian package binutils)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

flags=(-std=gnu17 -O2 -g -Wall -Wextra -Wshadow -Wundef -Werror -D_GNU_SOURCE -fvisibility=hidden
    -fno-omit-frame-pointer -I"$root" -I"$root/runtime/include")
checks=$root/tests/cross/coro_cross.c
stress=$root/tests/stress/stress_coro.c
sources=("$root"/runtime/coro/*.c "$root"/runtime/coro/*.S "$root"/runtime/base/*.c)

# build_and_run NAME PROGRAM.c FLAG...: a static program, because the emulated machine has no
# libraries.
build_and_run() {
    local name=$1 program=$2
    shift 2
    echo "cross_coro: $name"
    "$cc" "${flags[@]}" "$@" -static -pthread "$program" "${sources[@]}" -o "$work/$name" ||
        fail "$name does not build"
    timeout 120 "$qemu" -cpu max "$work/$name" || fail "$name failed"
}

# check_marks OBJECT WANTED UNWANTED: the property note.
check_marks() {
    local notes
    notes=$(readelf -n "$1")
    grep -q "$2" <<< "$notes" || fail "$1 lacks the mark $2: $notes"
    if grep -qE "$3" <<< "$notes"; then
        fail "$1 has a mark it must not have ($3): $notes"
    fi
}

build_and_run plain "$checks" -DNIO_DEBUG=1
build_and_run release "$checks"
build_and_run protected "$checks" -mbranch-protection=standard
build_and_run stress "$stress" -DNIO_DEBUG=1 -DNIO_TEST_POINTS=1 -DNIO_TINY=1

"$cc" "${flags[@]}" -c "$root/runtime/coro/nio_coro_switch_aarch64.S" -o "$work/aarch64.o"
check_marks "$work/aarch64.o" BTI 'PAC|GCS'
if [ "$(uname -m)" = x86_64 ] && command -v cc > /dev/null; then
    cc "${flags[@]}" -c "$root/runtime/coro/nio_coro_switch_x86_64.S" -o "$work/x86_64.o"
    check_marks "$work/x86_64.o" IBT SHSTK
fi
echo "cross_coro: passed"
