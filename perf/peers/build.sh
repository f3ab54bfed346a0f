#!/bin/bash
# SPDX-License-Identifier: MIT
# Builds what numio is compared with, without the network, into a build directory:
#   tokio-peer  against the crates that Debian's librust-tokio-dev installs
#   epoll_echo  and echo_load, plain C
# Usage: perf/peers/build.sh [--out DIR] [tokio] [epoll]     (default: build/peers, both)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$root/build/peers
parts=()
# NUMIO_CRATES: where Debian keeps its crates; for a tree unpacked elsewhere.
crates=${NUMIO_CRATES:-/usr/share/cargo/registry}

die() { echo "peers: $*" >&2; exit 1; }

while (($#)); do
    case $1 in
        --out) out=${2:?--out wants a directory}; shift 2 ;;
        tokio | epoll) parts+=("$1"); shift ;;
        *) die "unknown argument $1" ;;
    esac
done
((${#parts[@]})) || parts=(tokio epoll)
mkdir -p "$out"
out=$(cd "$out" && pwd)

# The newest cargo wins: one on PATH, one installed by rustup, Debian's own.
find_cargo() {
    local candidate
    for candidate in "$(command -v cargo || true)" "$HOME/.cargo/bin/cargo" /usr/bin/cargo; do
        if [[ -n $candidate && -x $candidate ]]; then
            echo "$candidate"
            return
        fi
    done
    die "no cargo: install the Debian packages rustc and cargo"
}

build_tokio() {
    local cargo tokio version
    tokio=$(find "$crates" -maxdepth 1 -name 'tokio-1.*' 2>/dev/null | sort -V | tail -n 1)
    [[ -n $tokio ]] || die "no Tokio under $crates: install the Debian package librust-tokio-dev"
    version=${tokio##*/tokio-}
    cargo=$(find_cargo)
    # Cargo writes beside its manifest and into its home, so it gets a copy and a home of its own:
    # neither the source tree nor the user's settings are touched, nor can they change the build.
    mkdir -p "$out/tokio/src" "$out/tokio/home"
    cp -p "$here/tokio/Cargo.toml" "$out/tokio/"
    cp -p "$here"/tokio/src/*.rs "$out/tokio/src/"
    echo "peers: building tokio-peer against Tokio $version with $("$cargo" --version)" >&2
    (
        cd "$out/tokio"
        export PATH="${cargo%/*}:$PATH" CARGO_HOME=$out/tokio/home
        export CARGO_TARGET_DIR=$out/tokio/target TOKIO_PEER_TOKIO_VERSION=$version
        unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
        "$cargo" build --release --offline --quiet \
            --config 'source.crates-io.replace-with="debian"' \
            --config "source.debian.directory=\"$crates\"" >&2
    )
    install -m 755 "$out/tokio/target/release/tokio-peer" "$out/tokio-peer"
}

build_epoll() {
    local warnings=(-Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes
        -Wpointer-arith -Wwrite-strings -Wundef '-Wformat=2' -Werror)
    local flags=('-std=gnu17' -O2 -D_GNU_SOURCE "-I$root" "${warnings[@]}")
    echo "peers: building epoll_echo and echo_load" >&2
    "${CC:-cc}" "${flags[@]}" -o "$out/epoll_echo" "$here/epoll/epoll_echo.c"
    "${CC:-cc}" "${flags[@]}" -o "$out/echo_load" "$root"/perf/load/*.c -lm
}

for part in "${parts[@]}"; do
    "build_$part"
done
