#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check_install.sh PREFIX OUT: builds and runs tests/consumer against the numio installed under
# PREFIX, in the folder OUT: by find_package (static and shared) and by pkg-config (shared and
# static), and moves the prefix once to see that it can be moved.
set -euo pipefail
if [ $# -ne 2 ]; then
    echo "usage: check_install.sh PREFIX OUT" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
prefix=$1
out=$2
mkdir -p "$out"

echo "find_package(numio)"
cmake -G Ninja -S "$root/tests/consumer" -B "$out/cmake" -DCMAKE_PREFIX_PATH="$prefix"
cmake --build "$out/cmake"
"$out/cmake/consumer_static"
"$out/cmake/consumer_shared"

echo "pkg-config, shared"
pc=$(find "$prefix" -name numio.pc)
pcdir=$(dirname "$pc")
libdir=$(dirname "$pcdir")
export PKG_CONFIG_PATH=$pcdir
read -ra flags <<<"$(pkg-config --cflags --libs numio)"
cc "$root/tests/consumer/consumer.c" "${flags[@]}" -o "$out/consumer_pc_shared"
LD_LIBRARY_PATH=$libdir "$out/consumer_pc_shared"
readelf -d "$out/consumer_pc_shared" | grep 'NEEDED.*libnumio\.so\.0'

# Not --static: that asks for static libraries of hwloc's own dependencies, which Debian lacks.
echo "pkg-config, static numio on shared libraries"
read -ra flags <<<"$(pkg-config --cflags --libs numio hwloc liburing jemalloc)"
flags=("${flags[@]/-lnumio/-l:libnumio.a}")
cc "$root/tests/consumer/consumer.c" "${flags[@]}" -o "$out/consumer_pc_static"
"$out/consumer_pc_static"

echo "moved prefix"
rm -rf "$prefix.moved" "$out/moved"
cp -a "$prefix" "$prefix.moved"
cmake -G Ninja -S "$root/tests/consumer" -B "$out/moved" -DCMAKE_PREFIX_PATH="$prefix.moved"
cmake --build "$out/moved"
"$out/moved/consumer_static"
rm -rf "$prefix.moved"
