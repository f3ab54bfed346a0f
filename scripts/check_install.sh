#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check_install.sh PREFIX OUT: builds tests/consumer in the folder OUT against the numio installed
# under PREFIX, in C and in C++, and runs it: found by find_package and by pkg-config, static and
# shared; all of it once more after the prefix has moved, when the old place is gone.  `numio bench`
# finds the numio-bench that is installed with it.
set -euo pipefail
if [ $# -ne 2 ]; then
    echo "usage: check_install.sh PREFIX OUT" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
prefix=$1
moved=$prefix.moved
out=$2
consumer=$root/tests/consumer
warnings=(-Wall -Wextra -Wshadow -Wpedantic -Werror)

by_find_package() {
    local prefix=$1 build=$2 name
    echo "find_package(numio) in $prefix"
    cmake -G Ninja -S "$consumer" -B "$build" -DCMAKE_PREFIX_PATH="$prefix"
    cmake --build "$build"
    for name in consumer_{static,shared} consumer_cpp_{static,shared}; do
        "$build/$name"
    done
    needs_numio "$build/consumer_shared"
    needs_numio "$build/consumer_cpp_shared"
    needs_no_numio "$build/consumer_static"
    needs_no_numio "$build/consumer_cpp_static"
}

# The libraries that a program asks for when it starts.
needed() {
    readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'
}

needs_numio() {
    needed "$1" | grep -x 'libnumio\.so\.0' >/dev/null || {
        echo "$1 is not linked with libnumio.so.0" >&2
        return 1
    }
}

needs_no_numio() {
    if needed "$1" | grep '^libnumio' >&2; then
        echo "$1 is linked with the shared library" >&2
        return 1
    fi
}

# by_pkg_config PREFIX BUILD: the flags as the README gives them.
by_pkg_config() {
    local prefix=$1 build=$2 pc libdir flags
    pc=$(find "$prefix" -name numio.pc)
    libdir=$(dirname "$(dirname "$pc")")
    export PKG_CONFIG_PATH=$libdir/pkgconfig
    mkdir -p "$build"

    echo "pkg-config numio in $prefix"
    read -ra flags < <(pkg-config --cflags --libs numio)
    cc "${warnings[@]}" "$consumer/consumer.c" "${flags[@]}" -o "$build/c_shared"
    c++ "${warnings[@]}" "$consumer/consumer_cpp.cpp" "${flags[@]}" -o "$build/cpp_shared"
    LD_LIBRARY_PATH=$libdir "$build/c_shared"
    LD_LIBRARY_PATH=$libdir "$build/cpp_shared"
    needs_numio "$build/c_shared"

    echo "pkg-config numio-static in $prefix"
    read -ra flags < <(pkg-config --cflags --libs numio-static)
    cc "${warnings[@]}" "$consumer/consumer.c" "${flags[@]}" -o "$build/c_static"
    c++ "${warnings[@]}" "$consumer/consumer_cpp.cpp" "${flags[@]}" -o "$build/cpp_static"
    "$build/c_static"
    "$build/cpp_static"
    needs_no_numio "$build/c_static"
}

# With its own list, and without a source tree, though PREFIX may lie in one.
finds_its_bench() {
    local prefix=$1 tool text
    tool=$(find "$prefix" -type f -path '*/bin/numio')
    echo "$tool bench"
    text=$("$tool" bench --list)
    grep -qx spawn_many_local <<<"$text" || {
        echo "$tool bench --list does not list the scenarios of numio-bench" >&2
        return 1
    }
    text=$("$tool" bench --help)
    grep -q 'need the source tree' <<<"$text" || {
        echo "$tool bench --help does not say that peers need the source tree" >&2
        return 1
    }
}

if [ -d "$moved" ]; then
    echo "$moved is in the way" >&2
    exit 1
fi
by_find_package "$prefix" "$out/cmake"
by_pkg_config "$prefix" "$out/pkg_config"
finds_its_bench "$prefix"
mv "$prefix" "$moved"
trap 'mv "$moved" "$prefix"' EXIT
by_find_package "$moved" "$out/moved_cmake"
by_pkg_config "$moved" "$out/moved_pkg_config"
finds_its_bench "$moved"
