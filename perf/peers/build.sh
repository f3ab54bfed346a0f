#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds the peers without the network, against what Debian's packages install, as DIR/tokio-peer
# (librust-tokio-dev, cargo), DIR/libuv-echo (libuv1-dev) and DIR/go-peer (golang-go).  The C
# programs beside them (epoll_echo, echo_load) are CMake targets.
# Usage: perf/peers/build.sh [DIR [PEER...]]     (default: build/peers, tokio libuv go)
# A peer whose packages are missing is skipped: a line on stderr says "skipped: " and why, and an
# older program of it in DIR is removed.  One that does not compile is an error.
# NUMIO_CRATES: where Debian's crates lie, if not in /usr/share/cargo/registry.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
crates=${NUMIO_CRATES:-/usr/share/cargo/registry}

die() {
    echo "peers: $*" >&2
    exit 1
}

skip() {
    echo "peers: $1 skipped: $2" >&2
}

find_cargo() {
    local candidate
    for candidate in "$(command -v cargo || true)" "$HOME/.cargo/bin/cargo" /usr/bin/cargo; do
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then
            echo "$candidate"
            return
        fi
    done
}

build_tokio() {
    local tokio cargo
    rm -f "$out/tokio-peer"
    tokio=$(find "$crates" -maxdepth 1 -name 'tokio-1.*' 2>/dev/null | sort -V | tail -n 1 || true)
    if [ -z "$tokio" ]; then
        skip tokio "no Tokio under $crates: install the Debian package librust-tokio-dev"
        return
    fi
    cargo=$(find_cargo)
    if [ -z "$cargo" ]; then
        skip tokio "no cargo: install the Debian packages rustc and cargo"
        return
    fi
    # Cargo writes beside its manifest and into its home, so it gets a copy and a home of its own:
    # neither the source tree nor the user's settings are touched, and no setting changes the build.
    mkdir -p "$out/tokio/src" "$out/tokio/home"
    rm -f "$out"/tokio/src/*.rs
    cp -p "$here/tokio/Cargo.toml" "$out/tokio/"
    cp -p "$here"/tokio/src/*.rs "$out/tokio/src/"
    # rustc is the one beside cargo.  A toolchain manager's settings stay where they are.
    (
        cd "$out/tokio"
        export RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
        export PATH="${cargo%/*}:$PATH"
        export CARGO_HOME=$out/tokio/home CARGO_TARGET_DIR=$out/tokio/target
        export TOKIO_PEER_TOKIO_VERSION=${tokio##*/tokio-}
        unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_BUILD_RUSTFLAGS
        echo "peers: building tokio-peer against Tokio ${tokio##*/tokio-}" \
            "with $("$cargo" --version)" >&2
        "$cargo" build --release --offline --quiet \
            --config 'source.crates-io.replace-with="debian"' \
            --config "source.debian.directory=\"$crates\"" >&2
        install -m 755 target/release/tokio-peer "$out/tokio-peer"
    )
}

build_libuv() {
    local flags
    rm -f "$out/libuv-echo"
    if ! pkg-config --exists libuv 2>/dev/null; then
        skip libuv "pkg-config finds none: install the Debian packages libuv1-dev and pkg-config"
        return
    fi
    read -ra flags < <(pkg-config --cflags --libs libuv)
    echo "peers: building libuv-echo against libuv $(pkg-config --modversion libuv)" >&2
    "${CC:-cc}" -std=gnu11 -O2 -Wall -Wextra -o "$out/libuv-echo" "$here/libuv/uv_echo.c" \
        "${flags[@]}"
}

build_go() {
    rm -f "$out/go-peer"
    if ! command -v go >/dev/null; then
        skip go "no Go: install the Debian package golang-go"
        return
    fi
    # It keeps what it compiled, and needs no module but its own: none is looked for.
    mkdir -p "$out/go"
    echo "peers: building go-peer with $(go version)" >&2
    (
        cd "$here/go"
        GOCACHE=$out/go GOFLAGS=-mod=mod GOPROXY=off GOTOOLCHAIN=local GOENV=off \
            go build -buildvcs=false -o "$out/go-peer" .
    )
}

out=${1:-$here/../../build/peers}
peers=("${@:2}")
[ ${#peers[@]} -gt 0 ] || peers=(tokio libuv go)
mkdir -p "$out"
out=$(cd "$out" && pwd)
for peer in "${peers[@]}"; do
    case $peer in
        tokio | libuv | go) "build_$peer" ;;
        *) die "no peer is called $peer: tokio, libuv or go" ;;
    esac
done
