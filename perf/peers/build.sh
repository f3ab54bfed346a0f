#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds tokio-peer without the network, against the crates that Debian's librust-tokio-dev
# installs, as DIR/tokio-peer.  The C programs beside it (epoll_echo, echo_load) are CMake targets.
# Usage: perf/peers/build.sh [DIR]     (default: build/peers)
# NUMIO_CRATES: where Debian's crates lie, if not in /usr/share/cargo/registry.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-$here/../../build/peers}
crates=${NUMIO_CRATES:-/usr/share/cargo/registry}

die() {
    echo "peers: $*" >&2
    exit 1
}

find_cargo() {
    local candidate
    for candidate in "$(command -v cargo || true)" "$HOME/.cargo/bin/cargo" /usr/bin/cargo; do
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then
            echo "$candidate"
            return
        fi
    done
    die "no cargo: install the Debian packages rustc and cargo"
}

mkdir -p "$out/tokio/src" "$out/tokio/home"
out=$(cd "$out" && pwd)
tokio=$(find "$crates" -maxdepth 1 -name 'tokio-1.*' 2>/dev/null | sort -V | tail -n 1)
[ -n "$tokio" ] || die "no Tokio under $crates: install the Debian package librust-tokio-dev"
version=${tokio##*/tokio-}
cargo=$(find_cargo)

# Cargo writes beside its manifest and into its home, so it gets a copy and a home of its own:
# neither the source tree nor the user's settings are touched, and no setting changes the build.
rm -f "$out"/tokio/src/*.rs
cp -p "$here/tokio/Cargo.toml" "$out/tokio/"
cp -p "$here"/tokio/src/*.rs "$out/tokio/src/"
cd "$out/tokio"
# rustc is the one beside cargo.  A toolchain manager's settings stay where they are.
export RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
export PATH="${cargo%/*}:$PATH" CARGO_HOME=$out/tokio/home CARGO_TARGET_DIR=$out/tokio/target
export TOKIO_PEER_TOKIO_VERSION=$version
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_BUILD_RUSTFLAGS
echo "peers: building tokio-peer against Tokio $version with $("$cargo" --version)" >&2
"$cargo" build --release --offline --quiet \
    --config 'source.crates-io.replace-with="debian"' \
    --config "source.debian.directory=\"$crates\"" >&2
install -m 755 target/release/tokio-peer "$out/tokio-peer"
